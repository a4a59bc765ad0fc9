"""Ranges as in RFC 9110."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.s3.http.requests import requested_range
from emulator.errors import ApiError


@given(st.integers(1, 100), st.integers(0, 99), st.integers(0, 150))
def test_a_range_equals_a_slice(size: int, first: int, last: int) -> None:
    body = bytes(range(size))
    if first >= size:
        with pytest.raises(ApiError, match="not satisfiable"):
            requested_range(f"bytes={first}-", size)
        return
    found = requested_range(f"bytes={first}-{last}", size)
    if last < first:
        assert found is None
    else:
        assert found is not None
        assert body[found.start : found.start + found.size] == body[first : last + 1]


@given(st.integers(1, 100), st.integers(1, 150))
def test_a_suffix_range_is_the_end_of_the_object(size: int, length: int) -> None:
    found = requested_range(f"bytes=-{length}", size)
    assert found is not None
    assert (found.start, found.size) == (max(0, size - length), min(length, size))


@pytest.mark.parametrize("header", ["", "bytes=-", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b", "bytes"])
def test_several_or_invalid_ranges_return_the_whole_object(header: str) -> None:
    assert requested_range(header, 10) is None


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-0", "bytes=-5"])
def test_an_empty_object_has_no_satisfiable_range(header: str) -> None:
    with pytest.raises(ApiError) as refused:
        requested_range(header, 0)
    assert refused.value.code == "InvalidRange"
    assert refused.value.details == {"ActualObjectSize": "0", "RangeRequested": header}
