"""Two ranks meet through a rendezvous server of ours: announced, introduced, then connected.

A meeting listens on a port of its own, announces it, and punches as soon as the server tells where the peer
is. Behind a NAT the server has it open one more connection from that port, to see the port's public address.
Where no direct connection comes about in time, one through the server's relay becomes a further candidate;
the handshake decides between them (see `punching`).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fmi_shim.errors import PeerLostError, PeerTimeoutError
from fmi_shim.pairing.control_connection import ControlLink
from fmi_shim.pairing.deadline import Deadline
from fmi_shim.pairing.hole_punching import Connected, Punch
from fmi_shim.pairing.reconnect import Persistence, ServerLostError, call_server
from rendezvous.protocol import extension
from rendezvous.protocol.extension import Purpose
from rendezvous.protocol.messages import Announce, Introduction, Message, PeerEnded, ProbeRequest
from rendezvous.protocol.waiting import Waiting

DIRECT_SECONDS = 1.5
"""How long only a direct connection is tried once the peer's address is known. Long enough for one SYN that
was lost to be sent again; short enough for the relay to take over within 3 s."""
SUSPICION_SECONDS = 0.2
"""After this time without a sign of the other a rank begins to ask whether they and more wait for each other."""
_RELAY_RETRY_SECONDS = 0.5
_SIDE_SECONDS = 5.0

_START_SECONDS = 0.02
"""How long a rank may take to start where there are many, one after the other."""


def suspicion_seconds(world_size: int) -> float:
    """Return after how long a wait may be part of a circle: ranks of a large world wait while others start."""
    return max(SUSPICION_SECONDS, world_size * _START_SECONDS)


class Home(Protocol):
    """A rank's registration with the server."""

    def link(self, deadline: Deadline, persistence: Persistence) -> ControlLink:
        """Return the control connection, opened anew if there is none that works."""

    def drop(self) -> None:
        """Close the control connection, without a word."""

    def withdraw(self, peer: int) -> None:
        """Tell the server that this rank listens for a peer no longer."""

    def heed(self, message: Message) -> None:
        """Raise what the server has to tell, if it concerns no meeting."""


