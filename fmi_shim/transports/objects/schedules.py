"""Collectives of the object channels: one writer, many readers, and no rank forwards another's data.

The names of objects are FMI's (src/comm/ClientServer.cpp), so that ranks of the C++ library may take part. A rank may
combine the objects it has read in any order. FMI combines them as they arrive, beginning with its own (also, against
its documentation, for functions that need their order). Here an ordered function is evaluated strictly by rank, and
another one in the tree of the message-passing schedules, so that a result has the same bits on every channel, whichever
rank was first.

In the cost formulas alpha_w and alpha_r are the times of a write and a read of nothing, the rest is as in
`fmi_shim.collectives`. Pauses between polls are not counted (`selection.corrected` counts them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from fmi_shim.channel import Channel, Schedule
from fmi_shim.collectives import gather as messages_of_gather
from fmi_shim.collectives import python_objects as messages_of_objects
from fmi_shim.collectives import reduce_scatter as messages_of_reduce_scatter
from fmi_shim.collectives import scan as scans
from fmi_shim.collectives import scatter as messages_of_scatter
from fmi_shim.collectives.memory import ConsumingReduction, InPlaceReduction, InPlaceScan, placed, working_copy
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.transports.objects.store import ObjectName

_ARRIVED = np.frombuffer(b"1", np.uint8)


class ObjectMessages(Channel, Protocol):
    """What the schedules need of an object channel beyond `Channel`; see `ObjectChannel`.

    Attributes
    ----------
    others
        All ranks but this one.
    """

    others: list[int]

    def outgoing(self, dst: int) -> ObjectName: ...  # noqa: D102 - see ObjectChannel, for all of these
    def incoming(self, src: int) -> ObjectName: ...  # noqa: D102
    def next_number(self, kind: str) -> int: ...  # noqa: D102
    def put(self, objects: Mapping[ObjectName, Array], readers: Iterable[int]) -> None: ...  # noqa: D102
    def get(self, names: Sequence[ObjectName], like: Array) -> list[Array]: ...  # noqa: D102
    def get_new(self, name: ObjectName, parts: int | None = None) -> Array: ...  # noqa: D102
    def wait_until_present(self, names: Sequence[ObjectName]) -> None: ...  # noqa: D102


def prepare(channel: ObjectMessages, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
    """Return the schedule of `call`; see `Channel.prepare`."""
    root = call.root
    if function is None or combine is None:
        match call.operation:
            case Operation.barrier:
                return partial(barrier, channel)
            case Operation.bcast:
                return partial(bcast, channel, root=root)
            case Operation.gather:
                return partial(gather_into, channel, root)
            case Operation.scatter:
                return partial(scatter, channel, root=root)
            case Operation.allgather:
                return partial(allgather, channel)
            case Operation.alltoall:
                return partial(alltoall, channel)
            case Operation.gatherv:
                return partial(gatherv, channel, root=root)
            case Operation.scatterv:
                return partial(messages_of_scatter.linear, channel, root=root)
            case Operation.allgatherv:
                return partial(allgatherv, channel)
            case Operation.alltoallv:
                return partial(alltoallv, channel)
            case Operation.bcast_object:
                return partial(messages_of_objects.bcast, partial(bcast, channel, root=root), root)
        return messages_of_objects.prepare(channel, call)
    match call.operation:
        case Operation.reduce:
            return InPlaceReduction(partial(reduce, channel, root=root, function=function, combine=combine))
        case Operation.allreduce:
            return InPlaceReduction(partial(allreduce, channel, function=function, combine=combine))
        case Operation.scan:
            return InPlaceScan(partial(scan, channel, function=function, combine=combine))
        case Operation.exscan:
            below = scans.exclusive_doubling if function.associative else scans.exclusive_chain
            return ConsumingReduction(partial(below, channel, combine=combine))
        case Operation.reduce_scatter:
            return partial(reduce_scatter, channel, function, combine)
        case Operation.reduce_scatterv:
            return partial(reduce_scatterv, channel, function, combine)
    raise AssertionError(f"{call.operation.name} is not a reduction")


def barrier(channel: ObjectMessages) -> None:
    """Write one byte and list until all ranks have. Cost: ``alpha_w`` and a listing."""
    number = channel.next_number("barrier")
    everyone = [ObjectName(rank, "barrier", number) for rank in range(channel.size)]
    if channel.others:
        channel.put({everyone[channel.rank]: _ARRIVED}, channel.others)
        channel.wait_until_present(everyone)


def bcast(channel: ObjectMessages, buffer: Array | None, root: int) -> Array:
    """Write one object, which all others read. Cost: ``alpha_w + alpha_r + 2 * n * beta``; 1 write, p - 1 reads.

    Returns
    -------
    Array
        `buffer`, or a new array where that was None.
    """
    name = ObjectName(root, "bcast", channel.next_number("bcast"))
    if channel.rank != root:
        if buffer is None:
            return channel.get_new(name)
        (found,) = channel.get([name], buffer)
        buffer[...] = found.reshape(buffer.shape)
        return buffer
    assert buffer is not None  # noqa: S101 - the root has a buffer
    channel.put({name: buffer}, channel.others)
    return buffer


def gather(channel: ObjectMessages, part: Array, root: int) -> Array | None:
    """Send every part to the root by itself. Cost: ``alpha_w + alpha_r + p * n * beta``; one copy more.

    Returns
    -------
    Array or None
        At the root the parts in rank order, elsewhere None.
    """
    if channel.rank != root:
        channel.send(part, root)
        return None
    parts = channel.get([channel.incoming(rank) for rank in channel.others], part)
    parts.insert(root, part)
    return np.concatenate(parts)


def gather_into(channel: ObjectMessages, root: int, part: Array, whole: Array | None) -> Array | None:
    """Gather as above, into `whole` where that is given."""
    parts = gather(channel, part, root)
    return None if parts is None else placed(parts, whole)


def allgather(channel: ObjectMessages, parts: Array) -> None:
    """Gather at rank 0, then broadcast. Fills `parts`, shape (p, n), which hold this rank's own row."""
    everything = gather(channel, parts[channel.rank], 0)
    parts[...] = bcast(channel, parts if everything is None else everything, 0).reshape(parts.shape)


