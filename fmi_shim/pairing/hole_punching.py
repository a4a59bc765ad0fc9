"""TCP hole punching: connect and listen on one port until a connection to the peer is agreed upon.

Both ends connect to each other, on a new socket at each try, and listen on the same local port. Through
NATs the crossing SYNs open the holes; on loopback and bridges, where nothing is translated, the listener is
what makes it work. (B. Ford, P. Srisuresh, D. Kegel, "Peer-to-Peer Communication Across Network Address
Translators", 2005, section 4.)
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fmi_shim.errors import MismatchError, PeerTimeoutError
from fmi_shim.pairing.connect_attempts import Attempt
from fmi_shim.pairing.deadline import Deadline
from fmi_shim.pairing.handshake import HELLO_BYTES, Hello, NoHelloError, decode_hello
from fmi_shim.pairing.poller import Interest
from rendezvous.protocol import Endpoint

Wait = Callable[[Interest, float | None], set[int]]
"""Waits for sockets, as `Watch.wait` does."""


@dataclass(slots=True)
class _Candidate:
    """An open connection that may turn out to be the peer's."""

    connection: socket.socket
    endpoint: Endpoint
    relayed: bool
    heard: bytes = b""


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
        Tells what this rank is doing, for the errors.
    hello
        What this rank says first in framed mode; None takes the first connection and sends nothing, as the
        original.
    listener
        A listening non-blocking socket on the port that the peer connects to.
    wait, deadline
        How to wait, and until when.
    """

    peer: int
    purpose: Callable[[], str]
    hello: Hello | None
    listener: socket.socket
    wait: Wait
    deadline: Deadline
    _attempts: list[Attempt] = field(default_factory=list)
    _candidates: dict[int, _Candidate] = field(default_factory=dict)

    def aim(self, targets: Sequence[Endpoint]) -> None:
        """Try to connect to these addresses from now on, to all at the same time."""
        for attempt in self._attempts:
            attempt.abandon()
        local = Endpoint(*self.listener.getsockname())
        self._attempts = [Attempt(target, local) for target in targets]

    @property
    def aimed(self) -> bool:
        """Whether there is an address to connect to."""
        return bool(self._attempts)

    @property
    def engaged(self) -> bool:
        """Whether there is a connection that may turn out to be the peer's."""
        return bool(self._candidates)

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
            raise PeerTimeoutError(f"{self.purpose()}: {self._timeout_text()}", origin=self.peer)
        for attempt in self._attempts:
            if attempt.running is not None and attempt.running.fileno() in ready:
                self._welcome(attempt.finish(), attempt.target)
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
            (attempt.running.fileno(), select.POLLOUT) for attempt in self._attempts if attempt.running is not None
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
            # Once connected, it is up to the handshake.
            if attempt.due(now) and all(known.endpoint != attempt.target for known in self._candidates.values()):
                self._welcome(attempt.begin(), attempt.target)

    def _welcome(self, connection: socket.socket | None, endpoint: Endpoint, relayed: bool = False) -> None:
        """Take a connection, if there is one, for a candidate."""
        if connection is None:
            return
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
                attempt.pause()

    def _timeout_text(self) -> str:
        limit = f"within {self.deadline.seconds:g} s"
        at = " or ".join(str(attempt.target) for attempt in self._attempts)
        if self._candidates:
            return f"rank {self.peer} at {at} was reached but said nothing {limit}: is it stopped?"
        code = next((attempt.last_error for attempt in self._attempts if attempt.last_error), 0)
        why = f" (last error: {errno.errorcode.get(code, code)})" if code else ""
        return f"no direct connection to rank {self.peer} at {at} {limit}{why}: ended, or firewalled?"
