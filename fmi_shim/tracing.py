"""How long a rank's operations took, told in its log when FMI_TRACE asks for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from fmi_shim.calls import Calls
from fmi_shim.log_lines import Phase, is_traced
from fmi_shim.selection.selector import ChannelSelector

_MOST_INTERVALS = 100
_FIRST_GAP_S = 1e-4


class Intervals:
    """When something went on: a bounded number of intervals, nearby ones merged, and exact sums.

    Attributes
    ----------
    seconds
        The intervals' sum before any were merged.
    count
        How many there were.
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
    """`Calls` that write one line with their times to standard output when they are over."""

    def __init__(self, rank: int, channels: ChannelSelector) -> None:
        super().__init__(rank, channels)
        self._intervals = Intervals()
        # The wall clock's time, without its steps.
        self._epoch = time.time() - time.perf_counter()
        self._is_written = False

    def wrap_schedule(self, schedule: Callable[..., Any]) -> Callable[..., Any]:
        """Return `schedule`, which takes its time and tells it when it fails."""

        def timed(*buffers: Any) -> Any:
            began = time.perf_counter()
            try:
                result = schedule(*buffers)
            except BaseException:
                self._add(began)
                self._write()
                raise
            self._add(began)
            return result

        return timed

    def abandon(self, error: BaseException) -> None:
        """Tell the other ranks of `error`, see `Calls`, and write the times."""
        self._write()
        super().abandon(error)

    def close(self) -> None:
        """Leave in peace, see `Calls`, and write the times."""
        self._write()
        super().close()

    def _add(self, began: float) -> None:
        self._intervals.add(self._epoch + began, self._epoch + time.perf_counter())

    def _write(self) -> None:
        if self._is_written or not self._intervals.count:
            return
        self._is_written = True
        phase = Phase(
            "communication",
            tuple((round(start, 5), round(end, 5)) for start, end in self._intervals.merged),
            round(self._intervals.seconds, 6),
            self._intervals.count,
        )
        # Where standard output is closed, the trace is lost; that is no reason for a program to fail.
        with contextlib.suppress(OSError, ValueError):
            print(phase.line(), flush=True)


def calls_type() -> type[Calls]:
    """Return what a communicator is to make its calls with: `TracedCalls` where FMI_TRACE is set, and not 0."""
    return TracedCalls if is_traced() else Calls
