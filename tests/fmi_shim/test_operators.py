import itertools
import operator as python_operator
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fmi_shim as fmi
from fmi_shim.operators import Operator, ReduceFunction, builtin_combine, combination_of_numbers
from fmi_shim.payload import combine_of
from fmi_shim.value_types import ValueType, array_type, value_type_of

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


@given(st.sampled_from([fmi.op.sum, fmi.op.prod]), integer_pairs())
def test_wrapping_integers_are_combined_modulo_their_range(
    op: fmi.op, pair: tuple[np.dtype[Any], list[int], list[int]]
) -> None:
    dtype, left, right = pair
    out = np.array(left, dtype)
    builtin_combine(op, dtype, wrap=True)(out, np.array(right, dtype), out)
    limits = np.iinfo(dtype)
    span, lowest = int(limits.max) - int(limits.min) + 1, int(limits.min)
    exact = [PYTHON[op](a, b) for a, b in zip(left, right, strict=True)]
    assert out.tolist() == [(value - lowest) % span + lowest for value in exact]


_VALUES = st.sampled_from([0.0, 1.0, -2.5, float("inf"), float("nan")])
_PAIRS = st.lists(st.tuples(_VALUES, st.integers(0, 3), _VALUES, st.integers(0, 3)), max_size=5)


@given(st.sampled_from([fmi.op.minloc, fmi.op.maxloc]), _PAIRS)
def test_a_located_extreme_is_that_of_numpy_with_the_lowest_location(op: fmi.op, rows: list[tuple[float, ...]]) -> None:
    left, right = (np.array([row[at : at + 2] for row in rows], float).reshape(-1) for at in (0, 2))
    results = []
    for first, second in ((left, right), (right, left)):  # the order of the ranks does not matter
        out = first.copy()
        builtin_combine(op, out.dtype)(out, second, out)
        results.append(out)
    np.testing.assert_array_equal(results[0], results[1])
    extreme = np.minimum if op is fmi.op.minloc else np.maximum
    expected = extreme(left[::2], right[::2])
    np.testing.assert_array_equal(results[0][::2], expected)
    for value, place, (a, i, b, j) in zip(expected, results[0][1::2], rows, strict=True):
        having = [at for at, of in ((i, a), (j, b)) if of == value or (np.isnan(of) and np.isnan(value))]
        assert place == min(having)


@pytest.mark.parametrize(
    ("op", "dtype", "allowed"),
    [
        (fmi.op.band, np.float64, "sum, prod, max, min, minloc, maxloc, avg, or a custom function"),
        (fmi.op.land, np.complex64, "sum, prod, avg, or a custom function"),
        (fmi.op.avg, np.int32, "sum, prod, max, min, land, lor, lxor, band, bor, bxor, minloc, maxloc, or a custom"),
        (fmi.op.sum, np.bool_, "max, min, land, lor, lxor, band, bor, bxor, or a custom function"),
    ],
)
def test_an_operator_that_the_elements_lack_is_refused(op: fmi.op, dtype: type, allowed: str) -> None:
    value_type = array_type(np.dtype(dtype), (2,), False)
    with pytest.raises(TypeError, match=f"invalid f {op} for elements of {np.dtype(dtype)}: expected {allowed}"):
        combine_of(fmi.func(op), value_type)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1)])
def test_a_located_extreme_of_no_pairs_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected pairs of a value and a location: an array whose last axis"):
        combine_of(fmi.func(fmi.op.minloc), array_type(np.dtype(float), shape, False))


def test_pairs_are_not_divided_between_ranks() -> None:
    six = value_type_of(fmi.types(fmi.datatypes.double_list, 6))
    combine_of(fmi.func(fmi.op.minloc), six, parts=3)
    with pytest.raises(ValueError, match="expected pairs"):
        combine_of(fmi.func(fmi.op.minloc), six, parts=2)


