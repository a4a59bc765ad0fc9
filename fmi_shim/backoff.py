"""Waiting: deadlines, the pauses between two attempts, and polling without sleep."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator

FIRST_PAUSE = 1 / 16
"""The first pause between two polls, as a fraction of the longest one."""


class Deadline:
    """The instant by which a wait must end.

    Parameters
    ----------
    seconds
        Seconds from now; None never expires.

    Attributes
    ----------
    end
        The instant on the monotonic clock, ``math.inf`` for none.
    """

    __slots__ = ("end", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.end = math.inf if seconds is None else time.monotonic() + seconds

    def within(self, seconds: float | None) -> Deadline:
        """Return the earlier one of this deadline and that `seconds` from now."""
        other = Deadline(seconds)
        return self if self.end <= other.end and self.seconds is not None else other

    def remaining(self) -> float | None:
        """Return the seconds left, at least 0, or None."""
        return None if self.seconds is None else max(0.0, self.end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the instant has passed."""
        return time.monotonic() >= self.end


def raise_limit(passed: Deadline, of_call: Deadline, setting: str) -> str:
    """Return the advice for a wait that ended at `passed`: which limit to raise, that of the call or a setting's."""
    limit = "timeout" if passed is of_call else f"{setting} (ms, 0 for no limit)"
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
