"""The Inception branch of AstroMAE: convolutions of the image at several scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.conv_norm import ConvNorm


class Inception(nn.Module):
    """Four parallel branches: [B, in, H, W] -> [B, 4 width, H, W], or 3 width without the 5 x 5 branch.

    The published network computes the 5 x 5 branch of the last block and discards it. Its parameters exist here, so
    that the published weights can be loaded, and the branch is not computed.
    """

    def __init__(self, in_channels: int, width: int, *, use_5x5: bool = True) -> None:
        super().__init__()
        self.one = ConvNorm(in_channels, width)
        self.three_in, self.three = ConvNorm(in_channels, width), ConvNorm(width, width, kernel=3)
        self.five_in, self.five = ConvNorm(in_channels, width), ConvNorm(width, width, kernel=5)
        self.pooled = ConvNorm(in_channels, width)
        self.n_branches = 4 if use_5x5 else 3

    def forward(self, image: Tensor) -> Tensor:
        """Return the branches' outputs, concatenated by channel."""
        relu = functional.relu
        outputs = [
            relu(self.one(image)),
            relu(self.three(relu(self.three_in(image)))),
            relu(self.pooled(functional.max_pool2d(image, kernel_size=3, stride=1, padding=1))),
        ]
        if self.n_branches == 4:
            outputs.insert(2, relu(self.five(relu(self.five_in(image)))))
        return torch.cat(outputs, dim=1)


class InceptionBranch(nn.Module):
    """Images [B, bands, size, size] -> features [B, features]."""

    def __init__(self, bands: int, image_size: int, stem: int, widths: tuple[int, ...], features: int) -> None:
        super().__init__()
        a, b, c, d, e = widths
        last = Inception(4 * d, e, use_5x5=False)
        self.body = nn.Sequential(
            nn.Conv2d(bands, stem, kernel_size=1),
            nn.AvgPool2d(2),
            Inception(stem, a),
            Inception(4 * a, b),
            nn.AvgPool2d(2),
            Inception(4 * b, c),
            Inception(4 * c, d),
            nn.AvgPool2d(2),
            last,
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Linear(last.n_branches * e * (image_size // 8) ** 2, features), nn.ReLU(), nn.Linear(features, features)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, features]."""
        out: Tensor = self.head(self.body(images))
        return out
