"""A client of TCPunch, or a new connection until it is known to speak the extension."""

from __future__ import annotations

import enum
import logging
import socket
import uuid
from typing import Protocol

from rendezvous.counters import Counters, Refused
from rendezvous.limits import Limits
from rendezvous.protocol import Endpoint, ProtocolError, encode_record
from rendezvous.protocol.protocol_detection import WireProtocol, detect_protocol
from rendezvous.protocol.v2 import REQUEST_BYTES, Response, Status, decode_request
from rendezvous.registry import Pair, Registry

_log = logging.getLogger(__name__)

_REFUSAL_SECONDS = 2.0
"""A client over a limit must send its request in this time, to be told of it."""

SETTLING_SECONDS = 0.02
"""A version 1 client receives its own address after this time, unless its partner has connected by then. Until then,
more bytes may show that it is one of version 2 whose request arrived in pieces."""


class Stage(enum.Enum):
    """The state of a connection."""

    silent = enum.auto()
    settling = enum.auto()
    waiting = enum.auto()
    punching = enum.auto()


class ServerContext(Protocol):
    """What a connection uses of its server."""

    limits: Limits
    counters: Counters
    registry: Registry[TcpunchClient]
    secret_required: bool

    def clock(self) -> float:
        """Return the time in seconds."""
        ...

    def expire_at(self, item: TcpunchClient | uuid.UUID, at: float) -> None:
        """Expire `item` at time `at`."""
        ...

    def full(self) -> bool:
        """Return whether no further client may wait."""
        ...

    def switch_to_extension(self, client: TcpunchClient, hello: bytes) -> None:
        """Take over the socket of a client that has sent a preamble."""
        ...

    def on_raw_name(self, name: bytes) -> None:
        """Handle a client that waits under a name."""
        ...

    def closed(self, client: TcpunchClient) -> None:
        """Handle the end of a connection."""
        ...


