import operator as python_operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fmi_shim as fmi
from fmi_shim.operators import builtin_combine

PYTHON = {
    fmi.op.sum: python_operator.add,
    fmi.op.prod: python_operator.mul,
    fmi.op.max: max,
    fmi.op.min: min,
}
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"]


@st.composite
def integer_pairs(draw: st.DrawFn) -> tuple[np.dtype[Any], list[int], list[int]]:
    dtype = np.dtype(draw(st.sampled_from(INTEGERS)))
    limits = np.iinfo(dtype)
    near_limits = st.sampled_from([int(limits.min), int(limits.max), int(limits.max) // 2 + 1, int(limits.min) // 2])
    element = st.integers(int(limits.min), int(limits.max)) | st.integers(0, 5) | near_limits
    pairs = draw(st.lists(st.tuples(element, element), max_size=4))
    return dtype, [a for a, _ in pairs], [b for _, b in pairs]


@given(st.sampled_from(list(PYTHON)), integer_pairs())
def test_integers_are_combined_exactly_or_overflow(
    op: fmi.op, pair: tuple[np.dtype[Any], list[int], list[int]]
) -> None:
    dtype, left, right = pair
    expected = [PYTHON[op](a, b) for a, b in zip(left, right, strict=True)]
    limits = np.iinfo(dtype)
    out = np.array(left, dtype)
    if all(limits.min <= value <= limits.max for value in expected):
        builtin_combine(op, dtype)(out, np.array(right, dtype), out)
        assert out.tolist() == expected
    else:
        with pytest.raises(OverflowError, match=f"is out of range: expected .* for {dtype.name}"):
            builtin_combine(op, dtype)(out, np.array(right, dtype), out)


@given(st.sampled_from(list(PYTHON)), st.lists(st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False))))
def test_doubles_are_combined_by_ieee_754(op: fmi.op, pairs: list[tuple[float, float]]) -> None:
    left, right = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    out = np.empty_like(left)
    with np.errstate(all="ignore"):
        builtin_combine(op, left.dtype)(left, right, out)
    expected = [PYTHON[op](float(a), float(b)) for a, b in zip(left, right, strict=True)]
    np.testing.assert_array_equal(out, expected)


def test_the_first_element_that_overflows_is_named() -> None:
    left = np.array([1, 2**31 - 1], np.int32)
    with pytest.raises(
        OverflowError, match="sum of 2147483647 and 1 at element 1 is out of range: expected -2147483648"
    ):
        builtin_combine(fmi.op.sum, left.dtype)(left, np.array([1, 1], np.int32), left)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sum",), "invalid operator 'sum': expected one of Operator.sum"),
        ((fmi.op.custom,), "invalid function None: expected a callable of two values"),
        ((fmi.op.custom, max), "invalid commutative None: expected True or False"),
        ((fmi.op.custom, max, True, 2), "invalid associative 2: expected True or False"),
        ((fmi.op.sum, max, True, True), "unexpected function or flags for Operator.sum"),
    ],
)
def test_a_wrong_function_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        fmi.func(*arguments)


@pytest.mark.parametrize("commutative", [True, False])
@pytest.mark.parametrize("associative", [True, False])
def test_only_commutative_and_associative_functions_are_reordered(commutative: bool, associative: bool) -> None:
    function = fmi.func(fmi.op.custom, max, commutative, associative)
    assert function.left_to_right is not (commutative and associative)
    assert not fmi.func(fmi.op.sum).left_to_right
