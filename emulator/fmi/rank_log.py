"""What a function's log says of each rank: which rank wrote which line, how far it is, how it ended, what it cost.

It is read from the lines alone, the emulator's or AWS's: the *execute* function's first line names the rank and the
request. No input or output happens here.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from emulator.aws.lambda_.log_lines import Report, parse_report
from emulator.fmi.outcomes import STOPPED, FunctionFailure, RankOutcome, failure_location
from fmi_shim.log_lines import Phase, parse_rank_line

# How the sandbox came up; not of any rank's making.
_INIT = re.compile(r"INIT_(START Runtime Version|REPORT Init Duration): ")
_PLATFORM_LINE = re.compile(r"(START|END|REPORT) RequestId: ([\w-]+)")
# What Lambda's Python runtime writes of an exception, and where in it the code's own lines are named.
_ERROR = re.compile(r"\[ERROR\] (\w+): ?(.*)")
_FRAME = re.compile(r'\s*File "([^"]+)", line (\d+)')
_PLATFORM_ERROR = re.compile(r".*(?:Error: Runtime exited with error: (.*)|(Task timed out after [\d.]+ seconds))")
# What progress bars and hand-written loops print: "37%", or "12/50".
_PERCENT = re.compile(r"(\d{1,3})(?:\.\d+)?\s?%")
_FRACTION = re.compile(r"\b(\d{1,9})\s?/\s?(\d{1,9})\b")


class LineKind(Enum):
    """What a line is."""

    INIT = "init"
    START = "start"
    RANK = "rank"
    OUTPUT = "output"
    TRACE = "trace"
    END = "end"
    REPORT = "report"


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

    kind: LineKind
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


class RankLineParser:
    """Reads the lines of one log group, stream by stream; it does no input or output.

    What a sandbox says before its first event, and the START line, are held back until the line after that, which
    names the rank if any line does.
    """

    def __init__(self) -> None:
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)

    def feed(self, stream: str, timestamp_ms: int, message: str) -> list[LogLine]:
        """Return the lines that a line of a stream makes known: none, itself, or those held back and itself."""
        state = self._streams[stream]
        line = _read(message.rstrip("\n"), stream, timestamp_ms, state.request_id)
        state.held.append(line)
        if line.kind is LineKind.START:
            state.request_id, state.rank, state.world_size, state.is_cut = line.request_id, None, None, False
            return []
        if not state.request_id:
            return state.release() if state.is_cut else []
        if line.kind is LineKind.RANK:
            state.rank, state.world_size = line.rank, line.world_size
        known = state.release()
        if line.kind is LineKind.REPORT:
            # What comes now is the next invocation's.
            state.request_id = ""
        return known

    def flush(self, before_ms: float = float("inf")) -> list[LogLine]:
        """Return what was written before a time and is still held back: nothing has followed that told more."""
        lines: list[LogLine] = []
        for state in self._streams.values():
            if state.held and state.held[-1].timestamp_ms < before_ms:
                state.is_cut = not state.request_id
                lines += state.release()
        return sorted(lines, key=lambda line: line.timestamp_ms)


class RankState(Enum):
    """How far a rank is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass
class RankProgress:
    """One invocation of a rank, the latest; without a rank, one of another function.

    Parameters
    ----------
    request_id
        The invocation.
    state
        How far it is.
    began_ms, ended_ms
        When it did, ms since 1970; None before.
    last_line
        The last line of its output.
    fraction
        How much of its work is done, from 0 to 1, where its output told; or None.
    failure
        Why it failed, or None.
    report
        Its REPORT line, or None before.
    """

    request_id: str = ""
    state: RankState = RankState.WAITING
    began_ms: int | None = None
    ended_ms: int | None = None
    last_line: str = ""
    fraction: float | None = None
    failure: FunctionFailure | None = None
    report: Report | None = None


