"""The bytes of frames: golden headers, properties of encoding and decoding, and what is refused."""

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.error_codec import MAX_ABORT_BYTES, abort_frame, decode_abort, decode_termination, goodbye_frame
from fmi_shim.frames import (
    ELEMENT_CODES,
    ELEMENT_TYPES,
    HEADER_BYTES,
    KIND_AT,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    SIGNATURE_BYTES,
    UNDESCRIBED,
    Call,
    FrameError,
    Header,
    Kind,
    Operation,
    decode_header,
    decode_shape,
    element_name,
    header,
    plausible,
    renumbered,
    signature,
    waiting_frame,
)
from rendezvous.protocol.messages import Abort, AbortReason

dtypes = st.sampled_from(["bool", "int8", "uint16", "int32", "int64", "float32", "float64", "complex128"]).map(np.dtype)
calls = st.builds(
    Call,
    st.sampled_from(Operation),
    st.integers(0, 2**32 - 1),
    dtypes,
    st.integers(0, 2**40),
    st.integers(0, 2**31 - 1),
    st.integers(0, 63),
)
shapes = st.lists(st.integers(0, 2**40), max_size=5).map(tuple)
aborts = st.builds(Abort, st.just(3), st.integers(-1, 2**31 - 1), st.sampled_from(AbortReason), st.text(max_size=200))

REDUCE = Call(Operation.reduce, 0x01020304, np.dtype("float64"), 5, 2, 49)
REDUCE_HEADER = bytes.fromhex("464d 02 01 05 0b 31 ff 02000000 04030201 0500000000000000 2800000000000000")
DESCRIBED = Call(Operation.send, 7, np.dtype("int32"), 6, 1, 0, (2, 3))
DESCRIBED_HEADER = bytes.fromhex(
    "464d 02 04 01 03 00 02 01000000 07000000 0600000000000000 1800000000000000 0200000000000000 0300000000000000"
)
WAITING_FRAME = bytes.fromhex("464d 02 05 01 03 00 ff 01000000 07000000 0600000000000000 0900000000000000")


def test_a_header_of_typed_values_has_these_32_bytes() -> None:
    assert header(signature(REDUCE), 40) == REDUCE_HEADER
    assert signature(REDUCE) == REDUCE_HEADER[:24]
    assert (SIGNATURE_BYTES, HEADER_BYTES) == (24, 32)
    assert decode_header(REDUCE_HEADER) == Header(Kind.data, REDUCE, None, 40)


def test_a_header_with_a_shape_has_its_axis_lengths_behind_the_32_bytes() -> None:
    assert header(signature(DESCRIBED, Kind.posted), 24, (2, 3)) == DESCRIBED_HEADER
    assert decode_header(DESCRIBED_HEADER) == Header(Kind.posted, replace(DESCRIBED, shape=()), 2, 24)
    assert decode_shape(DESCRIBED_HEADER[HEADER_BYTES:]) == (2, 3)


def test_a_waiting_frame_has_the_call_without_its_shape_and_the_messages_received() -> None:
    assert waiting_frame(DESCRIBED, 9) == WAITING_FRAME
    assert decode_header(WAITING_FRAME) == Header(Kind.waiting, replace(DESCRIBED, shape=None), None, 9)


def test_a_call_without_a_type_has_the_code_0() -> None:
    untyped = Call(Operation.bcast, 0, None, 0)
    expected = bytes.fromhex("464d 02 01 02 00 00 ff 00000000 00000000 0000000000000000 0000000000000000")
    assert header(signature(untyped), 0) == expected
    assert decode_header(expected).call == untyped


