"""The content of an object: the raw payload, as FMI writes it, in framed mode behind a header of `frames`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fmi_shim.errors import MismatchError
from fmi_shim.frames import (
    BY_ROWS,
    HEADER_BYTES,
    Call,
    FrameError,
    decode_header,
    decode_shape,
    header,
    plausible,
    signature,
)
from fmi_shim.operators import Array
from fmi_shim.transports.objects.store import Content
from fmi_shim.transports.transfers import octets


def encode_object(buffer: Array, call: Call, framed: bool) -> Content:
    """Return the content of an object of `call`. The payload is copied only in framed mode."""
    payload = octets(buffer)
    return b"".join((header(signature(call), len(payload), call.shape), payload)) if framed else payload


@dataclass(frozen=True, slots=True)
class ReceivedObject:
    """The content of an object that was read, which is not validated yet.

    Attributes
    ----------
    content
        All bytes of the object.
    writer, description
        The rank that wrote it, and the object's key and store for error messages.
    rank, call
        The rank that reads it, and the call in which it does.
    """

    content: bytes
    writer: int
    description: str
    rank: int
    call: Call

    def payload(self, like: Array, framed: bool) -> Array:
        """Return the payload as a flat read-only array of the type and size of `like`, without copying.

        A message with fewer rows is smaller, see `Call.accepts_shorter`.

        Raises
        ------
        MismatchError
            If its call, type, shape or size differs.
        """
        expected = header(signature(self.call), like.nbytes, self.call.shape) if framed else b""
        if not self.content.startswith(expected):
            if (shorter := self._shorter()) is not None:
                return shorter
            raise self._error(
                f"rank {self.writer} sent {self._header_call()} where {self._purpose} expected {like.nbytes} bytes: "
                "types and shapes must be the same on all ranks"
            )
        received = len(self.content) - len(expected)
        if received != like.nbytes:
            raise self._error(
                f"{self._purpose}: {self.description} of rank {self.writer}: expected {like.nbytes} bytes, got "
                f"{received}: types and counts must be the same on all ranks"
            )
        return _array(self.content, len(expected), like.dtype)

    def _shorter(self) -> Array | None:
        """Return the payload if the message has fewer rows than the running call can receive, else None."""
        if not self.call.takes_shorter:
            return None
        try:
            found = decode_header(self.content)
        except FrameError:
            return None
        start = HEADER_BYTES + 8 * (found.dimensions or 0)
        if not self.call.accepts_shorter(found.call, found.dimensions) or len(self.content) != start + found.length:
            return None
        dtype, count = self.call.dtype, found.call.count
        shape = decode_shape(self.content[HEADER_BYTES:start])
        if dtype is None or not self.call.fits_into(shape, count) or found.length != count * dtype.itemsize:
            return None
        return _array(self.content, start, dtype)

    def new_array(self, parts: int | None = None) -> tuple[Array, Call]:
        """Return a new array of the type and shape in the header (see `Channel.recv_new`), and the header's call.

        Raises
        ------
        MismatchError
            If there is no valid header, it is of another call, or the payload has another size.
        """
        sent = self._header_call()
        if sent.shape is None or sent.dtype is None:
            raise self._error(
                f"rank {self.writer} sent typed values in {sent}, but {self._purpose} has no fmi.types: "
                "pass the same descriptor on all ranks, or arrays on all"
            )
        start = HEADER_BYTES + 8 * len(sent.shape)
        received = len(self.content) - start
        if sent.operation in BY_ROWS:
            parts = sent.rows(received)
        whole = sent.shape if parts is None else (parts, *sent.shape)
        if (
            not plausible(sent.shape)
            or math.prod(whole) * sent.dtype.itemsize != received
            or math.prod(sent.shape) != sent.count
        ):
            raise self._error(
                f"{self._purpose}: {self.description} has a header for shape {list(whole)} in {sent}, and a payload of "
                f"{received} bytes"
            )
        return _array(self.content, start, sent.dtype).reshape(whole).copy(), sent

    def _header_call(self) -> Call:
        """Return the call in the header, with its shape; raise unless the running call accepts it."""
        try:
            found = decode_header(self.content)
        except FrameError as error:
            raise self._error(f"{self._purpose}: {self.description} has no valid header: {error}") from None
        axes = self.content[HEADER_BYTES : HEADER_BYTES + 8 * (found.dimensions or 0)]
        if len(axes) < 8 * (found.dimensions or 0):
            raise self._error(
                f"{self._purpose}: {self.description} has no valid header: expected {found.dimensions} axis lengths, "
                f"got {len(axes)} bytes"
            )
        if not self.call.accepts(found.call):
            raise self._error(
                f"rank {self.writer} is in {found.call.made_by(self.writer)} while rank {self.rank} is in "
                f"{self.call.made_by(self.rank)}: "
                "all ranks must make the same calls with the same arguments in the same order"
            )
        return replace(found.call, shape=None if found.dimensions is None else decode_shape(axes))

    @property
    def _purpose(self) -> str:
        return f"rank {self.rank} in {self.call.made_by(self.rank)}"

    def _error(self, text: str) -> MismatchError:
        return MismatchError(text, origin=self.rank)


def _array(content: bytes, start: int, dtype: np.dtype[np.generic]) -> Array:
    return np.frombuffer(content, dtype, offset=start) if len(content) > start else np.empty(0, dtype)
