"""Conversion of a program's values to contiguous arrays and back: numbers, lists, numpy arrays, tensors, buffers.

Inside this package every payload is a C-contiguous numpy array, one-dimensional where its type is known.
"""

from __future__ import annotations

import array
import functools
import itertools
import numbers
import operator
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmi_shim.frames import ELEMENT_CODES, SHORT_FLOATS, element_name
from fmi_shim.operators import Array, Combine, Operator, ReduceFunction, builtin_combine, operators_of
from fmi_shim.value_types import INT32, Datatype, TypeDescriptor, ValueType, array_type, value_type_of, wrap

_INT32_LIMITS = (-(2**31), 2**31 - 1)


class Payload(NamedTuple):
    """A flat buffer and the type of the value that it holds.

    Attributes
    ----------
    flat
        One-dimensional, C-contiguous.
    value_type
        The type of the program's value.
    origin
        The program's own array or tensor that shares its memory with `flat`, if any.
    """

    flat: Array
    value_type: ValueType
    origin: object = None

    @staticmethod
    def empty(value_type: ValueType) -> Payload:
        """Return an uninitialised payload to receive into."""
        return Payload(np.empty(value_type.count, value_type.dtype), value_type)

    @property
    def spare(self) -> Array | None:
        """The flat buffer where a schedule may overwrite it: that of typed values, but no array of the program."""
        return self.flat if self.origin is None else None

    def apart_from(self, place: Payload) -> Payload:
        """Return this payload, or a copy of it where `place` is its memory.

        Raises
        ------
        ValueError
            As `is_in_place` does.
        """
        return Payload(self.flat.copy(), self.value_type) if is_in_place(self.flat, place.flat) else self

    def restore(self) -> Any:
        """Return the program's value; an array that the program passed is returned itself."""
        return self.value_type.restore(self.flat) if self.origin is None else self.origin

    def restore_part(self, flat: Array) -> Any:
        """Return the program's value after `flat`, the first part of its memory, was received: the rows in it."""
        if flat.size == self.flat.size:
            return self.restore()
        shape = self.value_type.shape
        rows = flat.size * shape[0] // self.flat.size
        origin: Any = self.origin
        if isinstance(origin, np.ndarray) or is_tensor(origin):
            return origin[:rows]
        return flat.reshape(rows, *shape[1:])


def pack(value: object, t: TypeDescriptor | None) -> Payload:
    """Return `value` as a payload: typed values in new memory, arrays in their own where they are contiguous.

    Raises
    ------
    TypeError, ValueError, OverflowError
        If `value` is not of type `t`, or is not an array if `t` is None.
    """
    if t is None:
        shaped, value_type = as_array(value)
        return Payload(shaped if shaped.ndim == 1 else shaped.reshape(-1), value_type, value)
    if not isinstance(t, TypeDescriptor):
        raise TypeError(f"invalid t {t!r}: expected fmi.types(...), or None for arrays")
    return Payload(pack_typed(value, t), value_type_of(t))


def cut(flat: Array, counts: Sequence[int], row: ValueType) -> list[Array]:
    """Return views of a flat array with these numbers of rows of one type, one after another."""
    ends = [0, *itertools.accumulate(rows * row.count for rows in counts)]
    return [flat[start:end] for start, end in itertools.pairwise(ends)]


@functools.lru_cache(4096)
def numeric_array_type(
    dtype: np.dtype[Any], shape: tuple[int, ...], tensor: bool = False, name: str = "value"
) -> ValueType:
    """Return the type of an array.

    Raises
    ------
    TypeError
        If its elements are not numbers.
    """
    if dtype not in ELEMENT_CODES:
        raise TypeError(
            f"invalid element type {dtype} of {name}: expected native bool, int, float or complex, bfloat16 or float8"
        )
    return array_type(dtype, shape, tensor)


