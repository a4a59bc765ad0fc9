"""What an object holds: the raw payload, as FMI writes it, and in framed mode `frames`' header before it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fmi_shim.errors import MismatchError
from fmi_shim.frames import HEADER_BYTES, Call, FrameError, decode_header, decode_shape, header, plausible, signature
from fmi_shim.operators import Array
from fmi_shim.transports.objects.store import Content
from fmi_shim.transports.transfers import octets


def content_of(buffer: Array, call: Call, framed: bool) -> Content:
    """Return what an object of `call` holds, copied in framed mode alone."""
    payload = octets(buffer)
    return b"".join((header(signature(call), len(payload), call.shape), payload)) if framed else payload


@dataclass(frozen=True, slots=True)
class Found:
    """An object's content as it came, which may be anything at all.

    Attributes
    ----------
    content
        All of it.
    writer, where
        The rank whose it is, and what to call it in errors.
    rank, call
        The rank that reads it, and the call in which it does.
    """

    content: bytes
    writer: int
    where: str
    rank: int
    call: Call

    def payload(self, like: Array, framed: bool) -> Array:
        """Return the payload as a flat read-only array of the type and size of `like`, without copying.

        Raises
        ------
        MismatchError
            If it is not of the same call, type, shape and size.
        """
        expected = header(signature(self.call), like.nbytes, self.call.shape) if framed else b""
        if not self.content.startswith(expected):
            raise self._error(
                f"rank {self.writer} sent {self._announced()} where {self._purpose} expected {like.nbytes} bytes: "
                "types and shapes must be the same on all ranks"
            )
        came = len(self.content) - len(expected)
        if came != like.nbytes:
            raise self._error(
                f"{self._purpose}: {self.where} of rank {self.writer} has {came} bytes, expected are {like.nbytes}: "
                "types and counts must be the same on all ranks"
            )
        return _array(self.content, len(expected), like.dtype)

    def new(self, parts: int | None = None) -> tuple[Array, Call]:
        """Return a new array of what the header says (see `Channel.recv_new`), and the call that it says.

        Raises
        ------
        MismatchError
            If there is no header, or one of another call, or another payload behind it.
        """
        sent = self._announced()
        if sent.shape is None or sent.dtype is None:
            raise self._error(
                f"rank {self.writer} sent typed values in {sent}, but {self._purpose} has no fmi.types: "
                "give the same descriptor on all ranks, or arrays on all"
            )
        start = HEADER_BYTES + 8 * len(sent.shape)
        whole = sent.shape if parts is None else (parts, *sent.shape)
        came = len(self.content) - start
        if (
            not plausible(sent.shape)
            or math.prod(whole) * sent.dtype.itemsize != came
            or math.prod(sent.shape) != sent.count
        ):
            raise self._error(
                f"{self._purpose}: {self.where} announces shape {list(whole)} in {sent}, and has {came} bytes of it"
            )
        return _array(self.content, start, sent.dtype).reshape(whole).copy(), sent

    def _announced(self) -> Call:
        """Return the call in the header, its shape included, which the running call must accept."""
        try:
            found = decode_header(self.content)
        except FrameError as error:
            raise self._error(f"{self._purpose}: {self.where} has no valid header: {error}") from None
        axes = self.content[HEADER_BYTES : HEADER_BYTES + 8 * (found.dimensions or 0)]
        if len(axes) < 8 * (found.dimensions or 0):
            raise self._error(
                f"{self._purpose}: {self.where} has no valid header: it announces {found.dimensions} axis lengths, "
                f"of which {len(axes)} bytes came"
            )
        if not self.call.accepts(found.call):
            raise self._error(
                f"rank {self.writer} is in {found.call} while rank {self.rank} is in {self.call}: "
                "all ranks must make the same calls with the same arguments in the same order"
            )
        return replace(found.call, shape=None if found.dimensions is None else decode_shape(axes))

    @property
    def _purpose(self) -> str:
        return f"rank {self.rank} in {self.call}"

    def _error(self, text: str) -> MismatchError:
        return MismatchError(text, origin=self.rank)


def _array(content: bytes, start: int, dtype: np.dtype[np.generic]) -> Array:
    return np.frombuffer(content, dtype, offset=start) if len(content) > start else np.empty(0, dtype)
