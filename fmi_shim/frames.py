"""The framed mode's bytes, without any I/O: a hello when two ranks meet, then a header before every message.

All numbers are little-endian. A header is 32 bytes::

    magic "FM" | version | kind | operation | dtype | operator | dimensions | root | sequence | count | length
       2            1       1        1          1        1           1        4        4         8        8

and is followed by ``dimensions`` axis lengths of 8 bytes, when the receiver may not know the array's shape,
and by ``length`` bytes of payload. Everything before ``length`` is the *signature* of the call: both ends
compute it on their own, so that comparing 24 bytes tells whether two ranks are in the same call with the
same arguments.
"""

from __future__ import annotations

import enum
import math
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

_MAGIC = b"FM"
_VERSION = 1
_HEADER = struct.Struct("<2sBBBBBBiIQQ")
_SIGNATURE = struct.Struct("<2sBBBBBBiIQ")
_LENGTH = struct.Struct("<Q")
HEADER_BYTES = _HEADER.size
SIGNATURE_BYTES = _SIGNATURE.size
KIND_AT = 3
"""Where in a header its kind is."""
_SEQUENCE_AT = 12

UNDESCRIBED = 255
"""In place of the number of dimensions: no axis lengths follow."""
MAX_DIMENSIONS = 32
MAX_ELEMENTS = 1 << 43
"""Of an array that is announced: 2^16 times as many of 16 bytes would be more than numpy can count."""

ELEMENT_TYPES: tuple[np.dtype[Any], ...] = (
    *(np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)),
    *(np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)),
    *(np.dtype(f"float{bits}") for bits in (16, 32, 64)),
    *(np.dtype(f"complex{bits}") for bits in (64, 128)),
    np.dtype(bool),
)
"""The elements that can travel, in native byte order."""

ELEMENT_CODES = {dtype: code for code, dtype in enumerate(ELEMENT_TYPES, 1)}
"""What a header holds in place of an element type."""


class FrameError(ValueError):
    """The bytes are no frame of this version."""


class Kind(enum.IntEnum):
    """What a frame is for."""

    data = 1
    abort = 2
    goodbye = 3
    posted = 4
    """Data whose sender goes on meanwhile (``isend``)."""
    waiting = 5
    """Nothing but the sender's call, in which it waits for the receiver; see `waiting_frame`."""


class Operation(enum.IntEnum):
    """The call that a message belongs to; ``attach`` is how ranks come to share memory."""

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
    attach = 64


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a rank, as the other ranks must have made it too.

    Attributes
    ----------
    operation
        What was called; ``recv`` is the other end of ``send``.
    sequence
        Number of the call, from 0: of the communicator's collectives, or of the messages from one rank to
        another.
    dtype
        Element type, None when the sender decides.
    count
        Elements of this rank's part (for scatter: of every rank's slice).
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
        what = "values of any type" if self.dtype is None else f"{self.count} x {self.dtype.name}"
        details = [f"call {self.sequence}", what]
        if self.operation in (Operation.bcast, Operation.gather, Operation.scatter, Operation.reduce):
            details.append(f"root {self.root}")
        if self.operation is Operation.send:
            details.append(f"from rank {self.root}")
        if self.operator:
            details.append(f"operator {_operator_name(self.operator)}")
        if self.shape is not None and self.dtype is not None:
            details.append(f"shape {list(self.shape)}")
        return f"{self.operation.name} ({', '.join(details)})"

    def numbered(self, sequence: int) -> Call:
        """Return this call with another number."""
        return Call(self.operation, sequence, self.dtype, self.count, self.root, self.operator, self.shape)

    def accepts(self, sent: Call) -> bool:
        """Whether a message of `sent` may answer this call; an open type takes whatever the sender has.

        Shapes are not compared: they are no part of a header's fixed fields.
        """
        same_call = (self.operation, self.sequence, self.root) == (sent.operation, sent.sequence, sent.root)
        same_type = (self.dtype, self.count, self.operator) == (sent.dtype, sent.count, sent.operator)
        return same_call and (self.dtype is None or same_type)


def _operator_name(code: int) -> str:
    name = {1: "sum", 2: "prod", 3: "max", 4: "min", 5: "custom"}.get(code & 15, f"code {code}")
    return name if name != "custom" else f"custom(commutative={bool(code & 16)}, associative={bool(code & 32)})"


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


@dataclass(frozen=True, slots=True)
class Header:
    """A decoded header.

    Attributes
    ----------
    kind
        What the frame is for.
    call
        The sender's call, without the shape.
    dimensions
        Number of axis lengths that follow; None for typed values, which have none.
    length
        Bytes of payload that follow these.
    """

    kind: Kind
    call: Call
    dimensions: int | None
    length: int


def decode_header(data: bytes | bytearray | memoryview) -> Header:
    """Return what the first 32 bytes of `data` say; the axis lengths are not among them.

    Raises
    ------
    FrameError
        If they are no header of this version.
    """
    if len(data) < HEADER_BYTES:
        raise FrameError(f"a header has {HEADER_BYTES} bytes, {len(data)} came")
    fields = _HEADER.unpack_from(data)
    magic, version, kind, operation, dtype, operator, dimensions, root, sequence, count, length = fields
    if magic != _MAGIC or version != _VERSION:
        raise FrameError(
            f"{bytes(data[:8]).hex()} is no frame of version {_VERSION}: does the other rank run unframed?"
        )
    if dimensions != UNDESCRIBED and dimensions > MAX_DIMENSIONS:
        raise FrameError(f"an array of {dimensions} dimensions was announced, at most {MAX_DIMENSIONS} are allowed")
    if dtype > len(ELEMENT_TYPES):
        raise FrameError(f"an unknown element type was announced: {dtype}")
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
        raise FrameError(f"{bytes(data[:8]).hex()} is no frame: {error}") from None


def decode_shape(data: bytes | bytearray | memoryview) -> tuple[int, ...]:
    """Return the axis lengths in `data`, 8 bytes each."""
    return struct.unpack(f"<{len(data) // 8}Q", data)


def plausible(shape: tuple[int, ...]) -> bool:
    """Whether there can be an array of this shape: one without elements, too, may have axes that no array has."""
    return math.prod(axis or 1 for axis in shape) < MAX_ELEMENTS


def waiting_frame(call: Call, received: int) -> bytes:
    """Return the whole frame which says that its sender waits for the receiver's next message.

    In place of the payload's length it holds how many messages have come from the receiver so far. When
    those are all that the receiver has sent, and it waits for a message itself, none will ever come.
    """
    return header(signature(replace(call, shape=None), Kind.waiting), received)
