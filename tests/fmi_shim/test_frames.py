import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.error_codec import MAX_ABORT_BYTES, abort_frame, decode_abort, decode_termination, goodbye_frame
from fmi_shim.frames import (
    HEADER_BYTES,
    Call,
    FrameError,
    Header,
    Kind,
    Operation,
    decode_header,
    decode_shape,
    header,
    signature,
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


@given(calls, st.integers(0, 2**60))
def test_a_header_says_what_was_put_into_it(call: Call, length: int) -> None:
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


def test_a_call_reads_well_in_an_error() -> None:
    call = Call(Operation.reduce, 7, np.dtype("float64"), 3, 2, 1)
    assert str(call) == "reduce (call 7, 3 x float64, root 2, operator sum)"
    custom = Call(Operation.allreduce, 0, np.dtype("int32"), 1, 0, 5 | 16)
    assert str(custom) == "allreduce (call 0, 1 x int32, operator custom(commutative=True, associative=False))"


@pytest.mark.parametrize("name", ["int32", "float64", "float16", "complex64", "bool"])
def test_every_element_type_that_travels_has_a_code(name: str) -> None:
    call = Call(Operation.bcast, 0, np.dtype(name), 1)
    assert decode_header(header(signature(call), 0)).call.dtype == np.dtype(name)
