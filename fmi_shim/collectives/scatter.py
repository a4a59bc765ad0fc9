"""Scatter: one slice of the root's payload on each rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.collectives.tree import position
from fmi_shim.operators import Array


def linear(channel: Channel, parts: Sequence[Array] | None, own: Array | None, root: int) -> Array:
    """Send each rank its part, of any size, from the root.

    Cost: ``(p - 1) * alpha + sum(n) * beta`` at the root; one copy of its own part.

    Parameters
    ----------
    channel
        The channel to the other ranks.
    parts
        At the root the parts in rank order; ignored elsewhere.
    own
        Memory for this rank's part; None receives any part of the root.
    root
        The sender's rank.

    Returns
    -------
    Array
        `own`, or a new array where that was None.
    """
    if channel.rank != root:
        return channel.recv_new(root) if own is None else channel.recv(own, root)
    assert parts is not None  # noqa: S101 - the root has what it scatters
    for rank, part in enumerate(parts):
        if rank != root:
            channel.send(part, rank)
    if own is None:
        return parts[root].copy()
    own[...] = parts[root]
    return own


def binomial(channel: Channel, whole: Array | None, own: Array | None, root: int) -> Array:
    """Send slices down the binomial tree, to each child those of its subtree as one message.

    Cost: ``ceil(lg p) * alpha + (p - 1) * n * beta`` for slices of n bytes; at a root other than 0 one copy
    of the whole, from rank order to rotated order, and one copy of the own slice where the rank has
    children.

    Parameters
    ----------
    channel
        The channel to the other ranks.
    whole
        At the root all slices in rank order; ignored elsewhere.
    own
        Memory for this rank's slice; None receives any slice of the root.
    root
        The sender's rank.

    Returns
    -------
    Array
        `own`, or a new array where that was None.
    """
    place = position(channel.rank, channel.size, root)
    if place.parent is None:
        assert whole is not None  # noqa: S101 - the root has what it scatters
        slices = whole.reshape(channel.size, -1)
        slices = np.roll(slices, -root, axis=0) if root else slices
    elif own is None:
        slices = channel.recv_new(place.parent, place.subtree)
    elif place.subtree == 1:
        channel.recv(own, place.parent)
        return own
    else:
        slices = np.empty((place.subtree, own.size), own.dtype)
        channel.recv(slices.reshape(-1), place.parent)
    for child in reversed(place.children):
        channel.send(slices[child.offset : child.offset + child.subtree], child.rank)
    own_slice: Array = slices[0]
    if own is None:
        return own_slice if place.subtree == 1 else own_slice.copy()
    own[...] = own_slice
    return own
