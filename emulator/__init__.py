"""The local cloud: an AWS endpoint with process sandboxes, commands that run FMI programs on it, and worlds for tests.

``emulator.launch(function, 4)`` runs a function on 4 ranks; ``emulator.LocalCloud()`` is an AWS endpoint while a block
runs. Both are imported on first use: the commands need neither numpy nor the library of the ranks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emulator.cloud import LocalCloud
    from emulator.testing.launch import launch

__all__ = ["LocalCloud", "launch"]

_DEFINED_IN = {"LocalCloud": "emulator.cloud", "launch": "emulator.testing.launch"}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_DEFINED_IN[name]), name)
    globals()[name] = value
    return value
