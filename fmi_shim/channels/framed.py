"""The Direct channel between ranks of ours: every message says what it is, and every rank says how it ends."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fmi_shim.channels.direct import Buffers, DirectChannel
from fmi_shim.channels.stream import Stream, octets
from fmi_shim.errors import (
    FmiError,
    MismatchError,
    PeerFailedError,
    PeerLostError,
    PeerOverflowError,
    PeerTimeoutError,
)
from fmi_shim.frames import (
    HEADER_BYTES,
    MAX_ABORT_BYTES,
    Abort,
    Call,
    FrameError,
    Header,
    Kind,
    Reason,
    abort_frame,
    decode_abort,
    decode_header,
    decode_shape,
    farewell,
    goodbye_frame,
    header,
    signature,
)
from fmi_shim.handshake import Hello
from fmi_shim.operators import Array
from rendezvous.protocol import pair_name

MAX_ANNOUNCED_BYTES = 1 << 34
"""Largest array that a header may announce to a rank that does not know its size. Memory is touched only as
bytes arrive, so that a lie costs address space alone."""

_ERRORS: dict[Reason, type[FmiError]] = {
    Reason.lost: PeerLostError,
    Reason.timeout: PeerTimeoutError,
    Reason.mismatch: MismatchError,
    Reason.overflow: PeerOverflowError,
    Reason.failed: PeerFailedError,
}


class FramedChannel(DirectChannel):
    """Messages with headers over direct connections. Implements `Channel`.

    Beyond `DirectChannel` it compares every message with the call that waits for it, learns at once of any
    connected rank's end, told or not, and passes the first error on to all ranks it is connected to.
    """

    full_duplex = True

    _call: Call
    _signature: bytes

    def begin(self, call: Call) -> None:
        """Make the call the one that messages are compared with, unless a connected rank has failed meanwhile."""
        self._expect(call)
        self._watch.look()

    def send(self, buffer: Array, dst: int) -> None:
        """Send a header and all of `buffer` with one system call where it fits."""
        self._move(self._target(dst), self._message(buffer), None, [])

    def recv(self, buffer: Array, src: int) -> None:
        """Fill `buffer` with the payload of a message of the running call."""
        source = self._framed_stream(src)
        incoming, judge = self._expected(source, octets(buffer))
        self._move(None, [], source, incoming, judge)

    def sendrecv(self, outgoing: Array, incoming: Array, peer: int) -> None:
        """Send and receive at the same time."""
        stream = self._target(peer)
        buffers, judge = self._expected(stream, octets(incoming))
        self._move(stream, self._message(outgoing), stream, buffers, judge)

    def recv_new(self, src: int, parts: int | None = None) -> Array:
        """Allocate what the header announces, and fill it."""
        source = self._framed_stream(src)
        found = self._accept(source, self._read(source, HEADER_BYTES), b"")
        if found.dimensions is None:
            raise MismatchError(
                f"rank {src} sent typed values in {found.call}, but {self._purpose} has no fmi.types: "
                "give the same descriptor on all ranks, or arrays on all",
                origin=self.rank,
            )
        shape = decode_shape(self._read(source, 8 * found.dimensions))
        whole = shape if parts is None else (parts, *shape)
        dtype = found.call.dtype
        announced = None if dtype is None else math.prod(whole) * dtype.itemsize
        if announced != found.length or math.prod(shape) != found.call.count or found.length > MAX_ANNOUNCED_BYTES:
            raise MismatchError(f"{self._purpose}: rank {src} announced {found.length} bytes for shape {list(whole)}")
        self._expect(replace(found.call, shape=shape))
        buffer = np.empty(whole, dtype)
        self._move(None, [], source, [octets(buffer)])
        return buffer

    def fail(self, error: BaseException) -> None:
        """Tell every connected rank of the error, then close."""
        self._leave(abort_frame(self._as_abort(error)))

    def close(self) -> None:
        """Say goodbye to every connected rank, then close."""
        self._leave(goodbye_frame())

    def _expect(self, call: Call) -> None:
        self._call = call
        self._signature = signature(call)

    def _message(self, buffer: Array) -> Buffers:
        payload = octets(buffer)
        return [memoryview(header(self._signature, len(payload), self._call.shape)), payload]

    def _expected(self, source: Stream, payload: memoryview) -> tuple[Buffers, Callable[[int], None]]:
        """Return the buffers for the message that the running call expects, and who judges it as it comes.

        Header and payload are read together where possible; nothing is done with the payload before the
        header has proved right.
        """
        expected = header(self._signature, len(payload), self._call.shape)
        head = bytearray(len(expected))
        total = 0

        def judge(received: int) -> None:
            nonlocal total
            before, total = total, total + received
            if before >= len(expected) or total < HEADER_BYTES:
                return
            seen = min(total, len(expected))
            if head[:seen] != expected[:seen]:
                self._accept(source, head[:seen], bytes(payload[: total - seen]))
                raise MismatchError(
                    f"rank {source.peer} sent {_described(head[:seen])} where rank {self.rank} in {self._call} "
                    f"expected {_described(expected)}: types and shapes must be the same on all ranks",
                    origin=self.rank,
                )

        return [memoryview(head), payload], judge

    def _accept(self, source: Stream, head: bytes | bytearray, payload: bytes) -> Header:
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
                told = self._told(source, decode_abort(rest[: found.length]))
        except FrameError as error:
            raise MismatchError(f"{self._purpose}: rank {source.peer} sent no valid frame: {error}") from None
        if found.kind is Kind.abort:
            raise told
        if found.kind is Kind.goodbye:
            raise self._left(source)
        if not self._call.accepts(found.call):
            raise MismatchError(
                f"rank {source.peer} is in {found.call} while rank {self.rank} is in {self._call}: "
                "all ranks must make the same calls with the same arguments in the same order",
                origin=self.rank,
            )
        return found

    def _read(self, source: Stream, count: int) -> bytearray:
        data = bytearray(count)
        if count:
            self._move(None, [], source, [memoryview(data)])
        return data

    def _target(self, dst: int) -> Stream:
        """Return the connection to a rank that is to be sent to."""
        target = self._framed_stream(dst)
        if target.ended:
            raise self._left(target)
        return target

    def _hello(self, peer: int) -> Hello | None:
        return Hello(self.comm_name, self.size, self.rank, peer)

    def _framed_stream(self, peer: int) -> Stream:
        # Named alike whoever sends first, so that two ranks in different calls meet and are told so.
        stream = self._streams.get(peer)
        if stream is None:
            stream = self._stream(peer, pair_name(self.comm_name, max(self.rank, peer), min(self.rank, peer)))
            self._watch.add(stream.descriptor)
        return stream

    def _hung_up(self, descriptor: int) -> None:
        """Find out how a connection ended that is not waited for: in peace, or as everybody's error."""
        stream = self._by_descriptor[descriptor]
        self._watch.remove(descriptor)
        stream.drain()
        end = farewell(stream.backlog)
        if isinstance(end, Abort):
            raise self._told(stream, end)
        if end is None:
            raise self._ended(stream)

    def _broken(self, stream: Stream) -> FmiError:
        """Look for the reason among what came before the connection broke."""
        stream.drain()
        end = farewell(stream.backlog)
        return self._told(stream, end) if isinstance(end, Abort) else self._ended(stream)

    def _left(self, stream: Stream) -> FmiError:
        return PeerLostError(
            f"{self._purpose}: rank {stream.peer} has left: its program ended, or closed the communicator, too early",
            origin=stream.peer,
        )

    def _told(self, stream: Stream, abort: Abort) -> FmiError:
        return _ERRORS[abort.reason](abort.text, abort.origin, stream.peer)

    def _as_abort(self, error: BaseException) -> Abort:
        if isinstance(error, FmiError):
            reason = next((reason for reason, kind in _ERRORS.items() if type(error) is kind), Reason.failed)
            return Abort(reason, self.rank if error.origin is None else error.origin, error.message)
        reason = Reason.overflow if isinstance(error, OverflowError) else Reason.failed
        text = f"{self._purpose} raised {type(error).__name__}: {error}".rstrip(": ")
        return Abort(reason, self.rank, text)

    def _leave(self, last_frame: bytes) -> None:
        """Send a last frame wherever a message is not half sent, then close."""
        if os.getpid() == self._process:
            for stream in self._streams.values():
                if not stream.in_message:
                    # A rank that is gone, or does not read, will see the connection end.
                    with contextlib.suppress(OSError):
                        stream.socket.send(last_frame)
        self._close_streams()


def _described(head: bytes | bytearray) -> str:
    dimensions = decode_header(head).dimensions
    if dimensions is None:
        return "typed values"
    axes = head[HEADER_BYTES : HEADER_BYTES + 8 * dimensions]
    complete = len(axes) == 8 * dimensions
    return f"an array of shape {list(decode_shape(axes))}" if complete else f"an array of {dimensions} dimensions"
