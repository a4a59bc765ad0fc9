"""The extension's messages on a control connection. Their order is described in `extension`."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from rendezvous.protocol.endpoints import ADDRESS_BYTES, Endpoint, ProtocolError, decode_endpoint
from rendezvous.protocol.extension import PROOF_BYTES, TICKET_BYTES, Proof
from rendezvous.protocol.v1 import MAX_NAME_BYTES
from rendezvous.protocol.waiting import MAX_TEXT_BYTES, MAX_WAITING_BYTES, Waiting, cut, decode_waiting

MAX_ENDPOINTS = 2
MAX_JOB_BYTES = 64
MAX_WORLD_SIZE = 65_536
INSTANCE_BYTES = 16
PROCESS_BYTES = 8

_HEADER = struct.Struct("!HB")
_REGISTER = struct.Struct(f"!II{INSTANCE_BYTES}s{ADDRESS_BYTES}sBB")
_ANNOUNCE = struct.Struct("!IH")
_PEER = struct.Struct("!I")
_ABORT = struct.Struct("!IIB")
_GONE = struct.Struct("!I?")
MAX_BODY_BYTES = _ABORT.size + MAX_TEXT_BYTES
MAX_WATCHED = 1024
"""The most ranks that one rank watches."""
_NO_RANK = 2**32 - 1


class RefusalReason(enum.IntEnum):
    """Why the server refuses a rank."""

    mismatch = 1
    """Another rank of its job disagrees with it: the job was started wrongly."""
    forbidden = 2
    """It did not prove that it knows the secret."""
    busy = 3
    """A limit of the server is reached."""


class AbortReason(enum.IntEnum):
    """Why a rank aborts. The server does not interpret it."""

    lost = 1
    """It lost another rank."""
    timeout = 2
    """Another rank did not connect or respond in time."""
    mismatch = 3
    """Two ranks made different calls."""
    overflow = 4
    """Its reduction overflowed."""
    failed = 5
    """It raised any other exception."""


@dataclass(frozen=True, slots=True)
class Registration:
    """The rank, its job and communicator, and its local address.

    Attributes
    ----------
    job
        Separates runs that use the same communicator name; may be empty.
    comm_name, rank, world_size
        As given to the communicator.
    instance
        16 random bytes: the first 8 of the process, the others of this communicator. They distinguish a rank that
        reconnects from a second process of it, and relate the communicators of a process.
    local
        The rank's end of the control connection, as the rank sees it.
    """

    job: str
    comm_name: str
    rank: int
    world_size: int
    instance: bytes
    local: Endpoint

    def encode(self) -> bytes:
        """Return the bytes of this registration, over which the proof is computed."""
        job, name = self.job.encode(), self.comm_name.encode()
        fixed = _REGISTER.pack(self.rank, self.world_size, self.instance, self.local.encode(), len(job), len(name))
        return fixed + job + name


@dataclass(frozen=True, slots=True)
class Register:
    """Rank to server: its identity, and the proof that it knows the secret."""

    kind: ClassVar[int] = 1
    registration: Registration
    proof: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
    """Server to rank: it is registered. Contains the server's proof, and the rank's public address."""

    kind: ClassVar[int] = 2
    observed: Endpoint
    proof: bytes


@dataclass(frozen=True, slots=True)
class Announce:
    """Rank to server: it wants to connect to `peer`, and listens on `port`."""

    kind: ClassVar[int] = 3
    peer: int
    port: int


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """Server to rank: open a probe connection with this ticket from the port announced for `peer`."""

    kind: ClassVar[int] = 4
    peer: int
    ticket: bytes


@dataclass(frozen=True, slots=True)
class Introduction:
    """Server to rank: the addresses of `peer`, the likeliest first, and a ticket for the relay.

    The ticket is zeros if the server has no relay.
    """

    kind: ClassVar[int] = 5
    peer: int
    endpoints: tuple[Endpoint, ...]
    ticket: bytes


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Rank to server: it no longer listens for `peer`."""

    kind: ClassVar[int] = 6
    peer: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Both directions: rank `reported_by` aborts. Between ranks it travels in a frame; see `fmi_shim.error_codec`.

    The server forwards it to all other ranks of the communicator, and to those that register later.

    Attributes
    ----------
    reported_by
        The rank that aborts.
    origin
        The rank where the failure began, which may be another one.
    reason
        An `AbortReason`, or another number if the rank's version defines more.
    text
        The first error's message, of which at most `MAX_TEXT_BYTES` are sent.
    """

    kind: ClassVar[int] = 7
    reported_by: int
    origin: int
    reason: int
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Server to rank: it is refused; the server closes the connection."""

    kind: ClassVar[int] = 8
    reason: RefusalReason
    text: str


