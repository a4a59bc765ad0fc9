"""TCP hole punching: connect and listen on one port until a connection to the peer is agreed upon.

Both ends connect to each other, on a new socket at each try, and listen on the same local port. Through
NATs the crossing SYNs open the holes; on loopback and bridges, where nothing is translated, the listener is
what makes it work. (B. Ford, P. Srisuresh, D. Kegel, "Peer-to-Peer Communication Across Network Address
Translators", 2005, section 4.)
"""

from __future__ import annotations

import contextlib
import errno
import random
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fmi_shim.channels.watch import Interest
from fmi_shim.errors import MismatchError, PeerTimeoutError
from fmi_shim.handshake import HELLO_BYTES, Hello, NoHelloError, decode_hello
from rendezvous.protocol import Endpoint

_RETRY_SECONDS = 0.02
"""Mean pause between two tries; each is drawn anew, so that two ends do not miss each other in step."""
_TRY_SECONDS = 1.5
"""A SYN that a NAT swallowed is given up after this time and sent again from a new socket."""

Wait = Callable[[Interest, float | None], set[int]]
"""Waits for sockets, as `Watch.wait` does."""


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


@dataclass(slots=True)
class _Candidate:
    """An open connection that may turn out to be the peer's."""

    connection: socket.socket
    endpoint: Endpoint
    relayed: bool
    heard: bytes = b""


