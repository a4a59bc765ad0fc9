"""Allreduce: combine all ranks' payloads on every rank."""

from __future__ import annotations

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.collectives import bcast, pipelining, reduce
from fmi_shim.operators import Array, Combine


def recursive_doubling(channel: Channel, buffer: Array, combine: Combine) -> Array:
    """Combine in place by exchanging whole buffers at the distances 1, 2, 4, ... (FMI's order).

    With p = 2^k + r ranks, the ranks from 2^k on first send their buffer to those r below, which send
    them the result at the end. Cost: ``lg p * (alpha + n * beta + n * gamma)``, plus ``2 * (alpha + n * beta) + n *
    gamma`` when r > 0. One more buffer.
    """
    received = np.empty_like(buffer)
    core = 1 << (channel.size.bit_length() - 1)
    if channel.rank >= core:
        return _sent_to_core(channel, buffer, buffer, core)
    has_partner = channel.rank + core < channel.size
    if has_partner:
        channel.recv(received, channel.rank + core)
        combine(buffer, received, buffer)
    distance = 1
    while distance < core:
        peer = channel.rank ^ distance
        channel.sendrecv(buffer, peer, received, peer)
        combine(buffer, received, buffer)
        distance *= 2
    if has_partner:
        channel.send(buffer, channel.rank + core)
    return buffer


def reduce_scatter_allgather(channel: Channel, value: Array, result: Array, combine: Combine) -> Array:
    """Combine all ranks' `value` in `result`: exchange half as much at each distance, then all parts (Rabenseifner).

    `result` may be `value`, which is unchanged otherwise, and not copied: the part that this rank keeps is combined
    into `result` in the first round. Each element has the same tree of combinations as in
    `recursive_doubling`, so that a commutative f gives the same bits. Cost for p = 2^k: ``2 * lg p * alpha + (1 - 1/p)
    * n * (2 * beta + gamma)``; other p as in `recursive_doubling`. Parts are received and combined in segments. One
    more segment; in place with p other than 2^k one more buffer. Needs a full-duplex channel.
    """
    core = 1 << (channel.size.bit_length() - 1)
    if channel.rank >= core:
        return _sent_to_core(channel, value, result, core)
    has_partner, known = channel.rank + core < channel.size, value
    if has_partner:
        received = np.empty_like(value) if result is value else result
        channel.recv(received, channel.rank + core)
        combine(value, received, result)
        known = result
    start, stop = 0, value.size
    given: list[tuple[int, int]] = []
    distance = 1
    while distance < core:
        peer = channel.rank ^ distance
        middle = (start + stop + 1) // 2
        keep, give = ((start, middle), (middle, stop)) if channel.rank < peer else ((middle, stop), (start, middle))
        kept = slice(*keep)
        pipelining.exchange(channel, known[slice(*give)], known[kept], result[kept], peer, combine)
        given.append(give)
        (start, stop), known = keep, result
        distance *= 2
    while distance > 1:
        distance //= 2
        peer, give = channel.rank ^ distance, given.pop()
        channel.sendrecv(result[start:stop], peer, result[give[0] : give[1]], peer)
        start, stop = min(start, give[0]), max(stop, give[1])
    if has_partner:
        channel.send(result, channel.rank + core)
    return result


def left_to_right(channel: Channel, buffer: Array, combine: Combine) -> Array:
    """Combine strictly in rank order at rank 0 and broadcast the result.

    Cost: that of `reduce.left_to_right` and `bcast.binomial` together.
    """
    result = reduce.left_to_right(channel, buffer, 0, combine)
    return bcast.binomial(channel, buffer if result is None else result, 0)


def _sent_to_core(channel: Channel, value: Array, result: Array, core: int) -> Array:
    """Send `value` to the rank that combines it with its own, `core` ranks below, and receive the result from it."""
    channel.send(value, channel.rank - core)
    channel.recv(result, channel.rank - core)
    return result
