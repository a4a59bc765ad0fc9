"""The extension's connections: control, probe and relay."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import ssl
from collections.abc import Callable

from rendezvous.cause_search import CauseSearch
from rendezvous.counters import Counters, Refused
from rendezvous.job_state import Delivery
from rendezvous.jobs import Jobs
from rendezvous.limits import Limits
from rendezvous.protocol import Endpoint, ProtocolError
from rendezvous.protocol.extension import TICKET_BYTES, Challenge, Demand, Preamble, Proof, Purpose, same_proof
from rendezvous.protocol.messages import (
    Abort,
    Announce,
    Decoder,
    FindCause,
    Introduction,
    Leave,
    Message,
    Refusal,
    RefusalReason,
    Register,
    State,
    WatchPeers,
    Welcome,
    Withdraw,
    encode,
)
from rendezvous.protocol.waiting import Waiting
from rendezvous.registry import Registry
from rendezvous.relay import RelayClient, Relays
from rendezvous.tcpunch_client import TcpunchClient

_log = logging.getLogger(__name__)

_MAX_UNSENT_BYTES = 1 << 18
_STATE_SECONDS = 1.25
"""A rank that does not report its state in this time does not wait."""
_RETURN_SECONDS = 1.0
"""A rank whose connection broke may reconnect within this time; then ranks that connect to it receive `PeerEnded`."""


Observer = Callable[[str, str], None]
"""Called with a job's name and what the server has done for it."""


