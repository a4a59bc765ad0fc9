"""Reduce-scatter: combine all ranks' payloads, and leave one slice of the result on each rank.

In the functions of `slices` alone, which have the shape (p, n), these are overwritten, and `own` receives this rank's
slice of the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.collectives import reduce, scatter
from fmi_shim.operators import Array, Combine

Algorithm = Callable[[Channel, Array, Array, Combine], None]


def halving(channel: Channel, slices: Array, own: Array, combine: Combine) -> None:
    """Exchange half of the remaining slices at the distances p/2, p/4, ..., 1; p is a power of two.

    The combination must commute. Cost: ``lg p * alpha + (1 - 1/p) * n * (beta + gamma)`` for a payload of n
    bytes; one more buffer of half the size, and one copy of the own slice.
    """
    rank, distance = channel.rank, channel.size // 2
    received = np.empty((max(1, distance), *slices.shape[1:]), slices.dtype)
    while distance:
        first = rank & -(2 * distance)  # the first slice of the block that contains this rank's slice
        keep, give = first + (rank & distance), first + (~rank & distance)
        channel.sendrecv(slices[give : give + distance], rank ^ distance, received[:distance], rank ^ distance)
        kept = slices[keep : keep + distance]
        combine(kept.reshape(-1), received[:distance].reshape(-1), kept.reshape(-1))
        distance //= 2
    own[...] = slices[rank]


def pairwise(channel: Channel, slices: Array | Sequence[Array], own: Array, combine: Combine) -> None:
    """Send each rank its slice, and combine the received ones, for any p and slices of any size.

    The combination must commute. Cost: ``(p - 1) * alpha + (1 - 1/p) * n * (beta + gamma)`` for a payload of
    n bytes; one more slice, and one copy of the own one.
    """
    rank, size = channel.rank, channel.size
    received = np.empty_like(own)
    own[...] = slices[rank]
    for step in range(1, size):
        to, source = (rank + step) % size, (rank - step) % size
        channel.sendrecv(slices[to], to, received, source)
        combine(own, received, own)


def of_parts(channel: Channel, value: Array, sizes: Sequence[int], own: Array, combine: Combine) -> None:
    """Combine slices of different sizes, which do not overwrite `value`; see `pairwise`."""
    pairwise(channel, cut(value, sizes), own, combine)


def whole_of_parts(
    channel: Channel, value: Array, sizes: Sequence[int], own: Array, combine: Combine, ordered: bool
) -> None:
    """Combine whole payloads at rank 0, which overwrites `value`, and send each rank its slice of the result.

    Cost: that of `reduce.left_to_right` or `reduce.binomial`, and of `scatter.linear`.
    """
    up = reduce.left_to_right if ordered else reduce.binomial
    result = up(channel, value, 0, combine)
    scatter.linear(channel, None if result is None else cut(result, sizes), own, 0)


def cut(flat: Array, sizes: Sequence[int]) -> list[Array]:
    """Return views of `flat` with these numbers of elements, one after another."""
    ends = [0, *itertools.accumulate(sizes)]
    return [flat[start:end] for start, end in itertools.pairwise(ends)]


def left_to_right(channel: Channel, slices: Array, own: Array, combine: Combine) -> None:
    """Combine strictly in rank order at rank 0 and scatter the result; costs `reduce.left_to_right` and a scatter."""
    scatter.binomial(channel, reduce.left_to_right(channel, slices.reshape(-1), 0, combine), own, 0)


def whole(channel: Channel, slices: Array, own: Array, combine: Combine) -> None:
    """Combine whole payloads in FMI's tree at rank 0 and scatter the result; costs `reduce.binomial` and a scatter.

    For a custom function of arrays, which needs them whole.
    """
    scatter.binomial(channel, reduce.binomial(channel, slices.reshape(-1), 0, combine), own, 0)
