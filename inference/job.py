"""The work of one rank, or of one process alone: predict partition after partition, and keep what a report needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from inference.catalog import R_BAND
from inference.errors import MetricsError, PartitionError
from inference.extremes import Extremes
from inference.histogram import BINS, DzHistogram
from inference.metrics import PartialSums, residuals
from inference.objects import Objects
from inference.partition import Partition
from inference.predictor import HalfPrecision, half_difference
from inference.prefetch import prefetched
from inference.profile import GALAXIES, Profile, profile
from inference.run import Network, Timing, predict

OBJECT_LIMIT = 1_000_000  # galaxies of all ranks whose values are gathered; the medians of more are from a histogram


@dataclass(slots=True)
class Work:
    """What a rank has computed so far.

    Attributes
    ----------
    sums, histogram
        Over all of its galaxies.
    objects
        The table of its galaxies, one entry per partition; empty once they are more than `OBJECT_LIMIT`.
    extremes
        Its best and worst predictions.
    timing, profile
        Profiled are the first galaxies alone; the profile of a GPU's network is empty.
    origins
        What its partitions say of where their galaxies are from.
    half_difference
        The largest difference of redshifts in half precision among the first galaxies of each partition; None in full
        precision.
    """

    sums: PartialSums = field(default_factory=PartialSums)
    histogram: DzHistogram = field(default_factory=lambda: DzHistogram(np.zeros(BINS, dtype=np.int64)))
    objects: list[Objects] = field(default_factory=list)
    extremes: Extremes = field(default_factory=Extremes)
    timing: Timing = field(default_factory=Timing)
    profile: Profile = field(default_factory=Profile)
    origins: set[str] = field(default_factory=set)
    half_difference: float | None = None


def work_through(
    names: Sequence[str],
    fetch: Callable[[str], Partition],
    network: Network,
    *,
    batch_size: int,
    device: torch.device,
    on_partition: Callable[[str, Timing], Any],
) -> Work:
    """Predict all galaxies of these partitions; the next is fetched while one is computed.

    Parameters
    ----------
    names
        Of the partitions; there may be none.
    fetch
        Returns the partition of a name.
    network
        See `inference.predictor.load`.
    batch_size
        Galaxies per batch.
    device
        The network's.
    on_partition
        Called with the name and the timing of each partition that is done.

    Raises
    ------
    PartitionError
        A partition is invalid, the network cannot process one of its rows, or a redshift is too large for exact sums.
    """
    work = Work()
    for index, fetched in enumerate(prefetched(fetch, names)):
        galaxies = fetched.item
        if index == 0 and device.type == "cpu":
            work.profile = profile(network, galaxies.images, galaxies.magnitudes)
        if isinstance(network, HalfPrecision):
            first = galaxies.images[:GALAXIES].to(device), galaxies.magnitudes[:GALAXIES].to(device)
            work.half_difference = max(work.half_difference or 0.0, half_difference(network, *first))
        z_spec = galaxies.z_spec.numpy()
        try:
            z_phot, timing = predict(network, galaxies.images, galaxies.magnitudes, batch_size, device)
            work.sums += PartialSums.from_redshifts(z_spec, z_phot)
        except (PartitionError, MetricsError) as error:
            raise PartitionError(f"{fetched.name}, {error}") from None
        timing += Timing(waited=fetched.waited)
        work.histogram += DzHistogram.from_values(residuals(z_spec, z_phot))
        work.extremes.add(galaxies.images.numpy(), z_spec, z_phot)
        if work.sums.n > OBJECT_LIMIT:
            work.objects.clear()
        else:
            r = galaxies.magnitudes[:, R_BAND].numpy()
            work.objects.append(Objects.from_partition(z_spec, z_phot, r, index))
        work.timing += timing
        work.origins.update(filter(None, [galaxies.origin]))
        on_partition(fetched.name, timing)
    return work