def pack_operand(value: object, t: TypeDescriptor | None, out: object) -> tuple[ValueType, Array, Array | None]:
    """Return the operand of a reduction: its type, the flat value, and memory of that type which may be overwritten.

    That memory is `out` or that of typed values, else None. Where `out` is the memory of `value`, both are one object.

    Raises
    ------
    TypeError, ValueError, OverflowError
        See `pack` and `pack_out`.
    """
    if t is None and type(value) is np.ndarray and value.flags.c_contiguous and value.dtype.kind != "V":
        # the most frequent case
        value_type = numeric_array_type(value.dtype, value.shape)
        flat = value if value.ndim == 1 else value.reshape(-1)
        if out is None:
            return value_type, flat, None
        if (
            type(out) is np.ndarray
            and out.dtype == value_type.dtype
            and out.shape == value_type.shape
            and out.flags.carray
        ):
            if out is value:
                return value_type, flat, flat
            target = out if out.ndim == 1 else out.reshape(-1)
            return value_type, target if is_in_place(flat, target) else flat, target
    payload = pack(value, t)
    place = pack_out(out, payload.value_type)
    if place is None:
        return payload.value_type, payload.flat, payload.spare
    return payload.value_type, place.flat if is_in_place(payload.flat, place.flat) else payload.flat, place.flat


def is_in_place(value: Array, place: Array, own: Array | None = None) -> bool:
    """Return whether the result of `value` replaces it: whether both are the same memory.

    Parameters
    ----------
    value, place
        Flat memory of the value and of ``out``.
    own
        Where one of the two holds a part for each rank, this rank's part, which the other one may be.

    Raises
    ------
    ValueError
        If they overlap otherwise. What an algorithm would read and write there depends on sizes and channels.
    """
    if not np.may_share_memory(value, place):
        return False
    smaller, larger = (value, place) if value.nbytes <= place.nbytes else (place, value)
    part = larger if own is None else own
    if smaller.nbytes == part.nbytes and smaller.ctypes.data == part.ctypes.data:
        return True
    allowed = "the memory of value itself" if own is None else "this rank's part of the joined memory"
    raise ValueError(
        f"invalid out: its memory overlaps that of value in part: expected {allowed}, or other memory: pass a copy"
    )


def pack_template(template: object, name: str = "value") -> Payload:
    """Return the memory of an array that a message is to be received into.

    Raises
    ------
    TypeError, ValueError
        If it is not an array, or its memory is not contiguous or not writable.
    """
    memory, value_type = _memory(template, name)
    flags = memory.flags
    if isinstance(template, np.generic) or not flags.c_contiguous or not flags.writeable:
        raise ValueError(f"invalid {name}: expected an array to fill that is C-contiguous and writable")
    return Payload(memory if memory.ndim == 1 else memory.reshape(-1), value_type, template)


def pack_out(out: object, value_type: ValueType) -> Payload | None:
    """Return the memory of `out`, which a result of this type is written into; None if `out` is None.

    Raises
    ------
    TypeError, ValueError
        If `out` is not a writable contiguous array of the result's type and shape, or is given with ``fmi.types``.
    """
    if out is None:
        return None
    if value_type.descriptor is not None:
        raise TypeError("invalid out: expected None with t, since typed values are returned as new values")
    place = pack_template(out, "out")
    if place.value_type is not value_type and (place.value_type.dtype, place.value_type.shape) != (
        value_type.dtype,
        value_type.shape,
    ):
        raise ValueError(
            f"invalid out {element_name(place.value_type.dtype)}{list(place.value_type.shape)}: expected the type of "
            f"the result, {element_name(value_type.dtype)}{list(value_type.shape)}"
        )
    return place


