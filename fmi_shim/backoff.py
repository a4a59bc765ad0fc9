"""Waiting: deadlines, the pauses between two attempts, and polling without sleep."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator

FIRST_PAUSE = 1 / 16
"""The first pause between two polls, as a fraction of the longest one."""
_LATE_SECONDS = 0.3
_LATE = 0.1
"""A wait that ends so much after its limit (seconds, and parts of the limit) is said to have lasted the limit."""
_EARLY = 0.02
"""And so is one that ends so much before it, which is rounding."""


class Deadline:
    """The instant by which a wait must end.

    Parameters
    ----------
    seconds
        Seconds from now; None never expires.

    Attributes
    ----------
    began
        When the wait began, on the monotonic clock.
    end
        The instant on the monotonic clock, ``math.inf`` for none.
    seconds
        The limit as it was given or configured; None for none.
    """

    __slots__ = ("began", "end", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.began = time.monotonic()
        self.end = math.inf if seconds is None else self.began + seconds

    def within(self, seconds: float | None) -> Deadline:
        """Return the deadline of a wait that begins now: this one's end, or `seconds` from now if that is earlier."""
        wait = Deadline(seconds)
        if self.end <= wait.end:
            wait.seconds, wait.end = self.seconds, self.end
        return wait

    def shortened(self, seconds: float) -> Deadline:
        """Return the deadline of a part of this wait, which ends `seconds` from now at the latest."""
        part = Deadline(self.seconds)
        part.began, part.end = self.began, min(self.end, time.monotonic() + seconds)
        return part

    def remaining(self) -> float | None:
        """Return the seconds left, at least 0, or None."""
        return None if self.end == math.inf else max(0.0, self.end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the instant has passed."""
        return time.monotonic() >= self.end

    @property
    def elapsed(self) -> str:
        """How long the wait has lasted, for an error: the limit if it is that, else the time and the limit."""
        seconds = time.monotonic() - self.began
        limit = self.seconds
        if limit is not None and -_EARLY * limit <= seconds - limit <= _LATE_SECONDS + _LATE * limit:
            return f"{limit:g} s"
        shown = f"{round(seconds, 2 if seconds < 1 else 1):g} s"
        return shown if limit is None else f"{shown} (limit {limit:g} s)"


def raise_limit(passed: Deadline, of_call: Deadline, setting: str) -> str:
    """Return the advice for a wait that ended at `passed`: which limit to raise, that of the call or a setting's."""
    limit = "timeout" if passed.end == of_call.end else f"{setting} (ms, 0 for no limit)"
    return f"raise {limit} if it needs longer"


def pauses(longest: float, first: float | None = None) -> Iterator[float]:
    """Yield seconds that double each time, from `first` (by default a sixteenth of `longest`) up to `longest`.

    FMI sleeps ``timeout`` each time. Doubling up to it finds an early object sooner, for four more requests.
    """
    pause = longest * FIRST_PAUSE if first is None else first
    while True:
        yield pause
        pause = min(2 * pause, longest)


def jitter(seconds: float, low: float, high: float) -> float:
    """Return `seconds` times a random factor from `low` to `high`, so that two ranks do not retry in step."""
    return seconds * random.uniform(low, high)  # noqa: S311 - no secret


class PollBackoff:
    """Pauses that double, until a time limit without progress has passed.

    Parameters
    ----------
    poll
        The longest pause in seconds.
    longest
        Seconds since the last restart until `pause` returns False; None for no limit.
    sleep
        Pauses for the given seconds.
    last
        The instant from which on `pause` returns False whatever the progress.

    Attributes
    ----------
    deadline
        The instant from which on `pause` returns False unless it is restarted.
    """

    def __init__(
        self,
        poll: float,
        longest: float | None,
        sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds),
        last: Deadline | None = None,
    ) -> None:
        self._poll = poll
        self._sleep = sleep
        self._longest = longest
        self._last = Deadline(None) if last is None else last
        self._restart()

    def pause(self, restart: bool = False) -> bool:
        """Sleep and return True; return False at once if the time limit has passed."""
        if restart:
            self._restart()
        left = self.deadline.end - time.monotonic()
        if left <= 0:
            return False
        self._sleep(min(next(self._pauses), left))
        return True

    def _restart(self) -> None:
        self._pauses = pauses(self._poll)
        self.deadline = self._last.within(self._longest)


def poll_without_sleep(ready: Callable[[], bool], spins: int, seconds: float) -> bool:
    """Poll `spins` times, then for `seconds` with a yield of the processor before each poll.

    Returns
    -------
    bool
        Whether `ready` returned True.
    """
    for _ in range(spins):
        if ready():
            return True
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        os.sched_yield()
        if ready():
            return True
    return False
