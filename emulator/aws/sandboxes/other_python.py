"""Run the runtime client by another version of Python than the emulator's, which starts this file as a program.

Only the standard library is imported, and in the syntax of Python 3.9. The argument is JSON: ``packages``, a folder for
each package that is shared with the emulator's interpreter; ``layer``, modules that only that interpreter has; and
``own``, the command that runs the client by that interpreter.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class SharedPackages(MetaPathFinder):
    """Finds what the function's folders do not have: AWS's packages, which are the same for every version.

    Parameters
    ----------
    folders
        For each shared package the folder that contains it.
    layer
        Modules that the emulator's interpreter has, compiled for its version. When the handler's module imports one of
        them, that interpreter takes the place of this one.
    own
        The command that does so.
    """

    def __init__(self, folders: dict[str, str], layer: Sequence[str], own: Sequence[str]) -> None:
        self._folders = folders
        self._layer = frozenset(layer)
        self._own = own

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a shared package is; None for every other module."""
        if path is not None:
            return None
        if fullname in self._folders:
            return PathFinder.find_spec(fullname, [self._folders[fullname]], target)
        if fullname in self._layer and not _is_invoked():
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            print(
                f"emulator: only {self._own[0]} has {fullname}, not Python {version}: it runs this function", flush=True
            )
            os.execve(self._own[0], list(self._own), os.environ)  # noqa: S606 - the same client
        return None


def _is_invoked() -> bool:
    logging = sys.modules.get("emulator.aws.sandboxes.runtime_logging")
    return bool(getattr(logging, "current_request_id", ""))


def _main() -> None:
    settings = json.loads(sys.argv.pop(1))
    # The folder of this file, which is no function's.
    del sys.path[0]
    sys.meta_path.append(SharedPackages(settings["packages"], settings["layer"], settings["own"]))
    from emulator.aws.sandboxes.runtime_client import main

    main()


if __name__ == "__main__":
    _main()