def scatter(channel: ObjectMessages, whole: Array | None, own: Array | None, root: int) -> Array:
    """Send every slice by itself. Cost: ``alpha_w + alpha_r + p * n * beta`` for slices of n bytes.

    Returns
    -------
    Array
        `own`, or a new array where that was None.
    """
    if channel.rank == root:
        assert whole is not None  # noqa: S101 - the root has a buffer
        slices = whole.reshape(channel.size, -1)
        channel.put({channel.outgoing(rank): slices[rank] for rank in channel.others}, channel.others)
        if own is None:
            own = np.empty_like(slices[root])
        own[...] = slices[root]
    elif own is None:
        return channel.recv_new(root)
    else:
        channel.recv(own, root)
    return own


def alltoall(channel: ObjectMessages, outgoing: Array, incoming: Array) -> None:
    """Write all slices, then read all. Cost: ``alpha_w + alpha_r + 2 * p * n * beta`` for slices of n bytes."""
    channel.put({channel.outgoing(rank): outgoing[rank] for rank in channel.others}, channel.others)
    found = channel.get([channel.incoming(rank) for rank in channel.others], incoming[0])
    for rank, part in zip(channel.others, found, strict=True):
        incoming[rank] = part
    incoming[channel.rank] = outgoing[channel.rank]


def reduce(
    channel: ObjectMessages, buffer: Array, root: int, function: ReduceFunction, combine: Combine
) -> Array | None:
    """Write every part; the root reads and combines all. `buffer` is overwritten.

    Cost: ``alpha_w + alpha_r + p * n * beta + (p - 1) * n * gamma``; p - 1 writes and reads, p buffers at the root.

    Returns
    -------
    Array or None
        At the root the result, elsewhere None.
    """
    parts = _collected(channel, buffer, root)
    if parts is None:
        return None
    return _chain(parts, combine) if function.left_to_right else _tree(parts[root:] + parts[:root], combine)


def allreduce(channel: ObjectMessages, buffer: Array, function: ReduceFunction, combine: Combine) -> Array:
    """Reduce to rank 0, then broadcast; see these for the cost. The result is rank 0's on all ranks."""
    parts = _collected(channel, buffer, 0)
    if parts is None:
        return bcast(channel, buffer, 0)
    if function.left_to_right:
        return bcast(channel, _chain(parts, combine), 0)
    core = 1 << (channel.size.bit_length() - 1)
    folded = [_chain(parts[rank::core], combine) for rank in range(core)]
    return bcast(channel, _tree(folded, combine), 0)


def reduce_scatter(
    channel: ObjectMessages, function: ReduceFunction, combine: Combine, value: Array, spare: Array | None, own: Array
) -> None:
    """Reduce to rank 0, then scatter: leave this rank's slice of the result in `own`."""
    scatter(channel, reduce(channel, working_copy(value, spare), 0, function, combine), own, 0)


def gatherv(channel: ObjectMessages, part: Array, parts: Sequence[Array] | None, root: int) -> list[Array] | None:
    """Gather parts of any size as `gather` does; see `collectives.gather.linear`."""
    if channel.rank != root or parts is None:
        return messages_of_gather.linear(channel, part, parts, root)
    _receive_all(channel, parts)
    if parts[root] is not part:
        parts[root][...] = part
    return list(parts)


