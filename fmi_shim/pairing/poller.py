"""Waiting for some sockets while keeping an eye on all the others."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence

HANGUP = getattr(select, "POLLRDHUP", 0)
"""Reports that the other end closed, even behind unread data. Linux has it; elsewhere (macOS) a loss is noticed
only on the connections that are waited for, and on those that are reset."""

Interest = Sequence[tuple[int, int]]


Report = Callable[[int], None]


class Watch:
    """A poll object that always watches the connections of a communicator for their end.

    Parameters
    ----------
    on_hangup
        Called with the descriptor of a watched connection that ended while it was not waited for.
    """

    def __init__(self, on_hangup: Report) -> None:
        self._poll = select.poll()
        self._watched: dict[int, tuple[int, Report]] = {}
        self._on_hangup = on_hangup

    def add(self, descriptor: int, events: int = HANGUP, report: Report | None = None) -> None:
        """Watch a connection from now on, for its end, or for `events` with a `report` of its own."""
        self._watched[descriptor] = events, report or self._on_hangup
        self._poll.register(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Watch a connection no longer."""
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def look(self) -> None:
        """Report the watched connections that have ended by now, without waiting."""
        for descriptor, _ in self._poll.poll(0):
            self._report(descriptor)

    def wait(self, interest: Interest, timeout: float | None) -> set[int]:
        """Wait until a descriptor of `interest` is ready for its events; return the ready ones.

        Parameters
        ----------
        interest
            Descriptors, watched or not, with the poll events to wait for.
        timeout
            Seconds; None waits for ever. When nothing happens for so long, the result is empty.
        """
        poll = self._poll
        for descriptor, events in interest:
            poll.register(descriptor, events)
        deadline = None if timeout is None else time.monotonic() + timeout
        wanted = {descriptor for descriptor, _ in interest}
        try:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
                ready = {descriptor for descriptor, _ in poll.poll(left)}
                for descriptor in ready - wanted:
                    self._report(descriptor)
                # A rank that left in peace is no reason to stop waiting for another.
                if ready & wanted or not ready:
                    return ready & wanted
        finally:
            for descriptor, _ in interest:
                if descriptor in self._watched:
                    poll.register(descriptor, self._watched[descriptor][0])
                else:
                    poll.unregister(descriptor)

    def _report(self, descriptor: int) -> None:
        if descriptor in self._watched:  # an earlier report may have ended the watch
            self._watched[descriptor][1](descriptor)
