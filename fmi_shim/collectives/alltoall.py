"""Alltoall: each rank sends one slice of its payload to each rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.operators import Array


def bruck(channel: Channel, outgoing: Array, incoming: Array) -> None:
    """Forward half of the slices in each round, to the rank 1, 2, 4 ... further, until each is at its destination.

    In rotated order, slice i has a distance of i ranks, and moves in the rounds of its binary digits. (J. Bruck et
    al., "Efficient Algorithms for All-to-All Communications in Multiport Message-Passing Systems", 1997.) Both arrays
    have the shape (p, n). Cost: ``ceil(lg p) * (alpha + p / 2 * n * beta)`` for slices of n bytes; one more buffer of
    p slices, and two copies of those that move in a round.
    """
    rank, size = channel.rank, channel.size
    distances = np.arange(size)
    slices = outgoing[(rank + distances) % size]
    step = 1
    while step < size:
        moving = distances & step != 0
        received = np.empty_like(slices[moving])
        channel.sendrecv(slices[moving], (rank + step) % size, received, (rank - step) % size)
        slices[moving] = received
        step *= 2
    incoming[(rank - distances) % size] = slices


Slices = Array | Sequence[Array]
"""A slice for each rank: rows of an array, or arrays of different sizes."""


def pairwise(channel: Channel, outgoing: Slices, incoming: Slices) -> None:
    """Exchange slices with one rank after the other; outgoing and incoming ones share no memory.

    In round i two ranks exchange whose sum is i modulo p, so that all are paired for any p, a rank in one round
    with itself. Cost: ``(p - 1) * (alpha + n * beta)`` for slices of n bytes; one copy of the own slice.
    """
    for i in range(channel.size):
        peer = (i - channel.rank) % channel.size
        if peer == channel.rank:
            incoming[peer][...] = outgoing[peer]
        else:
            channel.sendrecv(outgoing[peer], peer, incoming[peer], peer)


def spread(channel: Channel, outgoing: Slices, incoming: Slices) -> None:
    """Post all slices at once, to the next rank first, and receive them in the order in which they were posted.

    No rank waits for a round to end, so that ranks that share cores are scheduled less often. Cost as that of
    `pairwise`, with all slices in transfer at the same time; one copy of the own slice. Outgoing and incoming
    slices share no memory. Needs a full-duplex channel.
    """
    rank, size = channel.rank, channel.size
    incoming[rank][...] = outgoing[rank]
    posted = [channel.isend(outgoing[(rank + i) % size], (rank + i) % size) for i in range(1, size)]
    for i in range(1, size):
        channel.recv(incoming[(rank - i) % size], (rank - i) % size)
    for pending in posted:
        channel.progress([pending], wait=True)