def test_wrapping_is_refused_where_it_has_no_meaning() -> None:
    with pytest.raises(TypeError, match=r"invalid wrap True for fmi.op.max: expected True for fmi.op.sum"):
        fmi.func(fmi.op.max, wrap=True)
    with pytest.raises(TypeError, match="invalid wrap=True for elements of float64: expected integers"):
        combine_of(fmi.func(fmi.op.sum, wrap=True), array_type(np.dtype(float), (2,), False))


@pytest.mark.parametrize(
    ("value_type", "advice"),
    [
        (
            array_type(np.dtype(np.int8), (2,), False),
            r"use an array of int64 or float64, or fmi.func\(fmi.op.sum, wrap",
        ),
        (value_type_of(fmi.types(fmi.datatypes.int_list, 2)), r"use fmi.datatypes.double, or fmi.func\("),
    ],
)
def test_an_overflow_recommends_what_the_program_can_use(value_type: ValueType, advice: str) -> None:
    most = np.array([1, np.iinfo(value_type.dtype).max], value_type.dtype)
    with pytest.raises(OverflowError, match=advice):
        combine_of(fmi.func(fmi.op.sum), value_type)(most, most, most)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sum",), "invalid operator 'sum': expected one of fmi.op.sum"),
        ((fmi.op.custom,), "invalid function None: expected a callable of two values"),
        ((fmi.op.custom, max), "invalid commutative None: expected True or False"),
        ((fmi.op.custom, max, True, 2), "invalid associative 2: expected True or False"),
        ((fmi.op.sum, max, True, True), "unexpected function or flags for fmi.op.sum"),
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


def test_a_pickled_function_is_the_same_one() -> None:
    for function in (fmi.func(fmi.op.sum), fmi.func(fmi.op.sum, wrap=True)):
        assert pickle.loads(pickle.dumps(function)) is function  # noqa: S301 - pickled here
    custom = pickle.loads(pickle.dumps(fmi.func(fmi.op.custom, python_operator.add, True, False)))  # noqa: S301 - pickled here
    assert (custom.function, custom.commutative, custom.associative) == (python_operator.add, True, False)


@pytest.mark.parametrize("dtype", ["float64", "int8", "uint16", "int32", "int64", "uint64"])
@pytest.mark.parametrize("operator", [Operator.sum, Operator.prod, Operator.max, Operator.min, Operator.bxor])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_single_numbers_are_combined_as_arrays_of_one_are(dtype: str, operator: Operator) -> None:
    element = np.dtype(dtype)
    if element.kind == "f" and operator is Operator.bxor:
        return
    function = ReduceFunction(operator)
    combine = builtin_combine(operator, element)
    on_numbers = combination_of_numbers(function, element, combine)
    if element.kind == "f" and operator in (Operator.max, Operator.min):
        assert on_numbers is None  # a NaN is the maximum
        return
    assert on_numbers is not None
    if element.kind == "f":
        samples = [0.0, -0.0, 1.5, -1e308, 1.7e308, 5e-324, float("inf"), float("-inf"), float("nan")]
    else:
        limits = np.iinfo(element)
        samples = [number for number in (limits.min, limits.max, -3, 0, 1, 2, limits.max // 2) if number >= limits.min]
    for left, right in itertools.product(samples, repeat=2):
        arrays, out = [np.array([number], element) for number in (left, right)], np.empty(1, element)
        try:
            combine(*arrays, out)
        except OverflowError as error:
            with pytest.raises(OverflowError) as raised:
                on_numbers(left, right)
            assert str(raised.value) == str(error)
        else:
            found = np.array([on_numbers(left, right)], element)
            # The sign and the bits of a NaN are the processor's choice.
            assert found.tobytes() == out.tobytes() or (np.isnan(found) and np.isnan(out))


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (ReduceFunction(Operator.sum, wrap=True), "int32"),
        (ReduceFunction(Operator.sum), "float32"),
        (ReduceFunction(Operator.lxor), "bool"),
        (ReduceFunction(Operator.custom, max, True, True), "float64"),
    ],
)
def test_other_combinations_are_left_to_numpy(function: ReduceFunction, dtype: str) -> None:
    assert combination_of_numbers(function, np.dtype(dtype), np.maximum) is None
