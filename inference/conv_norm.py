"""A convolution followed by batch normalisation, and the folding of both into one convolution for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


class ConvNorm(nn.Module):
    """Convolution [B, in, H, W] -> [B, out, H, W] with padding that keeps H and W, then BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Return [B, out, H, W]."""
        out: Tensor = self.norm(self.conv(image))
        return out


def fold_batch_norm(network: Network) -> Network:
    """Return a copy for inference in which every BatchNorm is folded into the convolution before it.

    With fixed statistics, gamma (w x + b - mean) / sqrt(var + eps) + beta is a convolution. The output is the same up
    to rounding and takes one pass less over memory.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return folded
