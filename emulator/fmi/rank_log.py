"""What a log tells of each rank: how far it is, how it ended, and what it cost. Pure: lines in, values out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from emulator.aws.lambda_.log_lines import Report
from emulator.fmi.job import Failure, RankOutcome
from emulator.fmi.rank_failures import STOPPED, place_of
from emulator.fmi.rank_lines import Kind, LogLine

# What Lambda's Python runtime writes of an exception, and where in it the code's own lines are named.
_ERROR = re.compile(r"\[ERROR\] (\w+): ?(.*)")
_FRAME = re.compile(r'\s*File "([^"]+)", line (\d+)')
_PLATFORM = re.compile(r".*(?:Error: Runtime exited with error: (.*)|(Task timed out after [\d.]+ seconds))")
# What progress bars and hand-written loops print: "37%", or "12/50".
_PERCENT = re.compile(r"(\d{1,3})(?:\.\d+)?\s?%")
_FRACTION = re.compile(r"\b(\d{1,9})\s?/\s?(\d{1,9})\b")


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
    failure: Failure | None = None
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

    def take(self, line: LogLine) -> None:
        """Take note of a line."""
        if not line.request_id:
            return
        progress = self._progress(line)
        if line.kind is Kind.OUTPUT:
            _take_output(progress, line.text)
        elif line.kind is Kind.END:
            progress.ended_ms = line.timestamp_ms
            progress.state = RankState.FAILED if progress.failure else RankState.DONE
        elif line.kind is Kind.REPORT and line.report is not None:
            self.reports.append(line.report)
            progress.report = line.report
            if line.report.status is not None:
                progress.state = RankState.FAILED
                progress.failure = _platform_failure(line.report, progress.failure)

    def is_settled(self) -> bool:
        """Return whether every invocation that was heard of has been reported on."""
        known = [*self.ranks.values(), *([self.unranked] if self.unranked else [])]
        return all(progress.report is not None for progress in known)

    def outcomes(self) -> tuple[RankOutcome, ...]:
        """Return what came of the ranks, in the order of their ends; those that never ended were stopped."""
        ended = sorted(self.ranks.items(), key=lambda entry: entry[1].ended_ms or float("inf"))
        stopped = Failure(STOPPED, "it was still running after another rank had failed")
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


def counts(ranks: Mapping[int, RankProgress], world_size: int) -> dict[RankState, int]:
    """Return how many ranks there are of each state."""
    found = dict.fromkeys(RankState, 0)
    for progress in ranks.values():
        found[progress.state] += 1
    found[RankState.WAITING] += max(0, world_size - len(ranks))
    return found


def fraction_of(text: str) -> float | None:
    """Return how much of the work is done as a line of output tells it, from 0 to 1; None when it does not."""
    if percent := _PERCENT.findall(text):
        value = int(percent[-1]) / 100
    elif fraction := _FRACTION.findall(text):
        value = int(fraction[-1][0]) / max(1, int(fraction[-1][1]))
    else:
        return None
    return value if 0 <= value <= 1 else None


def _begun(line: LogLine) -> RankProgress:
    return RankProgress(line.request_id, RankState.RUNNING, line.timestamp_ms)


def _take_output(progress: RankProgress, text: str) -> None:
    # A progress bar draws itself over and over in one line.
    progress.last_line = text.rstrip("\r").rpartition("\r")[2]
    told = fraction_of(progress.last_line)
    progress.fraction = progress.fraction if told is None else told
    if error := _ERROR.fullmatch(text):
        progress.failure = Failure(error[1], error[2])
    elif frame := _FRAME.match(text):
        place = place_of([(frame[1], frame[2])])
        if progress.failure is not None and place:
            progress.failure = replace(progress.failure, place=place)
    elif platform := _PLATFORM.match(text):
        ended, timed_out = platform[1], platform[2]
        progress.failure = Failure("Timeout", timed_out) if timed_out else Failure("ProcessEnded", ended)


def _platform_failure(report: Report, told: Failure | None) -> Failure:
    if report.error_type == "Runtime.OutOfMemory":
        return Failure("OutOfMemory", f"it used more than its {report.memory_mb} MB; raise --memory")
    if told is not None and told.error_type == "Timeout":
        return Failure("Timeout", f"{told.message}; raise --timeout or look for a deadlock")
    return told or Failure(report.error_type or "Error", f"the platform ended it with status {report.status}")
