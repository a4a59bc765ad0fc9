"""AstroMAE: a network that predicts the redshift from an image and five magnitudes.

The network of Fathkouhi & Fox (2024, AstroMAE), as deployed by the Cosmic AI benchmark: a vision transformer and an
Inception network encode the image, a perceptron encodes the magnitudes, and a head predicts the redshift from the
concatenated features.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inference.inception import InceptionBranch
from inference.vit import VisionBranch


@dataclass(frozen=True, slots=True)
class AstroMAEConfig:
    """The network's size.

    Attributes
    ----------
    dim, depth, heads : int
        Of the transformer; ``groups`` are those of its convolution module, ``expansion`` is the width factor of both.
    stem, inception_widths : int, tuple of 5 int
        Channels of the Inception branch's first convolution, and of each branch of its five blocks.
    features : int
        Outputs of each image branch.
    magnitude_width, magnitude_depth : int
        Width of the magnitude branch, and the number of its layers after the first.
    head_width : int
    """

    dim: int
    depth: int
    heads: int
    groups: int
    stem: int
    inception_widths: tuple[int, int, int, int, int]
    features: int
    magnitude_width: int
    magnitude_depth: int
    head_width: int
    bands: int = 5
    image_size: int = 32
    patch: int = 8
    expansion: int = 4

    def __post_init__(self) -> None:
        """Check that a network can be built with these sizes."""
        if not isinstance(self.inception_widths, tuple) or len(self.inception_widths) != 5:
            raise ValueError(f"invalid inception_widths {self.inception_widths!r}: expected 5 integers")
        numbers = [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]
        numbers = [(name, value) for name, value in numbers if name != "inception_widths"]
        for name, value in [*numbers, *(("inception_widths", width) for width in self.inception_widths)]:
            if type(value) is not int or value < 1:
                raise ValueError(f"invalid {name} {value!r}: expected a positive integer")
        for name, value, whole in (
            ("heads", self.heads, self.dim),
            ("groups", self.groups, self.dim),
            ("patch", self.patch, self.image_size),
            ("factor of the three poolings", 8, self.image_size),
        ):
            if whole % value:
                raise ValueError(f"invalid {name} {value}: expected a divisor of {whole}")

    @classmethod
    def published(cls) -> AstroMAEConfig:
        """Return the deployed network's size: 15,902,889 parameters, 0.219 GFLOP per galaxy."""
        return cls(
            dim=192,
            depth=12,
            heads=3,
            groups=48,
            stem=32,
            inception_widths=(16, 16, 8, 8, 4),
            features=1096,
            magnitude_width=1024,
            magnitude_depth=4,
            head_width=1024,
        )

    @classmethod
    def small(cls) -> AstroMAEConfig:
        """Return the shipped checkpoint's size: the same architecture with a fortieth of the parameters."""
        return cls(
            dim=64,
            depth=4,
            heads=4,
            groups=16,
            stem=16,
            inception_widths=(4, 4, 4, 4, 4),
            features=64,
            magnitude_width=128,
            magnitude_depth=4,
            head_width=128,
        )


def perceptron(inputs: int, width: int, hidden: int) -> nn.Sequential:
    """Return a linear layer inputs -> width and ``hidden`` layers width -> width, with ReLU between them."""
    layers: list[nn.Module] = [nn.Linear(inputs, width)]
    for _ in range(hidden):
        layers += [nn.ReLU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


class AstroMAE(nn.Module):
    """The network on normalised inputs: images [B, 5, 32, 32] and magnitudes [B, 5] -> [B, 1]."""

    def __init__(self, config: AstroMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionBranch(
            bands=config.bands,
            image_size=config.image_size,
            patch=config.patch,
            dim=config.dim,
            depth=config.depth,
            heads=config.heads,
            expansion=config.expansion,
            groups=config.groups,
            features=config.features,
        )
        self.inception = InceptionBranch(
            config.bands, config.image_size, config.stem, config.inception_widths, config.features
        )
        self.magnitudes = perceptron(config.bands, config.magnitude_width, config.magnitude_depth)
        self.head = nn.Sequential(
            nn.Linear(2 * config.features + config.magnitude_width, config.head_width),
            nn.ReLU(),
            nn.Linear(config.head_width, 1),
        )

    def forward(self, images: Tensor, magnitudes: Tensor) -> Tensor:
        """Return the normalised redshift [B, 1]."""
        return self.predict(self.encode_images(images), self.magnitudes(magnitudes))

    def encode_images(self, images: Tensor) -> Tensor:
        """Return the concatenated features of both image branches, [B, 2 features]."""
        return torch.cat([self.vision(images), self.inception(images)], dim=1)

    def predict(self, image_features: Tensor, magnitude_features: Tensor) -> Tensor:
        """Return the head's output [B, 1] for image features [B, 2 features] and magnitude features [B, width]."""
        out: Tensor = self.head(torch.cat([image_features, magnitude_features], dim=1))
        return out


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
