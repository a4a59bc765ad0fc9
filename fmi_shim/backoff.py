"""How long to pause between two looks, and when to give up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

FIRST_PAUSE = 1 / 16
"""The first pause between two looks, as a part of the longest one."""


def pauses(longest: float) -> Iterator[float]:
    """Yield the seconds between looks: doubled each time, from a sixteenth of `longest` up to `longest`.

    FMI sleeps ``timeout`` each time. Doubling up to it finds early what is nearly there, for four more requests.
    """
    pause = longest * FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, longest)


class Patience:
    """Pauses that double, until `longest` seconds have passed since the last restart; None is for ever.

    `sleep` is what pauses.
    """

    def __init__(
        self, poll: float, longest: float | None, sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds)
    ) -> None:
        self._poll = poll
        self._sleep = sleep
        self._longest = longest
        self._restart()

    def pause(self, restart: bool = False) -> bool:
        """Sleep; return False, at once, when the time is over."""
        if restart:
            self._restart()
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        self._sleep(min(next(self._pauses), left))
        return True

    def _restart(self) -> None:
        self._pauses = pauses(self._poll)
        self._deadline = math.inf if self._longest is None else time.monotonic() + self._longest
