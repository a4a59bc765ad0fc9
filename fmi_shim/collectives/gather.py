"""Gather: all ranks' payloads at the root."""

from __future__ import annotations

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.collectives.tree import position
from fmi_shim.operators import Array


def binomial(channel: Channel, part: Array, root: int) -> Array | None:
    """Collect the ranks' equal `part` at the root, up the binomial tree.

    A rank sends the parts of its whole subtree as one message, in rotated order.
    Cost: ``ceil(lg p) * alpha + (p - 1) * n * beta``; one copy of the own part, and at a root other than 0
    one of all parts, from rotated order to rank order.

    Returns
    -------
    Array or None
        At the root the parts in rank order, elsewhere None.
    """
    place = position(channel.rank, channel.size, root)
    parts = np.empty((place.subtree, part.size), part.dtype)
    parts[0] = part
    for child in place.children:
        channel.recv(parts[child.offset : child.offset + child.subtree], child.rank)
    if place.parent is not None:
        channel.send(parts, place.parent)
        return None
    return (np.roll(parts, root, axis=0) if root else parts).reshape(-1)
