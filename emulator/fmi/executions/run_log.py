"""The log of one run in a log group that several runs share, whose events come late and out of order.

CloudWatch delivers events some seconds late, streams independently of each other. An event is therefore assigned to an
invocation by its stream and its time, not by the order in which it arrives: to the last invocation in its stream that
started before it and has not ended before it. Platform lines name their invocation themselves. What a stream's next
invocation writes is assumed to arrive after the end of the one before it.
"""

import bisect
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from emulator.aws.lambda_.log_lines import Report, parse_report
from emulator.fmi.log_reader import GroupEvent
from fmi_shim.log_lines import TRACE_MARKER, parse_rank_line, parse_run_line

_PLATFORM = re.compile(r"(START|END|REPORT) RequestId: ([\w-]+)")
_INIT = re.compile(r"INIT_(START|REPORT)")


@dataclass(frozen=True)
class RankOutput:
    """A line of a rank's output, with its time, ms since 1970."""

    rank: int
    timestamp_ms: int
    text: str


@dataclass
class _Stream:
    """The invocations of one sandbox, by time: the start of each, and its request; lines that wait for one."""

    starts: list[tuple[int, str]] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    waiting: list[GroupEvent] = field(default_factory=list)


class RunLog:
    """Collects the output and the reports of one run's ranks.

    Parameters
    ----------
    run
        The run's id; lines of other runs are ignored.

    Attributes
    ----------
    reports
        The REPORT line of each rank that has one.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)
        # By request: the rank, None for another run's; and the reports of requests whose rank is not known yet.
        self._ranks: dict[str, int | None] = {}
        self._unnamed: dict[str, Report] = {}
        self.reports: dict[int, Report] = {}

    def add(self, events: Iterable[GroupEvent]) -> list[RankOutput]:
        """Add events, in any order; return the lines of output whose rank is now known, in order of time."""
        touched = {}
        for event in events:
            stream = self._streams[event.stream]
            touched[event.stream] = stream
            self._add_event(stream, event)
        lines = [line for stream in touched.values() for line in self._assign(stream)]
        return sorted(lines, key=lambda line: line.timestamp_ms)

    def _add_event(self, stream: _Stream, event: GroupEvent) -> None:
        text = event.message.rstrip("\n")
        if platform := _PLATFORM.match(text):
            if platform[1] == "START":
                bisect.insort(stream.starts, (event.timestamp_ms, platform[2]))
            elif platform[1] == "END":
                stream.ends[platform[2]] = event.timestamp_ms
            else:
                self._add_report(platform[2], text)
            return
        if (named := parse_rank_line(text)) is not None:
            request = text.partition("RequestId: ")[2].partition(" ")[0]
            rank = named[0] if parse_run_line(text) == self._run else None
            self._ranks[request] = rank
            report = self._unnamed.pop(request, None)
            if report is not None and rank is not None:
                self.reports[rank] = report
            return
        if not _INIT.match(text) and not text.startswith(TRACE_MARKER):
            stream.waiting.append(event)

    def _add_report(self, request: str, text: str) -> None:
        try:
            report = parse_report(text)
        except ValueError:
            return
        if request not in self._ranks:
            self._unnamed[request] = report
        elif (rank := self._ranks[request]) is not None:
            self.reports[rank] = report

    def _assign(self, stream: _Stream) -> list[RankOutput]:
        lines = []
        kept = []
        for event in stream.waiting:
            index = bisect.bisect_right(stream.starts, event.timestamp_ms, key=lambda start: start[0])
            request = stream.starts[index - 1][1] if index else ""
            has_ended = stream.ends.get(request, event.timestamp_ms) < event.timestamp_ms
            if request not in self._ranks or has_ended:
                kept.append(event)
            elif (rank := self._ranks[request]) is not None:
                lines.append(RankOutput(rank, event.timestamp_ms, event.message.rstrip("\n")))
        stream.waiting = kept
        return lines