class TcpunchClient:
    """A client of either TCPunch version, or a new connection.

    It costs the server a socket and at most 141 bytes, and receives at most 100, so that it cannot block others.

    Attributes
    ----------
    connection, endpoint
        The client's.
    refusal
        The limit that it is over, which it is told as soon as its protocol is known; else empty.
    """

    __slots__ = (
        "_context",
        "_protocol",
        "_received",
        "_since",
        "_stage",
        "_token",
        "connection",
        "endpoint",
        "refusal",
    )

    def __init__(
        self, context: ServerContext, connection: socket.socket, endpoint: Endpoint, refusal: str = ""
    ) -> None:
        self.connection = connection
        self.endpoint = endpoint
        self.refusal = refusal
        self._context = context
        self._stage = Stage.silent
        self._protocol: WireProtocol | None = None
        self._received = b""
        self._token: uuid.UUID | None = None
        self._since = context.clock()
        silence = context.limits.silence_seconds
        context.expire_at(self, self._since + (min(silence, _REFUSAL_SECONDS) if refusal else silence))

    def readable(self) -> None:
        """Read the bytes that arrived."""
        try:
            # No more than a preamble: the bytes after it are not for this class.
            data = self.connection.recv(REQUEST_BYTES - len(self._received) or REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
        elif self._stage is not Stage.punching and len(self._received) < REQUEST_BYTES:
            self._on_data(data)
        # else: no more bytes are expected; they are dropped, and the connection is closed in time

    def expired(self) -> None:
        """Handle the deadline."""
        if self._stage is Stage.settling:
            self._stage = Stage.waiting
            self._context.expire_at(self, self._since + self._context.limits.waiting_seconds)
            self._send(encode_record(self.endpoint))
            return
        if self._stage is Stage.silent:
            self._context.counters.refused[Refused.silence] += 1
        elif self._stage is Stage.waiting:
            self._context.counters.timeouts += 1
            if self._token is not None:
                self._context.registry.leave(self)
                self._context.registry.forget(self._token)
                self._send(Response(Status.timeout, self.endpoint, None, self._token).encode())
        self.close()

    def introduce(self, partner: Endpoint) -> None:
        """Send this client its partner's address, and let it punch."""
        settled = self._stage is Stage.waiting
        self._stage = Stage.punching
        self._context.expire_at(self, self._context.clock() + self._context.limits.punching_seconds)
        if self._token is not None:
            self._send(Response(Status.paired, self.endpoint, partner, self._token).encode())
        elif settled:
            self._send(encode_record(partner))
        else:
            self._send(encode_record(self.endpoint) + encode_record(partner))

    def end_wait(self) -> None:
        """End a wait because the server shuts down; a client of version 2 receives *timeout*, and retries."""
        if self._token is not None and self._stage is Stage.waiting:
            self._send(Response(Status.timeout, self.endpoint, None, self._token).encode())
        self.close()

    @property
    def punching(self) -> bool:
        """Whether this client has received its partner's address."""
        return self._stage is Stage.punching

    def close(self) -> None:
        """Remove the client from the registry and close the connection without waiting for the other side."""
        if self.connection.fileno() < 0:
            return
        registry, address = self._context.registry, self.endpoint.host
        token = registry.leave(self, address)
        if token is not None:
            if registry.remembered_of(address) > self._context.limits.connections_per_address:
                registry.evict(address)
                self._context.counters.evicted += 1
            self._context.expire_at(token, self._since + self._context.limits.waiting_seconds)
        self._context.closed(self)
        self.connection.close()

    def _on_data(self, data: bytes) -> None:
        self._received += data
        try:
            spoken = detect_protocol(self._received)
        except ProtocolError as error:
            self.refuse(Refused.protocol, str(error))
            return
        if spoken is WireProtocol.v1:
            self._protocol = spoken
            self._on_name(data)
        elif self._stage is Stage.waiting:
            self.refuse(Refused.protocol, "got a NUL after a complete name")
        else:
            self._protocol = spoken
            self._on_request(spoken)

    def _on_name(self, data: bytes) -> None:
        registry = self._context.registry
        if self._stage is Stage.silent and self._refused_by_limits():
            return
        pair = registry.receive(self, data)  # the name was checked by detect_protocol
        if pair is not None:
            self._pair(pair)
        elif self._stage is Stage.silent:
            self._stage = Stage.settling
            self._context.expire_at(self, self._context.clock() + SETTLING_SECONDS)
        if pair is None:
            self._context.on_raw_name(self._received)

    def _on_request(self, spoken: WireProtocol) -> None:
        if self._stage is Stage.settling:  # the bytes that looked like a name were the beginning of a request
            self._context.registry.leave(self)
            self._stage = Stage.silent
            self._context.expire_at(self, self._since + self._context.limits.silence_seconds)
        if len(self._received) < REQUEST_BYTES:
            return
        try:
            if spoken is WireProtocol.extension:
                self._context.switch_to_extension(self, self._received)
                return
            request = decode_request(self._received)
        except ProtocolError as error:
            self.refuse(Refused.protocol, str(error))
            return
        if self._refused_by_limits():
            return
        admission = self._context.registry.request(
            self, request.name, request.token, uuid.uuid4(), self._context.clock()
        )
        self._token, self._since = admission.token, admission.since
        if admission.replaced is not None:
            admission.replaced.close()
        if admission.pair is not None:
            self._pair(admission.pair)
            return
        self._stage = Stage.waiting
        self._context.expire_at(self, self._since + self._context.limits.waiting_seconds)
        self._send(Response(Status.waiting, self.endpoint, None, self._token).encode())

    def _refused_by_limits(self) -> bool:
        if self.refusal:
            self._disconnect(self.refusal)
        elif self._context.secret_required:
            self.refuse(Refused.secret, "TCPunch has no secret")
        elif self._context.full():
            self.refuse(Refused.waiter_limit, "too many clients wait")
        else:
            return False
        return True

    def _pair(self, pair: Pair[TcpunchClient]) -> None:
        self._context.counters.pairings += 1
        pair.first.introduce(pair.second.endpoint)
        pair.second.introduce(pair.first.endpoint)

    def refuse(self, reason: Refused, text: str) -> None:
        """Disconnect a client; one of version 2 receives *error*."""
        self._context.counters.refused[reason] += 1
        self._disconnect(text)

    def _disconnect(self, text: str) -> None:
        _log.info("client refused", extra={"fields": {"client": str(self.endpoint), "why": text}})
        if self._protocol is WireProtocol.v2:
            self._send(Response(Status.error).encode())
        self.close()

    def _send(self, data: bytes) -> None:
        # A client receives at most 100 bytes in all. They fit into an empty buffer, or the client is disconnected.
        try:
            self.connection.send(data)
        except OSError:
            self.close()
