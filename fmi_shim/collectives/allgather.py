"""Allgather: all ranks' payloads on every rank."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.operators import Array


def bruck(channel: Channel, parts: Array) -> None:
    """Fill `parts`, shape (p, n), which has this rank's row, by sending twice as many rows in each round.

    (J. Bruck et al., "Efficient Algorithms for All-to-All Communications in Multiport Message-Passing
    Systems", 1997.) Cost: ``ceil(lg p) * alpha + (p - 1) * n * beta``; one more buffer of p rows, and one
    copy of all rows, from rotated order to rank order.
    """
    rank, size = channel.rank, channel.size
    rotated = np.empty_like(parts)
    rotated[0] = parts[rank]
    known = 1
    while known < size:
        step = min(known, size - known)
        channel.sendrecv(rotated[:step], (rank - known) % size, rotated[known : known + step], (rank + known) % size)
        known += step
    parts[...] = np.roll(rotated, rank, axis=0)


def bruck_of_parts(channel: Channel, parts: Sequence[Array]) -> None:
    """Fill `parts`, of any size, as `bruck` does; all ranks know all sizes.

    Cost: ``ceil(lg p) * alpha + sum(n) * beta``; one more buffer of all parts, and two copies of all.
    """
    rank, size = channel.rank, channel.size
    order = [parts[(rank + i) % size] for i in range(size)]
    ends = [0, *itertools.accumulate(part.size for part in order)]
    rotated = np.empty(ends[-1], parts[rank].dtype)
    rotated[: ends[1]] = parts[rank]
    known = 1
    while known < size:
        step = min(known, size - known)
        to, source = (rank - known) % size, (rank + known) % size
        channel.sendrecv(rotated[: ends[step]], to, rotated[ends[known] : ends[known + step]], source)
        known += step
    for i in range(1, size):
        order[i][...] = rotated[ends[i] : ends[i + 1]]


def ring(channel: Channel, parts: Array | Sequence[Array]) -> None:
    """Fill `parts`, one for each rank, which has this rank's, by forwarding the part received last around a ring.

    Cost: ``(p - 1) * alpha + sum(n) * beta``; no copies.
    """
    rank, size = channel.rank, channel.size
    for step in range(size - 1):
        outgoing, incoming = parts[(rank - step) % size], parts[(rank - step - 1) % size]
        channel.sendrecv(outgoing, (rank + 1) % size, incoming, (rank - 1) % size)
