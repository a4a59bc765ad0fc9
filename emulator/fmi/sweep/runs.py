"""Running the points of a sweep, each as a command of its own, and keeping the table."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.fmi.sweep.grid import Point
from emulator.fmi.sweep.table import FAILED, OK, Row, SweepError, read_csv, row_of, to_csv

_LAST_LINES = 20


@dataclass(frozen=True)
class SweptProgram:
    """What a sweep runs at each point.

    Parameters
    ----------
    script, arguments
        The program of ``fmirun`` and its arguments; the script is None with a payload.
    payload
        The payload of ``fmi-emulator pipeline``, parsed; None with a script.
    script_folder
        The folder of the payload's code.
    options
        Options that are passed on to every run, for example ``--preload torch``.
    data
        Folder of data that every point uses; None if points have partitions of their own, or none.
    has_results
        Whether each rank writes a result, from which the table has the rates.
    """

    script: Path | None
    arguments: tuple[str, ...] = ()
    payload: Mapping[str, Any] | None = None
    script_folder: Path | None = None
    options: tuple[str, ...] = ()
    data: Path | None = None
    has_results: bool = False

    def identity(self) -> dict[str, Any]:
        """Return what must be equal to resume a sweep."""
        return {
            "script": None if self.script is None else str(self.script.resolve()),
            "arguments": list(self.arguments),
            "payload": self.payload,
            "options": list(self.options),
            "data": None if self.data is None else str(self.data.resolve()),
        }


@dataclass
class Sweep:
    """A sweep in a folder: ``sweep.json``, ``sweep.csv``, its data sets, and a folder for each run.

    Parameters
    ----------
    folder
        Where everything is written.
    program
        What is run.
    """

    folder: Path
    program: SweptProgram
    rows: list[Row] = field(default_factory=list)

    def open(self) -> None:
        """Create the folder, or read the table of the sweep that is in it.

        Raises
        ------
        SweepError
            The folder has another sweep.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "sweep.json"
        identity = self.program.identity()
        if path.exists():
            known = _read_json(path)
            if known != identity:
                different = sorted(
                    key for key in identity if not isinstance(known, dict) or known.get(key) != identity[key]
                )
                raise SweepError(
                    f"{self.folder}: contains a sweep with other {', '.join(different)}: choose another --out to start "
                    "a new one, or repeat the command to resume it"
                )
        else:
            _write(path, json.dumps(identity, indent=1))
        self.rows = read_csv(self.folder / "sweep.csv")

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """Return the points that have not succeeded yet."""
        done = {row.point for row in self.rows if row.status == OK}
        return [point for point in points if point not in done]

    def run(self, point: Point, on_line: Callable[[str], None]) -> Row:
        """Run a point, and add its row to the table; the row of an earlier failure is replaced.

        Parameters
        ----------
        point
            Its settings.
        on_line
            Called with each line that the run prints.
        """
        folder = self.folder / "runs" / str(point).replace(", ", "-").replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        report = folder / "report.json"
        report.unlink(missing_ok=True)
        data = self.program.data or self._partitions(point, on_line)
        command = self._command(point, folder, report, data)
        status, lines = _execute(command, on_line)
        if status == 0 and report.exists():
            row = row_of(point, _read_json(report))
        else:
            row = Row(point, FAILED, error=lines[-1] if lines else f"exit status {status}")
        self.rows = [known for known in self.rows if known.point != point] + [row]
        _write(self.folder / "sweep.csv", to_csv(self.rows))
        return row

    def _partitions(self, point: Point, on_line: Callable[[str], None]) -> Path | None:
        """Return the folder with the point's data set, which is written first if there is none."""
        if point.partition_mb is None or point.data_gb is None:
            return None
        folder = self.folder / "data" / f"{point.partition_mb}MB-{point.data_gb:g}GB"
        complete = folder / ".complete"
        if not complete.exists():
            command = [sys.executable, "-m", "inference.partition", "--out", str(folder)]
            command += ["--megabytes", str(point.partition_mb), "--total", f"{point.data_gb:.9f}GB"]
            status, lines = _execute(command, on_line)
            if status:
                raise SweepError(f"writing the partitions failed: {lines[-1] if lines else status}")
            complete.touch()
        return folder

    def _command(self, point: Point, folder: Path, report: Path, data: Path | None) -> list[str]:
        options = ["--report", str(report), *self.program.options]
        if self.program.has_results:
            options += ["--results", str(folder / "results")]
        options += ["--memory", str(point.memory_mb)] if point.memory_mb is not None else []
        options += ["--data", str(data)] if data is not None else []
        world_size = point.world_size
        if world_size is None and data is not None:
            world_size = sum(1 for path in data.iterdir() if not path.name.startswith("."))
        if self.program.payload is not None:
            settings = {"world_size": world_size, "batch_size": point.batch_size}
            changed = {**self.program.payload, **{key: value for key, value in settings.items() if value is not None}}
            path = folder / "payload.json"
            _write(path, json.dumps(changed, indent=1))
            options += ["--script-folder", str(self.program.script_folder)]
            return [*_program("fmi-emulator"), "pipeline", str(path), *options]
        options += ["--batch-size", str(point.batch_size)] if point.batch_size is not None else []
        command = [*_program("fmirun"), "-n", str(world_size), *options, str(self.program.script)]
        return [*command, *self.program.arguments]


def _program(name: str) -> list[str]:
    function = {"fmirun": "fmirun", "fmi-emulator": "fmi_emulator"}[name]
    return [
        sys.executable,
        "-c",
        f"import sys; sys.argv[0] = {name!r}; from emulator.cli import {function}; {function}()",
    ]


def _execute(command: Sequence[str], on_line: Callable[[str], None]) -> tuple[int, list[str]]:
    """Run a command; return its exit status and its last lines. If this is interrupted, the command is, too."""
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603 - this project's own commands
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            for line in process.stdout:
                text = line.rstrip("\n")
                if text:
                    lines = [*lines[1 - _LAST_LINES :], text]
                on_line(text)
            return process.wait(), lines
        except BaseException:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            # It removes what it started. Its pipe must not fill meanwhile.
            process.communicate()
            raise


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SweepError(f"{path}: expected the JSON of a sweep: {error}") from None


def _write(path: Path, text: str) -> None:
    """Write atomically: a reader, or a sweep that resumes, finds the old file or the complete new one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise SweepError(f"cannot write {str(path)!r}: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)
