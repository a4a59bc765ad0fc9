"""The interpreters that run functions: those of their runtimes where this machine has them."""

import asyncio
import functools
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emulator.aws.sandboxes import other_python, runtime_client
from emulator.aws.sandboxes.package_filter import LAYER, RUNTIME_PACKAGES, modules_installed

OWN_RUNTIME = f"python3.{sys.version_info.minor}"
NODE_CLIENT = Path(other_python.__file__).with_name("node_client.js")
# A shim of a version manager may exist for a version that is not installed, or wait for a download.
_PROBE_S = 10
_PYTHON_PROBE = "import platform, sys; print(sys.executable, sys.base_prefix, platform.python_version(), sep='\\n')"
_NODE_PROBE = "console.log(process.execPath + '\\n' + process.version.slice(1))"


@dataclass(frozen=True)
class Interpreter:
    """A program of this machine that runs handlers.

    Parameters
    ----------
    program
        The program.
    root
        Its installation, which functions see as /var/lang.
    version
        Its version, such as ``3.12.1``.
    """

    program: Path
    root: Path
    version: str

    @property
    def is_own(self) -> bool:
        """Whether it is the emulator's own, whose zygote forks functions."""
        return str(self.program) == sys.executable


OWN = Interpreter(Path(sys.executable), Path(sys.prefix), platform.python_version())


async def find_interpreter(runtime: str) -> Interpreter | None:
    """Return what runs handlers of a runtime: for Python at least this interpreter; None if there is nothing here."""
    if runtime == OWN_RUNTIME:
        return OWN
    if runtime.startswith("python"):
        return await asyncio.to_thread(_python, runtime) or OWN
    if runtime.startswith("nodejs"):
        return await asyncio.to_thread(_node)
    return None


@functools.cache
def _python(name: str) -> Interpreter | None:
    found = _probe(name, "-S", "-c", _PYTHON_PROBE)
    # A name that leads to another version is not that version.
    if len(found) != 3 or not found[2].startswith(f"{name.removeprefix('python')}."):
        return None
    return Interpreter(Path(found[0]), Path(found[1]), found[2])


@functools.cache
def _node() -> Interpreter | None:
    found = _probe("node", "-e", _NODE_PROBE)
    return Interpreter(Path(found[0]), Path(found[0]).parent.parent, found[1]) if len(found) == 2 else None


def _probe(name: str, *arguments: str) -> Sequence[str]:
    """Return the lines that a program prints; none if it is not installed."""
    program = shutil.which(name)
    if program is None:
        return ()
    try:
        ended = subprocess.run(  # noqa: S603 - the names above
            (program, *arguments),
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return ended.stdout.splitlines() if ended.returncode == 0 else ()


def own_client(packages: Sequence[str] | None) -> tuple[str, ...]:
    """Return the command that runs the runtime client by this interpreter.

    Parameters
    ----------
    packages
        Modules that functions may import besides AWS's and their own; None for all that are installed.
    """
    hidden = () if packages is None else (runtime_client.HIDE_PACKAGES, *packages)
    return (sys.executable, "-P", "-m", runtime_client.__name__, *hidden)


def python_client(interpreter: Interpreter, packages: Sequence[str] | None) -> tuple[str, ...]:
    """Return the command that runs the runtime client by an interpreter; `packages` as for `own_client`."""
    if interpreter.is_own:
        return own_client(packages)
    layer = modules_installed() if packages is None else {*LAYER, *packages}
    settings = {
        "packages": _folders(("emulator", *RUNTIME_PACKAGES)),
        "layer": sorted(layer - {"emulator", *RUNTIME_PACKAGES}),
        "own": own_client(packages),
    }
    return (str(interpreter.program), "-S", str(other_python.__file__), json.dumps(settings))


def _folders(names: Iterable[str]) -> dict[str, str]:
    """Return where modules are installed here; without those that are not."""
    found = {name: importlib.util.find_spec(name) for name in names}
    return {
        name: str(Path(spec.origin).parents[1 if spec.submodule_search_locations else 0])
        for name, spec in found.items()
        if spec is not None and spec.origin is not None
    }