class Extension:
    """The server's side of the extension.

    Parameters
    ----------
    limits, counters
        The server's.
    registry
        The waiting clients of the other protocols.
    secret
        The secret that ranks must know; empty for none.
    tls
        Certificate and key, None for plain TCP.
    observer
        Called with a job's name and what the server does for it; None for nobody.
    """

    def __init__(
        self,
        limits: Limits,
        counters: Counters,
        registry: Registry[TcpunchClient],
        secret: bytes,
        tls: ssl.SSLContext | None,
        observer: Observer | None = None,
    ) -> None:
        self.observer = observer
        self.limits = limits
        self.counters = counters
        self.secret = secret
        self.relays = Relays(limits, counters)
        self.jobs: Jobs[_RankConnection] = Jobs(relaying=limits.relays > 0, raw_names=registry)
        self.connections: set[_RankConnection] = set()
        self._registry = registry
        self._tls = tls
        self._handshakes: set[asyncio.Task[None]] = set()
        self._probes: set[_Probe] = set()
        self._searches: dict[_RankConnection, CauseSearch[_RankConnection]] = {}
        self._requests: dict[int, CauseSearch[_RankConnection]] = {}

    def take(
        self,
        connection: socket.socket,
        endpoint: Endpoint,
        hello: Preamble,
        ended: Callable[[], None],
        refusal: str = "",
    ) -> None:
        """Take over the socket of a client that has sent a preamble.

        Parameters
        ----------
        ended
            Called once it is closed.
        refusal
            Why the client is refused when it registers; empty to admit it.
        """
        if hello.purpose is Purpose.control:
            handshake = self._challenge(connection, endpoint, hello.token, ended, refusal)
            task = asyncio.get_running_loop().create_task(handshake)
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)
            return
        if refusal:
            connection.close()
            ended()
            return
        if hello.purpose is Purpose.relay and (relay_endpoint := self.jobs.relay_endpoint(hello.token)) is not None:
            self.relays.join(relay_endpoint, RelayClient(connection, ended))
            return
        deliveries = self.jobs.probed(hello.token, endpoint) if hello.purpose is Purpose.probe else None
        if deliveries is None:
            self.counters.refused[Refused.secret] += 1
            connection.close()
            ended()
            return
        self._probes.add(_Probe(connection, self.limits.punching_seconds, ended, self._probes.discard))
        self.deliver(deliveries)

    def full(self) -> bool:
        """Return whether no further rank may register, or client wait; waits that may be resumed give way."""
        while len(self._registry) + self._registry.remembered + len(self.jobs) >= self.limits.waiters:
            if not self._registry.evict():
                return True
            self.counters.evicted += 1
        return False

    def deliver(self, deliveries: list[Delivery[_RankConnection]]) -> None:
        """Send each message to its client."""
        for delivery in deliveries:
            if isinstance(delivery.message, Introduction):
                self.counters.introductions += 1
                self._report_introduction(delivery.client, delivery.message.peer)
            delivery.client.send(delivery.message)

    def _report_introduction(self, client: _RankConnection, peer: int) -> None:
        """Report, once for both, that two ranks were introduced."""
        registration = None if self.observer is None else self.jobs.registration(client)
        if registration is not None and self.observer is not None and registration.rank < peer:
            what = f"introduces ranks {registration.rank} and {peer} of {registration.comm_name!r}"
            self.observer(registration.job, what)

    def report_abort(self, client: _RankConnection) -> None:
        """Report that a rank has sent an abort to the others."""
        registration = None if self.observer is None else self.jobs.registration(client)
        if registration is not None and self.observer is not None:
            what = f"forwards the abort of rank {registration.rank} of {registration.comm_name!r}"
            self.observer(registration.job, what)

    def find_cause(self, rank: _RankConnection, peer: int) -> None:
        """Find the rank that a rank whose time limit is over waits for in the end. Each rank has one search at most."""
        search = self.jobs.find_cause(rank, peer)
        former = self._searches.pop(rank, None)
        if former is not None:
            self._requests.pop(former.number, None)
        self._searches[rank] = search
        self._continue(search, search.step())

    def record_state(self, rank: _RankConnection, state: State) -> None:
        """Continue the search that waits for this answer."""
        search = self._requests.get(state.number)
        deliveries = [] if search is None else search.answer(rank, state)
        if search is not None and deliveries:
            del self._requests[state.number]
            self._continue(search, deliveries)

    def _expire(self, number: int) -> None:
        search = self._requests.pop(number, None)
        if search is not None:
            self._continue(search, search.no_answer())

    def _continue(self, search: CauseSearch[_RankConnection], deliveries: list[Delivery[_RankConnection]]) -> None:
        self.deliver(deliveries)
        if search.done:
            if self._searches.get(search.client) is search:
                del self._searches[search.client]
            return
        self._requests[search.number] = search
        asyncio.get_running_loop().call_later(_STATE_SECONDS, self._expire, search.number)

    def lose(self, rank: _RankConnection) -> None:
        """Handle the end of a rank's connection; notify the others unless it reconnects soon."""
        search = self._searches.pop(rank, None)
        if search is not None:
            self._requests.pop(search.number, None)
        notify = self.jobs.disconnected(rank)
        asyncio.get_running_loop().call_later(_RETURN_SECONDS, lambda: self.deliver(notify()))

    def disconnect_ranks(self) -> None:
        """Close all control connections, so that ranks reconnect to the next server."""
        for connection in tuple(self.connections):
            connection.disconnect()

    async def close(self) -> None:
        """Close all connections."""
        for task in tuple(self._handshakes):
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        self.disconnect_ranks()
        self.relays.close()
        for probe in tuple(self._probes):
            probe.close()

    async def _challenge(
        self,
        connection: socket.socket,
        endpoint: Endpoint,
        client_nonce: bytes,
        ended: Callable[[], None],
        refusal: str,
    ) -> None:
        demand = Demand.nothing
        demand |= Demand.secret if self.secret else Demand.nothing
        demand |= Demand.tls if self._tls else Demand.nothing
        challenge = Challenge(demand, secrets.token_bytes(TICKET_BYTES))
        proof = Proof(self.secret, client_nonce, challenge.nonce)
        try:
            # 38 bytes fit into an empty socket buffer. They are sent before the TLS layer reads anything.
            connection.send(challenge.encode())
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _RankConnection(self, endpoint, proof, ended, refusal),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self.limits.silence_seconds if self._tls else None,
            )
        except (OSError, asyncio.CancelledError) as error:
            _log.info("no control connection", extra={"fields": {"client": str(endpoint), "why": str(error)}})
            connection.close()
            ended()


