"""Messages that say what they are, over any way of moving bytes between two ranks.

Every message has a header (see `fmi_shim.frames`) which is compared with the call that waits for it, so that
ranks in different calls are told of each other.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import numpy as np

from fmi_shim.channel import opened_first
from fmi_shim.error_codec import MAX_ABORT_BYTES, abort_error, decode_abort, make_abort
from fmi_shim.errors import FmiError, MismatchError, PeerLostError
from fmi_shim.frames import (
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
from fmi_shim.transports.transfers import Buffers, OnReceived, Transfer, octets
from rendezvous.protocol.messages import Abort

MAX_ANNOUNCED_BYTES = 1 << 34
"""Largest array that a header may announce to a rank that does not know its size. Memory is touched only as
bytes arrive, so that a lie costs address space alone."""


class Link(Protocol):
    """The way to one rank and back.

    Attributes
    ----------
    peer
        Rank at the other end.
    ended
        Whether that rank sends and receives no more.
    sent, received
        Number of messages that were begun to be sent, and of those that have come whole.
    """

    peer: int
    ended: bool
    sent: int
    received: int

    def push_back(self, data: bytes) -> None:
        """Have `data`, which was read too early, read again."""


L = TypeVar("L", bound=Link)


class Framing(Generic[L]):
    """The messages of `Channel`, with headers. What moves the bytes is a subclass's."""

    rank: int
    size: int
    full_duplex = True

    _call: Call

    @abstractmethod
    def _link(self, peer: int) -> L:
        """Return the way to rank `peer`, opened now if there is none."""

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
        """Begin a transfer, as far as it goes without waiting."""

    def send(self, buffer: Array, dst: int) -> None:
        """Send a header and all of `buffer` at once where it fits."""
        target = self._target(dst)
        target.sent += 1
        self._move(target, self._message(buffer), None, [])

    def recv(self, buffer: Array, src: int) -> None:
        """Fill `buffer` with the payload of a message of the running call."""
        source = self._link(src)
        incoming, judge = self._expected(source, octets(buffer))
        self._move(None, [], source, incoming, judge)

    def sendrecv(self, outgoing: Array, dst: int, incoming: Array, src: int) -> None:
        """Send and receive at the same time."""
        if not opened_first(self.rank, dst, src):
            self._link(src)
        target = self._target(dst)
        source = self._link(src)
        buffers, judge = self._expected(source, octets(incoming))
        target.sent += 1
        self._move(target, self._message(outgoing), source, buffers, judge)

    def recv_new(self, src: int, parts: int | None = None) -> Array:
        """Allocate what the header announces, and fill it."""
        source = self._link(src)
        buffer = self._announced(source, parts)
        self._move(None, [], source, [octets(buffer)])
        source.received += 1
        return buffer

    def isend(self, buffer: Array, dst: int) -> Transfer[L]:
        """Begin to send a header and all of `buffer`."""
        message = self._message(buffer, Kind.posted)

        def attach(link: L) -> tuple[Buffers, OnReceived | None]:
            link.sent += 1
            return message, None

        return self._post(Transfer(dst, True, attach))

    def irecv(self, buffer: Array, src: int) -> Transfer[L]:
        """Begin to fill `buffer` with the payload of a message of the running call."""
        call = self._call

        def attach(link: L) -> tuple[Buffers, OnReceived | None]:
            running = self._call
            self._expect(call)
            expected = self._expected(link, octets(buffer), blocking=False)
            self._expect(running)
            return expected

        return self._post(Transfer(src, False, attach))

    @property
    def _purpose(self) -> str:
        return f"rank {self.rank} in {self._call}"

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

    def _announced(self, source: L, parts: int | None = None) -> Array:
        """Read a header that only the sender could know, and return an array for what it announces."""
        found = self._accept(source, self._read(source, HEADER_BYTES), b"")
        while found.kind is Kind.waiting:
            self._noted(source, found.call, found.length, blocking=True)
            found = self._accept(source, self._read(source, HEADER_BYTES), b"")
        return self._allocated(source.peer, found, self._read(source, 8 * (found.dimensions or 0)), parts)

    def _allocated(self, peer: int, found: Header, axes: bytes | bytearray, parts: int | None = None) -> Array:
        """Return an array for what `peer` announced, and expect its call from now on."""
        if found.dimensions is None:
            raise MismatchError(
                f"rank {peer} sent typed values in {found.call}, but {self._purpose} has no fmi.types: "
                "give the same descriptor on all ranks, or arrays on all",
                origin=self.rank,
            )
        shape = decode_shape(axes)
        whole = shape if parts is None else (parts, *shape)
        dtype = found.call.dtype
        announced = None if dtype is None else math.prod(whole) * dtype.itemsize
        if (
            not plausible(shape)
            or announced != found.length
            or math.prod(shape) != found.call.count
            or found.length > MAX_ANNOUNCED_BYTES
        ):
            raise MismatchError(f"{self._purpose}: rank {peer} announced {found.length} bytes for shape {list(whole)}")
        self._expect(replace(found.call, shape=shape))
        try:
            return np.empty(whole, dtype)
        except MemoryError as error:
            raise MismatchError(
                f"{self._purpose}: rank {peer} announced an array of shape {list(whole)}, for which there is no "
                f"memory: {error}"
            ) from None

    def _expected(self, source: L, payload: memoryview, blocking: bool = True) -> tuple[Buffers, OnReceived]:
        """Return the buffers for the message that the running call expects, and who judges it as it comes.

        Header and payload are read together where possible; nothing is done with the payload before the
        header has proved right. `blocking` says whether the rank does nothing else meanwhile.
        """
        call = self._call
        expected = self._head(len(payload))
        head = bytearray(len(expected))
        total = 0
        buffers = [memoryview(head), payload]

        def judge(received: int) -> None:
            nonlocal total
            before, total = total, total + received
            if before < len(expected) and total >= HEADER_BYTES:
                seen = min(total, len(expected))
                if before < HEADER_BYTES and head[KIND_AT] == Kind.waiting:
                    note = self._accept(source, head, b"")
                    self._noted(source, note.call, note.length, blocking)
                    source.push_back(bytes(head[HEADER_BYTES:seen]) + bytes(payload[: total - seen]))
                    buffers[:] = [memoryview(head), payload]
                    total = 0
                    return
                if head[KIND_AT] == Kind.posted:
                    head[KIND_AT] = Kind.data
                if head[:seen] != expected[:seen]:
                    self._expect(call)  # another one may run while a posted message comes
                    raise self._unlike(source, head[:seen], expected, bytes(payload[: total - seen]))
            if total == len(expected) + len(payload):
                source.received += 1

        return buffers, judge

    def _unlike(self, source: L, head: bytes | bytearray, expected: bytes, payload: bytes) -> MismatchError:
        """Raise what the header in `head` means, or return the error for one that differs in the shape alone."""
        self._accept(source, head, payload)
        return MismatchError(
            f"rank {source.peer} sent {_described(head)} where rank {self.rank} in {self._call} "
            f"expected {_described(expected)}: types and shapes must be the same on all ranks",
            origin=self.rank,
        )

    def _accept(self, source: L, head: bytes | bytearray, payload: bytes) -> Header:
        """Return the header in `head` if it belongs to the running call, and raise what it means otherwise.

        Parameters
        ----------
        source
            Where it came from.
        head
            The first bytes that came, at least a header's.
        payload
            What came after them.
        """
        try:
            found = decode_header(head)
            if found.kind is Kind.abort:
                rest = bytes(head[HEADER_BYTES:]) + payload
                rest += self._read(source, max(0, min(found.length, MAX_ABORT_BYTES) - len(rest)))
                received = self._abort_error(decode_abort(rest[: found.length], source.peer))
        except FrameError as error:
            raise MismatchError(f"{self._purpose}: rank {source.peer} sent no valid frame: {error}") from None
        if found.kind is Kind.abort:
            raise received
        if found.kind is Kind.goodbye:
            raise self._left(source.peer)
        if found.kind is Kind.waiting:
            return found
        if not self._call.accepts(found.call):
            raise MismatchError(
                f"rank {source.peer} is in {found.call} while rank {self.rank} is in {self._call}: "
                "all ranks must make the same calls with the same arguments in the same order",
                origin=self.rank,
            )
        return found

    def _noted(self, source: L, call: Call, received: int, blocking: bool) -> None:
        """Take note that `source` waits in `call`, and has got so many messages from this rank."""

    def _read(self, source: L, count: int) -> bytearray:
        data = bytearray(count)
        if count:
            self._move(None, [], source, [memoryview(data)])
        return data

    def _target(self, dst: int) -> L:
        """Return the way to a rank that is to be sent to."""
        target = self._link(dst)
        if target.ended:
            raise self._left(dst)
        return target

    def _left(self, peer: int) -> FmiError:
        return PeerLostError(
            f"{self._purpose}: rank {peer} has left: its program ended, or closed the communicator, too early",
            origin=peer,
        )

    def _abort_error(self, abort: Abort) -> FmiError:
        return abort_error(abort)

    def _as_abort(self, error: BaseException) -> Abort:
        return make_abort(error, self.rank, self._purpose)


def _described(head: bytes | bytearray) -> str:
    dimensions = decode_header(head).dimensions
    if dimensions is None:
        return "typed values"
    axes = head[HEADER_BYTES : HEADER_BYTES + 8 * dimensions]
    complete = len(axes) == 8 * dimensions
    return f"an array of shape {list(decode_shape(axes))}" if complete else f"an array of {dimensions} dimensions"
