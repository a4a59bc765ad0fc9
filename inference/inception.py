"""The Inception branch of AstroMAE: what the image looks like at several scales at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.conv_norm import ConvNorm


class Inception(nn.Module):
    """Four views of an image side by side: [B, in, H, W] -> [B, 4 width, H, W], or 3 width without the 5 x 5 view.

    The published network computes the last block's 5 x 5 view and drops it; its parameters are kept here, so that
    the published weights fit, and the work is not done.
    """

    def __init__(self, in_channels: int, width: int, *, five: bool = True) -> None:
        super().__init__()
        self.one = ConvNorm(in_channels, width)
        self.three_in, self.three = ConvNorm(in_channels, width), ConvNorm(width, width, kernel=3)
        self.five_in, self.five = ConvNorm(in_channels, width), ConvNorm(width, width, kernel=5)
        self.pooled = ConvNorm(in_channels, width)
        self.views = 4 if five else 3

    def forward(self, image: Tensor) -> Tensor:
        """Return the views, concatenated by channel."""
        relu = functional.relu
        views = [
            relu(self.one(image)),
            relu(self.three(relu(self.three_in(image)))),
            relu(self.pooled(functional.max_pool2d(image, kernel_size=3, stride=1, padding=1))),
        ]
        if self.views == 4:
            views.insert(2, relu(self.five(relu(self.five_in(image)))))
        return torch.cat(views, dim=1)


class InceptionBranch(nn.Module):
    """Images [B, bands, size, size] -> features [B, features]."""

    def __init__(self, bands: int, image_size: int, stem: int, widths: tuple[int, ...], features: int) -> None:
        super().__init__()
        a, b, c, d, e = widths
        last = Inception(4 * d, e, five=False)
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
            nn.Linear(last.views * e * (image_size // 8) ** 2, features), nn.ReLU(), nn.Linear(features, features)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, features]."""
        out: Tensor = self.head(self.body(images))
        return out
