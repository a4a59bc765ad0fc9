"""Values of a program to contiguous buffers and back: numbers, lists, numpy arrays, torch CPU tensors, buffers.

Inside this package every payload is a C-contiguous numpy array, one-dimensional where its form is known.
"""

from __future__ import annotations

import array
import functools
import numbers
import operator
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmi_shim.frames import ELEMENT_CODES
from fmi_shim.operators import Array, Combine, Operator, ReduceFunction, builtin_combine
from fmi_shim.value_types import INT32, Datatype, Form, TypeDescriptor, array_form, form_of, wrap

_INT32_LIMITS = (-(2**31), 2**31 - 1)


class Payload(NamedTuple):
    """A flat buffer and what it stands for.

    Attributes
    ----------
    flat
        One-dimensional, C-contiguous.
    form
        What it was or will be.
    origin
        The program's own array or tensor whose memory `flat` is, if any.
    """

    flat: Array
    form: Form
    origin: object = None

    @staticmethod
    def empty(form: Form) -> Payload:
        """Return an uninitialised payload to receive into."""
        return Payload(np.empty(form.count, form.dtype), form)

    @property
    def spare(self) -> Array | None:
        """The flat buffer where a schedule may use it up: that of typed values, no array of the program's."""
        return self.flat if self.origin is None else None

    def apart(self, other: Payload) -> Payload:
        """Return this payload, in memory of its own where it overlaps `other` (one copy)."""
        return Payload(self.flat.copy(), self.form) if np.may_share_memory(self.flat, other.flat) else self

    def restore(self) -> Any:
        """Return the program's kind of value; an array that was handed in comes back itself."""
        return self.form.restore(self.flat) if self.origin is None else self.origin


def pack(value: object, t: TypeDescriptor | None) -> Payload:
    """Return `value` as a payload: typed values in new memory, arrays in their own where they are contiguous.

    Raises
    ------
    TypeError, ValueError, OverflowError
        If `value` is not what `t` says, or is no array where `t` is left out.
    """
    if t is None:
        shaped, form = as_array(value)
        return Payload(shaped if shaped.ndim == 1 else shaped.reshape(-1), form, value)
    if not isinstance(t, TypeDescriptor):
        raise TypeError(f"t is {t!r}, allowed is fmi.types(...), or nothing for arrays")
    return Payload(pack_typed(value, t), form_of(t))


@functools.lru_cache(4096)
def number_form(dtype: np.dtype[Any], shape: tuple[int, ...], tensor: bool = False, name: str = "value") -> Form:
    """Return the form of an array.

    Raises
    ------
    TypeError
        If its elements are no numbers.
    """
    if dtype not in ELEMENT_CODES:
        raise TypeError(f"{name} has elements of {dtype}, allowed are native bool, int, float and complex")
    return array_form(dtype, shape, tensor)


def pack_operand(value: object, t: TypeDescriptor | None, out: object) -> tuple[Form, Array, Array | None]:
    """Return what a reduction has: the form, the flat value, and memory of that form which may be overwritten.

    That is `out`'s, or that of typed values, else None.

    Raises
    ------
    TypeError, ValueError, OverflowError
        As `pack` and `pack_out` do.
    """
    if t is None and type(value) is np.ndarray and value.flags.c_contiguous:  # what most programs have
        form = number_form(value.dtype, value.shape)
        flat = value if value.ndim == 1 else value.reshape(-1)
        if out is None:
            return form, flat, None
        if type(out) is np.ndarray and out.dtype == form.dtype and out.shape == form.shape and out.flags.carray:
            return form, flat, flat if out is value else out if out.ndim == 1 else out.reshape(-1)
    payload = pack(value, t)
    place = pack_out(out, payload.form)
    if place is None:
        return payload.form, payload.flat, payload.spare
    return payload.form, payload.flat, payload.flat if out is payload.origin else place.flat


def pack_template(template: object, name: str = "value") -> Payload:
    """Return the memory of an array that a message is to be received into.

    Raises
    ------
    TypeError, ValueError
        If it is no array, or its memory is not contiguous or not writable.
    """
    memory, form = _memory(template, name)
    flags = memory.flags
    if isinstance(template, np.generic) or not flags.c_contiguous or not flags.writeable:
        raise ValueError(f"{name} is an array to fill, which must be C-contiguous and writable")
    return Payload(memory if memory.ndim == 1 else memory.reshape(-1), form, template)


def pack_out(out: object, form: Form) -> Payload | None:
    """Return the memory that a result of `form` is to be put into, None if there is none.

    Raises
    ------
    TypeError, ValueError
        If `out` is no writable contiguous array of the result's type and shape, or goes with ``fmi.types``.
    """
    if out is None:
        return None
    if form.descriptor is not None:
        raise TypeError("out is given together with t, allowed is one of them: typed values come back as new ones")
    place = pack_template(out, "out")
    if place.form is not form and (place.form.dtype, place.form.shape) != (form.dtype, form.shape):
        raise ValueError(
            f"out is {place.form.dtype}{list(place.form.shape)}, allowed is what the result is: "
            f"{form.dtype}{list(form.shape)}"
        )
    return place


