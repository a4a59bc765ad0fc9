"""How a framed rank meets others through a rendezvous server of ours: one control connection for all of them.

A meeting listens on a port of its own, announces it, and punches as soon as the server tells where the peer
is. Behind a NAT the server has it open one more connection from that port, to see the port's public address.
Where no direct connection comes about in time, one through the server's relay becomes a further candidate;
the handshake decides between them (see `punching`).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fmi_shim.access import Access
from fmi_shim.attempts import reusable_socket
from fmi_shim.control_link import ControlLink
from fmi_shim.deadline import Deadline
from fmi_shim.errors import FmiError, PeerTimeoutError
from fmi_shim.handshake import Hello
from fmi_shim.persistence import Persistence, ServerLostError, call_server
from fmi_shim.punching import Connected, Punch, Wait
from rendezvous.protocol import Endpoint, extension
from rendezvous.protocol.extension import Purpose
from rendezvous.protocol.messages import (
    INSTANCE_BYTES,
    Abort,
    Announce,
    Introduction,
    Message,
    ProbeRequest,
    Registration,
    Withdraw,
)

_log = logging.getLogger("fmi_shim")

DIRECT_SECONDS = 1.5
"""How long only a direct connection is tried once the peer's address is known. Long enough for one SYN that
was lost to be sent again; short enough for the relay to take over within 3 s."""
_RELAY_RETRY_SECONDS = 0.5
_SIDE_SECONDS = 5.0

OnAbort = Callable[[Abort], FmiError]
"""Makes the error that an abort of another rank is."""


class RendezvousClient:
    """A rank's registration with the server, taken out at its first meeting and renewed when it is lost.

    Parameters
    ----------
    server
        The rendezvous server.
    access
        Job, secret and certificate.
    comm_name, rank, world_size
        The communicator's.
    on_abort
        See `OnAbort`.
    """

    def __init__(
        self, server: Endpoint, access: Access, comm_name: str, rank: int, world_size: int, on_abort: OnAbort
    ) -> None:
        self._server = server
        self._access = access
        self._comm_name = comm_name
        self._rank = rank
        self._world_size = world_size
        self._on_abort = on_abort
        self._instance = secrets.token_bytes(INSTANCE_BYTES)
        self._link: ControlLink | None = None
        self._known = False

    def meet(self, hello: Hello, purpose: Callable[[], str], wait: Wait, max_timeout: float | None) -> socket.socket:
        """Return a non-blocking connection to the rank that `hello` is for.

        Parameters
        ----------
        purpose
            Tells what this rank is doing, for the errors.
        wait
            How to wait, as `Watch.wait` does.
        max_timeout
            Seconds for all of it, None for no limit.

        Raises
        ------
        RendezvousError
            If the server cannot be reached or refuses this rank; `ForeignServerError` if it is of another kind.
        PeerTimeoutError
            If the peer does not come, or cannot be reached, in time.
        MismatchError
            If the rank that came, or the job, is not the one expected.
        FmiError
            If another rank has given up.
        """
        deadline = Deadline(max_timeout)
        persistence = Persistence(deadline, self._known)
        link = self.link(deadline, persistence, wait)
        with reusable_socket(0, link.local.host) as listener:
            listener.setblocking(False)
            listener.listen()
            punch = Punch(hello.receiver, purpose, hello, listener, wait, deadline)
            meeting = _Meeting(self, punch, deadline, persistence, self._on_abort)
            try:
                connected = meeting.run(link)
            finally:
                meeting.close()
        if connected.relayed:
            report_relayed(self._rank, hello.receiver, str(self._server))
        return connected.connection

    @property
    def demanding(self) -> bool:
        """Whether a server of another kind will not do."""
        return bool(self._access.secret or self._access.certificate)

    def abort(self, abort: Abort) -> None:
        """Have the server tell all other ranks; without a server, those that are connected will have to do."""
        if self._link is not None:
            with contextlib.suppress(ServerLostError):
                self._link.send(abort)

    def close(self) -> None:
        """Leave the job."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def link(self, deadline: Deadline, persistence: Persistence, wait: Wait) -> ControlLink:
        """Return the control connection, opened anew if there is none that works."""
        while True:
            try:
                if self._link is None:
                    self._link = ControlLink(self._server, self._access, self._registration, deadline)
                    self._known = True
                    persistence.answered()
            except ServerLostError as lost:
                persistence.pause(lost, wait)
            else:
                return self._link

    def withdraw(self, peer: int) -> None:
        """Tell the server that this rank listens for a peer no longer."""
        if self._link is not None:
            try:
                self._link.send(Withdraw(peer))
            except ServerLostError:
                self.close()

    def _registration(self, local: Endpoint) -> Registration:
        return Registration(self._access.job, self._comm_name, self._rank, self._world_size, self._instance, local)


def report_relayed(rank: int, peer: int, server: str) -> None:
    """Warn that two ranks are connected through the relay; the emulator's summary looks for this line."""
    _log.warning(
        "rank %d and rank %d are connected through the relay of the rendezvous server %s: "
        "no direct connection came about",
        rank,
        peer,
        server,
    )


@dataclass(slots=True)
class _Meeting:
    """One rank looking for one other."""

    client: RendezvousClient
    punch: Punch
    deadline: Deadline
    persistence: Persistence
    on_abort: OnAbort
    relay_ticket: bytes = b""
    relay_at: float | None = None
    probe: socket.socket | None = None
    _link: ControlLink = field(init=False)

    def run(self, link: ControlLink) -> Connected:
        """Return the connection; see `RendezvousClient.meet`."""
        self._link = link
        self._announce_on(link)
        while True:
            try:
                connected, ready = self.punch.step([(self._link.fileno(), select.POLLIN)], self.relay_at)
            except PeerTimeoutError:
                if self.punch.aimed:
                    raise
                raise self._absent() from None
            if connected is not None:
                return connected
            if self._link.fileno() in ready:
                self._listen()
            if self.relay_at is not None and time.monotonic() >= self.relay_at:
                self._relay()

    def close(self) -> None:
        """Close what was opened on the way, and tell the server that this meeting is over."""
        self.punch.close()
        if self.probe is not None:
            self.probe.close()
        self.client.withdraw(self.punch.peer)

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
        self.client.close()
        self.persistence.pause(lost, self.punch.wait)
        return self.client.link(self.deadline, self.persistence, self.punch.wait)

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
            case Abort():
                raise self.on_abort(message)
            case _:
                pass  # about a meeting that is over

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
            connection.sendall(extension.Hello(purpose, ticket).encode())
        except OSError as error:
            connection.close()
            raise ServerLostError(f"the rendezvous server broke off: {error}") from error
        return connection

    @property
    def _port(self) -> int:
        port: int = self.punch.listener.getsockname()[1]
        return port

    def _absent(self) -> PeerTimeoutError:
        punch = self.punch
        return PeerTimeoutError(
            f"{punch.purpose()}: rank {punch.peer} did not come to the rendezvous server {self._link.server} "
            f"within {self.deadline.seconds:g} s: was it started, with the same communicator name, world size and "
            "FMI_JOB?",
            origin=punch.peer,
        )