@dataclass(slots=True)
class _Attempt:
    """Tries to connect to one address, one after another, each on a new socket."""

    target: Endpoint
    socket: socket.socket | None = None
    next_event: float = 0.0
    """When the running try is given up or, between tries, when the next one begins."""

    def abandon(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def pause(self, seconds: float) -> None:
        """Give up, and try again after about so long: drawn anew, lest two ends miss each other in step."""
        self.abandon()
        self.next_event = time.monotonic() + seconds * random.uniform(0.5, 1.5)  # noqa: S311 - no secret


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection to the peer, non-blocking and without Nagle's delay."""

    connection: socket.socket
    relayed: bool


@dataclass(slots=True)
class Punch:
    """The connect-and-listen loop.

    Parameters
    ----------
    peer
        Rank at the other end, for the errors.
    purpose
        What this rank is doing, for the errors.
    hello
        What this rank says first in framed mode; None takes the first connection and sends nothing, as the
        original.
    listener
        A listening non-blocking socket on the port that the peer connects to.
    wait, deadline
        How to wait, and until when.
    """

    peer: int
    purpose: str
    hello: Hello | None
    listener: socket.socket
    wait: Wait
    deadline: Deadline
    _attempts: list[_Attempt] = field(default_factory=list)
    _candidates: dict[int, _Candidate] = field(default_factory=dict)
    _last_error: int = 0

    def aim(self, targets: Sequence[Endpoint]) -> None:
        """Try to connect to these addresses from now on, to all at the same time."""
        for attempt in self._attempts:
            attempt.abandon()
        self._attempts = [_Attempt(target) for target in targets]

    @property
    def aimed(self) -> bool:
        """Whether there is an address to connect to."""
        return bool(self._attempts)

    @property
    def relaying(self) -> bool:
        """Whether a connection through the relay is among the candidates."""
        return any(candidate.relayed for candidate in self._candidates.values())

    def offer_relayed(self, connection: socket.socket, server: Endpoint) -> None:
        """Take a connection through the relay for one more candidate; whichever proves to be the peer first wins."""
        self._welcome(connection, server, relayed=True)

    def run(self) -> Connected:
        """Return the connection, as soon as there is one.

        Raises
        ------
        PeerTimeoutError
            If there is none by the deadline.
        MismatchError
            If the rank that came is not the one expected.
        """
        try:
            while True:
                connected, _ = self.step()
                if connected is not None:
                    return connected
        finally:
            self.close()

    def step(self, also: Interest = (), until: float | None = None) -> tuple[Connected | None, set[int]]:
        """Wait for something to happen, and deal with it.

        Parameters
        ----------
        also
            What else to wait for.
        until
            When to return in any case, on the monotonic clock.

        Returns
        -------
        The connection, once one is agreed upon, and which descriptors of `also` are ready.

        Raises
        ------
        PeerTimeoutError
            If the deadline is over.
        MismatchError
            If the rank that came is not the one expected.
        """
        self._attend_attempts()
        if self.hello is None and self._candidates:
            return self._agreed(next(iter(self._candidates.values()))), set()
        ready = self.wait([*also, *self._interest()], self._patience(until))
        if not ready and self.deadline.passed:
            raise PeerTimeoutError(f"{self.purpose}: {self._timeout_text()}", origin=self.peer)
        for attempt in self._attempts:
            if attempt.socket is not None and attempt.socket.fileno() in ready:
                code = attempt.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self._refused(attempt, code) if code else self._connected(attempt)
        if self.listener.fileno() in ready:
            self._accept()
        for descriptor in ready.intersection(self._candidates):
            if self.hello is not None and self._hear(self._candidates[descriptor], self.hello):
                return self._agreed(self._candidates[descriptor]), ready
        return None, ready

    def close(self) -> None:
        """End all tries and close all candidates."""
        self.aim(())
        for candidate in self._candidates.values():
            candidate.connection.close()
        self._candidates.clear()

    def _agreed(self, candidate: _Candidate) -> Connected:
        del self._candidates[candidate.connection.fileno()]
        candidate.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Connected(candidate.connection, candidate.relayed)

    def _interest(self) -> list[tuple[int, int]]:
        interest = [(self.listener.fileno(), select.POLLIN)]
        interest += [(descriptor, select.POLLIN) for descriptor in self._candidates]
        interest += [
            (attempt.socket.fileno(), select.POLLOUT) for attempt in self._attempts if attempt.socket is not None
        ]
        return interest

    def _patience(self, until: float | None) -> float | None:
        events = [attempt.next_event for attempt in self._attempts] + ([] if until is None else [until])
        waits = [max(0.0, event - time.monotonic()) for event in events]
        remaining = self.deadline.remaining()
        return min(waits if remaining is None else [*waits, remaining], default=None)

    def _attend_attempts(self) -> None:
        """Begin tries to connect, and give fruitless ones up, when their time has come."""
        now = time.monotonic()
        for attempt in self._attempts:
            if now < attempt.next_event:
                continue
            attempt.abandon()
            attempt.next_event = now + _TRY_SECONDS
            if any(candidate.endpoint == attempt.target for candidate in self._candidates.values()):
                continue  # connected; it is up to the handshake now
            self._begin(attempt)

    def _begin(self, attempt: _Attempt) -> None:
        host, port = self.listener.getsockname()
        attempt.socket = reusable_socket(port, host)
        attempt.socket.setblocking(False)
        code = attempt.socket.connect_ex((attempt.target.host, attempt.target.port))
        if code == 0:
            self._connected(attempt)
        elif code != errno.EINPROGRESS:
            self._refused(attempt, code)

    def _refused(self, attempt: _Attempt, code: int) -> None:
        self._last_error = code
        attempt.pause(_RETRY_SECONDS)

    def _connected(self, attempt: _Attempt) -> None:
        assert attempt.socket is not None  # noqa: S101 - only called on a running try
        connection, attempt.socket = attempt.socket, None
        self._welcome(connection, attempt.target)

    def _welcome(self, connection: socket.socket, endpoint: Endpoint, relayed: bool = False) -> None:
        connection.setblocking(False)
        self._candidates[connection.fileno()] = _Candidate(connection, endpoint, relayed)
        hello = self.hello
        if hello is not None and hello.sender < hello.receiver:
            with contextlib.suppress(OSError):  # broken already: reading from it will tell
                connection.send(hello.encode())

    def _accept(self) -> None:
        try:
            connection, address = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self._welcome(connection, Endpoint(*address))

    def _hear(self, candidate: _Candidate, hello: Hello) -> bool:
        """Read from a candidate; return whether it has proved to be the peer."""
        try:
            data = candidate.connection.recv(HELLO_BYTES - len(candidate.heard))
            candidate.heard += data
            other = decode_hello(candidate.heard)
        except BlockingIOError:
            return False
        except NoHelloError as error:
            if any(candidate.endpoint == attempt.target for attempt in self._attempts):
                raise MismatchError(
                    f"rank {hello.receiver} at {candidate.endpoint} does not run in framed mode as rank "
                    f"{hello.sender} does ({error}): set FMI_FRAMED or backends.Direct.framed alike on all ranks"
                ) from None
            self._drop(candidate)
            return False
        except OSError:
            self._drop(candidate)
            return False
        if other is None:
            if not data:
                self._drop(candidate)
            return False
        objection = hello.objection(other)
        if hello.sender > hello.receiver or objection:
            candidate.connection.send(hello.encode())
        if objection:
            raise MismatchError(objection)
        return True

    def _drop(self, candidate: _Candidate) -> None:
        del self._candidates[candidate.connection.fileno()]
        candidate.connection.close()
        for attempt in self._attempts:
            if attempt.target == candidate.endpoint:
                attempt.pause(_RETRY_SECONDS)

    def _timeout_text(self) -> str:
        limit = f"within {self.deadline.seconds:g} s"
        at = " or ".join(str(attempt.target) for attempt in self._attempts)
        if self._candidates:
            return f"rank {self.peer} at {at} was reached but said nothing {limit}: is it stopped?"
        code = self._last_error
        why = f" (last error: {errno.errorcode.get(code, code)})" if code else ""
        return f"no direct connection to rank {self.peer} at {at} {limit}{why}: ended, or firewalled?"
