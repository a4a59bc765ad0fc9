"""An inert torchvision for published programs: they import timm, which imports it and uses it for training alone.

torchvision is built for one version of torch and often cannot be loaded beside a CPU build, or is not installed. Only
once a program imports timm, and only if torchvision itself cannot be imported, its names exist, and using one is an
error.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from typing import Any

_NAME = "torchvision"
_USER = "timm"


class StandInError(RuntimeError):
    """A program uses torchvision, which could not be imported."""


def install() -> None:
    """Watch for the import of timm; a second call does nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds nothing; when timm is searched for, it makes sure that torchvision can be imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == _USER:
            sys.meta_path.remove(self)
            if importlib.util.find_spec(_USER) is not None:
                _import_or_replace()
        return None


def _import_or_replace() -> None:
    try:
        importlib.import_module(_NAME)
    except Exception as error:  # noqa: BLE001 - a build for another torch can raise anything
        for name in [name for name in sys.modules if name.partition(".")[0] == _NAME]:
            del sys.modules[name]
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"torchvision cannot be imported ({reason}): timm gets an inert stand-in", file=sys.stderr, flush=True)
        sys.meta_path.insert(0, _InertFinder(reason))


class _InertFinder(MetaPathFinder, Loader):
    """Finds torchvision and every module in it, all inert."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != _NAME:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: types.ModuleType) -> None:
        reason = self._reason

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            place = f"{module.__name__}.{name}"

            def refuse(*_: object, **__: object) -> None:
                raise StandInError(
                    f"{place} is a stand-in, since torchvision cannot be imported ({reason}): install the torchvision "
                    "that belongs to this torch"
                )

            return type(name, (), {"__init__": refuse, "__module__": module.__name__})

        vars(module)["__getattr__"] = attribute
