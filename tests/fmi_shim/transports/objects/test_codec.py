"""Any content of an object is decoded into its payload or raises an error of this package."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.errors import MismatchError
from fmi_shim.frames import HEADER_BYTES, Call, Operation, header, signature
from fmi_shim.operators import Array
from fmi_shim.transports.objects import schedules
from fmi_shim.transports.objects.channel import ObjectChannel
from fmi_shim.transports.objects.codec import ReceivedObject, encode_object
from tests.fmi_shim.transports.objects.memory_store import MemoryStore, channel

VALUES = np.arange(6.0).reshape(2, 3)
DESCRIBED = Call(Operation.bcast, 3, VALUES.dtype, 6, 0, 0, (2, 3))
TYPED = replace(DESCRIBED, shape=None)
OPEN = Call(Operation.bcast, 3, None, 0)
WHOLE = bytes(encode_object(VALUES, DESCRIBED, framed=True))

damage = st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A content with bytes replaced in one or two places, cut short or lengthened."""
    data = bytearray(draw(st.sampled_from([WHOLE, bytes(encode_object(VALUES, TYPED, framed=True))])))
    for at, replacement in draw(st.lists(damage, max_size=2)):
        data[at : at + len(replacement)] = replacement
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=16))


contents = damaged() | st.binary(max_size=120)


def found(content: bytes, call: Call) -> ReceivedObject:
    return ReceivedObject(content, 0, "'Test0_bcast_0' in the store", 1, call)


def value_or_error(read: Callable[[], Array]) -> Array | None:
    """Return the array, or None for an error that names the object or its writer; require bounded memory."""
    tracemalloc.start()
    try:
        return read()
    except MismatchError as error:
        assert error.origin == 1
        assert "'Test0_bcast_0'" in str(error) or "rank 0" in str(error)
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


@pytest.mark.parametrize("framed", [True, False])
def test_a_decoded_content_equals_the_encoded_array(framed: bool) -> None:
    written = bytes(encode_object(VALUES, DESCRIBED, framed))
    assert found(written, DESCRIBED).payload(VALUES, framed).tolist() == VALUES.ravel().tolist()
    if framed:
        array, sent = found(written, OPEN).new_array()
        assert array.tolist() == VALUES.tolist()
        assert sent == DESCRIBED


@given(contents, st.sampled_from([DESCRIBED, TYPED, OPEN]))
def test_any_content_is_the_expected_payload_or_an_error(content: bytes, call: Call) -> None:
    for framed in (True, False):
        value = value_or_error(lambda framed=framed: found(content, call).payload(VALUES, framed))
        assert value is None or value.nbytes == VALUES.nbytes


@given(contents, st.none() | st.integers(1, 4))
def test_any_content_is_an_array_within_its_size_or_an_error(content: bytes, parts: int | None) -> None:
    value = value_or_error(lambda: found(content, OPEN).new_array(parts)[0])
    assert value is None or value.nbytes <= len(content)


@pytest.mark.parametrize("end", range(len(WHOLE)))
def test_a_content_cut_at_any_byte_is_an_error(end: int) -> None:
    for call in (DESCRIBED, OPEN):
        with pytest.raises(
            MismatchError, match=r"Test0_bcast_0' in the store (has no valid header|has a header for shape|of r)"
        ):
            found(WHOLE[:end], call).new_array() if call is OPEN else found(WHOLE[:end], call).payload(VALUES, True)


@pytest.mark.parametrize("shape", [(0, 2**64 - 1), (0, 2**63), (0, 2**62, 2**62), (2**32, 0, 2**32)])
def test_a_shape_that_no_array_can_have_is_an_error(shape: tuple[int, ...]) -> None:
    call = Call(Operation.bcast, 3, VALUES.dtype, 0, shape=shape)
    with pytest.raises(MismatchError, match="has a header for shape"):
        found(header(signature(call), 0, shape), OPEN).new_array()
    assert len(header(signature(call), 0, shape)) == HEADER_BYTES + 8 * len(shape)


def error_text(schedule: Callable[[ObjectChannel], object], framed: bool) -> str:
    """Run `schedule` on rank 0, then on rank 1, which must raise an error; return its text."""
    store = MemoryStore()
    schedule(channel(store, 0, 2, framed=framed))
    with pytest.raises(MismatchError) as caught:
        schedule(channel(store, 1, 2, framed=framed))
    return str(caught.value)


@pytest.mark.parametrize(("sent", "message"), [(2, "expected 8 bytes, got 16"), (0, "expected 8 bytes, got 0")])
def test_a_raw_object_of_another_size_is_an_error(sent: int, message: str) -> None:
    text = error_text(lambda c: c.send(np.ones(sent), 1) if c.rank == 0 else c.recv(np.ones(1), 0), framed=False)
    assert f"'Test0_1_0' in the memory store of rank 0: {message}" in text


def test_a_framed_object_of_another_type_is_an_error() -> None:
    def differing(c: ObjectChannel) -> None:
        dtype = np.dtype(float if c.rank == 0 else np.int64)
        c.begin(Call(Operation.bcast, 0, dtype, 1, 0), 3)
        schedules.bcast(c, np.zeros(1, dtype), 0)

    assert error_text(differing, framed=True).startswith(
        "rank 0 is in bcast (call 3, 1 x float64, root 0) while rank 1 is in bcast (call 3, 1 x int64, root 0)"
    )


def test_a_framed_array_of_another_shape_is_an_error() -> None:
    def differing(c: ObjectChannel) -> None:
        shape = (2, 3) if c.rank == 0 else (3, 2)
        c.begin(Call(Operation.bcast, 0, np.dtype(float), 6, 0, 0, shape), 0)
        schedules.bcast(c, np.zeros(6), 0)

    text = error_text(differing, framed=True)
    assert "rank 0 sent bcast (call 0, 6 x float64, root 0, shape [2, 3]) where rank 1" in text


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"x" * 32, b"x" * 100])
def test_a_framed_object_without_a_header_is_an_error(content: bytes) -> None:
    store = MemoryStore()
    store.objects["Test0_1_0"] = content
    with pytest.raises(MismatchError, match="'Test0_1_0' in the memory store has no valid header"):
        channel(store, 1, 2, framed=True).recv(np.ones(1), 0)
    with pytest.raises(MismatchError, match="has no valid header"):
        store.objects["Test0_1_1"] = content
        opened = channel(store, 1, 2, framed=True)
        opened.next_number("from 0")
        opened.recv_new(0)


def test_an_object_without_a_header_needs_a_type() -> None:
    with pytest.raises(TypeError, match="message without a header"):
        channel(MemoryStore(), 1, 2).recv_new(0)
