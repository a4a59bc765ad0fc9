"""The fmirun command, run as a user runs it, and a look for what it leaves behind."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import psutil

from tests.commands import FMIRUN, Command

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def start(
    tmp_path: Path,
    *arguments: object,
    cwd: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Command:
    """Start the command with a temporary directory of its own, so that tests find leftovers."""
    state = tmp_path / "state"
    state.mkdir(exist_ok=True)
    return Command(FMIRUN, *arguments, cwd=cwd, environment={**environment, "TMPDIR": str(state)})


def fmirun(
    tmp_path: Path, *arguments: object, cwd: Path | None = None, standard_input: str = ""
) -> tuple[int, str, str]:
    """Return the exit status, standard output and standard error, and see that nothing is left."""
    with start(tmp_path, *arguments, cwd=cwd) as command:
        output, errors = command.communicate(standard_input)
        assert leftovers(tmp_path) == []
        return command.wait(), output, errors


def leftovers(tmp_path: Path) -> list[str]:
    """Return the processes and folders of this test's runs that are still there."""
    state = str(tmp_path / "state")
    processes = [
        str(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if any(state in argument for argument in process.info["cmdline"] or [])
    ]
    return processes + [str(path) for path in (tmp_path / "state").iterdir()]
