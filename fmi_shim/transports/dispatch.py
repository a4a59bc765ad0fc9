"""Which schedule an operation takes: decided by the channel, the function, the size and the number of ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.collectives import allgather as allgathers
from fmi_shim.collectives import allreduce as allreduces
from fmi_shim.collectives import alltoall as alltoalls
from fmi_shim.collectives import barrier as barriers
from fmi_shim.collectives import bcast as bcasts
from fmi_shim.collectives import gather as gathers
from fmi_shim.collectives import reduce as reduces
from fmi_shim.collectives import reduce_scatter as reduce_scatters
from fmi_shim.collectives import scan as scans
from fmi_shim.collectives import scatter as scatters
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.transports.objects import schedules
from fmi_shim.transports.objects.channel import ObjectChannel
from fmi_shim.transports.shm.schedules import cma as shm_cma
from fmi_shim.transports.shm.schedules import exchange
from fmi_shim.transports.shm.schedules import reduce as shm_reduce
from fmi_shim.transports.shm.schedules import scan as shm_scan
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel
from fmi_shim.transports.tcp.switch_points import SWITCH_POINTS


def schedule(
    channel: Channel, call: Call, function: ReduceFunction | None, combine: Combine | None
) -> Callable[..., Any]:
    """Return what carries `call` out on `channel`, given the buffers: a function below with the rest filled in.

    It is made once, and run each time that the rank makes the call.
    """
    if isinstance(channel, SegmentChannel):
        prepare = _IN_SEGMENT[call.operation]
        return prepare(channel, call) if function is None else prepare(channel, call, function, combine)
    rest: dict[str, Any] = {}
    if call.operation in (Operation.bcast, Operation.gather, Operation.scatter, Operation.reduce):
        rest["root"] = call.root
    if function is not None:
        rest |= {"function": function, "combine": combine}
    return functools.partial(_FUNCTIONS[call.operation], channel, **rest)


def barrier(channel: Channel) -> None:
    """Let no rank go on before all have come."""
    if isinstance(channel, ObjectChannel):
        schedules.barrier(channel)
    else:
        barriers.one_byte_allreduce(channel)


def bcast(channel: Channel, buffer: Array | None, root: int) -> Array:
    """Return the root's `buffer`, received into `buffer` elsewhere, or into a new array where that is None."""
    if isinstance(channel, ObjectChannel):
        return schedules.bcast(channel, buffer, root)
    return bcasts.binomial(channel, buffer, root)


def gather(channel: Channel, part: Array, whole: Array | None, root: int) -> Array | None:
    """Return the ranks' equal `part` in rank order at the root, in `whole` where there is one; None elsewhere."""
    if isinstance(channel, ObjectChannel):
        parts = schedules.gather(channel, part, root)
    else:
        parts = gathers.binomial(channel, part, root)
    return None if parts is None else _placed(parts, whole)


def scatter(channel: Channel, whole: Array | None, own: Array | None, root: int) -> Array:
    """Return this rank's slice of the root's `whole`, received into `own`, or into a new array where that is None."""
    if isinstance(channel, ObjectChannel):
        return schedules.scatter(channel, whole, own, root)
    return scatters.binomial(channel, whole, own, root)


def reduce(
    channel: Channel, buffer: Array, spare: Array | None, root: int, function: ReduceFunction, combine: Combine
) -> Array | None:
    """Return all ranks' `buffer` combined at the root, None elsewhere; `spare` as in `allreduce`."""
    if isinstance(channel, ObjectChannel):
        buffer = _disposable(buffer, spare)
        result = schedules.reduce(channel, buffer, root, function, combine)
    elif reduces.is_pipelined(function, buffer.nbytes, channel.size, channel.full_duplex):
        place = _memory(buffer, spare) if channel.rank == root else None
        return reduces.pipelined(channel, buffer, place, root, combine)
    else:
        buffer = _disposable(buffer, spare)
        small = reduces.left_to_right if function.left_to_right else reduces.binomial
        result = small(channel, buffer, root, combine)
    return None if result is None else _placed(result, buffer)


def allreduce(
    channel: Channel, buffer: Array, spare: Array | None, function: ReduceFunction, combine: Combine
) -> Array:
    """Return all ranks' `buffer` combined, at all.

    `buffer` is left alone unless it is `spare`: memory of the same type and size that may be overwritten, taken anew
    where that is None. A small payload is copied there first; of a large one, and in a segment, the result alone is
    written there. In a segment, of a custom function only whole arrays are known to make sense, and all ranks' results
    must be the same.
    """
    if isinstance(channel, ObjectChannel):
        buffer = _disposable(buffer, spare)
        return _placed(schedules.allreduce(channel, buffer, function, combine), buffer)
    if allreduces.halves(function, buffer.nbytes, channel.size, channel.full_duplex):
        return allreduces.reduce_scatter_allgather(channel, buffer, _memory(buffer, spare), combine)
    buffer = _disposable(buffer, spare)
    small = allreduces.left_to_right if function.left_to_right else allreduces.recursive_doubling
    return _placed(small(channel, buffer, combine), buffer)