def test_the_numbers_of_the_format_do_not_change() -> None:
    assert {kind.name: kind.value for kind in Kind} == {"data": 1, "abort": 2, "goodbye": 3, "posted": 4, "waiting": 5}
    assert {operation.name: operation.value for operation in Operation} == {
        "send": 1,
        "bcast": 2,
        "gather": 3,
        "scatter": 4,
        "reduce": 5,
        "allreduce": 6,
        "scan": 7,
        "barrier": 8,
        "allgather": 9,
        "alltoall": 10,
        "reduce_scatter": 11,
        "exscan": 12,
        "gatherv": 13,
        "scatterv": 14,
        "allgatherv": 15,
        "alltoallv": 16,
        "reduce_scatterv": 17,
        "send_object": 18,
        "bcast_object": 19,
        "gather_object": 20,
        "scatter_object": 21,
        "allgather_object": 22,
        "attach": 64,
    }
    integers = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    names = [*integers, "float16", "float32", "float64", "complex64", "complex128", "bool"]
    names += ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]
    assert [(element_name(dtype), ELEMENT_CODES[dtype]) for dtype in ELEMENT_TYPES] == [
        (name, code) for code, name in enumerate(names, 1)
    ]
    assert (UNDESCRIBED, MAX_DIMENSIONS, MAX_ELEMENTS) == (255, 32, 8_796_093_022_208)


@pytest.mark.parametrize("kind", Kind)
def test_the_kind_of_a_frame_is_one_byte_of_its_header(kind: Kind) -> None:
    data = header(signature(REDUCE, kind), 0)
    assert data[KIND_AT] == kind
    assert decode_header(data).kind is kind


