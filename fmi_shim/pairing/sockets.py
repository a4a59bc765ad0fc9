"""Sockets: bound to ports that several of them share, and polled together."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import time
from collections.abc import Callable, Sequence

HANGUP = getattr(select, "POLLRDHUP", 0)
"""Reports that the other end closed, even behind unread data. Linux has it; elsewhere (macOS) a closed connection is
noticed only if it is waited for, or was reset."""

_UNPACED = b"reno"
"""The congestion control that every Linux has and permits to all users; it never delays a segment by a timer."""

Interest = Sequence[tuple[int, int]]
"""Descriptors, with the poll events to wait for."""
OnEvent = Callable[[int], None]
Wait = Callable[[Interest, float | None], set[int]]
"""Waits for sockets, as `Poller.wait` does."""


def reusable_socket(port: int, host: str = "") -> socket.socket:
    """Return a socket bound to local `port`, which other sockets of this process may share.

    It sends without Nagle's delay: a second small message would wait for the acknowledgement of the first one, which
    the other end delays by 40 ms.

    Parameters
    ----------
    port
        0 takes a free one.
    host
        The local address to bind to; all of them by default.
    """
    fresh = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fresh.bind((host, port))
    except OSError:
        fresh.close()
        raise
    return fresh


def disable_pacing(fresh: socket.socket, address: str) -> None:
    """Disable TCP pacing for the connections of `fresh` if `address`, at either end, is a loopback address.

    Some hosts pace all connections (BBR, as their ``net.ipv4.tcp_congestion_control``). On loopback this gains
    nothing, and took up to half of the processor time of large messages. It must be called before the connection is
    established.
    """
    if ipaddress.ip_address(address).is_loopback:
        with contextlib.suppress(AttributeError, OSError):  # macOS offers no choice, and does not pace
            fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _UNPACED)


class Poller:
    """A poll object that also monitors the connections of a communicator while it waits for some of them.

    Parameters
    ----------
    on_hangup
        Called with the descriptor of a monitored connection that was closed while it was not waited for.
    """

    def __init__(self, on_hangup: OnEvent) -> None:
        self._poll = select.poll()
        self._monitored: dict[int, tuple[int, OnEvent]] = {}
        self._on_hangup = on_hangup

    def add(self, descriptor: int, events: int = HANGUP, on_event: OnEvent | None = None) -> None:
        """Monitor a connection from now on: for its end, or for `events` with a callback of its own."""
        self._monitored[descriptor] = events, on_event or self._on_hangup
        self._poll.register(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Stop monitoring a connection."""
        if self._monitored.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def check(self) -> None:
        """Call back for the monitored connections that have an event now, without waiting."""
        for descriptor, _ in self._poll.poll(0):
            self._notify(descriptor)

    def wait(self, interest: Interest, timeout: float | None) -> set[int]:
        """Wait until a descriptor of `interest` is ready for its events; return the ready ones.

        Parameters
        ----------
        interest
            Descriptors, monitored or not, with the poll events to wait for.
        timeout
            Seconds; None waits without limit. If nothing happens in this time, the result is empty.
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
                    self._notify(descriptor)
                # A rank that closed its communicator is no reason to stop waiting for another one.
                if ready & wanted or not ready:
                    return ready & wanted
        finally:
            for descriptor, _ in interest:
                if descriptor in self._monitored:
                    poll.register(descriptor, self._monitored[descriptor][0])
                else:
                    poll.unregister(descriptor)

    def _notify(self, descriptor: int) -> None:
        if descriptor in self._monitored:  # an earlier callback may have removed it
            self._monitored[descriptor][1](descriptor)
