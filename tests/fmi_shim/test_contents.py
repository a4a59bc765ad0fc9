"""What a rank makes of any bytes at all that it finds in an object: its payload, or an error of ours."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.channels.contents import Found, content_of
from fmi_shim.errors import MismatchError
from fmi_shim.frames import HEADER_BYTES, Call, Operation, header, signature
from fmi_shim.operators import Array

VALUES = np.arange(6.0).reshape(2, 3)
DESCRIBED = Call(Operation.bcast, 3, VALUES.dtype, 6, 0, 0, (2, 3))
TYPED = replace(DESCRIBED, shape=None)
OPEN = Call(Operation.bcast, 3, None, 0)
WHOLE = bytes(content_of(VALUES, DESCRIBED, framed=True))

damage = st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A content with bytes replaced in one or two places, cut short or lengthened."""
    data = bytearray(draw(st.sampled_from([WHOLE, bytes(content_of(VALUES, TYPED, framed=True))])))
    for at, replacement in draw(st.lists(damage, max_size=2)):
        data[at : at + len(replacement)] = replacement
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=16))


contents = damaged() | st.binary(max_size=120)


def found(content: bytes, call: Call) -> Found:
    return Found(content, 0, "'Test0_bcast_0' in the store", 1, call)


def value_or_error(read: Callable[[], Array]) -> Array | None:
    """Return what is read, None for an error that names the object or its writer; memory must not go with a length."""
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
def test_a_content_is_read_as_it_was_written(framed: bool) -> None:
    written = bytes(content_of(VALUES, DESCRIBED, framed))
    assert found(written, DESCRIBED).payload(VALUES, framed).tolist() == VALUES.ravel().tolist()
    if framed:
        array, sent = found(written, OPEN).new()
        assert array.tolist() == VALUES.tolist()
        assert sent == DESCRIBED


@given(contents, st.sampled_from([DESCRIBED, TYPED, OPEN]))
def test_any_content_is_the_expected_payload_or_an_error(content: bytes, call: Call) -> None:
    for framed in (True, False):
        value = value_or_error(lambda framed=framed: found(content, call).payload(VALUES, framed))
        assert value is None or value.nbytes == VALUES.nbytes


@given(contents, st.none() | st.integers(1, 4))
def test_any_content_is_an_array_that_it_holds_or_an_error(content: bytes, parts: int | None) -> None:
    value = value_or_error(lambda: found(content, OPEN).new(parts)[0])
    assert value is None or value.nbytes <= len(content)


@pytest.mark.parametrize("end", range(len(WHOLE)))
def test_a_content_cut_short_anywhere_is_told(end: int) -> None:
    for call in (DESCRIBED, OPEN):
        with pytest.raises(
            MismatchError, match=r"Test0_bcast_0' in the store (has no valid header|announces shape|of r)"
        ):
            found(WHOLE[:end], call).new() if call is OPEN else found(WHOLE[:end], call).payload(VALUES, True)


@pytest.mark.parametrize("shape", [(0, 2**64 - 1), (0, 2**63), (0, 2**62, 2**62), (2**32, 0, 2**32)])
def test_a_shape_that_no_array_has_is_told(shape: tuple[int, ...]) -> None:
    call = Call(Operation.bcast, 3, VALUES.dtype, 0, shape=shape)
    with pytest.raises(MismatchError, match="announces shape"):
        found(header(signature(call), 0, shape), OPEN).new()
    assert len(header(signature(call), 0, shape)) == HEADER_BYTES + 8 * len(shape)
