"""By when a wait must be over."""

from __future__ import annotations

import time


class Deadline:
    """An instant by which a wait must be over; None seconds never come to an end."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Return the seconds left, at least 0, or None."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the instant is over."""
        return self._end is not None and time.monotonic() >= self._end
