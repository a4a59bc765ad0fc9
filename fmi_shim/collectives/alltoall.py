"""Every rank's payload, cut into equal slices, a slice from each to each."""

from __future__ import annotations

from fmi_shim.channels.base import Channel
from fmi_shim.operators import Array


def pairwise(channel: Channel, outgoing: Array, incoming: Array) -> None:
    """Exchange slices with one rank after the other; both arrays have the shape (p, n) and share no memory.

    In round i the ranks whose sum is i modulo p meet, so that all are paired for any p, a rank in one round
    with itself. Cost: ``(p - 1) * (alpha + n * beta)`` for slices of n bytes; one copy of the own slice.
    """
    for i in range(channel.size):
        peer = (i - channel.rank) % channel.size
        if peer == channel.rank:
            incoming[peer] = outgoing[peer]
        else:
            channel.sendrecv(outgoing[peer], peer, incoming[peer], peer)
