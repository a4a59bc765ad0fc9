"""Inference over many galaxies, and the time that it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.catalog import Floats
from inference.errors import DeviceError, PartitionError

MB_PER_VCPU = 1769  # AWS Lambda: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html (2025)
MAX_VCPUS = 6
MICRO_BATCH = 128  # galaxies: fewer take longer in matrix products, more no longer fit in the cache

Network = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Timing:
    """Time and input size of inference; the sum of two is that of both.

    Attributes
    ----------
    wall, cpu : float
        Seconds of wall-clock time, and of processor time over all threads.
    galaxies, batches : int
    bits : int
        Size of the input.
    waited : float
        Seconds of wall-clock time without computing, because data was not there yet. Not part of `wall`.
    """

    wall: float = 0.0
    cpu: float = 0.0
    galaxies: int = 0
    batches: int = 0
    bits: int = 0
    waited: float = 0.0

    def __add__(self, other: Timing) -> Timing:
        return Timing(
            self.wall + other.wall,
            self.cpu + other.cpu,
            self.galaxies + other.galaxies,
            self.batches + other.batches,
            self.bits + other.bits,
            self.waited + other.waited,
        )

    @property
    def samples_per_second(self) -> float:
        """Galaxies per second of wall-clock time; 0 if there were none."""
        return self.galaxies / self.wall if self.galaxies else 0.0

    @property
    def compute_share(self) -> float:
        """Fraction of the time that was spent computing instead of waiting for data; 1 if there was none."""
        return self.wall / (self.wall + self.waited) if self.galaxies else 1.0


def vcpus(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of threads to compute with: 1, or on Lambda one per 1769 MB of memory, 1 to 6.

    With more threads than processors, ranks on one machine block each other.
    """
    memory = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return max(1, min(MAX_VCPUS, int(memory) // MB_PER_VCPU)) if memory.isdigit() else 1


def choose_device(name: str) -> torch.device:
    """Return the torch device of this name, ``cpu`` or ``cuda``.

    Raises
    ------
    DeviceError
        The name is another, or there is no CUDA GPU.
    """
    if name not in ("cpu", "cuda"):
        raise DeviceError(f"invalid device {name!r}: expected cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda is not available: torch finds no CUDA GPU; use --device cpu")
    return torch.device(name)


@torch.inference_mode()
def predict(
    estimator: Network, images: Tensor, magnitudes: Tensor, batch_size: int, device: torch.device
) -> tuple[Floats, Timing]:
    """Estimate the redshifts of n galaxies.

    Parameters
    ----------
    estimator : module
        Images and magnitudes to redshifts, an `Estimator` above all; fastest after ``for_cpu()`` or ``for_gpu()``.
        Must be on ``device``.
    images : float32 [n, 5, 32, 32], nanomaggies
    magnitudes : float64 [n, 5]
    batch_size : int
        Galaxies per batch. On the CPU a batch runs in micro-batches of at most 128, which is faster and gives the same
        redshifts.
    device : torch.device

    Returns
    -------
    z_phot : float64 [n]
    timing : Timing

    Raises
    ------
    PartitionError
        A redshift is not finite; the message names the row.
    """
    if batch_size < 1:
        raise ValueError(f"invalid batch_size {batch_size}: expected at least 1")
    wall, cpu = time.perf_counter(), time.process_time()
    on_cpu = device.type == "cpu"
    step = min(batch_size, MICRO_BATCH) if on_cpu else batch_size
    redshifts = []
    batches = 0
    for image_batch, magnitude_batch in zip(
        torch.split(images, batch_size), torch.split(magnitudes, batch_size), strict=True
    ):
        batches += 1
        for image, magnitude in zip(torch.split(image_batch, step), torch.split(magnitude_batch, step), strict=True):
            ready = image if on_cpu else image.pin_memory().to(device, non_blocking=True)
            ready = ready.contiguous(memory_format=torch.channels_last)
            redshifts.append(estimator(ready, magnitude.to(device)).double())
    z_phot = torch.cat(redshifts).cpu().numpy() if redshifts else np.empty(0)
    bits = 8 * (images.numel() * images.element_size() + magnitudes.numel() * magnitudes.element_size())
    timing = Timing(time.perf_counter() - wall, time.process_time() - cpu, len(images), batches, bits)
    invalid = np.flatnonzero(~np.isfinite(z_phot))
    if len(invalid):
        row = int(invalid[0])
        raise PartitionError(
            f"row {row}: expected values that the network can process, its redshift is {z_phot[row]}: magnitudes "
            f"{magnitudes[row].tolist()}, pixels from {float(images[row].min())} to {float(images[row].max())}"
        )
    return z_phot, timing
