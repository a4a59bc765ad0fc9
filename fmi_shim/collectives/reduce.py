"""Every rank's payload combined at one."""

from __future__ import annotations

import numpy as np

from fmi_shim.channels.base import Channel
from fmi_shim.collectives import gather
from fmi_shim.collectives.tree import position
from fmi_shim.operators import Array, Combine


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
