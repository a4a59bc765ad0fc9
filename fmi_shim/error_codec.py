"""An error at one rank as the others are told it: to what travels, and back."""

from __future__ import annotations

from fmi_shim.errors import (
    FmiError,
    MismatchError,
    PeerFailedError,
    PeerLostError,
    PeerOverflowError,
    PeerTimeoutError,
)
from fmi_shim.termination_frames import Abort, Reason
from rendezvous.protocol import messages

_ERRORS: dict[Reason, type[FmiError]] = {
    Reason.lost: PeerLostError,
    Reason.timeout: PeerTimeoutError,
    Reason.mismatch: MismatchError,
    Reason.overflow: PeerOverflowError,
    Reason.failed: PeerFailedError,
}


def error_of(abort: Abort, teller: int) -> FmiError:
    """Return the error that `abort` is at a rank that was told it by rank `teller`."""
    return _ERRORS[abort.reason](abort.text, abort.origin, teller)


def told_by_server(told: messages.Abort) -> FmiError:
    """Return the error that an abort is at a rank that the rendezvous server passed it on to."""
    reason = Reason(told.code) if told.code in {*Reason} else Reason.failed
    return error_of(Abort(reason, told.origin, told.text), told.teller)


def abort_of(error: BaseException, rank: int, purpose: str) -> Abort:
    """Return what `rank` tells of `error`, which it had, or was told, while doing `purpose`."""
    if isinstance(error, FmiError):
        reason = next((reason for reason, kind in _ERRORS.items() if type(error) is kind), Reason.failed)
        return Abort(reason, rank if error.origin is None else error.origin, error.message)
    reason = Reason.overflow if isinstance(error, OverflowError) else Reason.failed
    return Abort(reason, rank, f"{purpose} raised {type(error).__name__}: {error}".rstrip(": "))