def allgatherv(channel: ObjectMessages, parts: Sequence[Array]) -> None:
    """Gather at rank 0, then broadcast; see `allgather`. One more copy of everything."""
    gathered = gatherv(channel, parts[channel.rank], parts, 0)
    sizes = [part.size for part in parts]
    whole = np.concatenate(parts) if gathered else np.empty(sum(sizes), parts[0].dtype)
    whole = bcast(channel, whole, 0)
    for place, found in zip(parts, messages_of_reduce_scatter.cut(whole, sizes), strict=True):
        place[...] = found


def alltoallv(channel: ObjectMessages, outgoing: Sequence[Array], incoming: Sequence[Array]) -> None:
    """Write all slices, then read all, as `alltoall` does."""
    channel.put({channel.outgoing(rank): outgoing[rank] for rank in channel.others}, channel.others)
    _receive_all(channel, incoming)
    incoming[channel.rank][...] = outgoing[channel.rank]


def reduce_scatterv(
    channel: ObjectMessages,
    function: ReduceFunction,
    combine: Combine,
    value: Array,
    spare: Array | None,
    sizes: Sequence[int],
    own: Array,
) -> None:
    """Reduce to rank 0, then scatter: leave this rank's slice of the result in `own`."""
    result = reduce(channel, working_copy(value, spare), 0, function, combine)
    slices = None if result is None else messages_of_reduce_scatter.cut(result, sizes)
    messages_of_scatter.linear(channel, slices, own, 0)


def _receive_all(channel: ObjectMessages, parts: Sequence[Array]) -> None:
    """Read the other ranks' objects, whichever exist first."""
    pending = [channel.irecv(parts[rank], rank) for rank in channel.others]
    while pending:
        channel.progress(pending, wait=True)
        pending = [message for message in pending if not message.done]


def scan(channel: ObjectMessages, buffer: Array, function: ReduceFunction, combine: Combine) -> None:
    """Write every part but the last; each rank reads and combines those below. `buffer` gets the result.

    Cost: ``alpha_w + alpha_r + p * n * beta + (p - 1) * n * gamma`` for the last rank; p - 1 writes,
    p (p - 1) / 2 reads.
    """
    number = channel.next_number("scan")
    channel.put({ObjectName(channel.rank, "scan", number): buffer}, range(channel.rank + 1, channel.size))
    parts = channel.get([ObjectName(rank, "scan", number) for rank in range(channel.rank)], buffer)
    parts.append(buffer)
    buffer[...] = _chain(parts, combine) if function.left_to_right else _prefix(parts, combine)


def _collected(channel: ObjectMessages, buffer: Array, root: int) -> list[Array] | None:
    """Return all ranks' parts at the root, None elsewhere."""
    number = channel.next_number("reduce")
    if channel.rank != root:
        channel.put({ObjectName(channel.rank, "reduce", number): buffer}, [root])
        return None
    parts = channel.get([ObjectName(rank, "reduce", number) for rank in channel.others], buffer)
    parts.insert(root, buffer)
    return parts


def _combined(left: Array, right: Array, combine: Combine) -> Array:
    """Return f(left, right), in `left` unless that is an object's own memory."""
    out = left if left.flags.writeable else np.empty_like(left)
    combine(left, right, out)
    return out


def _chain(parts: list[Array], combine: Combine) -> Array:
    """Return ``f(f(f(0, 1), 2), ...)``."""
    result = parts[0]
    for part in parts[1:]:
        result = _combined(result, part, combine)
    return result


def _tree(parts: list[Array], combine: Combine) -> Array:
    """Combine adjacent parts, then adjacent pairs, and so on: the order of `reduce.binomial`."""
    while len(parts) > 1:
        parts = [_chain(parts[i : i + 2], combine) for i in range(0, len(parts), 2)]
    return parts[0]


def _prefix(parts: list[Array], combine: Combine) -> Array:
    """Combine in the order of `scan.up_and_down_sweep`: the last block of a power of two with all before it."""
    block = len(parts) & -len(parts)
    last = _reversed_tree(parts[len(parts) - block :], combine)
    if block == len(parts):
        return last
    return _combined(last, _prefix(parts[: len(parts) - block], combine), combine)


def _reversed_tree(parts: list[Array], combine: Combine) -> Array:
    """Combine adjacent parts as `_tree` does, with f(later, earlier)."""
    while len(parts) > 1:
        parts = [_combined(parts[i + 1], parts[i], combine) for i in range(0, len(parts), 2)]
    return parts[0]
