"""A rank's session with a rendezvous server with our extension: registration, connections to peers, errors, waits.

One control connection serves all of a rank's connections to peers. To connect to a peer, the rank listens on a new
port, announces it, and punches as soon as the server sends the peer's address. Behind a NAT the server asks for one
more connection from that port, to see the port's public address. If no direct connection succeeds in time, one through
the server's relay becomes a further candidate; the handshake selects one (see `hole_punching`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from fmi_shim import telemetry
from fmi_shim.backoff import Deadline
from fmi_shim.error_codec import abort_error
from fmi_shim.errors import FmiError, MismatchError, PeerLostError, PeerTimeoutError, RendezvousError
from fmi_shim.frames import Call
from fmi_shim.log_lines import RelayNotice
from fmi_shim.pairing import timing
from fmi_shim.pairing.control_connection import (
    Access,
    ControlConnection,
    ForeignServerError,
    ReconnectBackoff,
    ServerLostError,
    connect_to_server,
    read_access,
)
from fmi_shim.pairing.handshake import PeerHello
from fmi_shim.pairing.hole_punching import Connected, HolePunch
from fmi_shim.pairing.sockets import Poller, disable_pacing, reusable_socket
from rendezvous.protocol import Endpoint
from rendezvous.protocol.extension import Preamble, Purpose
from rendezvous.protocol.messages import (
    INSTANCE_BYTES,
    MAX_WATCHED,
    PROCESS_BYTES,
    Abort,
    Announce,
    Cause,
    Deadlock,
    FindCause,
    Introduction,
    Leave,
    Message,
    PeerEnded,
    ProbeRequest,
    Registration,
    State,
    StateRequest,
    WatchPeers,
    Withdraw,
)
from rendezvous.protocol.waiting import Awaited, Waiting

_log = logging.getLogger("fmi_shim")

_tokens: dict[int, bytes] = {}
_NO_ENDPOINT = Endpoint("0.0.0.0", 0)  # noqa: S104 - replaced by the control connection's own


OnAbort = Callable[[Abort], FmiError]
"""Converts an abort of another rank into an error."""

OnPeerEnded = Callable[[PeerEnded], None]
"""Records that a rank has ended that this one waits for, but does not connect to."""


def deadlock_report_seconds(world_size: int) -> float:
    """Return after how long a wait is reported: ranks of a large world wait while others start."""
    return max(timing.DEADLOCK_REPORT, world_size * timing.RANK_START)


class RendezvousClient:
    """A rank's session with the server, opened at its first connection to a peer and reopened when it is lost.

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
    poller
        How to wait. It also monitors the connection to the server: errors that arrive there are raised from any wait.
    on_peer_ended
        See `OnPeerEnded`.
    known
        Whether the server is known to speak our extension, so that it is waited for longer when it is lost.

    Attributes
    ----------
    known
        The same, as it is known now.
    ended
        Ranks that were registered and have ended, and whether they were lost: ended without closing the communicator.
    waits
        Of each channel, a function that returns the rank that this one waits for at the moment, and the call that it
        is in; None if it does not wait. The server asks for it.
    """

    def __init__(
        self,
        server: Endpoint,
        access: Access,
        comm_name: str,
        rank: int,
        world_size: int,
        on_abort: OnAbort,
        poller: Poller,
        on_peer_ended: OnPeerEnded = lambda _: None,
        known: bool = False,
    ) -> None:
        self._server = server
        self._access = access
        self._rank = rank
        self._on_abort = on_abort
        self.poller = poller
        self._also_monitored_by: Poller | None = None
        self._on_peer_ended = on_peer_ended
        self._failure: FmiError | None = None
        self._aborted = False
        self._process = os.getpid()
        self.ended: dict[int, bool] = {}
        self.waits: list[Callable[[], tuple[int, str] | None]] = []
        self._cause: Cause | None = None
        self._watched: tuple[int, ...] = ()
        instance = _process_token() + secrets.token_bytes(INSTANCE_BYTES - PROCESS_BYTES)
        self._registration = Registration(access.job, comm_name, rank, world_size, instance, _NO_ENDPOINT)
        self._control: ControlConnection | None = None
        self.known = known

    def connect(
        self,
        hello: PeerHello,
        purpose: Callable[[], str],
        deadline: Deadline,
        wait_report: Callable[[], Waiting | None] = lambda: None,
        session: RendezvousClient | None = None,
    ) -> socket.socket:
        """Return a non-blocking connection to the rank that `hello` is for.

        Parameters
        ----------
        purpose
            Returns what this rank is doing, for the errors.
        deadline
            By which the connection must be established.
        wait_report
            Returns the report for the server that this rank only waits for the peer; None if it does more.
            See `rendezvous.wait_for_graph`.
        session
            See `PeerConnect`.

        Raises
        ------
        RendezvousError
            If the server cannot be reached or refuses this rank; `ForeignServerError` if it is of another kind.
        PeerTimeoutError
            If the peer does not connect to the server, or cannot be reached, in time.
        PeerLostError
            If the peer has been registered, and has closed its communicator or was lost.
        MismatchError
            If another rank than the expected one is connected, or the job is another one.
        FmiError
            If another rank has aborted.
        """
        control = self.control(deadline)
        with reusable_socket(0, control.local.host) as listener:
            listener.setblocking(False)
            disable_pacing(listener, control.local.host)
            listener.listen()
            punch = HolePunch(hello.receiver, purpose, hello, listener, self.poller.wait, deadline)
            pairing = PeerConnect(self, punch, deadline, wait_report, hello.world_size, session)
            try:
                connected = pairing.run(control)
            finally:
                pairing.close()
        if connected.relayed:
            way = "relay"
            report_relayed(self._rank, hello.receiver, str(self._server))
        else:
            way = "direct" if pairing.probe is None else "hole punching"
            _log.info("rank %d: connected to rank %d (%s)", self._rank, hello.receiver, way)
        if telemetry.recorder is not None:
            telemetry.recorder.connected(hello.comm_name, hello.receiver, way)
        return connected.connection

    @property
    def descriptor(self) -> int | None:
        """File descriptor of the connection to the server, None if there is none."""
        return None if self._control is None else self._control.descriptor

    @property
    def requires_extension(self) -> bool:
        """Whether a server of another kind is not acceptable."""
        return bool(self._access.secret or self._access.certificate)

    def abort(self, abort: Abort) -> None:
        """Have the server forward an abort to all other ranks; without a server, only connected ranks receive it."""
        if self._control is not None and not self._aborted and os.getpid() == self._process:
            self._aborted = True
            with contextlib.suppress(ServerLostError):
                self._control.send(abort)

    def use(self, poller: Poller) -> None:
        """Wait and monitor the connection to the server with another poller from now on."""
        if self._control is not None:
            self.poller.remove(self._control.descriptor)
            poller.add(self._control.descriptor, select.POLLIN, self._on_message)
        self.poller = poller

    @contextlib.contextmanager
    def monitored_by(self, poller: Poller) -> Iterator[None]:
        """Raise the errors of this session from the waits of another poller, too, while this lasts."""
        self._also_monitored_by = poller
        if self._control is not None:
            poller.add(self._control.descriptor, select.POLLIN, self._on_message)
        try:
            yield
        finally:
            self._also_monitored_by = None
            if self._control is not None:
                poller.remove(self._control.descriptor)

    def register_early(self) -> None:
        """Register, so that an end of this rank before its first call is reported like any other.

        Nothing is raised: a server that is absent or foreign is tried again at the first call; any other error is
        raised there.
        """
        try:
            self.register()
        except RendezvousError as error:
            _log.debug("rank %d: not registered yet: %s", self._rank, error)
        except FmiError as error:
            self._failure = error

    def register(self) -> None:
        """Register, so that the other ranks learn when this one ends: one attempt of limited time.

        Raises
        ------
        RendezvousError
            If the server cannot be reached or refuses this rank; `ForeignServerError` if it is of another kind.
        MismatchError
            If another process has this rank, or another world size.
        """
        self.control(Deadline(timing.OPTIONAL_REGISTRATION), Deadline(0.0))

    def report_wait(self, waiting: Waiting) -> None:
        """Report to the server which rank this one waits for, so that it can find a deadlock.

        If the server cannot be reached, the rank continues without it.
        """
        with contextlib.suppress(RendezvousError):
            self.control(Deadline(timing.WAIT_REPORT)).send(waiting)

    def withdraw_wait(self, number: int) -> None:
        """Report that this rank waits for none any more, after a wait that timed out; `number` counts its waits.

        A rank that waits for itself is in no cycle: the report replaces the last one.
        """
        if self._control is not None:
            with contextlib.suppress(ServerLostError):
                self._control.send(Waiting(self._rank, Awaited.sending, number, b"", ""))

    def watch(self, peers: Sequence[int]) -> None:
        """Have the server report the end of these ranks; see `ended`."""
        watched = tuple(peers[:MAX_WATCHED])
        if self._control is not None and watched != self._watched:
            self._watched = watched
            with contextlib.suppress(ServerLostError):  # the next read will fail, too
                self._control.send(WatchPeers(watched))

    def find_cause(self, peer: int) -> Cause | None:
        """Have the server find the rank that this one waits for in the end; None if it does not answer.

        It asks `peer` which rank that waits for, and so on along the chain.

        Raises
        ------
        FmiError
            If another rank has reported a failure meanwhile.
        """
        self._cause = None
        deadline = Deadline(timing.CAUSE)
        with contextlib.suppress(RendezvousError):
            self.control(Deadline(timing.WAIT_REPORT)).send(FindCause(peer))
            while self._cause is None and not deadline.passed and self.check_errors(deadline.remaining() or 0.0):
                pass
        return self._cause

    def handle(self, message: Message) -> None:
        """Raise the error in a message from the server, if it has one and concerns no pending connection."""
        if self._aborted:
            return  # a rank that has failed already reads on only while it closes
        if isinstance(message, Abort):
            raise self._on_abort(message)
        if isinstance(message, Deadlock):
            raise MismatchError(message.text, origin=self._rank)
        if isinstance(message, StateRequest):
            awaited, text = next(filter(None, (wait() for wait in self.waits)), (None, ""))
            if self._control is not None:
                with contextlib.suppress(ServerLostError):
                    self._control.send(State(message.number, awaited, text))
        if isinstance(message, Cause):
            self._cause = message
        if isinstance(message, PeerEnded):
            self.ended.setdefault(message.peer, message.lost)
            self._on_peer_ended(message)

    def close(self) -> None:
        """Tell the server that this rank ends without an error, and disconnect."""
        if self._control is not None and os.getpid() == self._process:
            with contextlib.suppress(ServerLostError):
                self._control.send(Leave())
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection to the server without a message."""
        if self._control is not None:
            for poller in (self.poller, self._also_monitored_by):
                if poller is not None:
                    poller.remove(self._control.descriptor)
            self._control.close()
            self._control = None
            self._watched = ()

    def control(
        self, deadline: Deadline, retry_until: Deadline | None = None, lost: ServerLostError | None = None
    ) -> ControlConnection:
        """Return the control connection, reopened if there is none that works.

        Parameters
        ----------
        deadline
            By which an attempt must succeed.
        retry_until
            After which there is no further attempt; by default `deadline`.
        lost
            Why the last connection was lost, if it was just used; then the first attempt follows a pause.
        """
        self._raise_failure()
        backoff: ReconnectBackoff | None = None
        closing = Deadline(timing.CLOSED_UNANSWERED)
        while self._control is None:
            if lost is not None:
                if not lost.unanswered or self.known:
                    closing = Deadline(timing.CLOSED_UNANSWERED)
                elif closing.passed:
                    raise ForeignServerError(
                        f"the rendezvous server {self._server} closes every connection without an answer to the "
                        "extension: start fmi-rendezvous there"
                    ) from lost
                backoff = backoff or ReconnectBackoff(deadline if retry_until is None else retry_until, self.known)
                backoff.pause(lost, self.poller.wait)
            try:
                self._control = ControlConnection(self._server, self._access, self._registration, deadline)
            except ServerLostError as error:
                lost = error
            else:
                for poller in (self.poller, self._also_monitored_by):
                    if poller is not None:
                        poller.add(self._control.descriptor, select.POLLIN, self._on_message)
                self.known = True
                _log.debug("rank %d: registered with the rendezvous server %s", self._rank, self._server)
                # An earlier failure arrives with the welcome. The socket shows nothing of what was read with that.
                self._on_message(self._control.descriptor)
                lost = ServerLostError(f"the rendezvous server {self._server} closed the connection")
        return self._control

    def check_errors(self, seconds: float) -> bool:
        """Raise an error that the server has sent, waiting up to `seconds` for it.

        Returns
        -------
        bool
            False, at once, if there is no connection to the server.
        """
        self._raise_failure()
        if self._control is None:
            return False
        poll = select.poll()
        poll.register(self._control.descriptor, select.POLLIN)
        if poll.poll(seconds * 1000):
            self._on_message(self._control.descriptor)
        return True

    def _raise_failure(self) -> None:
        """Raise the error of an early registration."""
        if self._failure is not None and not self._aborted:
            raise self._failure

    def _on_message(self, descriptor: int) -> None:
        """Read messages while this rank connects to no peer; a lost server does not matter then."""
        assert self._control is not None  # noqa: S101 - it is monitored
        try:
            messages = self._control.receive()
        except ServerLostError:
            self.disconnect()
            return
        for message in messages:
            self.handle(message)

    def withdraw(self, peer: int) -> None:
        """Tell the server that this rank no longer listens for a peer."""
        if self._control is not None:
            try:
                self._control.send(Withdraw(peer))
            except ServerLostError:
                self.disconnect()


