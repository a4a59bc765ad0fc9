"""Parses a function's log by rank: which rank wrote each line, and each rank's state, progress and outcome.

It needs the lines alone, from the emulator or from AWS. The first line of an invocation names the rank: *execute*
writes one for that purpose, and the published executor prints its event, which has RANK and WORLD_SIZE.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from emulator.aws.lambda_.log_lines import Report, parse_report
from emulator.fmi.outcomes import (
    STOPPED_FAILURE,
    FunctionFailure,
    RankOutcome,
    explained,
    failure_location,
    out_of_memory_failure,
    timeout_failure,
)
from fmi_shim.log_lines import EVENTS_MARKER, Phase, parse_rank_line

# What the published executor prints first: its event, as Python writes a dictionary.
_RECEIVED = "received:  {"
# Lines about the sandbox's init phase, which belongs to no rank.
_INIT = re.compile(r"INIT_(START Runtime Version|REPORT Init Duration): ")
_PLATFORM_LINE = re.compile(r"(START|END|REPORT) RequestId: ([\w-]+)")
# How Lambda's Python runtime logs an exception, and its traceback's frames.
_ERROR = re.compile(r"\[ERROR\] (\w+): ?(.*)")
_FRAME = re.compile(r'\s*File "([^"]+)", line (\d+)')
_PLATFORM_ERROR = re.compile(r".*(?:Error: Runtime exited with error: (.*)|(Task timed out after [\d.]+ seconds))")
# What progress bars and loops print: "37%" or "12/50".
_PERCENT = re.compile(r"(\d{1,3})(?:\.\d+)?\s?%")
_FRACTION = re.compile(r"\b(\d{1,9})\s?/\s?(\d{1,9})\b")


class LineKind(Enum):
    """Kind of a log line."""

    INIT = "init"
    START = "start"
    RANK = "rank"
    OUTPUT = "output"
    TRACE = "trace"
    EVENTS = "events"
    END = "end"
    REPORT = "report"


@dataclass(frozen=True)
class LogLine:
    """A log line and what is known about it.

    Parameters
    ----------
    kind
        Its kind.
    text
        Its text; of events, without their marker.
    stream
        The log stream, which is one sandbox's.
    timestamp_ms
        Time of the line, ms since 1970.
    request_id
        The invocation that wrote it, or empty.
    rank, world_size
        Rank and world size of that invocation; None if it did not name them.
    report
        The parsed REPORT line.
    phase
        The parsed trace line.
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
    """State of one stream: the current invocation, and the lines held back until its rank is known."""

    request_id: str = ""
    rank: int | None = None
    world_size: int | None = None
    held: list[LogLine] = field(default_factory=list)
    # The first line read was in the middle of an invocation.
    is_cut: bool = False

    def release(self) -> list[LogLine]:
        lines, self.held = self.held, []
        return [replace(line, request_id=self.request_id, rank=self.rank, world_size=self.world_size) for line in lines]


class RankLineParser:
    """Parses the lines of one log group, each stream on its own, and assigns them to ranks.

    The lines before a sandbox's first event, and the START line, are held back until the next line: if an invocation
    names its rank, it does so there.
    """

    def __init__(self) -> None:
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)

    def feed(self, stream: str, timestamp_ms: int, message: str) -> list[LogLine]:
        """Add an event of a stream; return the lines whose rank is now known: none, or its own and those held back."""
        lines: list[LogLine] = []
        for text in message.rstrip("\n").split("\n"):
            lines += self._feed_line(stream, timestamp_ms, text)
        return lines

    def _feed_line(self, stream: str, timestamp_ms: int, text: str) -> list[LogLine]:
        state = self._streams[stream]
        line = _read(text, stream, timestamp_ms, state.request_id)
        state.held.append(line)
        if line.kind is LineKind.START:
            state.request_id, state.rank, state.world_size, state.is_cut = line.request_id, None, None, False
            return []
        if not state.request_id:
            return state.release() if state.is_cut else []
        if line.kind is LineKind.RANK or (line.rank is not None and state.rank is None):
            state.rank, state.world_size = line.rank, line.world_size
        known = state.release()
        if line.kind is LineKind.REPORT:
            # The next lines belong to the next invocation.
            state.request_id = ""
        return known

    def flush(self, before_ms: float = float("inf")) -> list[LogLine]:
        """Return the lines before a time that are still held back, although no further line followed."""
        lines: list[LogLine] = []
        for state in self._streams.values():
            if state.held and state.held[-1].timestamp_ms < before_ms:
                state.is_cut = not state.request_id
                lines += state.release()
        return sorted(lines, key=lambda line: line.timestamp_ms)


