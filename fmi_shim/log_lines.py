"""The lines that ranks write for readers of their logs: which rank it is, how long a phase took, a relayed connection.

Each line is formatted and parsed here. The deployed functions and the emulator import this module, so it needs the
standard library alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

TRACE_VARIABLE = "FMI_TRACE"
TRACE_MARKER = "fmi-trace:"
TELEMETRY_VARIABLE = "FMI_TELEMETRY"
EVENTS_MARKER = "fmi-events:"
"""Begins the line of a message of events, where ranks have no bus."""
_RANK_LINE = "fmi-rank: {rank} of {world_size} RequestId: {request_id}"
_RELAY_NOTICE = (
    "rank {rank} and rank {peer} are connected through the relay of the rendezvous server {server}: "
    "no direct connection could be established"
)
_RANK_PATTERN = re.compile(
    _RANK_LINE.format(rank=r"(\d+)", world_size=r"(\d+)", request_id=r"(\S*)") + r"(?: run: (\S+))?"
)
_RELAY_PATTERN = re.compile(r"\b" + _RELAY_NOTICE.format(rank=r"(\d+)", peer=r"(\d+)", server=r"(\S+)"))
# The writers record at most 100 intervals. A line with more than this was not written by them.
_MOST_INTERVALS = 1000


def is_traced() -> bool:
    """Return whether ranks write the times of their phases: FMI_TRACE is set, and not to 0."""
    return os.environ.get(TRACE_VARIABLE, "0") not in ("", "0")


def is_recorded(variables: Mapping[str, str]) -> bool:
    """Return whether the times of a rank's phases are recorded: FMI_TRACE is set, or FMI_TELEMETRY in `variables`."""
    return is_traced() or bool(variables.get(TELEMETRY_VARIABLE))


@dataclass(frozen=True)
class Phase:
    """A part of a rank's time.

    Parameters
    ----------
    name
        ``download`` or ``communication``.
    intervals
        Pairs of start and end, seconds since 1970.
    seconds
        Total duration; less than the sum of the intervals where some of them were merged.
    calls
        Number of calls in it.
    """

    name: str
    intervals: tuple[tuple[float, float], ...]
    seconds: float
    calls: int

    def line(self) -> str:
        """Return the log line of this phase."""
        fields = {"phase": self.name, "seconds": self.seconds, "calls": self.calls, "intervals": self.intervals}
        return f"{TRACE_MARKER} {json.dumps(fields, separators=(',', ':'))}"

    @staticmethod
    def parse(text: str) -> Phase | None:
        """Parse a log line; return None if it is not the line of a phase."""
        if not text.startswith(TRACE_MARKER):
            return None
        try:
            fields = json.loads(text.removeprefix(TRACE_MARKER))
            intervals = tuple((float(start), float(end)) for start, end in fields["intervals"])
            phase = Phase(str(fields["phase"]), intervals, float(fields["seconds"]), int(fields["calls"]))
        except (ValueError, TypeError, KeyError):
            return None
        return phase if len(intervals) <= _MOST_INTERVALS else None


def rank_line(rank: object, world_size: object, request_id: str, run: str = "") -> str:
    """Return the line that names the rank of an invocation; it is the first that the invocation writes.

    Parameters
    ----------
    rank, world_size, request_id
        The rank, the number of ranks, and Lambda's id of the invocation.
    run
        The run's id, where several runs share a function's log; or empty.
    """
    line = _RANK_LINE.format(rank=rank, world_size=world_size, request_id=request_id)
    return f"{line} run: {run}" if run else line


def parse_rank_line(text: str) -> tuple[int, int] | None:
    """Return the rank and the world size that a `rank_line` names; None if the text is another line."""
    found = _RANK_PATTERN.fullmatch(text)
    return None if found is None else (int(found[1]), int(found[2]))


def parse_run_line(text: str) -> str:
    """Return the run that a `rank_line` names; empty if it names none, or the text is another line."""
    found = _RANK_PATTERN.fullmatch(text)
    return (found[4] or "") if found else ""


@dataclass(frozen=True)
class RelayNotice:
    """Two ranks are connected through the relay of the rendezvous server, since no direct connection was possible.

    Parameters
    ----------
    rank, peer
        The two ranks.
    server
        ``host:port`` of the server.
    """

    rank: int
    peer: int
    server: str

    def __str__(self) -> str:
        return _RELAY_NOTICE.format(rank=self.rank, peer=self.peer, server=self.server)

    @staticmethod
    def parse(text: str) -> RelayNotice | None:
        """Return the notice that a log line contains, None if it contains none."""
        found = _RELAY_PATTERN.search(text)
        return None if found is None else RelayNotice(int(found[1]), int(found[2]), found[3])
