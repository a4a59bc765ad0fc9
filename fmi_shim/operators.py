"""Reduction operators: ``fmi.op``, ``fmi.func``, and the combination of two buffers by one of them."""

from __future__ import annotations

import enum
import functools
import operator as arithmetic
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Combine = Callable[[Array, Array, Array], None]
"""``combine(left, right, out)`` stores f(left, right) in `out`, which may be one of the two."""

CombineNumbers = Callable[[Any, Any], Any]
"""``combine(left, right)`` returns f(left, right) of two numbers."""

Overflow = Callable[[Array, Array, NDArray[np.bool_]], OverflowError]
"""Makes the error for two operands, given where their result may be out of range."""


class _BindingEnumType(enum.EnumMeta):
    """Adds what enumerations of FMI's Python binding have beyond Python's."""

    @property
    def names(cls) -> dict[str, Any]:
        """The members by name."""
        return dict(cls.__members__)

    @property
    def values(cls) -> dict[int, Any]:
        """The members by number."""
        return dict(enumerate(cls.__members__.values()))


class BindingEnum(enum.Enum, metaclass=_BindingEnumType):
    """An enumeration of FMI's Python binding, whose members have numbers from 0 on.

    Parameters
    ----------
    binding_name
        Its name in the module ``fmi``, as programs write it.
    """

    _binding_name: str

    def __init_subclass__(cls, binding_name: str) -> None:
        super().__init_subclass__()
        cls._binding_name = binding_name

    def __int__(self) -> int:
        return list(type(self)).index(self)

    def __str__(self) -> str:
        return f"fmi.{self._binding_name}.{self.name}"


class Operator(BindingEnum, binding_name="op"):
    """``fmi.op``."""

    sum = 1
    prod = 2
    max = 3
    min = 4
    custom = 5
    land = 6
    """Logical and: 1 or True where both elements are not 0."""
    lor = 7
    """Logical or."""
    lxor = 8
    """Logical exclusive or."""
    band = 9
    """Bitwise and."""
    bor = 10
    """Bitwise or."""
    bxor = 11
    """Bitwise exclusive or."""
    minloc = 12
    """The pair (value, location) with the lowest value, of equal ones that with the lowest location."""
    maxloc = 13
    """The pair (value, location) with the highest value, of equal ones that with the lowest location."""
    avg = 14
    """The mean: the sum, divided by the number of ranks that it has values of."""


_built_in: dict[tuple[Operator, bool], ReduceFunction] = {}


class ReduceFunction:
    """``fmi.func``: a built-in operator, or a function of the program with its algebraic properties.

    Parameters
    ----------
    operator
        One of ``fmi.op``.
    function
        For ``fmi.op.custom``: a function of two values that returns a value of their type. For lists it is
        called element by element; for arrays without a type descriptor, once with the whole arrays.
    commutative, associative
        For ``fmi.op.custom``: the function's properties. Unless it has both, values are combined strictly from
        left to right by rank.
    wrap
        For ``fmi.op.sum`` and ``fmi.op.prod`` of integers: whether a result out of the type's range wraps, as in C and
        numpy, instead of raising OverflowError.

    Attributes
    ----------
    left_to_right
        Whether ranks must be combined strictly in their order.
    element_wise
        Whether a payload may be cut into pieces that are combined separately.

    Raises
    ------
    TypeError
        If `operator` is none of ``fmi.op``, or a custom function or its flags are missing or not of their
        type, or `wrap` is given for another operator.
    """

    __slots__ = ("associative", "commutative", "element_wise", "function", "left_to_right", "operator", "wrap")

    def __new__(cls, operator: Operator, *algebra: object, **named: object) -> ReduceFunction:  # noqa: D102, PYI034
        if operator is Operator.custom or not isinstance(operator, Operator):
            return super().__new__(cls)
        # One object for each operator, which a repeated call compares by identity.
        return _built_in.setdefault((operator, named.get("wrap") is True), super().__new__(cls))

    def __init__(
        self,
        operator: Operator,
        function: Callable[[Any, Any], Any] | None = None,
        commutative: bool | None = None,
        associative: bool | None = None,
        *,
        wrap: bool = False,
    ) -> None:
        if not isinstance(operator, Operator):
            raise TypeError(f"invalid operator {operator!r}: expected one of {', '.join(map(str, Operator))}")
        if operator is Operator.custom:
            if not callable(function):
                raise TypeError(f"invalid function {function!r}: expected a callable of two values for fmi.op.custom")
            for name, flag in (("commutative", commutative), ("associative", associative)):
                if not isinstance(flag, int) or flag not in (0, 1):
                    raise TypeError(f"invalid {name} {flag!r}: expected True or False for fmi.op.custom")
        elif function is not None or commutative is not None or associative is not None:
            raise TypeError(f"unexpected function or flags for {operator}: expected them for fmi.op.custom only")
        if not isinstance(wrap, bool) or (wrap and operator not in (Operator.sum, Operator.prod)):
            raise TypeError(f"invalid wrap {wrap!r} for {operator}: expected True for fmi.op.sum and fmi.op.prod only")
        self.operator = operator
        self.function = function
        self.commutative = operator is not Operator.custom or bool(commutative)
        self.associative = operator is not Operator.custom or bool(associative)
        self.left_to_right = not (self.commutative and self.associative)
        self.element_wise = operator not in (Operator.custom, Operator.minloc, Operator.maxloc)
        self.wrap = wrap

    def __repr__(self) -> str:
        if self.operator is not Operator.custom:
            return f"fmi.func({self.operator}{', wrap=True' if self.wrap else ''})"
        return f"fmi.func({self.operator}, {self.function!r}, {self.commutative}, {self.associative})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments, so that a built-in function is this process's one object again."""
        if self.operator is not Operator.custom:
            return functools.partial(ReduceFunction, self.operator, wrap=self.wrap), ()
        algebra = (self.function, self.commutative, self.associative)
        return functools.partial(ReduceFunction, self.operator, *algebra, wrap=self.wrap), ()

    def in_any_order(self) -> ReduceFunction:
        """Return this function with both flags set, so that values are combined in FMI's tree."""
        return ReduceFunction(self.operator, self.function, True, True) if self.left_to_right else self

    def combining(self) -> ReduceFunction:
        """Return the function that combines two payloads: for a mean the sum, which is divided at the end."""
        return ReduceFunction(Operator.sum) if self.operator is Operator.avg else self

    @property
    def code(self) -> int:
        """The operator and its flags in one byte, compared between ranks in framed mode."""
        return self.operator.value | self.commutative << 4 | self.associative << 5 | self.wrap << 6