def pack_typed(value: object, descriptor: TypeDescriptor, name: str = "value") -> Array:
    """Return `value` as a new flat array of the descriptor's type (one copy).

    Raises
    ------
    TypeError
        If `value`, or an element, is not of the type.
    ValueError
        If a list has another length than the descriptor says.
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
        raise TypeError(f"{name} is {_short(value)}, {descriptor.datatype} needs a list of numbers")
    if len(value) != descriptor.count:
        raise ValueError(f"{name} has {len(value)} elements, its fmi.types says {descriptor.count}")
    code, allowed = ("i", "int32") if descriptor.dtype == INT32 else ("d", "float64")
    try:
        elements = array.array(code, value)
    except OverflowError:
        outside = next(v for v in value if not _INT32_LIMITS[0] <= v <= _INT32_LIMITS[1])
        raise OverflowError(f"{name} holds {outside}, which is outside {allowed}") from None
    except TypeError as error:
        raise TypeError(
            f"{name} is {_short(value)}, {descriptor.datatype} needs numbers of {allowed}: {error}"
        ) from None
    return np.frombuffer(elements, descriptor.dtype) if elements else np.empty(0, descriptor.dtype)


def _scalar(value: object, datatype: Datatype, name: str) -> int | float:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if datatype is Datatype.double:
        if type(value) is float or isinstance(value, numbers.Real | np.bool_):
            return float(value)
        raise TypeError(f"{name} is {_short(value)}, fmi.datatypes.double needs a real number")
    try:
        number = operator.index(value)  # type: ignore[arg-type] # the TypeError is the check
    except TypeError:
        raise TypeError(f"{name} is {_short(value)}, fmi.datatypes.int needs a whole number") from None
    if not _INT32_LIMITS[0] <= number <= _INT32_LIMITS[1]:
        raise OverflowError(f"{name} is {number}, fmi.datatypes.int is {_INT32_LIMITS[0]} to {_INT32_LIMITS[1]}")
    return number


def as_array(value: object, name: str = "value") -> tuple[Array, Form]:
    """Return the C-contiguous array behind `value` and its form; no copy unless the memory is not contiguous.

    Raises
    ------
    TypeError
        If `value` is no numpy array, torch tensor on the CPU or other buffer (PEP 3118), or its elements are
        no numbers.
    """
    memory, form = _memory(value, name)
    return memory if memory.flags.c_contiguous else np.ascontiguousarray(memory), form


def _memory(value: object, name: str) -> tuple[Array, Form]:
    """Return the array that shares the memory of `value`, and its form."""
    tensor = False
    if isinstance(value, np.ndarray):
        memory = value
    elif tensor := is_tensor(value):
        memory = _tensor_memory(value, name)
    elif isinstance(value, np.generic):
        memory = np.asarray(value)  # what numpy's functions make of arrays without dimensions
    else:
        try:
            memory = np.asarray(memoryview(value))  # type: ignore[arg-type] # the TypeError is the check
        except (TypeError, ValueError):  # no buffer, or one whose format numpy does not know
            raise TypeError(
                f"{name} is {_short(value)}: without fmi.types it must be a numpy array, a torch CPU tensor or another "
                "buffer of numbers; numbers and lists need fmi.types(fmi.datatypes.int | double | int_list | "
                "double_list, count)"
            ) from None
    return memory, number_form(memory.dtype, memory.shape, tensor, name)


def is_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor, without importing torch: where there is a tensor, torch is loaded."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def _tensor_memory(tensor: Any, name: str) -> NDArray[Any]:
    if tensor.device.type != "cpu":
        raise TypeError(f"{name} is a tensor on {tensor.device}, allowed is a CPU tensor: call .cpu() first")
    try:
        memory: NDArray[Any] = tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} is a tensor of {tensor.dtype} without a numpy equal: {error}") from None
    return memory


def combine_of(function: ReduceFunction, form: Form) -> Combine:
    """Return how `function` combines two flat payloads of `form`.

    Raises
    ------
    TypeError
        If the operator has no meaning for the element type.
    """
    if function.operator is not Operator.custom:
        ordering = function.operator in (Operator.max, Operator.min)
        if (form.dtype.kind == "b" and not ordering) or (form.dtype.kind == "c" and ordering):
            raise TypeError(f"f is {function.operator}, which is not defined for elements of {form.dtype}")
        return builtin_combine(function.operator, form.dtype)
    call = function.function
    assert call is not None  # noqa: S101 - ReduceFunction has checked it
    descriptor = form.descriptor
    if descriptor is not None:
        single = Datatype.int if descriptor.dtype == INT32 else Datatype.double

        def combine_elements(left: Array, right: Array, out: Array) -> None:
            pairs = zip(left.tolist(), right.tolist(), strict=True)
            out[...] = [_scalar(call(a, b), single, "the custom function's result") for a, b in pairs]

        return combine_elements

    def combine_arrays(left: Array, right: Array, out: Array) -> None:
        given = (wrap(left.reshape(form.shape), form.tensor), wrap(right.reshape(form.shape), form.tensor))
        result, result_form = as_array(call(*given), "the custom function's result")
        if result_form.shape != form.shape or result_form.dtype != form.dtype:
            raise TypeError(
                f"the custom function returned {result_form.dtype}{list(result_form.shape)} "
                f"for {form.dtype}{list(form.shape)}; allowed is the same type and shape"
            )
        out[...] = result.reshape(-1)

    return combine_arrays


def _short(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