def pack_typed(value: object, descriptor: TypeDescriptor, name: str = "value") -> Array:
    """Return `value` as a new flat array of the descriptor's type (one copy).

    Raises
    ------
    TypeError
        If `value`, or an element, is not of the type.
    ValueError
        If the length of a list is not that of the descriptor.
    OverflowError
        If an integer is outside int32.
    """
    if not descriptor.is_list:
        flat = np.empty(1, descriptor.dtype)
        flat[0] = _scalar(value, descriptor.datatype, name)
        return flat
    if isinstance(value, np.ndarray) or is_tensor(value):
        value = as_array(value, name)[0].tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray | memoryview):
        raise TypeError(f"invalid {name} {_short(value)}: expected a list of numbers for {descriptor.datatype}")
    if len(value) != descriptor.count:
        raise ValueError(f"invalid {name}: expected {descriptor.count} elements as in fmi.types, got {len(value)}")
    code, allowed = ("i", "int32") if descriptor.dtype == INT32 else ("d", "float64")
    try:
        elements = array.array(code, value)
    except OverflowError:
        outside = next(v for v in value if not _INT32_LIMITS[0] <= v <= _INT32_LIMITS[1])
        raise OverflowError(
            f"invalid element {outside} of {name}: expected numbers in the range of {allowed}"
        ) from None
    except TypeError as error:
        raise TypeError(
            f"invalid {name} {_short(value)}: expected numbers of {allowed} for {descriptor.datatype}: {error}"
        ) from None
    return np.frombuffer(elements, descriptor.dtype) if elements else np.empty(0, descriptor.dtype)


def _scalar(value: object, datatype: Datatype, name: str) -> int | float:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if datatype is Datatype.double:
        if type(value) is float or isinstance(value, numbers.Real | np.bool_):
            return float(value)
        raise TypeError(f"invalid {name} {_short(value)}: expected a real number for fmi.datatypes.double")
    try:
        number = operator.index(value)  # type: ignore[arg-type] # the TypeError is the check
    except TypeError:
        raise TypeError(f"invalid {name} {_short(value)}: expected a whole number for fmi.datatypes.int") from None
    if not _INT32_LIMITS[0] <= number <= _INT32_LIMITS[1]:
        lowest, highest = _INT32_LIMITS
        raise OverflowError(f"invalid {name} {number}: expected {lowest} to {highest} for fmi.datatypes.int")
    return number


def as_array(value: object, name: str = "value") -> tuple[Array, ValueType]:
    """Return `value` as a C-contiguous array, and its type; no copy unless the memory is not contiguous.

    Raises
    ------
    TypeError
        If `value` is no numpy array, torch tensor on the CPU or other buffer (PEP 3118), or its elements are
        no numbers.
    """
    memory, value_type = _memory(value, name)
    return memory if memory.flags.c_contiguous else np.ascontiguousarray(memory), value_type


def _memory(value: object, name: str) -> tuple[Array, ValueType]:
    """Return the array that shares the memory of `value`, and its type."""
    tensor = False
    if isinstance(value, np.ndarray):
        memory = value if type(value) is np.ndarray else _plain_array(value, name)
    elif tensor := is_tensor(value):
        memory = _tensor_memory(value, name)
    elif isinstance(value, np.generic):
        memory = np.asarray(value)  # numpy's functions return these for arrays without dimensions
    else:
        try:
            memory = np.asarray(memoryview(value))  # type: ignore[arg-type] # the TypeError is the check
        except (TypeError, ValueError):  # not a buffer, or one whose format numpy does not support
            raise TypeError(
                f"invalid {name} {_short(value)}: expected a numpy array, a torch CPU tensor or another buffer of "
                "numbers; pass numbers and lists with fmi.types(fmi.datatypes.int | double | int_list | "
                "double_list, count)"
            ) from None
    if memory.dtype.kind == "V" and memory.dtype.name in SHORT_FLOATS:  # of ml_dtypes
        memory = memory.view(SHORT_FLOATS[memory.dtype.name])
    return memory, numeric_array_type(memory.dtype, memory.shape, tensor, name)


def _plain_array(value: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the memory of an instance of a subclass, whose own indexing and reshaping may differ from an array's."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"invalid {name} of type MaskedArray: expected an array without a mask: pass .filled(...) or .data"
        )
    return np.asarray(value)