def keeps_order(code: int) -> bool:
    """Whether the function with this `ReduceFunction.code` combines strictly in the order of the ranks."""
    return code != 0 and code >> 4 & 3 != 3


_UNCHECKED: dict[Operator, np.ufunc] = {
    Operator.max: np.maximum,
    Operator.min: np.minimum,
    Operator.land: np.logical_and,
    Operator.lor: np.logical_or,
    Operator.lxor: np.logical_xor,
    Operator.band: np.bitwise_and,
    Operator.bor: np.bitwise_or,
    Operator.bxor: np.bitwise_xor,
}
_DEFINED_FOR: dict[Operator, str] = {
    Operator.sum: "iufc",
    Operator.prod: "iufc",
    Operator.max: "biuf",
    Operator.min: "biuf",
    **dict.fromkeys((Operator.land, Operator.lor, Operator.lxor, Operator.band, Operator.bor, Operator.bxor), "biu"),
    Operator.minloc: "iuf",
    Operator.maxloc: "iuf",
    Operator.avg: "fc",
}
"""The kinds of numpy's element types that each operator is defined for."""


def operators_of(dtype: np.dtype[Any]) -> list[Operator]:
    """Return the built-in operators that are defined for elements of this type."""
    if dtype.names == ("bfloat16",):
        return [Operator.sum, Operator.prod, Operator.max, Operator.min, Operator.avg]
    return [operator for operator, kinds in _DEFINED_FOR.items() if dtype.kind in kinds]


def divide(total: Array, ranks: int) -> None:
    """Divide `total` by a number of ranks, in place."""
    if total.dtype.names:
        total[...] = _narrowed(_widened(total) / np.float32(ranks), total.dtype)
    else:
        np.divide(total, ranks, out=total)


@functools.cache
def builtin_combine(
    operator: Operator, dtype: np.dtype[Any], wrap: bool = False, wider: str = "an array of int64 or float64"
) -> Combine:
    """Return the in-place combination of two arrays of `dtype` by an operator other than ``custom`` and ``avg``.

    Integer sums and products are checked unless they may `wrap`: a result outside of the type's range raises
    OverflowError, which recommends the type `wider`. Floating-point results are IEEE's; max and min propagate a NaN, as
    `numpy.maximum` does. Of ``minloc`` and ``maxloc`` the arrays are pairs of a value and a location, one after
    another.
    """
    if dtype.names:
        return _in_float32({Operator.sum: np.add, Operator.prod: np.multiply, **_UNCHECKED}[operator])
    if operator in (Operator.minloc, Operator.maxloc):
        return _located(np.less if operator is Operator.minloc else np.greater)
    if operator in _UNCHECKED:
        return _unchecked(_UNCHECKED[operator])
    function: np.ufunc = np.add if operator is Operator.sum else np.multiply
    if dtype.kind not in "iu" or wrap:
        return function
    error = functools.partial(_overflow, operator, dtype, wider)
    if dtype.itemsize <= 4:
        return _checked_in_64_bits(error, function, dtype)
    return _checked_exactly(error, int.__add__ if operator is Operator.sum else int.__mul__, function, dtype)


# The combinations are closures: a callable object would take longer on each call, of which small reductions have many.