class RankState(Enum):
    """State of a rank."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass
class RankProgress:
    """The latest invocation of a rank, or of a function without ranks.

    Parameters
    ----------
    request_id
        The invocation.
    state
        Its state.
    began_ms, ended_ms
        Start and end, ms since 1970; None before.
    last_line
        The last line of its output.
    fraction
        Completed part of its work, from 0 to 1, if its output shows it; or None.
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
    """Collects the state of all ranks from the lines of a function's log.

    Attributes
    ----------
    ranks
        The ranks that have written a line.
    world_size
        Number of ranks; 0 until a rank has named it.
    reports
        The reports of all invocations, failed attempts included.
    unranked
        The latest invocation that named no rank, or None.
    """

    ranks: dict[int, RankProgress] = field(default_factory=dict)
    world_size: int = 0
    reports: list[Report] = field(default_factory=list)
    unranked: RankProgress | None = None

    def add(self, line: LogLine) -> None:
        """Add a line."""
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
        """Return whether every known invocation has its REPORT line."""
        known = [*self.ranks.values(), *([self.unranked] if self.unranked else [])]
        return all(progress.report is not None for progress in known)

    def outcomes(self) -> tuple[RankOutcome, ...]:
        """Return the outcomes of the ranks, in the order in which they ended. Ranks that never ended were stopped."""
        ended = sorted(self.ranks.items(), key=lambda entry: entry[1].ended_ms or float("inf"))
        return tuple(
            RankOutcome(rank, progress.report, progress.failure or (None if progress.report else STOPPED_FAILURE))
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
    """Return the number of ranks in each state."""
    found = dict.fromkeys(RankState, 0)
    for progress in ranks.values():
        found[progress.state] += 1
    found[RankState.WAITING] += max(0, world_size - len(ranks))
    return found


def progress_fraction(text: str) -> float | None:
    """Return the completed part of the work that a line of output shows, from 0 to 1; None if it shows none."""
    if percent := _PERCENT.findall(text):
        value = int(percent[-1]) / 100
    elif fraction := _FRACTION.findall(text):
        value = int(fraction[-1][0]) / max(1, int(fraction[-1][1]))
    else:
        return None
    return value if 0 <= value <= 1 else None


def _read(text: str, stream: str, timestamp_ms: int, request_id: str) -> LogLine:
    """Parse a line. END and REPORT lines count only if they name the current invocation."""
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
    if text.startswith(EVENTS_MARKER):
        return replace(line, kind=LineKind.EVENTS, text=text.removeprefix(EVENTS_MARKER).strip())
    if phase := Phase.parse(text):
        return replace(line, kind=LineKind.TRACE, phase=phase)
    if named := _published_rank(text):
        return replace(line, rank=named[0], world_size=named[1])
    return line


def _published_rank(text: str) -> tuple[int, int] | None:
    """Return rank and world size of the event that the published executor prints; None if the line is another."""
    if not text.startswith(_RECEIVED):
        return None
    try:
        event = ast.literal_eval(text.removeprefix(_RECEIVED[:-1]))
        rank, world_size = int(event["RANK"]), int(event["WORLD_SIZE"])
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError):
        return None
    return (rank, world_size) if 0 <= rank < world_size else None


def _begun(line: LogLine) -> RankProgress:
    return RankProgress(line.request_id, RankState.RUNNING, line.timestamp_ms)


def _add_output(progress: RankProgress, text: str) -> None:
    # A progress bar redraws itself within one line.
    progress.last_line = text.rstrip("\r").rpartition("\r")[2]
    fraction = progress_fraction(progress.last_line)
    progress.fraction = progress.fraction if fraction is None else fraction
    if error := _ERROR.fullmatch(text):
        progress.failure = explained(FunctionFailure(error[1], error[2]))
    elif frame := _FRAME.match(text):
        location = failure_location([(frame[1], frame[2])])
        if progress.failure is not None and location:
            progress.failure = replace(progress.failure, location=location)
    elif platform := _PLATFORM_ERROR.match(text):
        ended, timed_out = platform[1], platform[2]
        progress.failure = (
            FunctionFailure("Timeout", timed_out) if timed_out else FunctionFailure("ProcessEnded", ended)
        )


def _platform_failure(report: Report, logged: FunctionFailure | None) -> FunctionFailure:
    if report.error_type == "Runtime.OutOfMemory":
        return out_of_memory_failure(report.memory_mb)
    if logged is not None and logged.error_type == "Timeout":
        return timeout_failure(logged.message)
    return logged or FunctionFailure(report.error_type or "Error", f"Lambda ended it with status {report.status}")
