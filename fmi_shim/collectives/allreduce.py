"""Every rank's payload combined, at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.collectives import bcast, pipelining, reduce
from fmi_shim.operators import Array, Combine


def recursive_doubling(channel: Channel, buffer: Array, combine: Combine) -> Array:
    """Combine in place by exchanging whole buffers at the distances 1, 2, 4, ... (FMI's order).

    With p = 2^k + r ranks, the ranks from 2^k on first fold into those r below, and get the result from
    them at the end. Cost: ``lg p * (alpha + n * beta + n * gamma)``, plus ``2 * (alpha + n * beta) + n *
    gamma`` when r > 0. One more buffer.
    """
    received = np.empty_like(buffer)

    def exchange(core: int, _known: Array) -> None:
        distance = 1
        while distance < core:
            peer = channel.rank ^ distance
            channel.sendrecv(buffer, peer, received, peer)
            combine(buffer, received, buffer)
            distance *= 2

    return _on_power_of_two(channel, buffer, buffer, received, combine, exchange)


def reduce_scatter_allgather(channel: Channel, value: Array, result: Array, combine: Combine) -> Array:
    """Leave all ranks' `value` combined in `result`: half as much at each distance, then all pieces (Rabenseifner).

    `result` may be `value`, which is left alone otherwise, and not copied: what this rank keeps of it is combined
    into `result` in the first round. An element goes through the same tree of combinations as in
    `recursive_doubling`, so that a commutative f gives the same bits. Cost for p = 2^k: ``2 * lg p * alpha + (1 - 1/p)
    * n * (2 * beta + gamma)``; other p as in `recursive_doubling`. Pieces are combined in segments as they come. One
    more segment; in place with p other than 2^k one more buffer. Needs a full-duplex channel.
    """
    power_of_two = channel.size & (channel.size - 1) == 0
    received = np.empty_like(value) if result is value and not power_of_two else result

    def exchange(core: int, known: Array) -> None:
        start, stop = 0, value.size
        given_away: list[tuple[int, int]] = []
        distance = 1
        while distance < core:
            peer = channel.rank ^ distance
            middle = (start + stop + 1) // 2
            keep, give = ((start, middle), (middle, stop)) if channel.rank < peer else ((middle, stop), (start, middle))
            kept = slice(*keep)
            pipelining.exchange(channel, known[slice(*give)], known[kept], result[kept], peer, combine)
            given_away.append(give)
            (start, stop), known = keep, result
            distance *= 2
        while distance > 1:
            distance //= 2
            peer, give = channel.rank ^ distance, given_away.pop()
            channel.sendrecv(result[start:stop], peer, result[give[0] : give[1]], peer)
            start, stop = min(start, give[0]), max(stop, give[1])

    return _on_power_of_two(channel, value, result, received, combine, exchange)


def left_to_right(channel: Channel, buffer: Array, combine: Combine) -> Array:
    """Combine strictly in rank order at rank 0 and broadcast the result.

    Cost: that of `reduce.left_to_right` and `bcast.binomial` together.
    """
    result = reduce.left_to_right(channel, buffer, 0, combine)
    return bcast.binomial(channel, buffer if result is None else result, 0)


def _on_power_of_two(
    channel: Channel,
    value: Array,
    result: Array,
    received: Array,
    combine: Combine,
    exchange: Callable[[int, Array], None],
) -> Array:
    """Run `exchange` among the largest power of two of ranks, with the others folded in before and told after.

    It is given their number, and what this rank knows by then: `value`, or `result` where another one was folded in.
    """
    core = 1 << (channel.size.bit_length() - 1)
    if channel.rank >= core:
        channel.send(value, channel.rank - core)
        channel.recv(result, channel.rank - core)
        return result
    folded = channel.rank + core < channel.size
    if folded:
        channel.recv(received, channel.rank + core)
        combine(value, received, result)
    exchange(core, result if folded else value)
    if folded:
        channel.send(result, channel.rank + core)
    return result
