"""The events of runs on disk, so that they outlive the endpoint: a file for each run, a line for each message."""

import hashlib
import re
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path

from emulator.fmi.telemetry.history import History
from fmi_shim.telemetry.events import EventError, Message, decode, encode

_SUFFIX = ".events"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MOST_RUNS = 50
_MOST_BYTES = 64 * 1024 * 1024
"""Of one run: later events are not kept."""


class KeptRuns:
    """Reads and writes the runs of a folder.

    Parameters
    ----------
    folder
        The folder; created if missing, for the user alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files: dict[str, BufferedWriter] = {}
        for path in self._paths()[:-_MOST_RUNS]:
            path.unlink()

    def jobs(self) -> list[str]:
        """Return the runs, the latest last."""
        found = []
        for path in self._paths():
            with suppress(OSError, EventError), path.open("rb") as file:
                found.append(decode(file.readline()).job)
        return found

    def append(self, message: Message) -> None:
        """Keep a message. If the disk is full, the run's events end there."""
        with suppress(OSError):
            file = self._files.get(message.job)
            if file is None:
                file = self._files[message.job] = self._path(message.job).open("ab")
            if file.tell() < _MOST_BYTES:
                file.write(encode(message) + b"\n")
                file.flush()

    def history(self, job: str) -> History | None:
        """Return the history of a kept run, None if there is none. A line that was cut by a kill is left out."""
        history = History(job)
        history.is_past = True
        try:
            with self._path(job).open("rb") as file:
                for line in file:
                    with suppress(EventError):
                        history.apply(decode(line))
        except OSError:
            return None
        return history

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        self._files.clear()

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)

    def _path(self, job: str) -> Path:
        # The name is a rank's: it must not lead out of the folder.
        name = job if _PLAIN.fullmatch(job) else hashlib.sha256(job.encode()).hexdigest()
        return self._folder / f"{name}{_SUFFIX}"
