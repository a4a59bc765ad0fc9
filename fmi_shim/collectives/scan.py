"""Scan: on each rank the combination of all payloads up to its own; exclusive scan: without its own."""

from __future__ import annotations

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.operators import Array, Combine


def up_and_down_sweep(channel: Channel, buffer: Array, combine: Combine) -> None:
    """Combine prefixes in place with FMI's two sweeps over a binary tree; each step is f(own, received).

    In the up-sweep, the last rank of a block of 2^(i+1) combines the block's first half. In the down-sweep, it sends
    its prefix to the middle of the next block. (G. Blelloch, "Prefix sums and their applications", 1990, the
    inclusive form.) Cost: at most ``2 * floor(lg p) * (alpha + n * beta + n * gamma)``. One more buffer.
    """
    rank, size = channel.rank, channel.size
    received = np.empty_like(buffer)
    rounds = size.bit_length() - 1
    for i in range(rounds):
        if _low_bits_set(rank, i + 1):
            channel.recv(received, rank - (1 << i))
            combine(buffer, received, buffer)
        elif _low_bits_set(rank, i) and rank + (1 << i) < size:
            channel.send(buffer, rank + (1 << i))
            break
    for i in range(rounds, 0, -1):
        half = 1 << (i - 1)
        if _low_bits_set(rank, i):
            if rank + half < size:
                channel.send(buffer, rank + half)
        elif _low_bits_set(rank, i - 1) and rank - half > 0:
            channel.recv(received, rank - half)
            combine(buffer, received, buffer)


def chain(channel: Channel, buffer: Array, combine: Combine) -> None:
    """Combine prefixes in place strictly from left to right: f(received, own), then send to the next rank.

    Cost: ``(p - 1) * (alpha + n * beta + n * gamma)`` for the last rank. One more buffer.
    """
    if channel.rank > 0:
        received = np.empty_like(buffer)
        channel.recv(received, channel.rank - 1)
        combine(received, buffer, buffer)
    if channel.rank + 1 < channel.size:
        channel.send(buffer, channel.rank + 1)


def exclusive_doubling(channel: Channel, buffer: Array, prefix: Array, combine: Combine) -> None:
    """Combine the payloads below this rank in `prefix`, by exchanging the results of blocks of 1, 2, 4, ... ranks.

    Operands keep the order of the ranks, so that an associative function need not commute. `buffer` is used
    up; rank 0's `prefix` is unchanged. Cost: ``ceil(lg p) * (alpha + n * beta + 2 * n * gamma)``. One more
    buffer.
    """
    received = np.empty_like(buffer)
    found = False
    distance = 1
    while distance < channel.size:
        peer = channel.rank ^ distance
        distance *= 2
        if peer >= channel.size:
            continue
        channel.sendrecv(buffer, peer, received, peer)
        if peer > channel.rank:
            combine(buffer, received, buffer)
            continue
        if found:
            combine(received, prefix, prefix)
        else:
            prefix[...] = received
            found = True
        combine(received, buffer, buffer)


def exclusive_chain(channel: Channel, buffer: Array, prefix: Array, combine: Combine) -> None:
    """Receive `prefix`, and send f(prefix, own) to the next rank: strictly from left to right.

    `buffer` is overwritten; rank 0's `prefix` is unchanged. Cost: ``(p - 1) * (alpha + n * beta + n * gamma)``
    for the last rank.
    """
    if channel.rank > 0:
        channel.recv(prefix, channel.rank - 1)
    if channel.rank + 1 < channel.size:
        if channel.rank > 0:
            combine(prefix, buffer, buffer)
        channel.send(buffer, channel.rank + 1)


def _low_bits_set(number: int, bits: int) -> bool:
    mask = (1 << bits) - 1
    return number & mask == mask
