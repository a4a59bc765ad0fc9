"""The elements of torch's tensors, as FMI moves and reduces them: in one row, with a type that numpy has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from fmi_shim.operators import Operator, ReduceFunction

_FUNCTIONS = {
    dist.ReduceOp.SUM: ReduceFunction(Operator.sum),
    dist.ReduceOp.PRODUCT: ReduceFunction(Operator.prod),
    dist.ReduceOp.MIN: ReduceFunction(Operator.min),
    dist.ReduceOp.MAX: ReduceFunction(Operator.max),
    dist.ReduceOp.AVG: ReduceFunction(Operator.avg),
    dist.ReduceOp.BAND: ReduceFunction(Operator.band),
    dist.ReduceOp.BOR: ReduceFunction(Operator.bor),
    dist.ReduceOp.BXOR: ReduceFunction(Operator.bxor),
}
_WRAPPING = {
    dist.ReduceOp.SUM: ReduceFunction(Operator.sum, wrap=True),
    dist.ReduceOp.PRODUCT: ReduceFunction(Operator.prod, wrap=True),
}
"""What integers are combined with: torch's wrap."""
_INTEGERS = {1: torch.uint8, 2: torch.int16}
"""What elements without a numpy type are moved as, by their size."""
_WIDER = {
    torch.bfloat16: torch.float32,
    torch.float8_e4m3fn: torch.float32,
    torch.float8_e5m2: torch.float32,
}
"""What elements without a numpy type are reduced as."""


def reduction(opts: Any) -> Any:
    """Return the reduction that torch's options ask for: by default the sum."""
    return dist.ReduceOp(dist.ReduceOp.SUM) if opts is None else opts.reduceOp


def reducible(tensor: torch.Tensor, op: Any) -> tuple[ReduceFunction, torch.Tensor]:
    """Return the function, and contiguous memory to reduce in place: the tensor itself where possible."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    kind = op.op  # each access and comparison of torch's enumeration takes about a microsecond
    function = _FUNCTIONS.get(kind)
    if function is None:
        if kind == dist.ReduceOp.PREMUL_SUM:
            return _FUNCTIONS[dist.ReduceOp.SUM], tensor.contiguous() * op.factor
        raise NotImplementedError(f"reduction {kind} is not supported by the backend fmi")
    wider = _WIDER.get(tensor.dtype)
    if not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool):
        function = _WRAPPING.get(kind, function)
    return function, tensor.contiguous() if wider is None else tensor.to(wider)


def movable(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements of a tensor in one row, which may be its memory, as a type that numpy has."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(_INTEGERS[flat.element_size()]) if flat.dtype in _WIDER else flat


def restore(tensor: torch.Tensor, flat: torch.Tensor) -> None:
    """Copy elements that were received back into their tensor, unless they are its memory."""
    if flat.data_ptr() == tensor.data_ptr() and flat.element_size() == tensor.element_size():
        return
    is_moved = tensor.dtype in _WIDER and flat.dtype == _INTEGERS[tensor.element_size()]
    values = flat.view(tensor.dtype) if is_moved else flat
    tensor.detach().copy_(values.reshape(tensor.shape))


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the elements of all tensors in one new row."""
    return torch.cat([movable(part) for part in parts])


def scatter_into(parts: Sequence[torch.Tensor], rows: torch.Tensor) -> None:
    """Copy each row of elements into its tensor."""
    for part, row in zip(parts, rows, strict=True):
        restore(part, row)


def rows(tensor: torch.Tensor, sizes: Sequence[int], ranks: int) -> list[torch.Tensor]:
    """Return each rank's rows of a contiguous tensor."""
    return list(torch.split(tensor, list(sizes) or tensor.shape[0] // ranks))