@dataclass(slots=True)
class Meeting:
    """One rank looking for one other.

    Attributes
    ----------
    home
        Where its connection to the server is from.
    punch
        The way to the other.
    deadline, persistence
        How long, and how stubbornly.
    state
        Tells that this rank does nothing but wait for the other, if that is so.
    """

    home: Home
    punch: Punch
    deadline: Deadline
    persistence: Persistence
    state: Callable[[], Waiting | None]
    suspicious_at: float | None = field(init=False)
    gone: PeerEnded | None = None
    relay_ticket: bytes = b""
    relay_at: float | None = None
    probe: socket.socket | None = None
    _link: ControlLink = field(init=False)

    def run(self, link: ControlLink) -> Connected:
        """Return the connection; see `fmi_shim.pairing.rendezvous_client`."""
        self._link = link
        hello = self.punch.hello
        self.suspicious_at = time.monotonic() + suspicion_seconds(0 if hello is None else hello.world_size)
        self._announce_on(link)
        while True:
            try:
                events = [event for event in (self.relay_at, self.suspicious_at) if event is not None]
                connected, ready = self.punch.step([(self._link.fileno(), select.POLLIN)], min(events, default=None))
            except PeerTimeoutError:
                if self.punch.aimed:
                    raise
                raise self._absent() from None
            if connected is not None:
                return connected
            if self._link.fileno() in ready:
                self._listen()
            if self.gone is not None and not self.punch.engaged:
                raise self._lost(self.gone)
            if self.relay_at is not None and time.monotonic() >= self.relay_at:
                self._relay()
            if self.suspicious_at is not None and time.monotonic() >= self.suspicious_at:
                self._suspect()

    def close(self) -> None:
        """Close what was opened on the way, and tell the server that this meeting is over."""
        self.punch.close()
        if self.probe is not None:
            self.probe.close()
        self.home.withdraw(self.punch.peer)

    def _suspect(self) -> None:
        """Say for whom this rank waits: the server may know of a circle."""
        self.suspicious_at = None
        waiting = None if self.punch.aimed else self.state()
        if waiting is not None:
            with contextlib.suppress(ServerLostError):  # the next message will tell
                self._link.send(waiting)

    def _announce_on(self, link: ControlLink) -> None:
        """Announce this meeting; on a connection that is lost meanwhile, again on the next one."""
        while True:
            self._link = link
            try:
                link.send(Announce(self.punch.peer, self._port))
            except ServerLostError as lost:
                link = self._next_link(lost)
            else:
                return

    def _next_link(self, lost: ServerLostError) -> ControlLink:
        self.home.drop()
        self.persistence.pause(lost, self.punch.wait)
        return self.home.link(self.deadline, self.persistence)

    def _listen(self) -> None:
        try:
            messages = self._link.receive()
        except ServerLostError as lost:
            self._announce_on(self._next_link(lost))
            return
        for message in messages:
            self._take(message)

    def _take(self, message: Message) -> None:
        match message:
            case Introduction(peer, endpoints, ticket) if peer == self.punch.peer:
                self.punch.aim(endpoints)
                self.relay_ticket = ticket
                self.relay_at = time.monotonic() + self._direct_seconds() if any(ticket) else None
            case ProbeRequest(peer, ticket) if peer == self.punch.peer:
                self._probe(ticket)
            case PeerEnded(peer) if peer == self.punch.peer:
                self.gone = message
            case _:
                self.home.heed(message)  # or else about a meeting that is over

    def _direct_seconds(self) -> float:
        """Return how long only a direct connection is tried: of a short time left, half is the relay's."""
        remaining = self.deadline.remaining()
        return DIRECT_SECONDS if remaining is None else min(DIRECT_SECONDS, remaining / 2)

    def _probe(self, ticket: bytes) -> None:
        """Show the server the public address of the port that the peer is to connect to."""
        if self.probe is not None:
            # Closed with a reset, since the same two ports are to be connected again.
            self.probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.probe.close()
        with contextlib.suppress(ServerLostError):  # the control connection will tell, too
            self.probe = self._side_connection(self._port, Purpose.probe, ticket)

    def _relay(self) -> None:
        """Offer a connection through the relay; where it breaks, another one after a pause."""
        self.relay_at = time.monotonic() + _RELAY_RETRY_SECONDS
        if not self.punch.relaying:
            with contextlib.suppress(ServerLostError):  # tried again
                connection = self._side_connection(0, Purpose.relay, self.relay_ticket)
                self.punch.offer_relayed(connection, self._link.address)

    def _side_connection(self, port: int, purpose: Purpose, ticket: bytes) -> socket.socket:
        connection = call_server(self._link.address, Deadline(_SIDE_SECONDS), port, self._link.local.host)
        try:
            connection.sendall(extension.Preamble(purpose, ticket).encode())
        except OSError as error:
            connection.close()
            raise ServerLostError(f"the rendezvous server broke off: {error}") from error
        return connection

    @property
    def _port(self) -> int:
        port: int = self.punch.listener.getsockname()[1]
        return port

    def _lost(self, gone: PeerEnded) -> PeerLostError:
        how = (
            "was lost: its process ended or failed"
            if gone.lost
            else "has left: its program ended, or closed the communicator, too early"
        )
        return PeerLostError(f"{self.punch.purpose()}: rank {gone.peer} {how}", origin=gone.peer)

    def _absent(self) -> PeerTimeoutError:
        punch = self.punch
        return PeerTimeoutError(
            f"{punch.purpose()}: rank {punch.peer} did not come to the rendezvous server {self._link.server} "
            f"within {self.deadline.seconds:g} s: was it started, with the same communicator name, world size and "
            "FMI_JOB?",
            origin=punch.peer,
        )
