"""The types of values: ``fmi.datatypes``, ``fmi.types``, and the type in which a result is returned."""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fmi_shim.operators import Array, BindingEnum

INT32 = np.dtype(np.int32)
FLOAT64 = np.dtype(np.float64)


class Datatype(BindingEnum, binding_name="datatypes"):
    """``fmi.datatypes``: C int32 and float64, and lists of them."""

    int = 1
    double = 2
    int_list = 3
    double_list = 4


@dataclass(frozen=True, slots=True)
class TypeDescriptor:
    """``fmi.types``: the type of a value, which determines its bytes on both ends.

    Parameters
    ----------
    datatype
        One of ``fmi.datatypes``.
    count
        Number of elements of a list. For ``int`` and ``double``, which are one value, it is ignored as in FMI's Python
        binding.

    Raises
    ------
    TypeError, ValueError
        If `datatype` is not one of ``fmi.datatypes``, or `count` is missing, negative or unexpected.
    """

    datatype: Datatype
    count: int = -1
    _identity: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.datatype, Datatype):
            raise TypeError(f"invalid datatype {self.datatype!r}: expected one of {', '.join(map(str, Datatype))}")
        if not isinstance(self.count, int) or isinstance(self.count, bool):
            raise TypeError(f"invalid count {self.count!r}: expected a whole number")
        if self.is_list and self.count < 0:
            raise ValueError(
                f"invalid count {self.count} for {self.datatype}: expected the number of elements, "
                f"e.g. fmi.types({self.datatype}, 2)"
            )
        if not self.is_list:
            object.__setattr__(self, "count", 1)
        object.__setattr__(self, "_identity", hash((self.datatype, self.count)))

    def __hash__(self) -> int:
        return self._identity

    @property
    def is_list(self) -> bool:
        """Whether values are lists."""
        return self.datatype in (Datatype.int_list, Datatype.double_list)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type on the wire, in native byte order."""
        return INT32 if self.datatype in (Datatype.int, Datatype.int_list) else FLOAT64


@dataclass(frozen=True, slots=True, eq=False)
class ValueType:
    """The type of a program's value, which a flat array is converted back to.

    `array_type` and `value_type_of` return the same object for the same type.

    Attributes
    ----------
    dtype
        Element type.
    shape
        Shape of an array, or ``(count,)``.
    descriptor
        The ``fmi.types`` of the call, None for an array.
    tensor
        Whether the value was a torch tensor.
    count
        Number of elements.
    described_shape
        The shape where messages carry it: for arrays. Typed values have their count on both sides, and None here.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    descriptor: TypeDescriptor | None = None
    tensor: bool = False
    count: int = field(init=False)
    described_shape: tuple[int, ...] | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", math.prod(self.shape))
        object.__setattr__(self, "described_shape", self.shape if self.descriptor is None else None)

    @property
    def is_list(self) -> bool:
        """Whether values are lists that ``fmi.types`` describes."""
        return self.descriptor is not None and self.descriptor.is_list

    def slice(self, size: int) -> ValueType:
        """Return the type of one of `size` equal slices along the first axis.

        Raises
        ------
        ValueError
            If there is no such axis, or its length is not divisible by `size`.
        """
        if self.descriptor is not None and not self.descriptor.is_list:
            raise ValueError(
                f"invalid t {self.descriptor.datatype}: expected int_list or double_list, whose values can be sliced"
            )
        if not self.shape or self.shape[0] % size:
            has = f"{self.shape[0]} rows or elements" if self.shape else "a single element"
            raise ValueError(
                f"invalid value of {has}: expected a multiple of {size}, for equal slices for {size} ranks"
            )
        shape = (self.shape[0] // size, *self.shape[1:])
        if self.descriptor is not None:
            return value_type_of(TypeDescriptor(self.descriptor.datatype, shape[0]))
        return array_type(self.dtype, shape, self.tensor)

    def row(self) -> ValueType:
        """Return the type of one row: of an array along its first axis, of a list one element.

        Raises
        ------
        ValueError
            If it has no rows.
        """
        if self.descriptor is not None:
            if not self.descriptor.is_list:
                raise ValueError(
                    f"invalid t {self.descriptor.datatype}: expected int_list or double_list, of which ranks can have "
                    "different numbers of elements"
                )
            return value_type_of(TypeDescriptor(self.descriptor.datatype, 1))
        if not self.shape:
            raise ValueError("invalid value of a single element: expected an array with rows, of at least one axis")
        return array_type(self.dtype, self.shape[1:], self.tensor)

    def with_rows(self, rows: int) -> ValueType:
        """Return the type of `rows` rows of this type's."""
        if self.descriptor is not None:
            return value_type_of(TypeDescriptor(self.descriptor.datatype, rows))
        return array_type(self.dtype, (rows, *self.shape[1:]), self.tensor)

    def restore(self, flat: Array) -> Any:
        """Convert `flat` to the program's type of value; arrays and tensors share its memory (no copy)."""
        if self.descriptor is None:
            return wrap(flat.reshape(self.shape), self.tensor)
        return flat.tolist() if self.descriptor.is_list else flat[0].item()

    def concatenated(self, parts: int) -> ValueType:
        """Return the type of `parts` values of this type joined along the first axis: a flat list for typed values."""
        shape = (parts * self.shape[0], *self.shape[1:]) if self.shape else (parts,)
        if self.descriptor is not None:
            return value_type_of(
                TypeDescriptor(Datatype.int_list if self.dtype == INT32 else Datatype.double_list, shape[0])
            )
        return array_type(self.dtype, shape, self.tensor)


_CACHED_VALUE_TYPES = 4096
"""Number of cached types; a dropped one is made again."""


@functools.lru_cache(_CACHED_VALUE_TYPES)
def array_type(dtype: np.dtype[Any], shape: tuple[int, ...], tensor: bool) -> ValueType:
    """Return the type of arrays, or of tensors, with this element type and shape."""
    return ValueType(dtype, shape, None, tensor)


@functools.lru_cache(_CACHED_VALUE_TYPES)
def value_type_of(descriptor: TypeDescriptor) -> ValueType:
    """Return the type of values that `descriptor` describes."""
    return ValueType(descriptor.dtype, (descriptor.count,), descriptor)


def wrap(shaped: Array, tensor: bool) -> Any:
    """Return a tensor around the memory of `shaped` if `tensor` is true, else `shaped` itself.

    Elements that numpy lacks are those of ml_dtypes, where it is loaded.
    """
    name = shaped.dtype.names[0] if shaped.dtype.names else None
    if tensor:
        torch = sys.modules["torch"]
        if name is None:
            return torch.from_numpy(shaped)
        bits = shaped.view(np.int16 if shaped.itemsize == 2 else np.uint8)
        return torch.from_numpy(bits).view(getattr(torch, name))
    if name is not None and "ml_dtypes" in sys.modules:
        return shaped.view(getattr(sys.modules["ml_dtypes"], name))
    return shaped


def wrap_announced(received: Array) -> Any:
    """Return an array whose type only the sender knew; elements that numpy lacks as a tensor, where torch is loaded."""
    return wrap(received, "torch" in sys.modules) if received.dtype.names else received
