"""Messages of Python objects: an envelope of bytes, then each of the object's large buffers.

The receiver of an envelope learns from it how many buffers follow, and their lengths. No buffer is copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from fmi_shim.channel import Channel, Schedule
from fmi_shim.collectives import bcast as bcasts
from fmi_shim.errors import PeerTimeoutError
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array

Parts = Sequence[Array]
"""The envelope and the buffers of an object, each a flat array of bytes."""
Lengths = Callable[[Array, int], list[int]]
"""Returns the lengths of the buffers that follow an envelope, given it and the rank that made it; raises if it is
invalid."""

BcastBytes = Callable[[Array | None], Array]
"""Broadcasts an array of bytes from the root."""


def prepare(channel: Channel, call: Call) -> Schedule:
    """Return the schedule of a collective of objects; see `Channel.prepare`.

    ================  ============================================================================
    bcast_object      ``(parts or None, lengths) -> parts``
    gather_object     ``(parts, lengths) -> each rank's parts at the root, None elsewhere``
    scatter_object    ``(each rank's parts or None, lengths) -> parts``
    allgather_object  ``(parts, lengths) -> each rank's parts``
    ================  ============================================================================
    """
    match call.operation:
        case Operation.bcast_object:
            return partial(bcast, partial(bcasts.binomial, channel, root=call.root), call.root)
        case Operation.gather_object:
            return partial(gather, channel, call.root)
        case Operation.scatter_object:
            return partial(scatter, channel, call.root)
        case Operation.allgather_object:
            return partial(allgather, channel)
    raise AssertionError(f"{call.operation.name} is not a collective of objects")


def send(channel: Channel, parts: Parts, dst: int) -> None:
    """Send an object to rank `dst`. Cost: ``(1 + buffers) * alpha + n * beta``."""
    first, *others = parts
    channel.send(first, dst)
    with _final_timeouts():
        for part in others:
            channel.send(part, dst)


def recv(channel: Channel, lengths: Lengths, src: int, maker: int | None = None) -> Parts:
    """Return the next object that rank `src` sends, which rank `maker` has made, by default `src` itself."""
    envelope = channel.recv_new(src)
    buffers = [np.empty(length, np.uint8) for length in lengths(envelope, src if maker is None else maker)]
    with _final_timeouts():
        for buffer in buffers:
            channel.recv(buffer, src)
    return [envelope, *buffers]


@contextlib.contextmanager
def _final_timeouts() -> Iterator[None]:
    """Let no time-out in the block be repeatable: a part of the object was moved before."""
    try:
        yield
    except PeerTimeoutError as error:
        error.repeatable = False
        raise


def bcast(bcast_bytes: BcastBytes, root: int, parts: Parts | None, lengths: Lengths) -> Parts:
    """Broadcast an envelope, then its buffers. Cost: that of a bcast for each of them."""
    if parts is not None:
        for part in parts:
            bcast_bytes(part)
        return parts
    envelope = bcast_bytes(None)
    return [envelope, *(bcast_bytes(np.empty(length, np.uint8)) for length in lengths(envelope, root))]


def gather(channel: Channel, root: int, parts: Parts, lengths: Lengths) -> list[Parts] | None:
    """Send each rank's object to the root by itself. Cost: that of p - 1 messages at the root."""
    if channel.rank != root:
        send(channel, parts, root)
        return None
    return [parts if rank == root else recv(channel, lengths, rank) for rank in range(channel.size)]


def scatter(channel: Channel, root: int, objects: Sequence[Parts] | None, lengths: Lengths) -> Parts:
    """Send each rank its object from the root. Cost: that of p - 1 messages at the root."""
    if objects is None:
        return recv(channel, lengths, root)
    for rank, parts in enumerate(objects):
        if rank != root:
            send(channel, parts, rank)
    return objects[root]


def allgather(channel: Channel, parts: Parts, lengths: Lengths) -> list[Parts]:
    """Forward each rank's object around a ring. Cost: that of p - 1 messages sent and received at the same time."""
    rank, size = channel.rank, channel.size
    found = {rank: parts}
    for step in range(size - 1):
        posted = [channel.isend(part, (rank + 1) % size) for part in found[(rank - step) % size]]
        maker = (rank - step - 1) % size
        found[maker] = recv(channel, lengths, (rank - 1) % size, maker)
        for pending in posted:
            channel.progress([pending], wait=True)
    return [found[other] for other in range(size)]