class _RankConnection(asyncio.Protocol):
    """The control connection of one rank."""

    def __init__(
        self, extension: Extension, endpoint: Endpoint, proof: Proof, ended: Callable[[], None], refusal: str
    ) -> None:
        self._extension = extension
        self._refusal = refusal
        self._endpoint = endpoint
        self._proof = proof
        self._ended = ended
        self._decoder = Decoder()
        self._registered = False
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio types it as the base class
        self._transport = transport
        self._limit = self._loop.call_later(self._extension.limits.silence_seconds, self.disconnect)
        self._extension.connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                if self._transport.is_closing():
                    return
                self._take(message)
        except ProtocolError as error:
            self._extension.counters.refused[Refused.protocol] += 1
            _log.info("rank refused", extra={"fields": {"client": str(self._endpoint), "why": str(error)}})
            self.disconnect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit.cancel()
        self._extension.lose(self)
        self._extension.connections.discard(self)
        self._ended()

    def send(self, message: Message) -> None:
        """Send a message; after a refusal the connection ends."""
        if self._transport.is_closing():
            return
        self._transport.write(encode(message))
        if isinstance(message, Refusal):
            self._transport.close()
        elif self._transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self._extension.counters.refused[Refused.slow_reader] += 1
            self.disconnect()

    def disconnect(self) -> None:
        """Remove the rank from its job and close the connection without waiting for the other side."""
        self._extension.jobs.remove(self)
        self._transport.abort()

    def _take(self, message: Message) -> None:
        extension, jobs = self._extension, self._extension.jobs
        self._limit.cancel()
        # A rank that is silent for this time reconnects when it needs to.
        self._limit = self._loop.call_later(extension.limits.waiting_seconds, self.disconnect)
        match message:
            case Register() if not self._registered:
                self._register(message)
            case Announce():
                extension.deliver(jobs.announce(self, message))
            case Withdraw(peer):
                jobs.withdraw(self, peer)
            case Waiting():
                extension.deliver(jobs.record_wait(self, message))
            case WatchPeers(peers):
                extension.deliver(jobs.watch(self, peers))
            case FindCause(peer):
                extension.find_cause(self, peer)
            case State():
                extension.record_state(self, message)
            case Leave():
                extension.deliver(jobs.leave(self))
            case Abort():
                extension.counters.aborts += 1
                extension.report_abort(self)
                extension.deliver(jobs.abort(self, message))
            case _:
                raise ProtocolError(
                    f"unexpected {type(message).__name__}: expected one registration, then a rank's messages"
                )

    def _register(self, message: Register) -> None:
        registration = message.registration
        if not same_proof(message.proof, self._proof.of_client(registration.encode())):
            self._extension.counters.refused[Refused.secret] += 1
            text = "wrong secret: set the same FMI_RENDEZVOUS_SECRET for server and ranks"
            self.send(Refusal(RefusalReason.forbidden, text))
            return
        if self._refusal:
            self.send(Refusal(RefusalReason.busy, self._refusal))
            return
        if self._extension.full():
            self._extension.counters.refused[Refused.waiter_limit] += 1
            self.send(Refusal(RefusalReason.busy, "too many ranks are registered: raise --max-waiters"))
            return
        self._registered = True
        self.send(Welcome(self._endpoint, self._proof.of_server()))
        self._extension.deliver(self._extension.jobs.register(self, registration, self._endpoint))


class _Probe:
    """A connection that only keeps a NAT's mapping, until either side closes it."""

    def __init__(
        self,
        connection: socket.socket,
        seconds: float,
        ended: Callable[[], None],
        discard: Callable[[_Probe], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._ended = ended
        self._discard = discard
        self._limit = self._loop.call_later(seconds, self.close)
        self._loop.add_reader(connection, self._readable)

    def close(self) -> None:
        self._limit.cancel()
        self._loop.remove_reader(self._connection)
        self._connection.close()
        self._discard(self)
        self._ended()

    def _readable(self) -> None:
        try:
            if self._connection.recv(1):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # a reset closes it, too
        self.close()
