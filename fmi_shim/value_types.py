"""What a payload is: ``fmi.datatypes``, ``fmi.types``, and the form that a result must come back in."""

from __future__ import annotations

import enum
import functools
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fmi_shim.operators import Array

INT32 = np.dtype(np.int32)
FLOAT64 = np.dtype(np.float64)


class Datatype(enum.Enum):
    """``fmi.datatypes``: C int32 and float64, and lists of them."""

    int = 1
    double = 2
    int_list = 3
    double_list = 4


@dataclass(frozen=True, slots=True)
class TypeDescriptor:
    """``fmi.types``: what a value is, so that both ends agree on its bytes.

    Parameters
    ----------
    datatype
        One of ``fmi.datatypes``.
    count
        Number of elements of a list; left out for ``int`` and ``double``.

    Raises
    ------
    TypeError, ValueError
        If `datatype` is none of ``fmi.datatypes``, or `count` is missing, negative or out of place.
    """

    datatype: Datatype
    count: int = -1
    _identity: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.datatype, Datatype):
            raise TypeError(f"datatype is {self.datatype!r}, allowed are {', '.join(map(str, Datatype))}")
        if not isinstance(self.count, int) or isinstance(self.count, bool):
            raise TypeError(f"count is {self.count!r}, allowed is a whole number")
        if self.is_list and self.count < 0:
            raise ValueError(f"{self.datatype} needs the number of elements, e.g. fmi.types({self.datatype}, 2)")
        if not self.is_list:
            if self.count not in (-1, 1):
                raise ValueError(f"count is {self.count}, but {self.datatype} is one value")
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
class Form:
    """What a payload was before it became a flat array. Made by `array_form` and `form_of`, one object for each form.

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
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    descriptor: TypeDescriptor | None = None
    tensor: bool = False

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def described_shape(self) -> tuple[int, ...] | None:
        """The shape where messages carry it: for arrays; typed values have their count on both sides."""
        return self.shape if self.descriptor is None else None

    def slice(self, size: int) -> Form:
        """Return the form of one of `size` equal slices along the first axis.

        Raises
        ------
        ValueError
            If there is no such axis, or its length is not divisible by `size`.
        """
        if self.descriptor is not None and not self.descriptor.is_list:
            raise ValueError(f"t is {self.descriptor.datatype}, to be cut it must be a list: int_list or double_list")
        if not self.shape or self.shape[0] % size:
            has = f"{self.shape[0]} rows or elements" if self.shape else "a single one"
            raise ValueError(
                f"value is {has}, to be cut into equal slices for {size} ranks it must have as many, or a multiple"
            )
        shape = (self.shape[0] // size, *self.shape[1:])
        if self.descriptor is not None:
            return form_of(TypeDescriptor(self.descriptor.datatype, shape[0]))
        return array_form(self.dtype, shape, self.tensor)

    def restore(self, flat: Array) -> Any:
        """Return the program's kind of value around `flat`; arrays and tensors share its memory (no copy)."""
        if self.descriptor is None:
            return wrap(flat.reshape(self.shape), self.tensor)
        return flat.tolist() if self.descriptor.is_list else flat[0].item()

    def joined(self, parts: int) -> Form:
        """Return the form of so many parts of this form, joined along the first axis; of typed values a flat list."""
        shape = (parts * self.shape[0], *self.shape[1:]) if self.shape else (parts,)
        if self.descriptor is not None:
            return form_of(TypeDescriptor(Datatype.int_list if self.dtype == INT32 else Datatype.double_list, shape[0]))
        return array_form(self.dtype, shape, self.tensor)


_DIFFERENT_FORMS = 4096
"""So many are remembered; one that comes again later is made anew."""


@functools.lru_cache(_DIFFERENT_FORMS)
def array_form(dtype: np.dtype[Any], shape: tuple[int, ...], tensor: bool) -> Form:
    """Return the form of arrays, or tensors, of this element type and shape."""
    return Form(dtype, shape, None, tensor)


@functools.lru_cache(_DIFFERENT_FORMS)
def form_of(descriptor: TypeDescriptor) -> Form:
    """Return the form of values of type `descriptor`."""
    return Form(descriptor.dtype, (descriptor.count,), descriptor)


def wrap(shaped: Array, tensor: bool) -> Any:
    """Return a tensor around the memory of `shaped` if `tensor` is true, else `shaped` itself."""
    return sys.modules["torch"].from_numpy(shaped) if tensor else shaped