@dataclass(frozen=True, slots=True)
class Deadlock:
    """Server to rank: it is in a deadlock with other ranks."""

    kind: ClassVar[int] = 10
    text: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Rank to server: it ends without an error."""

    kind: ClassVar[int] = 11


@dataclass(frozen=True, slots=True)
class PeerEnded:
    """Server to rank: `peer`, which it connects to or waits for, has ended. It is `lost` if it sent no `Leave`."""

    kind: ClassVar[int] = 12
    peer: int
    lost: bool


@dataclass(frozen=True, slots=True)
class WatchPeers:
    """Rank to server: report the end of each of `peers` with a `PeerEnded`, also of those that have ended already.

    Attributes
    ----------
    peers
        At most `MAX_WATCHED` ranks, in place of those of the last `WatchPeers`.
    """

    kind: ClassVar[int] = 13
    peers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FindCause:
    """Rank to server: its time limit for `peer` is over; find the rank at the end of the chain of waiting ranks."""

    kind: ClassVar[int] = 14
    peer: int


@dataclass(frozen=True, slots=True)
class StateRequest:
    """Server to rank: report at once which rank it waits for; `number` is returned in the answer."""

    kind: ClassVar[int] = 15
    number: int


@dataclass(frozen=True, slots=True)
class State:
    """Rank to server: the answer to a `StateRequest`.

    Attributes
    ----------
    number
        Of the request.
    awaited
        The rank that it waits for; None if it waits for none.
    text
        The call it is in, of which at most `MAX_TEXT_BYTES` are sent.
    """

    kind: ClassVar[int] = 16
    number: int
    awaited: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Server to rank: the answer to a `FindCause`.

    Attributes
    ----------
    origin
        The rank at the end of the chain; None if the chain is a cycle.
    text
        The chain, for the error.
    """

    kind: ClassVar[int] = 17
    origin: int | None
    text: str


Message: TypeAlias = (
    Register
    | Welcome
    | Announce
    | ProbeRequest
    | Introduction
    | Withdraw
    | Abort
    | Refusal
    | Waiting
    | Deadlock
    | Leave
    | PeerEnded
    | WatchPeers
    | FindCause
    | StateRequest
    | State
    | Cause
)


_LONGEST = {Waiting.kind: MAX_WAITING_BYTES, WatchPeers.kind: MAX_WATCHED * _PEER.size}
"""The most bytes of a body, for the kinds that may have more than `MAX_BODY_BYTES`."""


def encode(message: Message) -> bytes:
    """Return the bytes of a message, header included."""
    body = _body(message)
    return _HEADER.pack(len(body), message.kind) + body


def encode_registration(registration: Registration, proof: Proof) -> bytes:
    """Return the bytes of a `Register` message, with the rank's proof."""
    body = registration.encode()
    body = proof.of_client(body) + body
    return _HEADER.pack(len(body), Register.kind) + body


def _body(message: Message) -> bytes:
    match message:
        case Register(registration, proof):
            return proof + registration.encode()
        case Welcome(observed, proof):
            return observed.encode() + proof
        case Announce(peer, port):
            return _ANNOUNCE.pack(peer, port)
        case ProbeRequest(peer, ticket):
            return _PEER.pack(peer) + ticket
        case Introduction(peer, endpoints, ticket):
            return _PEER.pack(peer) + ticket + b"".join(endpoint.encode() for endpoint in endpoints)
        case Withdraw(peer):
            return _PEER.pack(peer)
        case Abort(reported_by, origin, reason, text):
            return _ABORT.pack(reported_by, origin, reason) + cut(text)
        case Refusal(reason, text):
            return bytes([reason]) + cut(text)
        case Waiting():
            return message.encode()
        case Deadlock(text):
            return cut(text)
        case Leave():
            return b""
        case PeerEnded(peer, lost):
            return _GONE.pack(peer, lost)
        case WatchPeers(peers):
            return struct.pack(f"!{len(peers)}I", *peers)
        case FindCause(peer):
            return _PEER.pack(peer)
        case StateRequest(number):
            return _PEER.pack(number)
        case State(number, awaited, text):
            return _PEER.pack(number) + _PEER.pack(_NO_RANK if awaited is None else awaited) + cut(text)
        case Cause(origin, text):
            return _PEER.pack(_NO_RANK if origin is None else origin) + cut(text)


@dataclass(slots=True)
class Decoder:
    """Splits the bytes from the other side into messages."""

    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[Message]:
        """Add bytes; return the messages that are complete now.

        Raises
        ------
        ProtocolError
            If they are not valid messages.
        """
        self._buffer += data
        messages = []
        while len(self._buffer) >= _HEADER.size:
            length, kind = _HEADER.unpack_from(self._buffer)
            longest = _LONGEST.get(kind, MAX_BODY_BYTES)
            if length > longest:
                raise ProtocolError(f"message of kind {kind}: expected at most {longest} bytes, {length} announced")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            messages.append(_decode(kind, body))
        return messages