def _unchecked(function: np.ufunc) -> Combine:
    """Combine by one numpy function, whose result needs no check. Some take `out` by name only."""

    def combine(left: Array, right: Array, out: Array) -> None:
        function(left, right, out=out)

    return combine


def _in_float32(function: np.ufunc) -> Combine:
    """Combine bfloat16: compute in float32, of which it is the first half, and round to the nearest, ties to even."""

    def combine(left: Array, right: Array, out: Array) -> None:
        out[...] = _narrowed(function(_widened(left), _widened(right)), out.dtype)

    return combine


def _widened(elements: Array) -> NDArray[np.float32]:
    return (elements.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _narrowed(values: NDArray[np.float32], dtype: np.dtype[Any]) -> Array:
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    quiet = bits >> np.uint32(16) | np.uint32(0x40)  # a NaN whose first half has no bit set would be infinity
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16).view(dtype)


def _located(precedes: np.ufunc) -> Combine:
    """Combine pairs (value, location) one after another: the pair whose value `precedes`, or is NaN."""

    def combine(left: Array, right: Array, out: Array) -> None:
        (value, location), (other, place) = left.reshape(-1, 2).T, right.reshape(-1, 2).T
        nan, other_nan = value != value, other != other
        equal = (value == other) | (nan & other_nan)
        keeps = precedes(value, other) | (nan & ~other_nan) | (equal & (location <= place))
        out.reshape(-1, 2)[...] = np.where(keeps[:, None], left.reshape(-1, 2), right.reshape(-1, 2))

    return combine


def _checked_in_64_bits(error: Overflow, function: np.ufunc, dtype: np.dtype[Any]) -> Combine:
    """Combine integers of at most 32 bits, whose sum and product fit into 64 bits: compute there, then check."""
    limits = np.iinfo(dtype)
    lowest, highest = int(limits.min), int(limits.max)
    wide = np.int64 if dtype.kind == "i" else np.uint64

    def combine(left: Array, right: Array, out: Array) -> None:
        result = function(left, right, dtype=wide)
        if result.size and (result.min() < lowest or result.max() > highest):
            raise error(left, right, (result < lowest) | (result > highest))
        out[...] = result

    return combine


def _checked_exactly(
    error: Overflow, exact: Callable[[int, int], int], function: np.ufunc, dtype: np.dtype[Any]
) -> Combine:
    """Combine 64-bit integers: a float estimate finds the elements near the limits, Python's integers check those."""
    limits = np.iinfo(dtype)
    lowest, highest = int(limits.min), int(limits.max)

    def combine(left: Array, right: Array, out: Array) -> None:
        estimate = function(left, right, dtype=np.float64)
        near = estimate >= highest * (1 - 1e-9)
        if lowest:
            near |= estimate <= lowest * (1 - 1e-9)
        for index in np.flatnonzero(near):
            if not lowest <= exact(int(left[index]), int(right[index])) <= highest:
                raise error(left, right, near)
        function(left, right, out=out)

    return combine


def _overflow(
    operator: Operator, dtype: np.dtype[Any], wider: str, left: Array, right: Array, where: NDArray[np.bool_]
) -> OverflowError:
    index = int(np.flatnonzero(where)[0])
    limits = np.iinfo(dtype)
    return OverflowError(
        f"{operator.name} of {left[index]} and {right[index]} at element {index} is out of range: expected "
        f"{limits.min} to {limits.max} for {dtype.name}: use {wider}, or fmi.func({operator}, wrap=True)"
    )


_ON_NUMBERS: dict[Operator, CombineNumbers] = {Operator.sum: arithmetic.add, Operator.prod: arithmetic.mul}
_ON_WHOLE_NUMBERS: dict[Operator, CombineNumbers] = {
    **_ON_NUMBERS,
    Operator.max: max,
    Operator.min: min,
    Operator.band: arithmetic.and_,
    Operator.bor: arithmetic.or_,
    Operator.bxor: arithmetic.xor,
}


def combination_of_numbers(function: ReduceFunction, dtype: np.dtype[Any], combine: Combine) -> CombineNumbers | None:
    """Return what combines two numbers of `dtype` to what `combine` does, by Python's arithmetic; None if nothing does.

    For float64 that is the same IEEE operation. Whole numbers out of the range of `dtype` are passed to `combine`,
    which raises the error. Maxima of floats are not Python's, since a NaN is one.
    """
    if dtype == np.float64:
        return _ON_NUMBERS.get(function.operator)
    exact = _ON_WHOLE_NUMBERS.get(function.operator) if dtype.kind in "iu" and not function.wrap else None
    if exact is None or function.operator not in _ON_NUMBERS:
        return exact
    limits = np.iinfo(dtype)
    lowest, highest = int(limits.min), int(limits.max)

    def combine_checked(left: int, right: int) -> int:
        result: int = exact(left, right)
        if not lowest <= result <= highest:
            combine(np.array([left], dtype), np.array([right], dtype), np.empty(1, dtype))
        return result

    return combine_checked
