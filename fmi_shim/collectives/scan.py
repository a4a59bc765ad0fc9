"""To every rank the combination of all payloads up to its own (inclusive prefix)."""

from __future__ import annotations

import numpy as np

from fmi_shim.channels.base import Channel
from fmi_shim.operators import Array, Combine


def up_and_down_sweep(channel: Channel, buffer: Array, combine: Combine) -> None:
    """Combine prefixes in place with FMI's two sweeps over a binary tree; each step is f(own, received).

    Going up, ranks that end a block of 2^(i+1) take in the block's first half. Going down, they hand their
    prefix to the middle of the next block. (G. Blelloch, "Prefix sums and their applications", 1990, the
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
    """Combine prefixes in place strictly from left to right: f(received, own), then on to the next rank.

    Cost: ``(p - 1) * (alpha + n * beta + n * gamma)`` for the last rank. One more buffer.
    """
    if channel.rank > 0:
        received = np.empty_like(buffer)
        channel.recv(received, channel.rank - 1)
        combine(received, buffer, buffer)
    if channel.rank + 1 < channel.size:
        channel.send(buffer, channel.rank + 1)


def _low_bits_set(number: int, bits: int) -> bool:
    mask = (1 << bits) - 1
    return number & mask == mask
