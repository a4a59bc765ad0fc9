"""Conversion between a rank's error, the abort that reports it to other ranks, and the bytes of termination frames."""

from __future__ import annotations

import struct

from fmi_shim.errors import (
    FmiError,
    MismatchError,
    PeerFailedError,
    PeerLostError,
    PeerOverflowError,
    PeerTimeoutError,
)
from fmi_shim.frames import HEADER_BYTES, Call, FrameError, Kind, Operation, decode_header, header, signature
from rendezvous.protocol.messages import Abort, AbortReason

_ERRORS: dict[int, type[FmiError]] = {
    AbortReason.lost: PeerLostError,
    AbortReason.timeout: PeerTimeoutError,
    AbortReason.mismatch: MismatchError,
    AbortReason.overflow: PeerOverflowError,
    AbortReason.failed: PeerFailedError,
}

_ABORT = struct.Struct("<Bi")
_MAX_ABORT_TEXT = 1000
MAX_ABORT_BYTES = _ABORT.size + _MAX_ABORT_TEXT

_NO_CALL = Call(Operation.barrier, 0, None, 0)


def abort_error(abort: Abort) -> FmiError:
    """Convert a received abort into the exception raised on this rank."""
    return _ERRORS.get(abort.reason, PeerFailedError)(abort.text, abort.origin, abort.reported_by)


def make_abort(error: BaseException, rank: int, purpose: str) -> Abort:
    """Convert an error into the abort that `rank` sends to the other ranks.

    Parameters
    ----------
    error
        What `rank` raised; an error that another rank reported keeps its origin.
    purpose
        What `rank` was doing.
    """
    if isinstance(error, FmiError):
        reason = next((reason for reason, kind in _ERRORS.items() if type(error) is kind), AbortReason.failed)
        return Abort(rank, rank if error.origin is None else error.origin, reason, error.message)
    reason = AbortReason.overflow if isinstance(error, OverflowError) else AbortReason.failed
    return Abort(rank, rank, reason, f"{purpose} raised {type(error).__name__}: {error}".rstrip(": "))


def encode_abort(abort: Abort) -> bytes:
    """Return the payload of an abort frame, at most `MAX_ABORT_BYTES`; the receiver knows which rank sent it."""
    return _ABORT.pack(abort.reason, abort.origin) + abort.text.encode(errors="replace")[:_MAX_ABORT_TEXT]


def decode_abort(payload: bytes | bytearray | memoryview, reported_by: int) -> Abort:
    """Return the abort in the payload of a frame from rank `reported_by`.

    Raises
    ------
    FrameError
        If the payload is too short or too long, or the reason is unknown.
    """
    if not _ABORT.size <= len(payload) <= MAX_ABORT_BYTES:
        raise FrameError(f"invalid abort: expected {_ABORT.size} to {MAX_ABORT_BYTES} bytes, got {len(payload)}")
    reason, origin = _ABORT.unpack_from(payload)
    text = bytes(payload[_ABORT.size :]).decode(errors="replace")
    try:
        return Abort(reported_by, origin, AbortReason(reason), text)
    except ValueError:
        raise FrameError(f"invalid abort: unknown reason {reason}") from None


def abort_frame(abort: Abort) -> bytes:
    """Return the whole frame that carries `abort`."""
    payload = encode_abort(abort)
    return header(signature(_NO_CALL, Kind.abort), len(payload)) + payload


def goodbye_frame() -> bytes:
    """Return the whole frame that a rank sends when it closes its communicator without an error."""
    return header(signature(_NO_CALL, Kind.goodbye), 0)


def decode_termination(data: memoryview, peer: int) -> Abort | Kind | None:
    """Return how a stream of whole frames from `peer` ends.

    Returns
    -------
    Abort | Kind | None
        The abort, ``Kind.goodbye``, or None if the stream ends without a termination frame.
    """
    while len(data) >= HEADER_BYTES:
        try:
            found = decode_header(data)
            end = HEADER_BYTES + 8 * (found.dimensions or 0) + found.length
            if found.kind is Kind.abort:
                return decode_abort(data[HEADER_BYTES:end], peer)
        except FrameError:
            return None
        if found.kind is Kind.goodbye:
            return Kind.goodbye
        data = data[HEADER_BYTES if found.kind is Kind.waiting else end :]
    return None
