"""The rows that reductions in shared memory combine: which part is whose, in which order, and into what memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, Operator, ReduceFunction
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel

_FEW_ROWS = 3
"""So many are combined pair by pair in less time than it takes numpy to begin with all at once."""


def share(elements: int, rank: int, size: int, itemsize: int) -> tuple[int, int]:
    """Return the elements of a slot that `rank` combines: equal shares, parted between cache lines."""
    line = max(1, 128 // itemsize)
    lines = -(-elements // line)
    return min(elements, lines * rank // size * line), min(elements, lines * (rank + 1) // size * line)


def chain(operands: list[Array], out: Array, combine: Combine) -> None:
    """Combine `operands` from left to right into `out`."""
    if len(operands) == 1:
        out[...] = operands[0]
        return
    combine(operands[0], operands[1], out)
    for operand in operands[2:]:
        combine(out, operand, out)


def fold_of(function: ReduceFunction, call: Call, combine: Combine) -> Callable[[Array, Array], None]:
    """Return what combines rows, from first to last, into an array that is none of them."""
    ufunc = {Operator.sum: np.add, Operator.prod: np.multiply}.get(function.operator)
    if ufunc is None or dtype_of(call).kind not in "fc" or call.count < 2:
        return lambda rows, out: chain([*rows], out, combine)
    reduce_rows = ufunc.reduce  # of two columns or more it adds row after row; of one column it adds pairs

    def fold(rows: Array, out: Array) -> None:
        many, columns = rows.shape
        if columns == 1 or many <= _FEW_ROWS:
            chain([*rows], out, combine)
            return
        reduce_rows(rows, 0, None, out)  # type: ignore[call-overload] # by position it takes a tenth less time

    return fold


def result_memory(buffer: Array, spare: Array | None) -> Array:
    """Return the memory for a result: `spare`, or new memory."""
    return np.empty_like(buffer) if spare is None else spare


def kept(buffer: Array, out: Array | None, first: int = 0) -> Array:
    """Return the content of `buffer` where filling `out` from its start leaves alone what is yet to be read.

    What fills `out` comes when elements from `first` on, as many, have been read.
    """
    if out is None or out is buffer or not np.may_share_memory(buffer, out):
        return buffer
    return buffer if out.ctypes.data <= buffer.ctypes.data + first * buffer.itemsize else buffer.copy()


def dtype_of(call: Call) -> np.dtype[Any]:
    """Return the element type of a reduction, which all ranks know."""
    assert call.dtype is not None  # noqa: S101 - of a reduction all know the type
    return call.dtype


def slot_bytes(channel: SegmentChannel, call: Call) -> int:
    """Return the size of a slot."""
    slots = channel.slots(dtype_of(call))
    return int(slots.shape[2]) * slots.itemsize
