"""Which packages of this machine a local run's program may import: all, or those that its requirements file names."""

import importlib.metadata
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from emulator.aws.sandboxes.package_filter import LAYER, normalised_name
from emulator.fmi.bundle import UploadedFile
from emulator.fmi.executions.imports import ProgramSyntaxError, missing_modules

REQUIREMENTS = "requirements.txt"
# https://packaging.python.org/en/latest/specifications/dependency-specifiers/#names, then anything but a path.
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:[\[<>=!~;@,(#]|$)")


class Visible(StrEnum):
    """The packages that a program may import besides its own files."""

    AWS = "aws"
    ALL = "all"


@dataclass(frozen=True)
class ProgramPackages:
    """What a program may import.

    Parameters
    ----------
    modules
        Modules besides those of AWS's runtime, numpy and fmi; None for all that are installed here.
    notes
        A sentence for each difference from AWS.
    """

    modules: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def program_packages(
    files: Sequence[UploadedFile], folder: str, script: str | None, asked: Visible | None, preload: Sequence[str]
) -> ProgramPackages:
    """Return what a program may import: without being asked, all, unless it has a requirements file.

    Parameters
    ----------
    files
        The program's files.
    folder
        The program's folder, which all keys begin with.
    script
        The script's key; None for a module.
    asked
        What the user asked for; None for nothing.
    preload
        Modules that are imported before the program starts, which it may import, too.
    """
    by_key = {file.key: file for file in files}
    listed = by_key.get(f"{folder}/{REQUIREMENTS}")
    if asked is Visible.ALL or (asked is None and listed is None):
        foreign = _foreign_modules(by_key, script, preload) if asked is None else []
        return ProgramPackages(None, (_foreign_note(foreign),) if foreign else ())
    if listed is None:
        return ProgramPackages(())
    names = list(_required(listed.read().decode(errors="replace")))
    modules = {name: _modules_of(name) for name in names}
    missing = [name for name in names if not modules[name]]
    note = (
        f"{REQUIREMENTS} names {', '.join(missing)}, which this machine lacks: run `python -m pip install -r "
        f"{REQUIREMENTS}`"
    )
    found = dict.fromkeys(module for name in names for module in modules[name])
    return ProgramPackages(tuple(found), (note,) if missing else ())


def _foreign_note(foreign: Sequence[str]) -> str:
    options = " ".join(f"--with {name}" for name in foreign)
    return (
        f"the program imports {', '.join(foreign)} of this machine; on AWS `fmi-emulator deploy {options}` adds them. "
        f"With a {REQUIREMENTS} beside it, or --packages aws, what is not named there is missing here, too"
    )


def _foreign_modules(by_key: dict[str, UploadedFile], script: str | None, preload: Sequence[str]) -> list[str]:
    """Return the modules that the script imports when it starts, and AWS's runtime, the layer and the program lack."""
    if script is None or script not in by_key:
        return []
    folder = PurePosixPath(script).parent
    sources = {
        key: file.read()
        for key, file in by_key.items()
        if key.endswith(".py") and PurePosixPath(key).is_relative_to(folder)
    }
    known = {*LAYER, "fmilib", *(module.partition(".")[0] for module in preload)}
    try:
        return missing_modules(sources, script, sys.version_info[:2], known)
    except ProgramSyntaxError:
        return []  # the rank raises it


def _required(text: str) -> Iterator[str]:
    """Yield the names of the distributions in a requirements file: https://pip.pypa.io/en/stable/reference/requirements-file-format/."""
    for line in text.splitlines():
        match = _REQUIREMENT.match(line)
        if match is not None:
            yield match[1]


def _modules_of(distribution: str) -> list[str]:
    """Return the top-level modules of an installed distribution; none if it is not installed."""
    wanted = normalised_name(distribution)
    owners = importlib.metadata.packages_distributions()
    return sorted(module for module, names in owners.items() if wanted in map(normalised_name, names))
