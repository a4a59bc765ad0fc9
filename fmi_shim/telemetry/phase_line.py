"""The line in a rank's log that sums up the times of its operations, if FMI_TRACE is set."""

from __future__ import annotations

import contextlib

from fmi_shim.log_lines import Phase
from fmi_shim.telemetry.events import Message, Operations, Planned, Started

_MOST_INTERVALS = 100
_FIRST_GAP_S = 1e-4


class Intervals:
    """A bounded number of intervals of time, nearby ones merged, with exact sums.

    Attributes
    ----------
    seconds
        Sum of the intervals before any were merged.
    count
        Number of intervals before any were merged.
    merged
        Start and end of each, in order.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.count = 0
        self.merged: list[tuple[float, float]] = []
        self._gap = _FIRST_GAP_S

    def add(self, start: float, end: float) -> None:
        """Add an interval that begins after all others have begun."""
        self.seconds += end - start
        self.count += 1
        self._append(start, end)
        while len(self.merged) > _MOST_INTERVALS:
            self._gap *= 2
            intervals, self.merged = self.merged, []
            for interval in intervals:
                self._append(*interval)

    def _append(self, start: float, end: float) -> None:
        if self.merged and start - self.merged[-1][1] < self._gap:
            self.merged[-1] = (self.merged[-1][0], max(end, self.merged[-1][1]))
        else:
            self.merged.append((start, end))


class PhaseLine:
    """Collects the times of all operations, and writes them to standard output in one line. Implements `Sink`."""

    def __init__(self) -> None:
        self._intervals = Intervals()
        self._epoch = 0
        self._arrivals: set[int] = set()

    def take(self, message: Message) -> bool:
        """Add the operations of a message."""
        for event in message.events:
            if isinstance(event, Started):
                self._epoch = event.epoch
            elif isinstance(event, Planned) and event.operation == "arrived":
                self._arrivals.add(event.plan)
            elif isinstance(event, Operations):
                for plan, _, began, duration, _ in sorted(event.rows, key=lambda row: row[2]):
                    if plan not in self._arrivals:
                        start = (self._epoch + began) / 1e9
                        self._intervals.add(start, start + duration / 1e9)
        return True

    def finish(self) -> None:
        """Write the line, if there were any operations since the last one."""
        intervals, self._intervals = self._intervals, Intervals()
        if not intervals.count:
            return
        phase = Phase(
            "communication",
            tuple((round(start, 5), round(end, 5)) for start, end in intervals.merged),
            round(intervals.seconds, 6),
            intervals.count,
        )
        # If standard output is closed, the line is lost; the program must not fail because of it.
        with contextlib.suppress(OSError, ValueError):
            print(phase.line(), flush=True)