@dataclass
class RankLog:
    """Follows the lines of a function's log.

    Attributes
    ----------
    ranks
        The ranks that have been heard of.
    world_size
        How many there will be; 0 before one of them has said so.
    reports
        Those of all invocations, tries that failed included.
    unranked
        The latest invocation that named no rank, or None.
    """

    ranks: dict[int, RankProgress] = field(default_factory=dict)
    world_size: int = 0
    reports: list[Report] = field(default_factory=list)
    unranked: RankProgress | None = None

    def add(self, line: LogLine) -> None:
        """Take note of a line."""
        if not line.request_id:
            return
        progress = self._progress(line)
        if line.kind is LineKind.OUTPUT:
            _add_output(progress, line.text)
        elif line.kind is LineKind.END:
            progress.ended_ms = line.timestamp_ms
            progress.state = RankState.FAILED if progress.failure else RankState.DONE
        elif line.kind is LineKind.REPORT and line.report is not None:
            self.reports.append(line.report)
            progress.report = line.report
            if line.report.status is not None:
                progress.state = RankState.FAILED
                progress.failure = _platform_failure(line.report, progress.failure)

    def is_complete(self) -> bool:
        """Return whether every invocation that was heard of has been reported on."""
        known = [*self.ranks.values(), *([self.unranked] if self.unranked else [])]
        return all(progress.report is not None for progress in known)

    def outcomes(self) -> tuple[RankOutcome, ...]:
        """Return what came of the ranks, in the order of their ends; those that never ended were stopped."""
        ended = sorted(self.ranks.items(), key=lambda entry: entry[1].ended_ms or float("inf"))
        stopped = FunctionFailure(STOPPED, "it was still running after another rank had failed")
        return tuple(
            RankOutcome(rank, progress.report, progress.failure or (None if progress.report else stopped))
            for rank, progress in ended
        )

    def _progress(self, line: LogLine) -> RankProgress:
        if line.rank is None:
            if self.unranked is None or self.unranked.request_id != line.request_id:
                self.unranked = _begun(line)
            return self.unranked
        self.world_size = max(self.world_size, line.world_size or 0)
        known = self.ranks.get(line.rank)
        if known is None or known.request_id != line.request_id:
            known = self.ranks[line.rank] = _begun(line)
        return known


def state_counts(ranks: Mapping[int, RankProgress], world_size: int) -> dict[RankState, int]:
    """Return how many ranks there are of each state."""
    found = dict.fromkeys(RankState, 0)
    for progress in ranks.values():
        found[progress.state] += 1
    found[RankState.WAITING] += max(0, world_size - len(ranks))
    return found


def progress_fraction(text: str) -> float | None:
    """Return how much of the work is done as a line of output tells it, from 0 to 1; None when it does not."""
    if percent := _PERCENT.findall(text):
        value = int(percent[-1]) / 100
    elif fraction := _FRACTION.findall(text):
        value = int(fraction[-1][0]) / max(1, int(fraction[-1][1]))
    else:
        return None
    return value if 0 <= value <= 1 else None


def _read(text: str, stream: str, timestamp_ms: int, request_id: str) -> LogLine:
    """Tell what a line is; END and REPORT lines are those of the invocation under way."""
    line = LogLine(LineKind.OUTPUT, text, stream, timestamp_ms)
    if platform := _PLATFORM_LINE.match(text):
        kind = LineKind[platform[1]]
        if kind is LineKind.START:
            return replace(line, kind=kind, request_id=platform[2])
        if platform[2] != request_id:
            return line
        try:
            return replace(line, kind=kind, report=parse_report(text) if kind is LineKind.REPORT else None)
        except ValueError:
            return line
    if _INIT.match(text):
        return replace(line, kind=LineKind.INIT)
    if named := parse_rank_line(text):
        return replace(line, kind=LineKind.RANK, rank=named[0], world_size=named[1])
    if phase := Phase.parse(text):
        return replace(line, kind=LineKind.TRACE, phase=phase)
    return line


def _begun(line: LogLine) -> RankProgress:
    return RankProgress(line.request_id, RankState.RUNNING, line.timestamp_ms)


def _add_output(progress: RankProgress, text: str) -> None:
    # A progress bar draws itself over and over in one line.
    progress.last_line = text.rstrip("\r").rpartition("\r")[2]
    told = progress_fraction(progress.last_line)
    progress.fraction = progress.fraction if told is None else told
    if error := _ERROR.fullmatch(text):
        progress.failure = FunctionFailure(error[1], error[2])
    elif frame := _FRAME.match(text):
        place = failure_location([(frame[1], frame[2])])
        if progress.failure is not None and place:
            progress.failure = replace(progress.failure, place=place)
    elif platform := _PLATFORM_ERROR.match(text):
        ended, timed_out = platform[1], platform[2]
        progress.failure = (
            FunctionFailure("Timeout", timed_out) if timed_out else FunctionFailure("ProcessEnded", ended)
        )


def _platform_failure(report: Report, told: FunctionFailure | None) -> FunctionFailure:
    if report.error_type == "Runtime.OutOfMemory":
        return FunctionFailure("OutOfMemory", f"it used more than its {report.memory_mb} MB; raise --memory")
    if told is not None and told.error_type == "Timeout":
        return FunctionFailure("Timeout", f"{told.message}; raise --timeout or look for a deadlock")
    return told or FunctionFailure(report.error_type or "Error", f"the platform ended it with status {report.status}")