@dataclass(slots=True)
class PeerConnect:
    """One rank connecting to one other.

    Attributes
    ----------
    client
        Whose control connection is used.
    punch
        Connects directly.
    deadline
        By when.
    wait_report
        Returns the report that this rank only waits for the peer, if that is so.
    world_size
        Number of ranks.
    session
        The communicator's session, if that is another one: it reports ranks that have ended before they registered
        in this one.
    report_at, relay_at
        When to report the wait, and when to try the relay, on the monotonic clock; infinite for never.
    ended
        The server's message that the peer has ended.
    probe
        The connection that shows the server this rank's public address; None without a NAT.
    """

    client: RendezvousClient
    punch: HolePunch
    deadline: Deadline
    wait_report: Callable[[], Waiting | None]
    world_size: int
    session: RendezvousClient | None = None
    report_at: float = math.inf
    relay_at: float = math.inf
    relay_ticket: bytes = b""
    ended: PeerEnded | None = None
    probe: socket.socket | None = None
    _control: ControlConnection = field(init=False)

    def run(self, control: ControlConnection) -> Connected:
        """Return the connection; see `RendezvousClient.connect`."""
        self.report_at = time.monotonic() + deadlock_report_seconds(self.world_size)
        self._announce_on(control)
        while True:
            interest = [(self._control.descriptor, select.POLLIN)]
            also = None if self.session is None else self.session.descriptor
            if also is not None:
                interest.append((also, select.POLLIN))
            try:
                connected, ready = self.punch.step(interest, min(self.relay_at, self.report_at))
            except PeerTimeoutError as error:
                if self.punch.has_target or error.reported_by is not None:
                    raise
                raise self._not_registered_error() from None
            if connected is not None:
                return connected
            if self._control.descriptor in ready:
                self._receive()
            if self.session is not None and also in ready:
                self.session.check_errors(0.0)
            if self.session is not None and self.punch.peer in self.session.ended:
                self.ended = PeerEnded(self.punch.peer, self.session.ended[self.punch.peer])
            if self.ended is not None and not self.punch.has_candidate:
                raise self._ended_error(self.ended)
            now = time.monotonic()
            if now >= self.relay_at:
                self._connect_relay()
            if now >= self.report_at:
                self._report_wait()

    def close(self) -> None:
        """Close what was opened meanwhile, and report to the server that this rank no longer listens."""
        self.client.withdraw(self.punch.peer)
        if self.probe is not None:
            self.probe.close()
        self.punch.close()

    def _report_wait(self) -> None:
        """Report which rank this one waits for: the server may find a deadlock."""
        self.report_at = math.inf
        if self.session is not None:
            self.session.watch([self.punch.peer])
        waiting = None if self.punch.has_target else self.wait_report()
        if waiting is not None:
            with contextlib.suppress(ServerLostError):  # the next message will fail, too
                self._control.send(waiting)

    def _announce_on(self, control: ControlConnection) -> None:
        """Announce the listening port; if the connection is lost meanwhile, again on the next one."""
        while True:
            self._control = control
            try:
                control.send(Announce(self.punch.peer, self.punch.listener.getsockname()[1]))
            except ServerLostError as lost:
                control = self._reconnect(lost)
            else:
                return

    def _reconnect(self, lost: ServerLostError) -> ControlConnection:
        self.client.disconnect()
        return self.client.control(self.deadline, lost=lost)

    def _receive(self) -> None:
        try:
            messages = self._control.receive()
        except ServerLostError as lost:
            self._announce_on(self._reconnect(lost))
            return
        for message in messages:
            self._handle(message)

    def _handle(self, message: Message) -> None:
        match message:
            case Introduction(peer, endpoints, ticket) if peer == self.punch.peer:
                self.relay_ticket = ticket
                self.relay_at = time.monotonic() + self._direct_seconds() if any(ticket) else math.inf
                self.punch.connect_to(endpoints)
            case ProbeRequest(peer, ticket) if peer == self.punch.peer:
                self._open_probe(ticket)
            case PeerEnded(peer) if peer == self.punch.peer:
                self.ended = message
            case _:
                self.client.handle(message)  # an error, or about a connection that is no longer pending

    def _direct_seconds(self) -> float:
        """Return how long only a direct connection is tried; if little time is left, the relay gets half of it."""
        return min(timing.DIRECT_ONLY, max(0.0, self.deadline.end - time.monotonic()) / 2)

    def _open_probe(self, ticket: bytes) -> None:
        """Show the server the public address of the port that the peer is to connect to."""
        if self.probe is not None:
            # Closed with a reset, since the same two ports are to be connected again.
            self.probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.probe.close()
        with contextlib.suppress(ServerLostError):  # the control connection will fail, too
            self.probe = self._side_connection(self.punch.listener.getsockname()[1], Purpose.probe, ticket)

    def _connect_relay(self) -> None:
        """Add a connection through the relay; if it breaks, another one after a pause."""
        self.relay_at = time.monotonic() + timing.RELAY_RETRY
        if not self.punch.has_relayed_candidate:
            with contextlib.suppress(ServerLostError):  # retried
                connection = self._side_connection(0, Purpose.relay, self.relay_ticket)
                self.punch.add_relayed(connection, self._control.address)

    def _side_connection(self, port: int, purpose: Purpose, ticket: bytes) -> socket.socket:
        connection = connect_to_server(
            self._control.address, Deadline(timing.PROBE_AND_RELAY), port, self._control.local.host
        )
        try:
            connection.sendall(Preamble(purpose, ticket).encode())
        except OSError as error:
            connection.close()
            raise ServerLostError(f"the connection to the rendezvous server broke: {error}") from error
        return connection

    def _ended_error(self, ended: PeerEnded) -> PeerLostError:
        how = (
            "was lost: its process ended or failed"
            if ended.lost
            else "closed the communicator too early, or its program ended: all ranks must make the same calls"
        )
        return PeerLostError(f"{self.punch.purpose()}: rank {ended.peer} {how}", origin=ended.peer)

    def _not_registered_error(self) -> PeerTimeoutError:
        punch = self.punch
        return PeerTimeoutError(
            f"{punch.purpose()}: rank {punch.peer} did not connect to the rendezvous server {self._control.server} "
            f"within {self.deadline.elapsed}: check that it was started with the same communicator name, world "
            "size and FMI_JOB",
            origin=punch.peer,
        )


