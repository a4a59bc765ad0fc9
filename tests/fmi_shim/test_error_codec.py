"""The conversion of errors to aborts and back, and the bytes of the frames that end a stream."""

import pytest

from fmi_shim.error_codec import (
    MAX_ABORT_BYTES,
    abort_error,
    abort_frame,
    decode_abort,
    decode_termination,
    encode_abort,
    goodbye_frame,
    make_abort,
)
from fmi_shim.errors import (
    FmiError,
    MismatchError,
    PeerFailedError,
    PeerLostError,
    PeerOverflowError,
    PeerTimeoutError,
    StoreError,
)
from fmi_shim.frames import Call, FrameError, Kind, Operation, header, signature, waiting_frame
from rendezvous.protocol.messages import Abort, AbortReason

ABORT = Abort(3, 2, AbortReason.mismatch, "text")
ABORT_FRAME = bytes.fromhex("464d 02 02 08 00 00 ff 00000000 00000000 0000000000000000 0900000000000000 03 02000000")
GOODBYE_FRAME = bytes.fromhex("464d 02 03 08 00 00 ff 00000000 00000000 0000000000000000 0000000000000000")
ERRORS = [
    (PeerLostError, AbortReason.lost),
    (PeerTimeoutError, AbortReason.timeout),
    (MismatchError, AbortReason.mismatch),
    (PeerOverflowError, AbortReason.overflow),
    (PeerFailedError, AbortReason.failed),
]


def test_the_bytes_of_the_frames_that_end_a_stream_do_not_change() -> None:
    assert abort_frame(ABORT) == ABORT_FRAME + b"text"
    assert encode_abort(ABORT) == bytes.fromhex("03 02000000") + b"text"
    assert goodbye_frame() == GOODBYE_FRAME
    assert MAX_ABORT_BYTES == 1005


@pytest.mark.parametrize(("error", "reason"), ERRORS)
def test_an_error_of_this_package_keeps_its_kind_on_the_other_ranks(error: type[FmiError], reason: AbortReason) -> None:
    abort = make_abort(error("text"), 3, "reduce")
    assert abort == Abort(3, 3, reason, "text")
    raised = abort_error(abort)
    assert type(raised) is error
    assert (raised.message, raised.origin, raised.reported_by) == ("text", 3, 3)


def test_an_error_that_another_rank_reported_keeps_its_origin() -> None:
    assert make_abort(PeerLostError("text", 0, 1), 3, "reduce") == Abort(3, 0, AbortReason.lost, "text")
    raised = abort_error(Abort(3, 0, AbortReason.lost, "text"))
    assert (raised.origin, raised.reported_by) == (0, 3)
    assert str(raised) == "text (reported by rank 3)"


def test_an_unknown_reason_is_an_error_of_the_peer() -> None:
    assert type(abort_error(Abort(3, 3, 77, "text"))) is PeerFailedError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreError("text"), Abort(3, 3, AbortReason.failed, "text")),
        (OverflowError("too large"), Abort(3, 3, AbortReason.overflow, "reduce raised OverflowError: too large")),
        (ValueError("wrong"), Abort(3, 3, AbortReason.failed, "reduce raised ValueError: wrong")),
        (KeyboardInterrupt(), Abort(3, 3, AbortReason.failed, "reduce raised KeyboardInterrupt")),
    ],
)
def test_any_other_exception_is_reported_with_the_call_it_ended(error: BaseException, expected: Abort) -> None:
    assert make_abort(error, 3, "reduce") == expected


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "expected 5 to 1005 bytes, got 0"),
        (bytes(4), "expected 5 to 1005 bytes, got 4"),
        (b"\1" + bytes(1005), "expected 5 to 1005 bytes, got 1006"),
        (bytes(5), "unknown reason 0"),
        (b"\6" + bytes(4), "unknown reason 6"),
    ],
)
def test_an_invalid_abort_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        decode_abort(payload, 3)


@pytest.mark.parametrize("length", [0, 1000])
def test_an_abort_at_its_limits_is_decoded(length: int) -> None:
    payload = bytes.fromhex("05 ffffffff") + b"x" * length
    assert decode_abort(payload, 3) == Abort(3, -1, AbortReason.failed, "x" * length)


CALL = Call(Operation.send, 0, None, 0)
TYPED = header(signature(CALL), 5) + b"bytes"
SHAPED = header(signature(Call(Operation.send, 0, None, 0, shape=(2, 3))), 5, (2, 3)) + b"bytes"


@pytest.mark.parametrize(
    "before",
    [b"", TYPED, SHAPED, waiting_frame(CALL, 7), SHAPED + waiting_frame(CALL, 100) + TYPED + SHAPED],
    ids=["nothing", "typed", "shaped", "waiting", "several"],
)
def test_the_end_of_a_stream_is_found_behind_frames_of_each_kind(before: bytes) -> None:
    assert decode_termination(memoryview(before), 3) is None
    assert decode_termination(memoryview(before + GOODBYE_FRAME), 3) is Kind.goodbye
    assert decode_termination(memoryview(before + GOODBYE_FRAME[:-1]), 3) is None
    assert decode_termination(memoryview(before + abort_frame(ABORT)), 3) == ABORT
    assert decode_termination(memoryview(before + GOODBYE_FRAME + abort_frame(ABORT)), 3) is Kind.goodbye
    assert decode_termination(memoryview(before + abort_frame(ABORT) + GOODBYE_FRAME), 3) == ABORT


def test_an_end_behind_bytes_that_are_no_frame_is_not_found() -> None:
    assert decode_termination(memoryview(b"?" + GOODBYE_FRAME), 3) is None
    assert decode_termination(memoryview(ABORT_FRAME[:32] + bytes(9) + GOODBYE_FRAME), 3) is None
