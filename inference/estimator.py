"""The network with the normalisation of its inputs and output: nanomaggies and magnitudes in, redshift out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inference.conv_norm import fold_batch_norm
from inference.model import AstroMAE
from inference.prepared import PreparedAstroMAE
from inference.run import MICRO_BATCH

Row = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Constants measured on the training galaxies and stored in the checkpoint.

    Attributes
    ----------
    softening : 5 floats
        Nanomaggies by band: the input of a pixel is arcsinh(pixel / softening) / image_scale; if all are 0, it is
        pixel / image_scale.
    image_scale : 5 floats
    magnitude_mean : 5 floats
        The input of the magnitudes is (magnitudes - magnitude_mean) @ magnitude_mixing.
    magnitude_mixing : 5 x 5 floats, row by row
        A diagonal matrix of 1/std standardises each band. The shipped matrix computes four standardised colours and r.
    redshift_mean, redshift_scale : float
        The redshift of an output o is redshift_mean + redshift_scale o.
    """

    softening: Row
    image_scale: Row
    magnitude_mean: Row
    magnitude_mixing: tuple[Row, ...]
    redshift_mean: float
    redshift_scale: float

    def __post_init__(self) -> None:
        """Check that no band is divided by zero."""
        if not (all(value > 0 for value in self.softening) or all(value == 0 for value in self.softening)):
            raise ValueError(f"invalid softening {list(self.softening)}: expected positive numbers, or 0 for all bands")
        if 0 in self.image_scale:
            raise ValueError(f"invalid image_scale {list(self.image_scale)}: expected numbers other than 0")

    @classmethod
    def identity(cls) -> Normalisation:
        """Return the normalisation of the published network: pixels, magnitudes and redshifts as they are."""
        mixing = tuple(tuple(float(row == column) for column in range(5)) for row in range(5))
        return cls((0.0,) * 5, (1.0,) * 5, (0.0,) * 5, mixing, 0.0, 1.0)


class _Normalised(nn.Module):
    """What a network needs around it: the normalisation of its inputs and output."""

    softening: Tensor
    image_scale: Tensor
    magnitude_mean: Tensor
    magnitude_mixing: Tensor

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        self.normalisation = normalisation
        for name in ("softening", "image_scale"):
            constant = torch.tensor(getattr(normalisation, name))[:, None, None]
            self.register_buffer(name, constant, persistent=False)
        # Colours are small differences of large magnitudes: subtract in float64, then convert to float32.
        for name in ("magnitude_mean", "magnitude_mixing"):
            constant = torch.tensor(getattr(normalisation, name), dtype=torch.float64)
            self.register_buffer(name, constant, persistent=False)

    def normalise_magnitudes(self, magnitudes: Tensor) -> Tensor:
        """Return the magnitude branch's input, float32 [B, 5]."""
        return ((magnitudes.double() - self.magnitude_mean) @ self.magnitude_mixing).float()

    def normalise_images(self, images: Tensor) -> Tensor:
        """Return the image branches' input, float32 [B, 5, 32, 32]."""
        stretched = torch.asinh(images / self.softening) if self.normalisation.softening[0] else images
        return stretched / self.image_scale

    def to_redshift(self, output: Tensor) -> Tensor:
        """Convert the network's output [B, 1] to redshifts [B]."""
        return output[:, 0] * self.normalisation.redshift_scale + self.normalisation.redshift_mean


class Estimator(_Normalised):
    """Images [B, 5, 32, 32] in nanomaggies and magnitudes [B, 5] -> redshifts float32 [B]."""

    def __init__(self, network: AstroMAE, normalisation: Normalisation) -> None:
        super().__init__(normalisation)
        self.network = network

    def forward(self, images: Tensor, magnitudes: Tensor) -> Tensor:
        """Estimate the redshifts [B]."""
        return self.to_redshift(self.network(self.normalise_images(images), self.normalise_magnitudes(magnitudes)))

    def for_cpu(self) -> PreparedEstimator:
        """Return a faster copy for inference on a CPU, see `PreparedAstroMAE`; its redshifts agree to 1e-5."""
        return PreparedEstimator(self)

    def for_gpu(self, device: str) -> Estimator:
        """Return a faster copy for inference on a GPU, with BatchNorm folded and channels-last weights."""
        folded = fold_batch_norm(self).to(device)
        folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types it for tensors alone
        return folded


class PreparedEstimator(_Normalised):
    """An estimator whose network is prepared for inference on a CPU."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__(estimator.normalisation)
        self.network = PreparedAstroMAE(estimator.network, MICRO_BATCH).eval()

    def forward(self, images: Tensor, magnitudes: Tensor) -> Tensor:
        """Estimate the redshifts [B]."""
        return self.to_redshift(self.network(self.normalise_images(images), self.normalise_magnitudes(magnitudes)))
