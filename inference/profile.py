"""Memory of the inference: the peak of the process, and the profiler's sum that the published study reports."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import profiler_legacy

from inference.run import Network

GALAXIES = 64  # that are profiled: allocations are proportional to the number of galaxies


@dataclass(frozen=True, slots=True)
class Profile:
    """What torch's profiler counts, ``key_averages().total_average()``, per galaxy.

    An operator's memory is what it and the operators that it calls allocate minus what they free. The sum counts memory
    of nested operators several times, and memory that is used again each time: it is neither the peak nor the size of
    anything. The published results have it as ``total_cpu_memory (MB)``.

    Attributes
    ----------
    total : float
        ``cpu_memory_usage``, bytes: with nested operators.
    own : float
        ``self_cpu_memory_usage``, bytes: without them.
    average : str
        The average over all operators as text.
    """

    total: float = 0.0
    own: float = 0.0
    average: str = ""


def profile(network: Network, images: Tensor, magnitudes: Tensor) -> Profile:
    """Profile the inference of up to 64 galaxies; profiling all would slow it down.

    Parameters
    ----------
    network : module
        On the CPU.
    images : float32 [n, 5, 32, 32]
    magnitudes : float64 [n, 5]
        n is at least 1.
    """
    images, magnitudes = images[:GALAXIES], magnitudes[:GALAXIES]
    # torch.profiler counts the same, but imports torch's compiler first, 2 s of processor time, and prints lines.
    with torch.inference_mode(), profiler_legacy.profile(profile_memory=True) as profiler:  # type: ignore[no-untyped-call]
        redshifts = network(images.contiguous(memory_format=torch.channels_last), magnitudes)
    del redshifts  # alive until here, so that the sum counts them
    average = profiler.key_averages().total_average()
    return Profile(average.cpu_memory_usage / len(images), average.self_cpu_memory_usage / len(images), str(average))


def peak_memory() -> float:
    """Return the peak resident set size of this process, MB of 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes on macOS, KiB on Linux
