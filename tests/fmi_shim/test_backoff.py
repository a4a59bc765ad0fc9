"""How long a rank pauses between two looks at a store."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.backoff import pauses


@given(st.floats(1e-4, 10))
def test_pauses_double_up_to_the_longest(longest: float) -> None:
    first = list(itertools.islice(pauses(longest), 8))
    assert first[0] == pytest.approx(longest / 16)
    assert [b / a for a, b in itertools.pairwise(first)][:4] == pytest.approx([2] * 4)
    assert first[4:] == pytest.approx([longest] * 4)