def is_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor, without importing torch: where there is a tensor, torch is loaded."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def _tensor_memory(tensor: Any, name: str) -> NDArray[Any]:
    if tensor.device.type != "cpu":
        raise TypeError(f"invalid {name} on {tensor.device}: expected a CPU tensor: call .cpu() first")
    short = SHORT_FLOATS.get(str(tensor.dtype).removeprefix("torch."))
    if short is not None:
        torch = sys.modules["torch"]
        bits: NDArray[Any] = tensor.detach().view(torch.int16 if short.itemsize == 2 else torch.uint8).numpy()
        return bits.view(short)
    try:
        memory: NDArray[Any] = tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"invalid {name} of {tensor.dtype}: expected a tensor of an element type that numpy has: {error}"
        ) from None
    return memory


def combine_of(function: ReduceFunction, value_type: ValueType, parts: int = 1) -> Combine:
    """Return how `function` combines two flat payloads of `value_type`, which may be divided into equal `parts`.

    Raises
    ------
    TypeError, ValueError
        If the operator is not defined for the type.
    """
    if function.operator is not Operator.custom:
        dtype = value_type.dtype
        _require_defined(function, dtype)
        if not function.element_wise:
            _require_pairs(function.operator, value_type, parts)
        wider = "an array of int64 or float64" if value_type.descriptor is None else "fmi.datatypes.double"
        return builtin_combine(function.combining().operator, dtype, function.wrap, wider)
    # The combinations are closures: a callable object would take longer on each call.
    call = function.function
    assert call is not None  # noqa: S101 - ReduceFunction has checked it
    descriptor = value_type.descriptor
    if descriptor is not None:
        single = Datatype.int if descriptor.dtype == INT32 else Datatype.double

        def combine_elements(left: Array, right: Array, out: Array) -> None:
            pairs = zip(left.tolist(), right.tolist(), strict=True)
            out[...] = [_scalar(call(a, b), single, "result of the custom function") for a, b in pairs]

        return combine_elements

    def combine_arrays(left: Array, right: Array, out: Array) -> None:
        given = (
            wrap(left.reshape(value_type.shape), value_type.tensor),
            wrap(right.reshape(value_type.shape), value_type.tensor),
        )
        result, result_type = as_array(call(*given), "result of the custom function")
        if result_type.shape != value_type.shape or result_type.dtype != value_type.dtype:
            raise TypeError(
                f"invalid result of the custom function {result_type.dtype}{list(result_type.shape)}: "
                f"expected the type and shape of its arguments, {value_type.dtype}{list(value_type.shape)}"
            )
        out[...] = result.reshape(-1)

    return combine_arrays


def _require_defined(function: ReduceFunction, dtype: np.dtype[Any]) -> None:
    allowed = operators_of(dtype)
    if function.operator not in allowed:
        raise TypeError(
            f"invalid f {function.operator} for elements of {element_name(dtype)}: expected "
            f"{''.join(f'{operator.name}, ' for operator in allowed)}{'or ' if allowed else ''}a custom function"
        )
    if function.wrap and dtype.kind not in "iu":
        raise TypeError(f"invalid wrap=True for elements of {element_name(dtype)}: expected integers")


def _require_pairs(operator: Operator, value_type: ValueType, parts: int) -> None:
    """Raise unless each of the equal parts of such a value consists of pairs."""
    shape, typed = value_type.shape, value_type.descriptor is not None
    last = shape[-1] // (parts if len(shape) == 1 else 1) if shape else 1
    if (last % 2 if typed else last != 2) or not shape or (typed and not value_type.is_list):
        found = f"{value_type.count} elements" if typed else f"shape {list(shape)}"
        raise ValueError(
            f"invalid value of {found} for {operator}: expected pairs of a value and a location: "
            "an array whose last axis has the length 2, or a list with one pair after another"
        )


def _short(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