def scan(channel: Channel, buffer: Array, spare: Array | None, function: ReduceFunction, combine: Combine) -> Array:
    """Return the combination of all ranks' `buffer` up to this one; `spare` as in `allreduce`."""
    buffer = _disposable(buffer, spare)
    if isinstance(channel, ObjectChannel):
        schedules.scan(channel, buffer, function, combine)
    else:
        (scans.chain if function.left_to_right else scans.up_and_down_sweep)(channel, buffer, combine)
    return buffer


def exscan(
    channel: Channel, buffer: Array, spare: Array | None, prefix: Array, function: ReduceFunction, combine: Combine
) -> None:
    """Leave in `prefix` the combination of all ranks below this one; `spare` as in `allreduce`."""
    (scans.exclusive_doubling if function.associative else scans.exclusive_chain)(
        channel, _disposable(buffer, spare), prefix, combine
    )


def allgather(channel: Channel, parts: Array) -> None:
    """Fill `parts`, shape (p, n), in which each rank's own row is there."""
    if isinstance(channel, ObjectChannel):
        everything = schedules.gather(channel, parts[channel.rank], 0)
        parts[...] = schedules.bcast(channel, parts if everything is None else everything, 0).reshape(parts.shape)
    elif parts.nbytes >= SWITCH_POINTS.allgather and channel.full_duplex:
        allgathers.ring(channel, list(parts))
    else:
        allgathers.bruck(channel, parts)


def alltoall(channel: Channel, outgoing: Array, incoming: Array) -> None:
    """Send row i of `outgoing` to rank i, and receive row i of `incoming` from it."""
    if isinstance(channel, ObjectChannel):
        schedules.alltoall(channel, outgoing, incoming)
    elif channel.size > alltoalls.FEW_RANKS and outgoing.nbytes < SWITCH_POINTS.alltoall:
        alltoalls.bruck(channel, outgoing, incoming)
    else:
        (alltoalls.spread if channel.full_duplex else alltoalls.pairwise)(channel, outgoing, incoming)


def reduce_scatter(
    channel: Channel, buffer: Array, spare: Array | None, own: Array, function: ReduceFunction, combine: Combine
) -> None:
    """Leave in `own` this rank's slice of all ranks' `buffer` combined; `spare` as in `allreduce`."""
    buffer = _disposable(buffer, spare)
    if isinstance(channel, ObjectChannel):
        whole = schedules.reduce(channel, buffer, 0, function, combine)
        schedules.scatter(channel, whole, own, 0)
    else:
        slices = buffer.reshape(channel.size, -1)
        reduce_scatters.choose(function, channel.size)(channel, slices, own, combine)


_IN_SEGMENT: dict[Operation, Callable[..., Callable[..., Any]]] = {
    Operation.barrier: exchange.barrier,
    Operation.bcast: exchange.bcast,
    Operation.gather: exchange.gather,
    Operation.scatter: exchange.scatter,
    Operation.allgather: shm_cma.allgather,
    Operation.alltoall: shm_cma.alltoall,
    Operation.reduce: shm_reduce.reduce,
    Operation.allreduce: shm_reduce.allreduce,
    Operation.reduce_scatter: shm_reduce.reduce_scatter,
    Operation.scan: shm_scan.scan,
    Operation.exscan: shm_scan.exscan,
}

_FUNCTIONS: dict[Operation, Callable[..., Any]] = {
    Operation.barrier: barrier,
    Operation.bcast: bcast,
    Operation.gather: gather,
    Operation.scatter: scatter,
    Operation.reduce: reduce,
    Operation.allreduce: allreduce,
    Operation.scan: scan,
    Operation.exscan: exscan,
    Operation.allgather: allgather,
    Operation.alltoall: alltoall,
    Operation.reduce_scatter: reduce_scatter,
}


def _memory(buffer: Array, spare: Array | None) -> Array:
    """Return memory for a result like `buffer`: `spare`, where there is one."""
    return np.empty_like(buffer) if spare is None else spare


def _disposable(buffer: Array, spare: Array | None) -> Array:
    """Return memory with the content of `buffer` that may be overwritten: `spare`, where there is one."""
    if spare is None:
        return buffer.copy()
    if spare is not buffer:
        spare[...] = buffer
    return spare


def _placed(result: Array, place: Array | None) -> Array:
    """Return `result`, in `place` where there is one."""
    if place is None or result is place:
        return result
    place[...] = result
    return place
