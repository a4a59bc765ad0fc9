"""Messages with headers, over any transport that moves bytes between two ranks.

Every message has a header (see `fmi_shim.frames`), which the receiver compares with its running call. Ranks in
different calls raise an error that names both calls.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np

from fmi_shim.error_codec import MAX_ABORT_BYTES, abort_error, decode_abort, make_abort
from fmi_shim.errors import FmiError, MismatchError, PeerLostError
from fmi_shim.frames import (
    BY_ROWS,
    HEADER_BYTES,
    KIND_AT,
    Call,
    FrameError,
    Header,
    Kind,
    decode_header,
    decode_shape,
    header,
    plausible,
    signature,
)
from fmi_shim.operators import Array
from fmi_shim.transports.transfers import (
    Buffers,
    Message,
    OnReceived,
    Transfer,
    UncheckedMessage,
    octets,
    repeatable_unless_moved,
)
from rendezvous.protocol.messages import Abort

MAX_ANNOUNCED_BYTES = 1 << 34
"""Largest array that a header may announce to a rank that does not know its size. Memory is touched only as bytes
arrive, so that a wrong length costs address space alone."""


class Link(Protocol):
    """The connection to one rank, with what messages with headers need.

    Attributes
    ----------
    peer
        Rank at the other end.
    ended
        Whether that rank has closed its end.
    sent, received
        Number of messages that this rank has begun to send, and of those that it has received completely.
    """

    peer: int
    ended: bool
    sent: int
    received: int

    def push_back(self, data: bytes) -> None:
        """Put back `data`, which was read too early, to be read next."""


L = TypeVar("L", bound=Link)


class Framing(Generic[L]):
    """The messages of `Channel`, with headers. A subclass moves the bytes."""

    rank: int
    size: int
    full_duplex = True
    reads_ahead = True
    """Whether one read may return the end of a message together with the beginning of the next one."""

    _call: Call

    @abstractmethod
    def _link(self, peer: int) -> L:
        """Return the connection to rank `peer`; it is opened now if there is none."""

    @abstractmethod
    def _move(
        self,
        target: L | None,
        outgoing: Buffers,
        source: L | None,
        incoming: Buffers,
        on_received: OnReceived | None = None,
    ) -> None:
        """Send and receive at the same time until both lists of buffers are used up."""

    @abstractmethod
    def _post(self, transfer: Transfer[L]) -> Transfer[L]:
        """Add a posted message, and move as much of it as possible without waiting."""

    def _send_now(self, buffer: Array, dst: int, src: int | None = None, posted: bool = False) -> Buffers | None:
        """Send as much of a message as can be sent without waiting; return what is left of it.

        Returns None, with nothing sent, if `_move` must send the message: for example if the connection to rank `src`,
        from which this rank receives at the same time, is not open. `posted` says whether the sender
        continues meanwhile.
        """
        return None

    def _receive_now(self, buffer: Array, src: int) -> bool:
        """Receive the message of the running call; return False, with nothing received, if it may be another one."""
        return False

    def send(self, buffer: Array, dst: int) -> None:
        """Send a header and all of `buffer`."""
        rest = self._send_now(buffer, dst)
        if rest is None:
            target = self._target(dst)
            message = self._message(buffer)
            whole = sum(map(len, message))

            def untouched() -> bool:
                if sum(map(len, message)) < whole:
                    return False
                target.sent -= 1
                return True

            target.sent += 1
            with repeatable_unless_moved(untouched):
                self._move(target, message, None, [])
        elif rest:
            self._move(self._link(dst), rest, None, [])

    def recv(self, buffer: Array, src: int) -> Array:
        """Fill `buffer` with the payload of a message of the running call; see `Channel.recv`."""
        if self._receive_now(buffer, src):
            return buffer
        source = self._link(src)
        message = ExpectedMessage(self, source, buffer)
        with repeatable_unless_moved(lambda: not message.is_begun):
            self._move(None, [], source, message.buffers, message.on_received)
        return message.array

    def sendrecv(self, outgoing: Array, dst: int, incoming: Array, src: int) -> None:
        """Send and receive at the same time; what can be sent without waiting is sent first."""
        rest = self._send_now(outgoing, dst, src)
        if rest is None:
            if not _opens_first(self.rank, dst, src):
                self._link(src)
            target = self._target(dst)
            source = self._link(src)
            target.sent += 1
            rest = self._message(outgoing)
        elif rest:
            target, source = self._link(dst), self._link(src)
        else:
            self.recv(incoming, src)
            return
        message = ExpectedMessage(self, source, incoming)
        self._move(target, rest, source, message.buffers, message.on_received)

    def recv_new(self, src: int, parts: int | None = None) -> Array:
        """Allocate what the header announces, and fill it."""
        source = self._link(src)
        message = AnnouncedMessage(self, source, parts)
        with repeatable_unless_moved(lambda: not message.is_begun):
            self._move(None, [], source, message.buffers, message.on_received)
        assert message.array is not None  # noqa: S101 - all of it was received
        return message.array

    def isend(self, buffer: Array, dst: int) -> Transfer[L]:
        """Begin to send a header and all of `buffer`."""
        rest = self._send_now(buffer, dst, posted=True)
        if rest is None:
            return self._post(Transfer(dst, True, partial(self._attach_outgoing, self._message(buffer, Kind.posted))))
        transfer: Transfer[L] = Transfer(dst, True, partial(self._attach_rest, rest))
        if rest:
            return self._post(transfer)
        transfer.begin(self._link(dst))
        return transfer

    def irecv(self, buffer: Array | None, src: int) -> Transfer[L]:
        """Begin to fill `buffer`, or a new array, with the payload of a message of the running call."""
        return self._post(Transfer(src, False, partial(self._attach_incoming, self._call, buffer)))

    def _attach_outgoing(self, message: Buffers, link: L) -> Message:
        link.sent += 1
        return UncheckedMessage(message)

    def _attach_rest(self, rest: Buffers, link: L) -> Message:
        return UncheckedMessage(rest)

    def _attach_incoming(self, call: Call, buffer: Array | None, link: L) -> Message:
        running = self._call
        self._expect(call)
        message: Message
        if buffer is None:
            message = AnnouncedMessage(self, link, blocking=False)
        else:
            message = ExpectedMessage(self, link, buffer, blocking=False)
        self._expect(running)
        return message

    @property
    def _purpose(self) -> str:
        return f"rank {self.rank} in {self._call.made_by(self.rank)}"

    def _expect(self, call: Call) -> None:
        self._call = call
        self._heads: dict[int, bytes] = {}

    def _head(self, length: int, kind: Kind = Kind.data) -> bytes:
        """Return the header of a message of the running call, of `length` bytes, which are sent or posted."""
        key = length if kind is Kind.data else ~length  # an enum takes long to hash
        head = self._heads.get(key)
        if head is None:
            head = self._heads[key] = header(signature(self._call, kind), length, self._call.shape)
        return head

    def _message(self, buffer: Array, kind: Kind = Kind.data) -> Buffers:
        payload = octets(buffer)
        return [memoryview(self._head(len(payload), kind)), payload]

    def _allocated(self, peer: int, found: Header, axes: bytes | bytearray, parts: int | None = None) -> Array:
        """Return an array for what `peer` announced, and expect its call from now on."""
        if found.dimensions is None:
            raise MismatchError(
                f"rank {peer} sent typed values in {found.call}, but {self._purpose} has no fmi.types: "
                "give the same descriptor on all ranks, or arrays on all",
                origin=self.rank,
            )
        shape = decode_shape(axes)
        if found.call.operation in BY_ROWS:
            parts = found.call.rows(found.length)
        whole = shape if parts is None else (parts, *shape)
        dtype = found.call.dtype
        announced = None if dtype is None else math.prod(whole) * dtype.itemsize
        if (
            not plausible(shape)
            or announced != found.length
            or math.prod(shape) != found.call.count
            or found.length > MAX_ANNOUNCED_BYTES
        ):
            raise MismatchError(
                f"{self._purpose}: invalid header of rank {peer}: announced {found.length} bytes for shape "
                f"{list(whole)}: expected the bytes of that shape, at most {MAX_ANNOUNCED_BYTES}"
            )
        self._expect(replace(found.call, shape=shape))
        try:
            return np.empty(whole, dtype)
        except MemoryError as error:
            raise MismatchError(
                f"{self._purpose}: not enough memory for the array of shape {list(whole)} from rank {peer}: {error}"
            ) from None

    def _mismatch_error(self, source: L, head: bytes | bytearray, expected: bytes, payload: bytes) -> MismatchError:
        """Raise what the header in `head` means, or return the error for one that differs in the shape alone."""
        self._accept(source, head, payload)
        return MismatchError(
            f"rank {source.peer} sent {_described(head)} where {self._purpose} "
            f"expected {_described(expected)}: types, shapes and counts must be the same on all ranks",
            origin=self.rank,
        )

    def _accept(self, source: L, head: bytes | bytearray, payload: bytes) -> Header:
        """Return the header in `head` if it belongs to the running call, or else raise the error that it means.

        Parameters
        ----------
        source
            The connection that the message was received from.
        head
            The first bytes received, at least a header's.
        payload
            The bytes received after them.
        """
        try:
            found = decode_header(head)
            if found.kind is Kind.abort:
                rest = bytes(head[HEADER_BYTES:]) + payload
                rest += self._read(source, max(0, min(found.length, MAX_ABORT_BYTES) - len(rest)))
                received = self._abort_error(decode_abort(rest[: found.length], source.peer))
        except FrameError as error:
            raise MismatchError(f"{self._purpose}: invalid frame of rank {source.peer}: {error}") from None
        if found.kind is Kind.abort:
            raise received
        if found.kind is Kind.goodbye:
            raise self._left_error(source.peer)
        if found.kind is Kind.waiting:
            return found
        if not self._call.accepts(found.call):
            raise MismatchError(
                f"rank {source.peer} is in {found.call.made_by(source.peer)} while rank {self.rank} is in "
                f"{self._call.made_by(self.rank)}: "
                "all ranks must make the same calls with the same arguments in the same order",
                origin=self.rank,
            )
        return found

    def _on_wait_notice(self, source: L, call: Call, received: int, blocking: bool) -> None:
        """Handle the notice that `source` waits in `call`, after `received` messages from this rank."""

    def _read(self, source: L, count: int) -> bytearray:
        data = bytearray(count)
        if count:
            self._move(None, [], source, [memoryview(data)])
        return data

    def _target(self, dst: int) -> L:
        """Return the connection to send to rank `dst`; raise if that rank has closed its end."""
        target = self._link(dst)
        if target.ended:
            raise self._left_error(dst)
        return target

    def _left_error(self, peer: int) -> FmiError:
        return PeerLostError(
            f"{self._purpose}: rank {peer} closed the communicator too early, or its program ended: all ranks must "
            "make the same calls",
            origin=peer,
        )

    def _abort_error(self, abort: Abort) -> FmiError:
        return abort_error(abort)

    def _as_abort(self, error: BaseException) -> Abort:
        return make_abort(error, self.rank, self._purpose)


class ExpectedMessage(Generic[L]):
    """The message that the running call expects from `source`: where it is received, and its check.

    Header and payload are received together where possible; the payload is not used before the header is valid.

    Parameters
    ----------
    framing
        The channel that receives the message.
    source
        The connection to receive from.
    buffer
        The memory to fill.
    blocking
        Whether the rank blocks until the message is received.

    Attributes
    ----------
    buffers
        The memory that is not yet filled.
    array
        The memory to fill; of a shorter message, the part of it that the message fills.
    """

    __slots__ = (
        "_blocking",
        "_call",
        "_expected",
        "_framing",
        "_head",
        "_payload",
        "_source",
        "_total",
        "array",
        "buffers",
    )

    def __init__(self, framing: Framing[L], source: L, buffer: Array, blocking: bool = True) -> None:
        self.array = buffer
        self._framing = framing
        self._source = source
        self._payload = payload = octets(buffer)
        self._blocking = blocking
        self._call = framing._call  # noqa: SLF001 - of one concept, for this class and its uses below
        self._expected = framing._head(len(payload))  # noqa: SLF001
        self._head = bytearray(len(self._expected))
        self._total = 0
        self.buffers: Buffers = []
        self._expect_header()

    def _expect_header(self) -> None:
        """Receive a header, and the payload with it unless more than that might be received into its memory."""
        alone = self._framing.reads_ahead and self._call.takes_shorter
        self.buffers[:] = [memoryview(self._head)] if alone else [memoryview(self._head), self._payload]

    def on_received(self, received: int) -> None:
        """Check the header once it is complete, after `received` more bytes; raise if it is not the expected one."""
        before = self._total
        self._total = total = before + received
        expected, head, payload = self._expected, self._head, self._payload
        if before < len(expected) and total >= HEADER_BYTES:
            seen = min(total, len(expected))
            if before < HEADER_BYTES and head[KIND_AT] == Kind.waiting:
                self._skip_wait_notice(seen)
                return
            if head[KIND_AT] == Kind.posted:
                head[KIND_AT] = Kind.data
            if head[:seen] != expected[:seen] and not self._is_shorter(seen):
                framing = self._framing
                framing._expect(self._call)  # noqa: SLF001 - another call may run while a posted message is received
                extra = bytes(payload[: total - seen])
                raise framing._mismatch_error(self._source, head[:seen], expected, extra)  # noqa: SLF001
            if self._call.takes_shorter and seen == len(expected):
                payload = self._payload
                rest = payload[total - seen :]
                self.buffers[:] = [rest] if rest else []
        if total == len(expected) + len(payload):
            self._source.received += 1

    @property
    def is_begun(self) -> bool:
        """Whether a byte of it was received."""
        return self._total > 0

    def begun_header(self) -> bytes | None:
        """Return what was received of the header while it is incomplete, else None."""
        return None if self._total >= len(self._head) else bytes(self._head[: self._total])

    def _is_shorter(self, seen: int) -> bool:
        """Return whether the header, of which `seen` bytes are received, is of a message with fewer rows.

        Once it is complete, the message is received into the first part of the memory.
        """
        try:
            found = decode_header(self._head)
        except FrameError:
            return False
        if found.kind is not Kind.data or not self._call.accepts_shorter(found.call, found.dimensions):
            return False
        if seen < len(self._head):
            return True
        count = found.call.count
        if not self._call.fits_into(decode_shape(self._head[HEADER_BYTES:]), count):
            return False
        self.array = self.array[:count]
        self._payload = octets(self.array)
        return len(self._payload) == found.length

    def _skip_wait_notice(self, seen: int) -> None:
        """Handle a wait notice received in place of the header, and continue with the bytes read after it."""
        source, head = self._source, self._head
        notice = self._framing._accept(source, head, b"")  # noqa: SLF001
        self._framing._on_wait_notice(source, notice.call, notice.length, self._blocking)  # noqa: SLF001
        source.push_back(bytes(head[HEADER_BYTES:seen]) + bytes(self._payload[: self._total - seen]))
        self._expect_header()
        self._total = 0


class AnnouncedMessage(Generic[L]):
    """A message from `source` whose type and size only its header tells: it is received into a new array.

    Parameters
    ----------
    framing
        The channel that receives the message in its running call.
    source
        The connection to receive from.
    parts
        See `Channel.recv_new`.
    blocking
        Whether the rank blocks until the message is received.

    Attributes
    ----------
    buffers
        The memory that is not yet filled.
    array
        The new array, once the header is complete.
    """

    __slots__ = ("_axes", "_blocking", "_call", "_found", "_framing", "_head", "_parts", "_source", "array", "buffers")

    def __init__(self, framing: Framing[L], source: L, parts: int | None = None, blocking: bool = True) -> None:
        self._framing = framing
        self._source = source
        self._parts = parts
        self._blocking = blocking
        self._call = framing._call  # noqa: SLF001 - of one concept
        self._head = bytearray(HEADER_BYTES)
        self._axes = bytearray()
        self._found: Header | None = None
        self.array: Array | None = None
        self.buffers: Buffers = [memoryview(self._head)]

    @property
    def is_begun(self) -> bool:
        """Whether a byte of it was received."""
        return self._found is not None or len(self.buffers[0]) < HEADER_BYTES

    def begun_header(self) -> bytes | None:
        """Return what was received of the header while it is incomplete, else None."""
        if self.array is not None:
            return None
        read = bytes(self._head + self._axes)
        return read[: len(read) - sum(map(len, self.buffers))]

    def on_received(self, received: int) -> None:
        """Continue with the axis lengths after the header, and then with the payload."""
        if self.buffers:
            return
        framing, source = self._framing, self._source
        if self._found is None:
            running = framing._call  # noqa: SLF001
            framing._expect(self._call)  # noqa: SLF001 - another call may run while a posted message is received
            found = framing._accept(source, self._head, b"")  # noqa: SLF001
            framing._expect(running)  # noqa: SLF001
            if found.kind is Kind.waiting:
                framing._on_wait_notice(source, found.call, found.length, self._blocking)  # noqa: SLF001
                self.buffers[:] = [memoryview(self._head)]
                return
            self._found = found
            self._axes = bytearray(8 * (found.dimensions or 0))
            if self._axes:
                self.buffers[:] = [memoryview(self._axes)]
                return
        if self.array is None:
            running = framing._call  # noqa: SLF001
            framing._expect(self._call)  # noqa: SLF001
            self.array = framing._allocated(source.peer, self._found, self._axes, self._parts)  # noqa: SLF001
            if not self._blocking:
                framing._expect(running)  # noqa: SLF001 - the type is that of this message alone
            if self.array.nbytes:
                self.buffers[:] = [octets(self.array)]
                return
        source.received += 1


def _opens_first(rank: int, one: int, other: int) -> bool:
    """Return whether `rank` opens its connection to `one` before that to `other`.

    Two ranks open a connection together. Around a ring each rank waits for the next one, and without an order none
    would be opened. All ranks open first the connection whose higher rank, then whose lower rank, is lowest: the first
    missing pair of all always proceeds.
    """
    return (max(rank, one), min(rank, one)) <= (max(rank, other), min(rank, other))


def _described(head: bytes | bytearray) -> str:
    found = decode_header(head)
    dimensions = found.dimensions
    rows = f"{found.call.rows(found.length)} rows of " if found.call.operation in BY_ROWS else ""
    if dimensions is None:
        return f"{rows}typed values"
    axes = head[HEADER_BYTES : HEADER_BYTES + 8 * dimensions]
    complete = len(axes) == 8 * dimensions
    if rows and complete:
        return f"{rows}shape {list(decode_shape(axes))}"
    return f"an array of shape {list(decode_shape(axes))}" if complete else f"an array of {dimensions} dimensions"
