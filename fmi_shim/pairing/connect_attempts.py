"""Tries to connect to one address from a port that is shared with a listener."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import random
import socket
import time
from dataclasses import dataclass

from rendezvous.protocol import Endpoint

_RETRY_SECONDS = 0.02
"""Mean pause between two tries; each is drawn anew, so that two ends do not miss each other in step."""
_TRY_SECONDS = 1.5
"""A SYN that a NAT swallowed is given up after this time and sent again from a new socket."""

_UNPACED = b"reno"
"""The congestion control that every Linux has, and lets everybody choose; it never waits for a timer to send."""


def reusable_socket(port: int, host: str = "") -> socket.socket:
    """Return a socket on local `port`, which others of this process may share; 0 takes a free one.

    `host` is the local address to bind to, all of them by default.
    """
    fresh = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        fresh.bind((host, port))
    except OSError:
        fresh.close()
        raise
    return fresh


def disable_pacing(fresh: socket.socket, address: str) -> None:
    """Have what `fresh` will connect to or accept sent without pauses, if it is through loopback's `address`.

    Some hosts pace all connections (BBR, as their ``net.ipv4.tcp_congestion_control``), which loopback has no use for:
    it took up to half of large messages' processor time. A connection that stands is paced to its end.
    """
    if ipaddress.ip_address(address).is_loopback:
        with contextlib.suppress(AttributeError, OSError):  # macOS has no choice, and no pacing
            fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _UNPACED)


@dataclass(slots=True)
class Attempt:
    """Tries to connect to one address, one after another, each on a new socket.

    Attributes
    ----------
    target
        The address.
    local
        The listener's address, from which all tries go out.
    running
        The running try's socket, None between two.
    next_event
        When the running try is given up or, between tries, when the next one begins; on the monotonic clock.
    last_error
        Why the last try failed, an ``errno``, 0 if none did.
    """

    target: Endpoint
    local: Endpoint
    running: socket.socket | None = None
    next_event: float = 0.0
    last_error: int = 0

    def due(self, now: float) -> bool:
        """Whether the next event's time has come; the running try is given up, and a new one gets its time."""
        if now < self.next_event:
            return False
        self.abandon()
        self.next_event = now + _TRY_SECONDS
        return True

    def begin(self) -> socket.socket | None:
        """Begin a try; return the connection if it stands at once."""
        self.running = reusable_socket(self.local.port, self.local.host)
        self.running.setblocking(False)
        disable_pacing(self.running, self.target.host)
        return self._outcome(self.running.connect_ex((self.target.host, self.target.port)))

    def finish(self) -> socket.socket | None:
        """Return the connection of the running try, which the kernel has decided; None if it failed."""
        assert self.running is not None  # noqa: S101 - it was waited for
        return self._outcome(self.running.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def abandon(self) -> None:
        """Give the running try up."""
        if self.running is not None:
            self.running.close()
            self.running = None

    def pause(self) -> None:
        """Give up, and try again after a while: drawn anew, lest two ends miss each other in step."""
        self.abandon()
        self.next_event = time.monotonic() + _RETRY_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311 - no secret

    def _outcome(self, code: int) -> socket.socket | None:
        if code == errno.EINPROGRESS:
            return None
        if code:
            self.last_error = code
            self.pause()
            return None
        connection, self.running = self.running, None
        return connection
