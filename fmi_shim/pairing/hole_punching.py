"""TCP hole punching: connect and listen on one port until a connection to the peer is established and identified.

Both ends connect to each other, with a new socket for each attempt, and listen on the same local port. Through NATs
the crossing SYNs open the holes. On loopback and bridges, where nothing is translated, the listener makes it work.
(B. Ford, P. Srisuresh, D. Kegel, "Peer-to-Peer Communication Across Network Address Translators", 2005, section 4.)
"""

from __future__ import annotations

import contextlib
import errno
import math
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fmi_shim.backoff import Deadline, jitter
from fmi_shim.errors import MismatchError, PeerTimeoutError
from fmi_shim.pairing import timing
from fmi_shim.pairing.handshake import PEER_HELLO_BYTES, InvalidHelloError, PeerHello, decode_peer_hello
from fmi_shim.pairing.sockets import Interest, Wait, disable_pacing, reusable_socket
from rendezvous.protocol import Endpoint


@dataclass(slots=True)
class ConnectAttempts:
    """Repeated attempts to connect to one address, each on a new socket.

    Attributes
    ----------
    target
        The address.
    local
        The listener's address, from which all attempts are made.
    running
        The running attempt's socket, None between two.
    next_event
        When the running attempt is cancelled or, between attempts, when the next one starts; on the monotonic clock.
    last_error
        Why the last attempt failed, an ``errno``, 0 if none did.
    """

    target: Endpoint
    local: Endpoint
    running: socket.socket | None = None
    next_event: float = 0.0
    last_error: int = 0

    def due(self, now: float) -> bool:
        """Return whether a new attempt should start; then the running one is cancelled."""
        if now < self.next_event:
            return False
        self.cancel()
        self.next_event = now + timing.CONNECT_ATTEMPT
        return True

    def start(self) -> socket.socket | None:
        """Start an attempt; return the connection if it is established at once."""
        self.running = reusable_socket(self.local.port, self.local.host)
        self.running.setblocking(False)
        disable_pacing(self.running, self.target.host)
        return self._outcome(self.running.connect_ex((self.target.host, self.target.port)))

    def finish(self) -> socket.socket | None:
        """Return the connection of the running attempt, which the kernel has completed; None if it failed."""
        assert self.running is not None  # noqa: S101 - it was waited for
        return self._outcome(self.running.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def cancel(self) -> None:
        """Close the running attempt's socket."""
        if self.running is not None:
            self.running.close()
            self.running = None

    def retry_later(self) -> None:
        """Cancel the running attempt and start another one after a random pause."""
        self.cancel()
        self.next_event = time.monotonic() + jitter(timing.CONNECT_RETRY, 0.5, 1.5)

    def _outcome(self, code: int) -> socket.socket | None:
        if code == errno.EINPROGRESS:
            return None
        if code:
            self.last_error = code
            self.retry_later()
            return None
        connection, self.running = self.running, None
        return connection


@dataclass(slots=True)
class _Candidate:
    """An open connection that may lead to the peer."""

    connection: socket.socket
    endpoint: Endpoint
    relayed: bool
    received: bytes = b""


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection to the peer, non-blocking and without Nagle's delay."""

    connection: socket.socket
    relayed: bool


@dataclass(slots=True)
class HolePunch:
    """The connect-and-listen loop.

    Parameters
    ----------
    peer
        Rank at the other end, for the errors.
    purpose
        Returns what this rank is doing, for the errors.
    hello
        What this rank sends first in framed mode. None accepts the first connection and sends nothing, as the
        original does.
    listener
        A listening non-blocking socket on the port that the peer connects to.
    wait, deadline
        How to wait, and until when.
    """

    peer: int
    purpose: Callable[[], str]
    hello: PeerHello | None
    listener: socket.socket
    wait: Wait
    deadline: Deadline
    _attempts: list[ConnectAttempts] = field(default_factory=list)
    _candidates: dict[int, _Candidate] = field(default_factory=dict)
    _relay_closed: bool = False

    def connect_to(self, targets: Sequence[Endpoint]) -> None:
        """Try to connect to these addresses from now on, to all at the same time."""
        for attempts in self._attempts:
            attempts.cancel()
        local = Endpoint(*self.listener.getsockname())
        self._attempts = [ConnectAttempts(target, local) for target in targets]

    @property
    def has_target(self) -> bool:
        """Whether there is an address to connect to."""
        return bool(self._attempts)

    @property
    def has_candidate(self) -> bool:
        """Whether there is a connection that may lead to the peer."""
        return bool(self._candidates)

    @property
    def has_relayed_candidate(self) -> bool:
        """Whether a connection through the relay is among the candidates."""
        return any(candidate.relayed for candidate in self._candidates.values())

    def add_relayed(self, connection: socket.socket, server: Endpoint) -> None:
        """Add a connection through the relay to the candidates; the first one that the peer answers on is used."""
        self._add_candidate(connection, server, relayed=True)

    def run(self) -> Connected:
        """Return the connection as soon as there is one.

        Raises
        ------
        PeerTimeoutError
            If there is none by the deadline.
        MismatchError
            If another rank than the expected one is connected.
        """
        try:
            while True:
                connected, _ = self.step()
                if connected is not None:
                    return connected
        finally:
            self.close()

    def step(self, also: Interest = (), until: float = math.inf) -> tuple[Connected | None, set[int]]:
        """Wait for an event and handle it.

        Parameters
        ----------
        also
            What else to wait for.
        until
            When to return in any case, on the monotonic clock.

        Returns
        -------
        The connection, once one is selected, and which descriptors of `also` are ready.

        Raises
        ------
        PeerTimeoutError
            If the deadline is over.
        MismatchError
            If another rank than the expected one is connected.
        """
        self._start_attempts()
        if self.hello is None and self._candidates:
            return self._select(next(iter(self._candidates.values()))), set()
        ready = self.wait([*also, *self._interest()], self._poll_seconds(until))
        if not ready and time.monotonic() >= self.deadline.end:
            raise PeerTimeoutError(f"{self.purpose()}: {self._timeout_text()}", origin=self.peer)
        for attempts in self._attempts:
            if attempts.running is not None and attempts.running.fileno() in ready:
                self._add_candidate(attempts.finish(), attempts.target)
        if self.listener.fileno() in ready:
            self._accept()
        for descriptor in ready.intersection(self._candidates):
            if self.hello is not None and self._read_hello(self._candidates[descriptor], self.hello):
                return self._select(self._candidates[descriptor]), ready
        return None, ready

    def close(self) -> None:
        """Cancel all attempts and close all candidates."""
        self.connect_to(())
        for candidate in self._candidates.values():
            candidate.connection.close()
        self._candidates.clear()

    def _select(self, candidate: _Candidate) -> Connected:
        del self._candidates[candidate.connection.fileno()]
        candidate.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Connected(candidate.connection, candidate.relayed)

    def _interest(self) -> list[tuple[int, int]]:
        interest = [(self.listener.fileno(), select.POLLIN)]
        interest += [(descriptor, select.POLLIN) for descriptor in self._candidates]
        interest += [
            (attempts.running.fileno(), select.POLLOUT) for attempts in self._attempts if attempts.running is not None
        ]
        return interest

    def _poll_seconds(self, until: float) -> float | None:
        event = min([attempts.next_event for attempts in self._attempts] + [until, self.deadline.end])
        return None if event == math.inf else max(0.0, event - time.monotonic())

    def _start_attempts(self) -> None:
        """Start the attempts that are due, and cancel those that took too long."""
        now = time.monotonic()
        for attempts in self._attempts:
            # Once connected, the handshake decides.
            if attempts.due(now) and all(known.endpoint != attempts.target for known in self._candidates.values()):
                self._add_candidate(attempts.start(), attempts.target)

    def _add_candidate(self, connection: socket.socket | None, endpoint: Endpoint, relayed: bool = False) -> None:
        """Add a connection, if there is one, to the candidates."""
        if connection is None:
            return
        connection.setblocking(False)
        self._candidates[connection.fileno()] = _Candidate(connection, endpoint, relayed)
        hello = self.hello
        if hello is not None and hello.sender < hello.receiver:
            with contextlib.suppress(OSError):  # broken already: reading from it will raise
                connection.send(hello.encode())

    def _accept(self) -> None:
        try:
            connection, address = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self._add_candidate(connection, Endpoint(*address))

    def _read_hello(self, candidate: _Candidate, hello: PeerHello) -> bool:
        """Read from a candidate; return whether it leads to the peer."""
        try:
            data = candidate.connection.recv(PEER_HELLO_BYTES - len(candidate.received))
            candidate.received += data
            reply = decode_peer_hello(candidate.received)
        except BlockingIOError:
            return False
        except InvalidHelloError as error:
            if any(candidate.endpoint == attempts.target for attempts in self._attempts):
                raise MismatchError(
                    f"rank {hello.receiver} at {candidate.endpoint} does not run in framed mode as rank "
                    f"{hello.sender} does ({error}): set FMI_FRAMED or backends.Direct.framed alike on all ranks"
                ) from None
            self._drop(candidate)
            return False
        except OSError:
            self._drop(candidate)
            return False
        if reply is None:
            if not data:
                self._drop(candidate)
            return False
        mismatch = hello.mismatch(reply)
        if hello.sender > hello.receiver or mismatch:
            candidate.connection.send(hello.encode())
        if mismatch:
            raise MismatchError(mismatch)
        return True

    def _drop(self, candidate: _Candidate) -> None:
        self._relay_closed |= candidate.relayed
        del self._candidates[candidate.connection.fileno()]
        candidate.connection.close()
        for attempts in self._attempts:
            if attempts.target == candidate.endpoint:
                attempts.retry_later()

    def _timeout_text(self) -> str:
        limit = f"within {self.deadline.elapsed}"
        at = " or ".join(str(attempts.target) for attempts in self._attempts)
        if self._candidates:
            return f"rank {self.peer} at {at} was connected but sent nothing {limit}: check that it is not stopped"
        code = next((attempts.last_error for attempts in self._attempts if attempts.last_error), 0)
        why = f" (last error: {errno.errorcode.get(code, code)})" if code else ""
        relay = "; the server closed its relay's connections: its limit is --max-relays" if self._relay_closed else ""
        return (
            f"no direct connection to rank {self.peer} at {at} {limit}{why}: check that it still runs, and that no "
            f"firewall is between{relay}"
        )
