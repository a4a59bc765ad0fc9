"""Worlds of ranks for tests: forked from the test's own process, with a pytest plugin and a unittest class.

`launch` runs a function on all ranks of a world; the plugin's fixture ``fmi_world`` and `FmiTestCase` are the same
thing in a test. The names are imported on first use, because pytest imports the plugin in every run.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emulator.testing.errors import RankFailure, WorldError, WorldTimeoutError, WorldUsageError
    from emulator.testing.launch import launch
    from emulator.testing.unittest_case import FmiTestCase
    from emulator.testing.world import World

__all__ = ["FmiTestCase", "RankFailure", "World", "WorldError", "WorldTimeoutError", "WorldUsageError", "launch"]

_DEFINED_IN = {
    "FmiTestCase": "unittest_case",
    "RankFailure": "errors",
    "World": "world",
    "WorldError": "errors",
    "WorldTimeoutError": "errors",
    "WorldUsageError": "errors",
    "launch": "launch",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
    globals()[name] = value
    return value
