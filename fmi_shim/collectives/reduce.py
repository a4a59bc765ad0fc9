"""Every rank's payload combined at one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fmi_shim.channels.base import Channel
from fmi_shim.collectives import gather, segments
from fmi_shim.collectives.switch_points import SWITCH_POINTS
from fmi_shim.collectives.tree import position
from fmi_shim.operators import Array, Combine, Operator, ReduceFunction

Schedule = Callable[[Channel, Array, int, Combine], Array | None]


def choose(function: ReduceFunction, size_bytes: int, full_duplex: bool) -> Schedule:
    """Return the algorithm for a payload of `size_bytes`; a custom function is given whole payloads."""
    if function.left_to_right:
        return left_to_right
    if size_bytes >= SWITCH_POINTS.reduce and full_duplex and function.operator is not Operator.custom:
        return pipelined
    return binomial


def binomial(channel: Channel, buffer: Array, root: int, combine: Combine) -> Array | None:
    """Combine up the binomial tree, the nearest child first; each step is f(own, received).

    `buffer` is used up. Cost: ``ceil(lg p) * (alpha + n * beta + n * gamma)``; one more buffer where there
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


def pipelined(channel: Channel, buffer: Array, root: int, combine: Combine) -> Array | None:
    """Combine up the same tree as `binomial`, and to the same bits, segment by segment.

    A rank hands a segment on as soon as its children's are combined, while the next ones come. `buffer` is
    used up. Cost for s segments of m bytes: ``(ceil(lg p) + s) * lg p * (alpha + m * beta + m * gamma)`` at
    the root, which has lg p children. One more segment. Needs a full-duplex channel.

    Returns
    -------
    Array or None
        At the root `buffer` with the result, elsewhere None.
    """
    place = position(channel.rank, channel.size, root)
    received = segments.scratch(buffer)
    for part in segments.segments(buffer):
        incoming = received[: part.size]
        for child in place.children:
            channel.recv(incoming, child.rank)
            combine(part, incoming, part)
        if place.parent is not None:
            channel.send(part, place.parent)
    return buffer if place.parent is None else None


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
