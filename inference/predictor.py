"""The network that is ready to predict: loaded once per process, prepared for its device."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor, nn

from inference import checkpoint
from inference.errors import DeviceError
from inference.estimator import Estimator
from inference.run import Network


class HalfPrecision(nn.Module):
    """An estimator on a GPU whose network computes in float16; normalisation and redshifts stay float32."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, images: Tensor, magnitudes: Tensor) -> Tensor:
        """Estimate the redshifts [B]."""
        estimator = self.estimator
        ready = estimator.normalise_images(images), estimator.normalise_magnitudes(magnitudes)
        with torch.autocast(images.device.type, torch.float16):
            output = estimator.network(*ready)
        return estimator.to_redshift(output.float())


@functools.lru_cache(maxsize=2)
def load(path: Path = checkpoint.SHIPPED, device: str = "cpu", *, half: bool = False) -> Network:
    """Return the network of a checkpoint, ready for inference.

    It is kept: a warm Lambda function, whose process runs one event after another, loads it once.

    Parameters
    ----------
    path : Path
    device : str
        A device of `inference.run.choose_device`.
    half : bool
        Compute in float16, on CUDA alone; `half_difference` tells what it changes.

    Raises
    ------
    CheckpointError
        The checkpoint is invalid.
    DeviceError
        Half precision on a CPU.
    """
    if half and device == "cpu":
        raise DeviceError("half precision is for CUDA alone: on a CPU it is slower; leave out --half")
    estimator = checkpoint.load(path)
    if device == "cpu":
        return estimator.for_cpu()
    on_gpu = estimator.for_gpu(device)
    return HalfPrecision(on_gpu) if half else on_gpu


@torch.inference_mode()
def half_difference(network: Network, images: Tensor, magnitudes: Tensor) -> float:
    """Return the largest absolute difference in redshift between half and full precision for these galaxies.

    Parameters
    ----------
    network : HalfPrecision
    images, magnitudes
        On the network's device.
    """
    if not isinstance(network, HalfPrecision):
        raise TypeError(f"invalid network {type(network).__name__}: expected HalfPrecision")
    difference = network(images, magnitudes) - network.estimator(images, magnitudes)
    return float(difference.abs().max())
