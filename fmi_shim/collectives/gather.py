"""Gather: all ranks' payloads at the root."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.collectives.tree import position
from fmi_shim.operators import Array


def linear(channel: Channel, part: Array, parts: Sequence[Array] | None, root: int) -> list[Array] | None:
    """Send the ranks' parts, of any size, to the root, each by itself.

    Only the root knows all sizes, if it does, so that no other rank can forward parts.
    Cost: ``(p - 1) * alpha + sum(n) * beta`` at the root; one copy of the own part where `parts` are given.

    Parameters
    ----------
    channel
        The channel to the other ranks.
    part
        This rank's part.
    parts
        At the root the memory for each rank's part; None receives any parts. Ignored elsewhere.
    root
        The receiver's rank.

    Returns
    -------
    list of Array, or None
        At the root the parts in rank order, elsewhere None.
    """
    if channel.rank != root:
        channel.send(part, root)
        return None
    if parts is None:
        return [part if rank == root else channel.recv_new(rank) for rank in range(channel.size)]
    for rank, place in enumerate(parts):
        if rank != root:
            channel.recv(place, rank)
        elif place is not part:
            place[...] = part
    return list(parts)


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