def changed(at: int, value: int) -> bytes:
    """Return the header of `REDUCE` with another byte."""
    return REDUCE_HEADER[:at] + bytes([value]) + REDUCE_HEADER[at + 1 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got 0"),
        (REDUCE_HEADER[:31], "got 31"),
        (changed(0, 0x45), "464d|454d"),
        (changed(1, 0x4E), "464e"),
        (changed(2, 1), "464d01"),
        (changed(2, 0), "464d00"),
        (changed(3, 0), "464d02000"),
        (changed(3, 6), "464d0206"),
        (changed(4, 0), "464d020100"),
        (changed(4, 23), "464d020117"),
        (changed(5, 20), "element type.*20"),
        (changed(5, 255), "element type.*255"),
        (changed(7, 33), "dimensions 33"),
        (changed(7, 254), "dimensions 254"),
    ],
)
def test_a_header_with_an_invalid_field_is_refused_with_that_field(data: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        decode_header(data)


@pytest.mark.parametrize(("at", "value"), [(5, 19), (5, 0), (7, 32), (7, 0), (4, 64), (6, 255)])
def test_a_field_with_its_last_valid_value_is_accepted(at: int, value: int) -> None:
    data = changed(at, value)
    found = decode_header(data)
    assert found.dimensions == (None if at != 7 else value)
    assert found.call.shape == (None if at != 7 else ())
    expected = replace(found.call, shape=None if at != 7 else (0,) * value)
    assert header(signature(expected, found.kind), found.length) == data


def test_bytes_behind_a_header_are_not_read() -> None:
    assert decode_header(REDUCE_HEADER + b"payload") == decode_header(REDUCE_HEADER)


def test_an_incomplete_header_is_refused_with_both_lengths() -> None:
    with pytest.raises(FrameError, match=r"32.*31"):
        decode_header(REDUCE_HEADER[:31])


@given(calls, st.integers(0, 2**60), st.integers(0, 2**32 - 1))
def test_renumbering_the_bytes_is_encoding_the_renumbered_call(call: Call, length: int, sequence: int) -> None:
    expected = call.numbered(sequence)
    assert expected == replace(call, sequence=sequence)
    assert renumbered(header(signature(call), length), sequence) == header(signature(expected), length)
    assert renumbered(signature(call), sequence) == signature(expected)


def test_call_numbers_wrap_at_32_bits() -> None:
    expected = bytes.fromhex("464d 02 01 05 0b 31 ff 02000000 fdffffff 0500000000000000 2800000000000000")
    assert renumbered(REDUCE_HEADER, 0xFFFFFFFD) == expected
    assert renumbered(REDUCE_HEADER, 0x5_FFFFFFFD) == expected
    assert header(signature(REDUCE.numbered(0x5_FFFFFFFD)), 40) == expected


def test_a_renumbered_call_keeps_everything_else() -> None:
    assert DESCRIBED.numbered(8) == Call(Operation.send, 8, np.dtype("int32"), 6, 1, 0, (2, 3))
    assert REDUCE.numbered(8) == Call(Operation.reduce, 8, np.dtype("float64"), 5, 2, 49)


@pytest.mark.parametrize(
    ("shape", "possible"),
    [
        ((), True),
        ((0,), True),
        ((2**43 - 1,), True),
        ((2**43,), False),
        ((2**22, 2**21 - 1), True),
        ((2**22, 2**21), False),
        ((0, 2**43 - 1), True),
        ((0, 2**43), False),
        ((0, 0, 2**63), False),
        ((2**40, 4, 0, 2), False),
        ((2**40, 4, 0, 1), True),
    ],
)
def test_a_shape_is_plausible_below_2_to_the_43_elements_without_its_empty_axes(
    shape: tuple[int, ...], possible: bool
) -> None:
    assert plausible(shape) is possible


@pytest.mark.parametrize(
    "change",
    [
        {"operation": Operation.allreduce},
        {"sequence": 1},
        {"root": 3},
        {"dtype": np.dtype("int64")},
        {"count": 4},
        {"operator": 50},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_call_accepts_no_message_that_differs_in_one_field(change: dict[str, Any]) -> None:
    assert REDUCE.accepts(REDUCE)
    assert not REDUCE.accepts(replace(REDUCE, **change))
    of_the_call = next(iter(change)) in ("operation", "sequence", "root")
    assert replace(REDUCE, dtype=None).accepts(replace(REDUCE, **change)) is not of_the_call


def test_a_call_with_a_type_does_not_accept_a_message_without() -> None:
    assert not REDUCE.accepts(replace(REDUCE, dtype=None))


@given(calls, st.integers(0, 2**60))
def test_a_header_is_decoded_to_the_encoded_values(call: Call, length: int) -> None:
    data = header(signature(call), length)
    assert len(data) == HEADER_BYTES
    found = decode_header(data)
    assert (found.kind, found.call, found.dimensions, found.length) == (Kind.data, call, None, length)
    assert call.accepts(found.call)


@given(calls, shapes)
def test_a_described_header_carries_the_shape(call: Call, shape: tuple[int, ...]) -> None:
    described = Call(call.operation, call.sequence, call.dtype, call.count, call.root, call.operator, shape)
    data = header(signature(described), 8, shape)
    assert decode_header(data).dimensions == len(shape)
    assert decode_shape(data[HEADER_BYTES:]) == shape


@given(calls, calls)
def test_calls_accept_each_other_exactly_when_their_signatures_are_equal(one: Call, other: Call) -> None:
    assert one.accepts(other) == (signature(one) == signature(other))


@given(calls)
def test_an_open_call_accepts_any_type_of_the_same_call(call: Call) -> None:
    assert Call(call.operation, call.sequence, None, 0, call.root).accepts(call)
    assert not Call(call.operation, call.sequence ^ 1, None, 0, call.root).accepts(call)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_header_or_a_frame_error(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert isinstance(decode_header(data), Header)


@given(calls, st.binary(min_size=1, max_size=4), st.integers(0, 23))
def test_a_header_with_broken_bytes_is_a_frame_error_or_another_header(call: Call, noise: bytes, at: int) -> None:
    whole = bytearray(header(signature(call), 5))
    whole[at : at + len(noise)] = noise
    try:
        found = decode_header(whole[:HEADER_BYTES])
    except FrameError:
        return
    told = replace(found.call, shape=None)  # whose axes are another matter
    assert call.accepts(found.call) is (signature(told, found.kind)[4:] == signature(call)[4:])


def test_a_call_is_accepted_whether_its_axes_are_described_or_not() -> None:
    call = Call(Operation.send, 0, np.dtype(bool), 0)
    assert call.accepts(decode_header(header(signature(replace(call, shape=())), 5)).call)


@given(aborts)
def test_an_abort_arrives_with_reason_origin_and_text(abort: Abort) -> None:
    frame = abort_frame(abort)
    found = decode_header(frame)
    assert (found.kind, found.length) == (Kind.abort, len(frame) - HEADER_BYTES)
    assert decode_abort(frame[HEADER_BYTES:], 3) == abort


def test_the_text_of_an_abort_is_cut_at_its_limit_even_within_a_character() -> None:
    frame = abort_frame(Abort(3, 1, AbortReason.failed, "ä" * 2000))
    assert len(frame) == HEADER_BYTES + MAX_ABORT_BYTES
    assert decode_abort(frame[HEADER_BYTES:], 3).text.startswith("ä" * 499)


@given(st.binary(max_size=MAX_ABORT_BYTES + 10))
def test_any_bytes_are_an_abort_or_a_frame_error(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert isinstance(decode_abort(data, 3), Abort)


@given(st.lists(st.tuples(calls, st.binary(max_size=50))), aborts)
def test_the_end_of_a_stream_is_found_behind_its_messages(messages: list[tuple[Call, bytes]], abort: Abort) -> None:
    data = b"".join(header(signature(call), len(payload)) + payload for call, payload in messages)
    assert decode_termination(memoryview(data), 3) is None
    assert decode_termination(memoryview(data + goodbye_frame()), 3) is Kind.goodbye
    assert decode_termination(memoryview(data + abort_frame(abort)), 3) == abort


@given(st.binary(max_size=300))
def test_the_end_of_garbage_is_found_without_an_error(data: bytes) -> None:
    end = decode_termination(memoryview(data), 3)
    assert end is None or end is Kind.goodbye or isinstance(end, Abort)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (Call(Operation.reduce, 7, np.dtype("float64"), 3, 2, 1), "reduce (call 7, 3 x float64, root 2, operator sum)"),
        (Call(Operation.bcast, 0, np.dtype("int8"), 1), "bcast (call 0, 1 x int8, root 0)"),
        (Call(Operation.bcast, 1, None, 0, 3), "bcast (call 1, values of any type, root 3)"),
        (Call(Operation.gather, 2, np.dtype("int8"), 4, 3), "gather (call 2, 4 x int8, root 3)"),
        (Call(Operation.scatter, 2, np.dtype("int8"), 4, 3), "scatter (call 2, 4 x int8, root 3)"),
        (Call(Operation.send, 5, np.dtype("bool"), 2, 4), "send (call 5, 2 x bool, from rank 4)"),
        (Call(Operation.send, 5, None, 0, 4, 0, ()), "send (call 5, values of any type, from rank 4)"),
        (DESCRIBED, "send (call 7, 6 x int32, from rank 1, shape [2, 3])"),
        (Call(Operation.barrier, 9, None, 0), "barrier (call 9)"),
        (Call(Operation.alltoall, 9, np.dtype("int8"), 2, 1), "alltoall (call 9, 2 x int8)"),
        (Call(Operation.allgather, 0, np.dtype("int8"), 1, 0, 0, ()), "allgather (call 0, 1 x int8, shape [])"),
    ],
)
def test_the_text_of_a_call_contains_what_its_operation_compares(call: Call, text: str) -> None:
    assert str(call) == text


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1 | 48, "sum"),
        (2 | 48, "prod"),
        (3 | 48, "max"),
        (4 | 48, "min"),
        (5, "custom(commutative=False, associative=False)"),
        (5 | 16, "custom(commutative=True, associative=False)"),
        (5 | 32, "custom(commutative=False, associative=True)"),
        (5 | 48, "custom(commutative=True, associative=True)"),
        (14 | 48, "avg"),
        (1 | 112, "sum(wrap=True)"),
        (15 | 48, "code 63"),
    ],
)
def test_the_text_of_a_call_names_its_operator(code: int, name: str) -> None:
    call = Call(Operation.allreduce, 0, np.dtype("int32"), 1, 0, code)
    assert str(call) == f"allreduce (call 0, 1 x int32, operator {name})"


@pytest.mark.parametrize("name", ["int32", "float64", "float16", "complex64", "bool"])
def test_every_element_type_has_a_code(name: str) -> None:
    call = Call(Operation.bcast, 0, np.dtype(name), 1)
    assert decode_header(header(signature(call), 0)).call.dtype == np.dtype(name)
