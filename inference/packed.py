"""Convolutions for inference on a CPU, whose weights have oneDNN's own layout.

torch reorders the weights of a convolution in every call. Reordered once, a grouped 1 x 1 convolution is three times as
fast. The operators are those that torch.compile generates calls of. Where torch is built without oneDNN, the same
layers are computed by torch's usual operators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_NAMES = ("_reorder_convolution_weight", "_convolution_pointwise")


def _operators() -> tuple[Any, ...] | None:
    """Return oneDNN's operators in the order of `_NAMES`; None where torch has none."""
    found = tuple(getattr(torch.ops.mkldnn, name, None) for name in _NAMES)
    is_available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return found if is_available and all(found) else None


class PackedConv(nn.Module):
    """A convolution, followed by SiLU or nothing.

    Other activations are not fused: oneDNN's ReLU turns NaN into 0, and a row that the network cannot process would get
    a redshift.

    Parameters
    ----------
    conv : Conv2d
        Its weights are copied.
    size : int
        Height and width of the usual input.
    batch : int
        The usual number of images, for which the layout is chosen; any other is computed, too.
    silu : bool
        Whether SiLU follows.
    """

    def __init__(self, conv: nn.Conv2d, size: int, batch: int, *, silu: bool = False) -> None:
        super().__init__()
        weight = conv.weight.detach().float().clone()
        self._bias = None if conv.bias is None else conv.bias.detach().float().clone()
        if isinstance(conv.padding, str):
            raise TypeError(f"invalid padding {conv.padding!r}: expected numbers")
        self._geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self._silu = silu
        self._apply_packed: Any = None
        if operators := _operators():
            reorder, self._apply_packed = operators
            weight = reorder(weight, *self._geometry, [batch, conv.in_channels, size, size])
        # No buffer: a packed tensor has no storage that could be copied, saved or moved.
        self._weight = weight

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, out, H, W]."""
        if self._apply_packed is None:
            padding, stride, dilation, groups = self._geometry
            out = functional.conv2d(images, self._weight, self._bias, stride, padding, dilation, groups)
            return functional.silu(out) if self._silu else out
        activation = "swish" if self._silu else "none"
        packed: Tensor = self._apply_packed(images, self._weight, self._bias, *self._geometry, activation, [], "")
        return packed
