"""TCP hole punching: connect and listen on one port until a connection to the peer is agreed upon.

Both ends connect to each other, on a new socket at each try, and listen on the same local port. Through
NATs the crossing SYNs open the holes; on loopback and bridges, where nothing is translated, the listener is
what makes it work. (B. Ford, P. Srisuresh, D. Kegel, "Peer-to-Peer Communication Across Network Address
Translators", 2005, section 4.)
"""

from __future__ import annotations

import errno
import random
import select
import socket
import time
from collections.abc import Callable
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


def reusable_socket(port: int) -> socket.socket:
    """Return a socket on local `port`, which others of this process may share; 0 takes a free one."""
    fresh = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        fresh.bind(("", port))
    except OSError:
        fresh.close()
        raise
    return fresh


@dataclass(slots=True)
class _Candidate:
    """An open connection that may turn out to be the peer's."""

    connection: socket.socket
    endpoint: Endpoint
    heard: bytes = b""


@dataclass(slots=True)
class Punch:
    """The connect-and-listen loop.

    Parameters
    ----------
    peer
        Rank at the other end, for the errors.
    purpose
        What this rank is doing, for the errors.
    target
        The peer's public endpoint.
    hello
        What this rank says first in framed mode; None takes the first connection and sends nothing, as the
        original.
    listener
        A listening non-blocking socket on the port that the peer connects to.
    wait, deadline
        How to wait, and until when.
    """

    peer: int
    target: Endpoint
    purpose: str
    hello: Hello | None
    listener: socket.socket
    wait: Wait
    deadline: Deadline
    candidates: dict[int, _Candidate] = field(default_factory=dict)
    attempt: socket.socket | None = None
    next_event: float = 0.0
    """When the running attempt is given up or, between attempts, when the next one begins."""
    last_error: int = 0

    def run(self) -> socket.socket:
        """Return the connection, non-blocking and without Nagle's delay.

        Raises
        ------
        PeerTimeoutError
            If there is none by the deadline.
        MismatchError
            If the rank that came is not the one expected.
        """
        try:
            while True:
                self._attend_attempt()
                winner = self._step()
                if winner is not None:
                    self.candidates.pop(winner.fileno(), None)
                    winner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return winner
        finally:
            self._abandon_attempt()
            for candidate in self.candidates.values():
                candidate.connection.close()

    def _attend_attempt(self) -> None:
        """Begin a try to connect, or give a fruitless one up, when its time has come."""
        now = time.monotonic()
        if now < self.next_event:
            return
        self._abandon_attempt()
        if any(candidate.endpoint == self.target for candidate in self.candidates.values()):
            self.next_event = now + _TRY_SECONDS  # connected; it is up to the handshake now
            return
        attempt = reusable_socket(self.listener.getsockname()[1])
        attempt.setblocking(False)
        code = attempt.connect_ex((self.target.host, self.target.port))
        self.attempt = attempt
        self.next_event = now + _TRY_SECONDS
        if code == 0:
            self._connected()
        elif code != errno.EINPROGRESS:
            self._refused(code)

    def _abandon_attempt(self) -> None:
        if self.attempt is not None:
            self.attempt.close()
            self.attempt = None

    def _refused(self, code: int) -> None:
        self.last_error = code
        self._abandon_attempt()
        self.next_event = time.monotonic() + _RETRY_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311 - no secret

    def _connected(self) -> None:
        assert self.attempt is not None  # noqa: S101 - only called on a running attempt
        connection, self.attempt = self.attempt, None
        self._welcome(connection, self.target)

    def _welcome(self, connection: socket.socket, endpoint: Endpoint) -> None:
        connection.setblocking(False)
        self.candidates[connection.fileno()] = _Candidate(connection, endpoint)
        hello = self.hello
        if hello is not None and hello.sender < hello.receiver:
            connection.send(hello.encode())

    def _step(self) -> socket.socket | None:
        """Wait for something to happen and deal with it; return the connection that was agreed upon."""
        if self.hello is None and self.candidates:
            return next(iter(self.candidates.values())).connection
        interest = [(self.listener.fileno(), select.POLLIN)]
        interest += [(descriptor, select.POLLIN) for descriptor in self.candidates]
        if self.attempt is not None:
            interest.append((self.attempt.fileno(), select.POLLOUT))
        until_event = max(0.0, self.next_event - time.monotonic())
        remaining = self.deadline.remaining()
        ready = self.wait(interest, until_event if remaining is None else min(until_event, remaining))
        if not ready and self.deadline.passed:
            raise PeerTimeoutError(f"{self.purpose}: {self._timeout_text()}", origin=self.peer)
        if self.attempt is not None and self.attempt.fileno() in ready:
            code = self.attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._refused(code) if code else self._connected()
        if self.listener.fileno() in ready:
            self._accept()
        for descriptor in ready.intersection(self.candidates):
            if self.hello is not None and self._hear(self.candidates[descriptor], self.hello):
                return self.candidates[descriptor].connection
        return None

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
            if candidate.endpoint == self.target:
                raise MismatchError(
                    f"rank {hello.receiver} at {self.target} does not run in framed mode as rank {hello.sender} "
                    f"does ({error}): set FMI_FRAMED or backends.Direct.framed alike on all ranks"
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
        if hello.sender > hello.receiver or hello.objection(other):
            candidate.connection.send(hello.encode())
        objection = hello.objection(other)
        if objection:
            raise MismatchError(objection)
        return True

    def _drop(self, candidate: _Candidate) -> None:
        del self.candidates[candidate.connection.fileno()]
        candidate.connection.close()
        self.next_event = min(self.next_event, time.monotonic() + _RETRY_SECONDS)

    def _timeout_text(self) -> str:
        limit = f"within {self.deadline.seconds:g} s"
        if self.candidates:
            return f"rank {self.peer} at {self.target} was reached but said nothing {limit}: is it stopped?"
        why = f" (last error: {errno.errorcode.get(self.last_error, self.last_error)})" if self.last_error else ""
        return f"no direct connection to rank {self.peer} at {self.target} {limit}{why}: ended, or firewalled?"
