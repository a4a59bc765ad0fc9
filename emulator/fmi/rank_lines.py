"""Which rank wrote which line of a function's log, and what the line is: told from the log alone, ours or AWS's.

The *execute* function's first line names the rank and the request. Where ``FMI_TRACE`` is set, it and fmi_shim also
write how long the rank's phases took, a JSON object a line.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from enum import Enum

from emulator.aws.lambda_.log_lines import Report, parse_report
from emulator.fmi.functions.execute import MARKER, TRACE_MARKER

_MARK = re.compile(rf"{re.escape(MARKER)} (\d+) of (\d+) RequestId: (\S*)")
# How the sandbox came up; not of any rank's making.
_INIT = re.compile(r"INIT_(START Runtime Version|REPORT Init Duration): ")
_PLATFORM = re.compile(r"(START|END|REPORT) RequestId: ([\w-]+)")
# More intervals than the writers make are not theirs.
_MOST_INTERVALS = 1000


class Kind(Enum):
    """What a line is."""

    INIT = "init"
    START = "start"
    RANK = "rank"
    OUTPUT = "output"
    TRACE = "trace"
    END = "end"
    REPORT = "report"


@dataclass(frozen=True)
class Phase:
    """A part of a rank's time.

    Parameters
    ----------
    name
        ``download`` or ``communication``.
    intervals
        When it went on: pairs of start and end, seconds since 1970.
    seconds
        How long it took in all; less than the intervals' sum where some of them were merged.
    calls
        How many calls that was.
    """

    name: str
    intervals: tuple[tuple[float, float], ...]
    seconds: float
    calls: int


@dataclass(frozen=True)
class LogLine:
    """A line with what is known of it.

    Parameters
    ----------
    kind
        What it is.
    text
        The line.
    stream
        The log stream, which is one sandbox's.
    timestamp_ms
        When it was written, ms since 1970.
    request_id
        The invocation that it belongs to, or empty.
    rank, world_size
        Of that invocation, or None when it did not say so.
    report
        What a REPORT line says.
    phase
        What a trace line says.
    """

    kind: Kind
    text: str
    stream: str
    timestamp_ms: int
    request_id: str = ""
    rank: int | None = None
    world_size: int | None = None
    report: Report | None = None
    phase: Phase | None = None


@dataclass
class _Stream:
    """Where reading a stream stands: who writes now, and the lines that wait for the next to tell."""

    request_id: str = ""
    rank: int | None = None
    world_size: int | None = None
    held: list[LogLine] = field(default_factory=list)
    # Reading began in the middle of an invocation.
    is_cut: bool = False

    def release(self) -> list[LogLine]:
        lines, self.held = self.held, []
        return [replace(line, request_id=self.request_id, rank=self.rank, world_size=self.world_size) for line in lines]


class RankLines:
    """Reads the lines of one log group, stream by stream; it does no input or output.

    What a sandbox says before its first event, and the START line, are held back until the line after that, which
    names the rank if any line does.
    """

    def __init__(self) -> None:
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)

    def take(self, stream: str, timestamp_ms: int, message: str) -> list[LogLine]:
        """Return the lines that a line of a stream makes known: none, itself, or those held back and itself."""
        state = self._streams[stream]
        line = _read(message.rstrip("\n"), stream, timestamp_ms, state.request_id)
        state.held.append(line)
        if line.kind is Kind.START:
            state.request_id, state.rank, state.world_size, state.is_cut = line.request_id, None, None, False
            return []
        if not state.request_id:
            return state.release() if state.is_cut else []
        if line.kind is Kind.RANK:
            state.rank, state.world_size = line.rank, line.world_size
        known = state.release()
        if line.kind is Kind.REPORT:
            # What comes now is the next invocation's.
            state.request_id = ""
        return known

    def overdue(self, before_ms: float = float("inf")) -> list[LogLine]:
        """Return what was written before a time and is still held back: nothing has followed that told more."""
        lines: list[LogLine] = []
        for state in self._streams.values():
            if state.held and state.held[-1].timestamp_ms < before_ms:
                state.is_cut = not state.request_id
                lines += state.release()
        return sorted(lines, key=lambda line: line.timestamp_ms)


def parse_phase(text: str) -> Phase | None:
    """Read a trace line; None when it is another line, or was not written by *execute* or fmi_shim."""
    if not text.startswith(TRACE_MARKER):
        return None
    try:
        said = json.loads(text.removeprefix(TRACE_MARKER))
        intervals = tuple((float(start), float(end)) for start, end in said["intervals"])
        phase = Phase(str(said["phase"]), intervals, float(said["seconds"]), int(said["calls"]))
    except (ValueError, TypeError, KeyError):
        return None
    return phase if len(intervals) <= _MOST_INTERVALS else None


def _read(text: str, stream: str, timestamp_ms: int, request_id: str) -> LogLine:
    """Tell what a line is; END and REPORT lines are those of the invocation under way."""
    line = LogLine(Kind.OUTPUT, text, stream, timestamp_ms)
    if platform := _PLATFORM.match(text):
        kind = Kind[platform[1]]
        if kind is Kind.START:
            return replace(line, kind=kind, request_id=platform[2])
        if platform[2] != request_id:
            return line
        try:
            return replace(line, kind=kind, report=parse_report(text) if kind is Kind.REPORT else None)
        except ValueError:
            return line
    if _INIT.match(text):
        return replace(line, kind=Kind.INIT)
    if mark := _MARK.fullmatch(text):
        return replace(line, kind=Kind.RANK, rank=int(mark[1]), world_size=int(mark[2]))
    if phase := parse_phase(text):
        return replace(line, kind=Kind.TRACE, phase=phase)
    return line
