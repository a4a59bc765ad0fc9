"""Bcast: the root's payload on every rank."""

from __future__ import annotations

from fmi_shim.channel import Channel
from fmi_shim.collectives.tree import position
from fmi_shim.operators import Array


def binomial(channel: Channel, buffer: Array | None, root: int) -> Array:
    """Send the root's `buffer` down the binomial tree, to the farthest child first (FMI's order).

    Cost: ``ceil(lg p) * (alpha + n * beta)``; p - 1 messages in all. No copies besides the kernel's.

    Parameters
    ----------
    channel
        The channel to the other ranks.
    buffer
        On the root the payload, elsewhere the memory to receive into; None receives any payload of the root.
    root
        The sender's rank.

    Returns
    -------
    Array
        `buffer`, or a new array where that was None.
    """
    place = position(channel.rank, channel.size, root)
    if place.parent is not None:
        if buffer is None:
            buffer = channel.recv_new(place.parent)
        else:
            channel.recv(buffer, place.parent)
    assert buffer is not None  # noqa: S101 - only ranks with a parent may pass None
    for child in reversed(place.children):
        channel.send(buffer, child.rank)
    return buffer
