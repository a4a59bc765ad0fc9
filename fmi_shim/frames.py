"""The wire format of the framed mode: a header before every message. No I/O.

All numbers are little-endian. A header is 32 bytes::

    magic "FM" | version | kind | operation | dtype | operator | dimensions | root | sequence | count | length
       2            1       1        1          1        1           1        4        4         8        8

It is followed by ``dimensions`` axis lengths of 8 bytes, if the receiver may not know the array's shape, and by
``length`` bytes of payload. Everything before ``length`` is the *signature* of the call. Both ends compute it
independently: two ranks are in the same call with the same arguments if these 24 bytes are equal.

In the operations `BY_ROWS` ranks have different numbers of rows. There ``count`` and the axis lengths are those of one
row, so that the signature is the same on all ranks, and the number of rows follows from ``length``.

A Python object is one message or several: an *envelope* of bytes, and one message for each of its large buffers, whose
lengths are in the envelope; see `fmi_shim.objects`.
"""

from __future__ import annotations

import enum
import math
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fmi_shim.operators import Operator

_MAGIC = b"FM"
_VERSION = 2
_HEADER = struct.Struct("<2sBBBBBBiIQQ")
_SIGNATURE = struct.Struct("<2sBBBBBBiIQ")
_LENGTH = struct.Struct("<Q")
HEADER_BYTES = _HEADER.size
SIGNATURE_BYTES = _SIGNATURE.size
KIND_AT = 3
"""Offset of the kind in a header."""
_SEQUENCE_AT = 12

UNDESCRIBED = 255
"""Stands for the number of dimensions if no axis lengths follow."""
MAX_DIMENSIONS = 32
MAX_ELEMENTS = 1 << 43
"""Largest array that may be announced: 2^16 times as many elements of 16 bytes would exceed numpy's sizes."""

_UNSIGNED = {"bfloat16": np.uint16}
_SHORT_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
SHORT_FLOATS = {name: np.dtype([(name, _UNSIGNED.get(name, np.uint8))]) for name in _SHORT_FLOATS}
"""The types of torch and ml_dtypes that numpy lacks, by name: their bits, in a field of that name, which tells them
from each other."""

ELEMENT_TYPES: tuple[np.dtype[Any], ...] = (
    *(np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)),
    *(np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)),
    *(np.dtype(f"float{bits}") for bits in (16, 32, 64)),
    *(np.dtype(f"complex{bits}") for bits in (64, 128)),
    np.dtype(bool),
    *SHORT_FLOATS.values(),
)
"""The element types that can be sent, in native byte order."""

ELEMENT_CODES = {dtype: code for code, dtype in enumerate(ELEMENT_TYPES, 1)}
"""The number that stands for an element type in a header."""


def element_name(dtype: np.dtype[Any]) -> str:
    """Return the name of an element type."""
    return dtype.names[0] if dtype.names else dtype.name


class FrameError(ValueError):
    """The bytes are not a frame of this version."""


class Kind(enum.IntEnum):
    """The kind of a frame."""

    data = 1
    abort = 2
    goodbye = 3
    posted = 4
    """Data whose sender does not block (``isend``)."""
    waiting = 5
    """The sender waits for the receiver in this call; see `waiting_frame`."""


class Operation(enum.IntEnum):
    """The call that a message belongs to. In ``attach`` the ranks open their shared memory."""

    send = 1
    bcast = 2
    gather = 3
    scatter = 4
    reduce = 5
    allreduce = 6
    scan = 7
    barrier = 8
    allgather = 9
    alltoall = 10
    reduce_scatter = 11
    exscan = 12
    gatherv = 13
    scatterv = 14
    allgatherv = 15
    alltoallv = 16
    reduce_scatterv = 17
    send_object = 18
    bcast_object = 19
    gather_object = 20
    scatter_object = 21
    allgather_object = 22
    attach = 64


