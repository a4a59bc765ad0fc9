"""Packages that a function brings itself: they win over those that the zygote has imported already."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# Modules of this project. What a run uploads is a copy of them.
_PROJECT = frozenset(("emulator", "fmi", "fmi_shim", "inference", "rendezvous"))


def package_folders(opt_root: Path) -> tuple[Path, Path]:
    """Return where the files of layers have Python packages."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return opt_root / "python" / "lib" / version / "site-packages", opt_root / "python"


def brings_imported_package(folders: Iterable[Path], imported: Iterable[str]) -> bool:
    """Return whether a folder has a package of the name of an imported one.

    Parameters
    ----------
    folders
        Where the function has packages.
    imported
        The names of imported modules, such as ``sys.modules``. The standard library's do not count: AWS's runtime has
        imported them, too.
    """
    names = {name.partition(".")[0] for name in imported}
    names = names - sys.stdlib_module_names - _PROJECT
    return any(name in names for folder in folders for name in _top_level_names(folder))


def _top_level_names(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        yield from (entry.name.partition(".")[0] for entry in folder.iterdir())