class ServerRegistration:
    """The registration with the rendezvous server of a rank that exchanges objects through a store.

    S3 cannot detect that a process ended, and neither store knows which rank waits for which. If a rendezvous server
    with our extension is configured, each rank registers there, too. The end of its connection then reports its own
    end: the server notifies waiting ranks of it, of any rank's failure, and of a deadlock; the store is not asked.
    Without a server, or with one of the original kind, ranks only poll the store.

    Parameters
    ----------
    rank
        This rank.
    client
        The communicator's session with the server; None if none is configured.

    Attributes
    ----------
    ended
        See `RendezvousClient`.
    """

    def __init__(self, rank: int, client: RendezvousClient | None) -> None:
        self._rank = rank
        self._client = client
        self._wait_number = 0
        self._wait: tuple[int, Callable[[], Call]] | None = None
        self.ended: dict[int, bool] = {}
        if client is not None:
            self.ended = client.ended
            client.waits.append(lambda: None if self._wait is None else (self._wait[0], self._wait[1]().made_by(rank)))

    def register(self) -> None:
        """Register; if the server does not answer, the rank continues without it.

        Raises
        ------
        MismatchError
            If another process has this rank, or another world size.
        """
        if self._client is not None:
            try:
                self._client.register()
            except RendezvousError as error:
                _log.info("rank %d: continues without the rendezvous server: %s", self._rank, error)
                self._client = None

    def start_wait(self) -> None:
        """Record that this rank starts another wait."""
        self._wait_number += 1

    def clear_wait(self) -> None:
        """Record that this rank waits for none."""
        self._wait = None

    def wait_for(self, peer: int, call: Callable[[], Call]) -> None:
        """Record which rank this one waits for, in case that the server asks."""
        self._wait = peer, call

    def find_cause(self, peer: int) -> Cause | None:
        """Have the server find the rank that this one waits for in the end; None if that is not known."""
        return None if self._client is None else self._client.find_cause(peer)

    def report_missing(self, peers: Sequence[int], call: Call) -> None:
        """Report that objects of `peers` did not exist at the last poll, and raise an error from the server."""
        if not self.check_errors():
            self.register()
        if self._client is not None:
            self._client.watch(peers)
            self._client.report_wait(
                Waiting(peers[0], Awaited.writing, self._wait_number, b"", call.made_by(self._rank))
            )

    def withdraw_wait(self) -> None:
        """Report that this rank waits for none any more, after a wait that timed out."""
        self._wait = None
        self._wait_number += 1
        if self._client is not None:
            self._client.withdraw_wait(self._wait_number)

    def check_errors(self) -> bool:
        """Raise an error that the server has sent; return False if there is no connection to it."""
        return self._client is not None and self._client.check_errors(0.0)

    def sleep(self, seconds: float) -> None:
        """Sleep, or raise an error from the server as soon as it arrives."""
        if self._client is None or not self._client.check_errors(seconds):
            time.sleep(seconds)

    def abort(self, abort: Abort) -> None:
        """Have the server forward an abort to all other ranks."""
        if self._client is not None:
            self._client.abort(abort)


def open_session(server: Endpoint, comm_name: str, rank: int, size: int, known: bool = False) -> RendezvousClient:
    """Return a communicator's session with the server, registered if the server answers (see `register_early`)."""
    poller = Poller(lambda _: None)
    client = RendezvousClient(server, read_access(), comm_name, rank, size, abort_error, poller, known=known)
    client.register_early()
    return client


def _process_token() -> bytes:
    """Return random bytes of this process, other ones in a fork."""
    return _tokens.setdefault(os.getpid(), secrets.token_bytes(PROCESS_BYTES))


def report_relayed(rank: int, peer: int, server: str) -> None:
    """Log a warning that two ranks are connected through the relay. The emulator's summary reads this line."""
    _log.warning("%s", RelayNotice(rank, peer, server))
