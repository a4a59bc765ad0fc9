"""Measures the time of a rank's operations and writes it to the log if FMI_TRACE is set."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fmi_shim.calls import Calls
from fmi_shim.errors import PeerTimeoutError
from fmi_shim.log_lines import Phase, is_traced
from fmi_shim.selection.selector import ChannelSelector

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
        """Add an interval that begins after all others have ended."""
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
            self.merged[-1] = (self.merged[-1][0], end)
        else:
            self.merged.append((start, end))


class TracedCalls(Calls):
    """`Calls` that write one line with their times to standard output at the end."""

    def __init__(self, rank: int, size: int, channels: ChannelSelector) -> None:
        super().__init__(rank, size, channels)
        self._intervals = Intervals()
        # The wall clock's time, without its steps.
        self._epoch = time.time() - time.perf_counter()
        self._is_written = False

    def wrap_schedule(self, schedule: Callable[..., Any]) -> Callable[..., Any]:
        """Return `schedule` with a measurement of its time."""
        return TimedSchedule(self, schedule)

    def abandon(self, error: BaseException) -> None:
        """Abort because of `error`, see `Calls`, and write the times."""
        self.write()
        super().abandon(error)

    def close(self) -> None:
        """Close without an error, see `Calls`, and write the times."""
        self.write()
        super().close()

    def add_time(self, began: float) -> None:
        """Add an operation that began at this value of the performance counter and has ended now."""
        self._intervals.add(self._epoch + began, self._epoch + time.perf_counter())

    def write(self) -> None:
        """Write the line, once, if there were any operations."""
        if self._is_written or not self._intervals.count:
            return
        self._is_written = True
        phase = Phase(
            "communication",
            tuple((round(start, 5), round(end, 5)) for start, end in self._intervals.merged),
            round(self._intervals.seconds, 6),
            self._intervals.count,
        )
        # If standard output is closed, the trace is lost; the program must not fail because of it.
        with contextlib.suppress(OSError, ValueError):
            print(phase.line(), flush=True)


@dataclass(slots=True, eq=False)
class TimedSchedule:
    """A schedule whose time is measured."""

    calls: TracedCalls
    schedule: Callable[..., Any]

    def __call__(self, *buffers: Any) -> Any:
        """Run the schedule; if it fails, write the times."""
        began = time.perf_counter()
        try:
            result = self.schedule(*buffers)
        except BaseException as error:
            self.calls.add_time(began)
            if not (isinstance(error, PeerTimeoutError) and error.repeatable):
                self.calls.write()
            raise
        self.calls.add_time(began)
        return result


def calls_type() -> type[Calls]:
    """Return the class of a communicator's calls: `TracedCalls` if FMI_TRACE is set and not 0."""
    return TracedCalls if is_traced() else Calls
