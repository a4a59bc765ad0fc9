"""Waiting for some sockets while keeping an eye on all the others."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence

HANGUP = getattr(select, "POLLRDHUP", 0)
"""Reports that the other end closed, even behind unread data. Linux has it; elsewhere (macOS) a loss is noticed
only on the connections that are waited for, and on those that are reset."""

Interest = Sequence[tuple[int, int]]


class Watch:
    """A poll object that always watches the connections of a communicator for their end.

    Parameters
    ----------
    on_hangup
        Called with the descriptor of a watched connection that ended while it was not waited for.
    """

    def __init__(self, on_hangup: Callable[[int], None]) -> None:
        self._poll = select.poll()
        self._watched: set[int] = set()
        self._on_hangup = on_hangup

    def add(self, descriptor: int) -> None:
        """Watch a connection from now on."""
        self._watched.add(descriptor)
        self._poll.register(descriptor, HANGUP)

    def remove(self, descriptor: int) -> None:
        """Watch a connection no longer."""
        if descriptor in self._watched:
            self._watched.discard(descriptor)
            self._poll.unregister(descriptor)

    def look(self) -> None:
        """Report the watched connections that have ended by now, without waiting."""
        for descriptor, _ in self._poll.poll(0):
            self._on_hangup(descriptor)

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
                    self._on_hangup(descriptor)
                # A rank that left in peace is no reason to stop waiting for another.
                if ready & wanted or not ready:
                    return ready & wanted
        finally:
            for descriptor, _ in interest:
                if descriptor in self._watched:
                    poll.register(descriptor, HANGUP)
                else:
                    poll.unregister(descriptor)
