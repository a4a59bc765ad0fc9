"""The published result files of a rank: ``<rank>.json`` and ``Results.json``, with all their keys."""

from __future__ import annotations

import os
import platform
from typing import Any

from inference.profile import Profile, peak_memory
from inference.run import Timing


def rank_result(
    timing: Timing, profile: Profile, *, batch_size: int, device: str, result_path: str, data_path: str
) -> dict[str, Any]:
    """Return a rank's result with the published keys, and what they do not tell apart.

    ``total_cpu_time`` is processor time, ``wall_time`` is what a clock shows; rates and the time of a batch are by wall
    time. ``total_cpu_memory`` is the profiler's sum, see `Profile`; ``peak_rss`` is the largest resident set of the
    process.
    """
    return {
        "total_cpu_time (seconds)": timing.cpu,
        "total_cpu_memory (MB)": profile.total * timing.galaxies / 1e6,
        "execution_time (seconds/batch)": timing.wall / timing.batches if timing.batches else 0.0,
        "num_batches": timing.batches,
        "batch_size": batch_size,
        "device": device,
        "throughput_bps": timing.bits / timing.wall if timing.batches else 0.0,
        "sample_persec": timing.samples_per_second,
        "result_path": result_path,
        "data_path": data_path,
        "wall_time (seconds)": timing.wall,
        "data_wait (seconds)": timing.waited,
        "peak_rss (MB)": peak_memory(),
        "num_samples": timing.galaxies,
    }


def full_result(rank: dict[str, Any], timing: Timing, profile: Profile) -> dict[str, Any]:
    """Return the content of ``Results.json``: a rank's result, its machine and the profiler's average."""
    return {
        **rank,
        "self_cpu_memory (MB)": profile.own * timing.galaxies / 1e6,
        "cpu_info": cpu_info(),
        "ram_info (GB)": ram_gb(),
        "avg_profile": profile.average,
    }


def cpu_info() -> dict[str, str]:
    """Return the description of the processor with the published keys."""
    bits, linkage = platform.architecture()
    return {
        "processor": platform.processor(),
        "architecture": " ".join(filter(None, (bits, linkage))),
        "machine": platform.machine(),
        "system": platform.system(),
        "platform": platform.platform(),
    }


def ram_gb() -> float:
    """Return the memory of the machine, in units of 1024^3 bytes as published."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
