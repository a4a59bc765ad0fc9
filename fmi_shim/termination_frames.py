"""How a rank leaves, as its last frame says it, without any I/O: in peace, or aborting, and why."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from fmi_shim.frames import HEADER_BYTES, Call, FrameError, Kind, Operation, decode_header, header, signature


class Reason(enum.IntEnum):
    """Why a rank gave up."""

    lost = 1
    timeout = 2
    mismatch = 3
    overflow = 4
    failed = 5


@dataclass(frozen=True, slots=True)
class Abort:
    """What a failing rank tells the ranks it is connected to.

    Attributes
    ----------
    reason
        The kind of failure.
    origin
        The rank where it began, which need not be the rank that tells.
    text
        The first error's message; 1000 bytes of it travel.
    """

    reason: Reason
    origin: int
    text: str


_ABORT = struct.Struct("<Bi")
_MAX_ABORT_TEXT = 1000
MAX_ABORT_BYTES = _ABORT.size + _MAX_ABORT_TEXT

_NO_CALL = Call(Operation.barrier, 0, None, 0)


def abort_payload(abort: Abort) -> bytes:
    """Return what an abort says, at most `MAX_ABORT_BYTES`."""
    return _ABORT.pack(abort.reason, abort.origin) + abort.text.encode(errors="replace")[:_MAX_ABORT_TEXT]


def abort_frame(abort: Abort) -> bytes:
    """Return the whole frame that carries `abort`."""
    payload = abort_payload(abort)
    return header(signature(_NO_CALL, Kind.abort), len(payload)) + payload


def decode_abort(payload: bytes | bytearray | memoryview) -> Abort:
    """Return the abort in a frame's payload.

    Raises
    ------
    FrameError
        If the payload is too short or too long, or the reason is unknown.
    """
    if not _ABORT.size <= len(payload) <= MAX_ABORT_BYTES:
        raise FrameError(f"an abort has {_ABORT.size} to {MAX_ABORT_BYTES} bytes, {len(payload)} came")
    reason, origin = _ABORT.unpack_from(payload)
    try:
        return Abort(Reason(reason), origin, bytes(payload[_ABORT.size :]).decode(errors="replace"))
    except ValueError:
        raise FrameError(f"an abort with the unknown reason {reason} came") from None


def goodbye_frame() -> bytes:
    """Return the whole frame with which a rank leaves in peace."""
    return header(signature(_NO_CALL, Kind.goodbye), 0)


def farewell(data: memoryview) -> Abort | Kind | None:
    """Return how a stream of whole frames ends: with an abort, with ``Kind.goodbye``, or, None, just so."""
    while len(data) >= HEADER_BYTES:
        try:
            found = decode_header(data)
            end = HEADER_BYTES + 8 * (found.dimensions or 0) + found.length
            if found.kind is Kind.abort:
                return decode_abort(data[HEADER_BYTES:end])
        except FrameError:
            return None
        if found.kind is Kind.goodbye:
            return Kind.goodbye
        data = data[HEADER_BYTES if found.kind is Kind.waiting else end :]
    return None