def _decode(kind: int, body: bytes) -> Message:
    try:
        return _decoded(kind, body)
    except (struct.error, ValueError) as error:
        raise ProtocolError(f"invalid message {body[:40].hex()} of kind {kind}: {error}") from None


def _decoded(kind: int, body: bytes) -> Message:
    if kind == Register.kind:
        return Register(decode_registration(body[PROOF_BYTES:]), body[:PROOF_BYTES])
    if kind == Welcome.kind:
        proof = _exactly(body[ADDRESS_BYTES:], PROOF_BYTES)
        return Welcome(decode_endpoint(body[:ADDRESS_BYTES]), proof)
    if kind == Announce.kind:
        peer, port = _ANNOUNCE.unpack(body)
        if port == 0:
            raise ProtocolError("expected a port from 1 to 65535, got 0")
        return Announce(peer, port)
    if kind == ProbeRequest.kind:
        return ProbeRequest(_PEER.unpack_from(body)[0], _exactly(body[_PEER.size :], TICKET_BYTES))
    if kind == Introduction.kind:
        ticket, addresses = body[_PEER.size : _PEER.size + TICKET_BYTES], body[_PEER.size + TICKET_BYTES :]
        if not addresses or len(addresses) > MAX_ENDPOINTS * ADDRESS_BYTES:
            raise ProtocolError(f"expected 1 to {MAX_ENDPOINTS} addresses, got {len(addresses)} bytes")
        starts = range(0, len(addresses), ADDRESS_BYTES)
        endpoints = [decode_endpoint(addresses[start : start + ADDRESS_BYTES]) for start in starts]
        return Introduction(_PEER.unpack_from(body)[0], tuple(endpoints), ticket)
    if kind == Withdraw.kind:
        return Withdraw(*_PEER.unpack(body))
    if kind == Abort.kind:
        reported_by, origin, reason = _ABORT.unpack_from(body)
        return Abort(reported_by, origin, reason, body[_ABORT.size :].decode(errors="replace"))
    if kind == Refusal.kind:
        return Refusal(RefusalReason(_exactly(body[:1], 1)[0]), body[1:].decode(errors="replace"))
    if kind == Waiting.kind:
        return decode_waiting(body)
    if kind == Deadlock.kind:
        return Deadlock(body.decode(errors="replace"))
    if kind == Leave.kind:
        _exactly(body, 0)
        return Leave()
    if kind == PeerEnded.kind:
        return PeerEnded(*_GONE.unpack(body))
    if kind == WatchPeers.kind:
        return WatchPeers(tuple(peer for (peer,) in _PEER.iter_unpack(body)))
    if kind == FindCause.kind:
        return FindCause(*_PEER.unpack(body))
    if kind == StateRequest.kind:
        return StateRequest(*_PEER.unpack(body))
    if kind == State.kind:
        number, awaited = struct.unpack_from("!II", body)
        return State(number, _rank_or_none(awaited), body[2 * _PEER.size :].decode(errors="replace"))
    if kind == Cause.kind:
        (origin,) = _PEER.unpack_from(body)
        return Cause(_rank_or_none(origin), body[_PEER.size :].decode(errors="replace"))
    raise ProtocolError("unknown kind")


def decode_registration(body: bytes) -> Registration:
    """Return the registration in `body`.

    Raises
    ------
    ProtocolError
        If it is invalid.
    """
    rank, world_size, instance, local, job_bytes, name_bytes = _REGISTER.unpack_from(body)
    strings = body[_REGISTER.size :]
    if len(strings) != job_bytes + name_bytes:
        raise ProtocolError(f"expected {job_bytes + name_bytes} bytes, got {len(strings)}")
    if job_bytes > MAX_JOB_BYTES or name_bytes > MAX_NAME_BYTES:
        raise ProtocolError(f"expected at most {MAX_JOB_BYTES} bytes of job and {MAX_NAME_BYTES} of communicator name")
    if not 0 <= rank < world_size <= MAX_WORLD_SIZE:
        raise ProtocolError(
            f"invalid rank {rank} of {world_size}: expected a rank below the world size, at most {MAX_WORLD_SIZE}"
        )
    job, name = strings[:job_bytes].decode(), strings[job_bytes:].decode()
    return Registration(job, name, rank, world_size, instance, decode_endpoint(local))


def _rank_or_none(number: int) -> int | None:
    return None if number == _NO_RANK else number


def _exactly(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise ProtocolError(f"expected {length} bytes, got {len(data)}")
    return data
