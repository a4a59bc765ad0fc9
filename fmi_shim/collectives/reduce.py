"""Reduce: combine all ranks' payloads at the root."""

from __future__ import annotations

import itertools

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.collectives import gather, pipelining
from fmi_shim.collectives.tree import position
from fmi_shim.operators import Array, Combine


def binomial(channel: Channel, buffer: Array, root: int, combine: Combine) -> Array | None:
    """Combine up the binomial tree, the nearest child first; each step is f(own, received).

    `buffer` is overwritten. Cost: ``ceil(lg p) * (alpha + n * beta + n * gamma)``; one more buffer where there
    are children.

    Returns
    -------
    Array or None
        At the root `buffer` with the result, elsewhere None.
    """
    place = position(channel.rank, channel.size, root)
    received = np.empty_like(buffer) if place.children else buffer
    for child in place.children:
        channel.recv(received, child.rank)
        combine(buffer, received, buffer)
    if place.parent is None:
        return buffer
    channel.send(buffer, place.parent)
    return None


def pipelined(channel: Channel, value: Array, result: Array | None, root: int, combine: Combine) -> Array | None:
    """Combine up the same tree as `binomial`, with the same bits as result, segment by segment.

    A rank sends a segment as soon as its children's are combined, while it receives the next ones. `value` is
    unchanged, unless it is the root's `result`, and not copied. Cost for s segments of m bytes:
    ``(ceil(lg p) + s) * lg p * (alpha + m * beta + m * gamma)`` at the root, which has lg p children. Two more
    segments. Needs a full-duplex channel, and two ranks.

    Parameters
    ----------
    result
        The root's memory for the result, None elsewhere.

    Returns
    -------
    Array or None
        `result`.
    """
    place = position(channel.rank, channel.size, root)
    received, spare = pipelining.scratch(value), pipelining.scratch(value)
    results = itertools.repeat(spare) if result is None else pipelining.segments(result)
    for part, combined in zip(pipelining.segments(value), results, strict=False):
        incoming, into, known = received[: part.size], combined[: part.size], part
        for child in place.children:
            channel.recv(incoming, child.rank)
            combine(known, incoming, into)
            known = into
        if place.parent is not None:
            channel.send(known, place.parent)
    return result


def left_to_right(channel: Channel, buffer: Array, root: int, combine: Combine) -> Array | None:
    """Gather at the root and combine there strictly in rank order: f(f(f(0, 1), 2), ...).

    Cost: ``ceil(lg p) * alpha + (p - 1) * n * (beta + gamma)``; p buffers at the root.

    Returns
    -------
    Array or None
        At the root the result, elsewhere None.
    """
    gathered = gather.binomial(channel, buffer, root)
    if gathered is None:
        return None
    parts = gathered.reshape(channel.size, -1)
    result: Array = parts[0]
    for part in parts[1:]:
        combine(result, part, result)
    return result
