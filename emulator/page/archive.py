"""The runs that have ended, on disk, so that the page shows them after the endpoint has ended: a file for each run."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emulator.aws.lambda_.core.history import InvocationRecord, InvocationStatus
from emulator.fmi.event_rank import EventRank
from emulator.page.phases import PhaseLog
from emulator.page.runs import Run, RunState
from fmi_shim.log_lines import Phase

_MOST_RUNS = 200
_SUFFIX = ".json"


class RunArchive:
    """Reads and writes the runs of a folder.

    Parameters
    ----------
    folder
        The folder; created if missing, for the user alone. Of its runs the latest 200 are kept.
    phases
        Where the times of the runs' phases are, and get those of earlier endpoints.

    Attributes
    ----------
    past
        The runs of earlier endpoints.
    """

    def __init__(self, folder: Path, phases: PhaseLog) -> None:
        self._folder = folder
        self._phases = phases
        self._kept: dict[str, Run] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
        for path in paths[:-_MOST_RUNS]:
            path.unlink()
        self.past: list[Run] = []
        for path in paths[-_MOST_RUNS:]:
            # A file that was cut by a kill, or is of another release, is left out.
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                self.past.append(self._read(path))

    def keep(self, runs: Iterable[Run]) -> None:
        """Write those runs that have ended, and are not written as they are. On a full disk they are left out."""
        for run in runs:
            if run.state is RunState.RUNNING or self._kept.get(run.key) == run:
                continue
            self._kept[run.key] = run
            with suppress(OSError):
                self._write(run)

    def clear(self) -> None:
        """Delete all runs."""
        self.past.clear()
        self._kept.clear()
        for path in self._folder.glob(f"*{_SUFFIX}"):
            path.unlink(missing_ok=True)

    def _write(self, run: Run) -> None:
        # A run's key is the name of an execution, which the user gives: it must not lead out of the folder.
        path = self._folder / f"{hashlib.sha256(run.key.encode()).hexdigest()}{_SUFFIX}"
        phases = {
            call.log_stream: [phase.line() for phase in self._phases.phases(call.log_stream, run.started, run.ended)]
            for call in run.calls
            if run.ended is not None
        }
        content = {"run": asdict(run), "phases": phases}
        written = path.with_suffix(".new")
        written.write_text(json.dumps(content, default=lambda state: state.value))
        written.replace(path)

    def _read(self, path: Path) -> Run:
        content = json.loads(path.read_text())
        fields = content["run"]
        calls = tuple(map(_call, fields["calls"]))
        run = Run(
            **{**fields, "state": RunState(fields["state"]), "calls": calls, "warnings": tuple(fields["warnings"])}
        )
        for stream, lines in content["phases"].items():
            for phase in filter(None, map(Phase.parse, lines)):
                self._phases.remember(stream, phase)
        return run


def _call(fields: dict[str, Any]) -> InvocationRecord:
    annotation = None if fields["annotation"] is None else EventRank(**fields["annotation"])
    return InvocationRecord(**{**fields, "status": InvocationStatus(fields["status"]), "annotation": annotation})