OBJECTS = frozenset(
    (
        Operation.send_object,
        Operation.bcast_object,
        Operation.gather_object,
        Operation.scatter_object,
        Operation.allgather_object,
    )
)
"""The operations of Python objects."""
BY_ROWS = OBJECTS | {
    Operation.gatherv,
    Operation.scatterv,
    Operation.allgatherv,
    Operation.alltoallv,
    Operation.reduce_scatterv,
}
"""The operations whose messages have different numbers of rows; those of an object are bytes."""
ROOTED = frozenset(
    (
        Operation.bcast,
        Operation.gather,
        Operation.scatter,
        Operation.reduce,
        Operation.gatherv,
        Operation.scatterv,
        Operation.bcast_object,
        Operation.gather_object,
        Operation.scatter_object,
    )
)
"""The operations with a root."""
_RECEIVED = {Operation.send: "recv", Operation.send_object: "recv_object"}
"""The operations of two ranks, and what the receiver calls."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a rank, which the other ranks must make, too.

    Attributes
    ----------
    operation
        The operation; ``recv`` is the other end of ``send``.
    sequence
        Number of the call, from 0, among the communicator's collectives, or among the messages from one rank to
        another.
    dtype
        Element type, None if the sender determines it.
    count
        Elements of this rank's part (for scatter: of every rank's slice; in the operations `BY_ROWS`: of a row).
    root
        Root's rank, 0 in calls without one, the sender's rank in ``send``.
    operator
        `ReduceFunction.code`, 0 in calls without one.
    shape
        The array's shape where messages carry it, else None.
    """

    operation: Operation
    sequence: int
    dtype: np.dtype[Any] | None
    count: int
    root: int = 0
    operator: int = 0
    shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self._named(self.operation.name)

    def made_by(self, rank: int | None) -> str:
        """Return the text of this call as `rank` makes it, None for a receiver: that of ``send`` calls ``recv``."""
        receives = self.operation in _RECEIVED and rank != self.root
        return self._named(_RECEIVED[self.operation] if receives else self.operation.name)

    def _named(self, name: str) -> str:
        what = "values of any type" if self.dtype is None else f"{self.count} x {element_name(self.dtype)}"
        details = [f"call {self.sequence}"]
        if self.operation is not Operation.barrier:
            details.append(f"rows of {what}" if self.operation in BY_ROWS else what)
        if self.operation in ROOTED:
            details.append(f"root {self.root}")
        if self.operation in (Operation.send, Operation.send_object):
            details.append(f"from rank {self.root}")
        if self.operator:
            details.append(f"operator {_operator_name(self.operator)}")
        if self.shape is not None and self.dtype is not None:
            details.append(f"shape {list(self.shape)}")
        return f"{name} ({', '.join(details)})"

    def numbered(self, sequence: int) -> Call:
        """Return this call with another number."""
        return Call(self.operation, sequence, self.dtype, self.count, self.root, self.operator, self.shape)

    def accepts(self, sent: Call) -> bool:
        """Whether this call can receive a message of `sent`; without a type it accepts the sender's.

        Shapes are not compared: they are not among a header's fixed fields.
        """
        same_call = (self.operation, self.sequence, self.root) == (sent.operation, sent.sequence, sent.root)
        same_type = (self.dtype, self.count, self.operator) == (sent.dtype, sent.count, sent.operator)
        # numpy's float64 equals None
        return same_call and (self.dtype is None or (sent.dtype is not None and same_type))

    @property
    def takes_shorter(self) -> bool:
        """Whether this is the receipt of an array into memory that may be larger."""
        return self.operation is Operation.send and bool(self.shape)

    def accepts_shorter(self, sent: Call, dimensions: int | None) -> bool:
        """Whether this call can receive a message of `sent` with that number of axes and less elements.

        The lengths of the axes are compared by `fits_into`.
        """
        return (
            self.takes_shorter
            and self.accepts(replace(sent, count=self.count))
            and sent.count < self.count
            and dimensions == len(self.shape or ())
        )

    def rows(self, length: int) -> int:
        """Return the number of rows in a payload of `length` bytes in a call `BY_ROWS`."""
        row = 0 if self.dtype is None else self.count * self.dtype.itemsize
        return length // row if row else 0

    def fits_into(self, shape: tuple[int, ...], count: int) -> bool:
        """Whether an array of `count` elements has the shape of this call's but for fewer rows."""
        own = self.shape or (0,)
        return shape[1:] == own[1:] and shape[0] < own[0] and math.prod(shape) == count


