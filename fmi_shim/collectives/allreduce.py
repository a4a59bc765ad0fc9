"""Every rank's payload combined, at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fmi_shim.channels.base import Channel
from fmi_shim.collectives import bcast, reduce, segments
from fmi_shim.collectives.switch_points import SWITCH_POINTS
from fmi_shim.operators import Array, Combine, Operator, ReduceFunction

Schedule = Callable[[Channel, Array, Combine], Array]


def choose(function: ReduceFunction, size_bytes: int, size: int, full_duplex: bool) -> Schedule:
    """Return the algorithm for a payload of `size_bytes` on `size` ranks.

    A custom function keeps FMI's order of arguments; sum, prod, max and min do not feel it, so that they
    may halve.
    """
    if function.left_to_right:
        return left_to_right
    if size_bytes >= SWITCH_POINTS.allreduce and size > 1 and full_duplex and function.operator is not Operator.custom:
        return reduce_scatter_allgather
    return recursive_doubling


def recursive_doubling(channel: Channel, buffer: Array, combine: Combine) -> Array:
    """Combine in place by exchanging whole buffers at the distances 1, 2, 4, ... (FMI's order).

    With p = 2^k + r ranks, the ranks from 2^k on first fold into those r below, and get the result from
    them at the end. Cost: ``lg p * (alpha + n * beta + n * gamma)``, plus ``2 * (alpha + n * beta) + n *
    gamma`` when r > 0. One more buffer.
    """
    received = np.empty_like(buffer)

    def exchange(core: int) -> None:
        distance = 1
        while distance < core:
            peer = channel.rank ^ distance
            channel.sendrecv(buffer, peer, received, peer)
            combine(buffer, received, buffer)
            distance *= 2

    return _on_power_of_two(channel, buffer, received, combine, exchange)


def reduce_scatter_allgather(channel: Channel, buffer: Array, combine: Combine) -> Array:
    """Combine in place, halving the buffer at each distance, then collect the pieces (Rabenseifner).

    An element goes through the same tree of combinations as in `recursive_doubling`, so that a commutative
    f gives the same bits. Cost for p = 2^k: ``2 * lg p * alpha + (1 - 1/p) * n * (2 * beta + gamma)``;
    other p as in `recursive_doubling`. Pieces are combined in segments as they come. One more segment, for
    p = 2^k; another p takes a whole buffer. Needs a full-duplex channel.
    """
    power_of_two = channel.size & (channel.size - 1) == 0
    received = np.empty(0 if power_of_two else buffer.size, buffer.dtype)

    def exchange(core: int) -> None:
        start, stop = 0, buffer.size
        given_away: list[tuple[int, int]] = []
        distance = 1
        while distance < core:
            peer = channel.rank ^ distance
            middle = (start + stop + 1) // 2
            keep, give = ((start, middle), (middle, stop)) if channel.rank < peer else ((middle, stop), (start, middle))
            segments.exchange(channel, buffer[slice(*give)], buffer[slice(*keep)], peer, combine)
            given_away.append(give)
            start, stop = keep
            distance *= 2
        while distance > 1:
            distance //= 2
            peer, give = channel.rank ^ distance, given_away.pop()
            channel.sendrecv(buffer[start:stop], peer, buffer[give[0] : give[1]], peer)
            start, stop = min(start, give[0]), max(stop, give[1])

    return _on_power_of_two(channel, buffer, received, combine, exchange)


def left_to_right(channel: Channel, buffer: Array, combine: Combine) -> Array:
    """Combine strictly in rank order at rank 0 and broadcast the result.

    Cost: that of `reduce.left_to_right` and `bcast.binomial` together.
    """
    result = reduce.left_to_right(channel, buffer, 0, combine)
    return bcast.binomial(channel, buffer if result is None else result, 0)


def _on_power_of_two(
    channel: Channel, buffer: Array, received: Array, combine: Combine, exchange: Callable[[int], None]
) -> Array:
    """Run `exchange` among the largest power of two of ranks, with the others folded in before and told after."""
    core = 1 << (channel.size.bit_length() - 1)
    if channel.rank >= core:
        channel.send(buffer, channel.rank - core)
        channel.recv(buffer, channel.rank - core)
        return buffer
    folded = channel.rank + core < channel.size
    if folded:
        channel.recv(received, channel.rank + core)
        combine(buffer, received, buffer)
    exchange(core)
    if folded:
        channel.send(buffer, channel.rank + core)
    return buffer