def _operator_name(code: int) -> str:
    try:
        operator = Operator(code & 15)
    except ValueError:
        return f"code {code}"
    if operator is Operator.custom:
        return f"custom(commutative={bool(code & 16)}, associative={bool(code & 32)})"
    return f"{operator.name}(wrap=True)" if code & 64 else operator.name


def signature(call: Call, kind: Kind = Kind.data) -> bytes:
    """Return the 24 bytes that begin every header of `call`."""
    return _SIGNATURE.pack(
        _MAGIC,
        _VERSION,
        kind,
        call.operation,
        0 if call.dtype is None else ELEMENT_CODES[call.dtype],
        call.operator,
        UNDESCRIBED if call.shape is None else len(call.shape),
        call.root,
        call.sequence & 0xFFFFFFFF,
        call.count,
    )


def header(signature_bytes: bytes, length: int, shape: tuple[int, ...] | None = None) -> bytes:
    """Return the header of a message of `length` payload bytes, with its axis lengths if `shape` is given."""
    fixed = signature_bytes + _LENGTH.pack(length)
    return fixed if shape is None else fixed + struct.pack(f"<{len(shape)}Q", *shape)


def renumbered(head: bytes, sequence: int) -> bytes:
    """Return the header, or the beginning of one, with another call number."""
    return head[:_SEQUENCE_AT] + struct.pack("<I", sequence & 0xFFFFFFFF) + head[_SEQUENCE_AT + 4 :]


def write_sequence(head: bytearray, sequence: int) -> None:
    """Write another call number into the header that `head` begins with."""
    struct.pack_into("<I", head, _SEQUENCE_AT, sequence & 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Header:
    """A decoded header.

    Attributes
    ----------
    kind
        The kind of the frame.
    call
        The sender's call, without the shape.
    dimensions
        Number of axis lengths that follow; None for typed values, which have none.
    length
        Bytes of payload after the axis lengths.
    """

    kind: Kind
    call: Call
    dimensions: int | None
    length: int


def decode_header(data: bytes | bytearray | memoryview) -> Header:
    """Decode the first 32 bytes of `data`; the axis lengths are not among them.

    Raises
    ------
    FrameError
        If they are not a header of this version.
    """
    if len(data) < HEADER_BYTES:
        raise FrameError(f"invalid header: expected {HEADER_BYTES} bytes, got {len(data)}")
    fields = _HEADER.unpack_from(data)
    magic, version, kind, operation, dtype, operator, dimensions, root, sequence, count, length = fields
    if magic != _MAGIC or version != _VERSION:
        raise FrameError(
            f"invalid frame {bytes(data[:8]).hex()}: expected version {_VERSION}: check that the other rank is framed"
        )
    if dimensions != UNDESCRIBED and dimensions > MAX_DIMENSIONS:
        raise FrameError(f"invalid number of dimensions {dimensions}: expected at most {MAX_DIMENSIONS}")
    if dtype > len(ELEMENT_TYPES):
        raise FrameError(f"unknown element type {dtype}: expected a code up to {len(ELEMENT_TYPES)}")
    try:
        shape = None if dimensions == UNDESCRIBED else ()
        call = Call(
            Operation(operation),
            sequence,
            ELEMENT_TYPES[dtype - 1] if dtype else None,
            count,
            root,
            operator,
            shape,
        )
        return Header(Kind(kind), call, None if dimensions == UNDESCRIBED else dimensions, length)
    except ValueError as error:
        raise FrameError(f"invalid frame {bytes(data[:8]).hex()}: {error}") from None


def decode_shape(data: bytes | bytearray | memoryview) -> tuple[int, ...]:
    """Return the axis lengths in `data`, 8 bytes each."""
    return struct.unpack(f"<{len(data) // 8}Q", data)


def plausible(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape can exist; an array without elements can have an impossible shape, too."""
    return math.prod(axis or 1 for axis in shape) < MAX_ELEMENTS


NEVER_SENT = 2**64 - 1
"""A number of messages that no rank sends: a wait frame with it withdraws the last one, whose wait has timed out."""


def waiting_frame(call: Call, received: int) -> bytes:
    """Return the whole frame by which its sender reports that it waits for the receiver's next message.

    It has the number of messages received from the receiver in place of the payload's length. If the receiver has sent
    no more, and waits for a message itself, the two ranks are in a deadlock.
    """
    return header(signature(replace(call, shape=None), Kind.waiting), received)
