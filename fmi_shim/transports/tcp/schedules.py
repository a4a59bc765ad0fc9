"""Chooses the algorithm of a collective over TCP by function, size and number of ranks, once for each plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from fmi_shim.channel import Channel, Schedule
from fmi_shim.collectives import (
    allgather,
    allreduce,
    alltoall,
    barrier,
    bcast,
    gather,
    python_objects,
    reduce,
    reduce_scatter,
    scan,
    scatter,
)
from fmi_shim.collectives.memory import (
    ConsumingReduction,
    InPlaceReduction,
    InPlaceScan,
    OutOfPlaceReduction,
    placed,
    result_memory,
    working_copy,
)
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.transports.tcp.switch_points import SWITCH_POINTS

_FEW_RANKS = 8
"""Up to this number of ranks an alltoall sends each slice directly to its rank, which takes no longer than half as many
messages in rounds; among 4 ranks it takes four fifths of the time."""


def prepare(channel: Channel, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
    """Return the schedule of `call` on `channel`; see `Channel.prepare`."""
    if function is not None and combine is not None:
        return _reduction(channel, call, function, combine)
    size_bytes = 0 if call.dtype is None else call.count * call.dtype.itemsize
    match call.operation:
        case Operation.barrier:
            return partial(barrier.one_byte_allreduce, channel)
        case Operation.bcast:
            return partial(bcast.binomial, channel, root=call.root)
        case Operation.gather:
            return Gather(channel, call.root)
        case Operation.scatter:
            return partial(scatter.binomial, channel, root=call.root)
        case Operation.allgather:
            large = channel.size * size_bytes >= SWITCH_POINTS.allgather
            return partial(allgather.ring if large and channel.full_duplex else allgather.bruck, channel)
        case Operation.gatherv:
            return partial(gather.linear, channel, root=call.root)
        case Operation.scatterv:
            return partial(scatter.linear, channel, root=call.root)
        case Operation.allgatherv:
            return Allgatherv(channel)
        case Operation.alltoallv:
            return partial(alltoall.spread if channel.full_duplex else alltoall.pairwise, channel)
        case Operation.alltoall if channel.size > _FEW_RANKS and size_bytes < SWITCH_POINTS.alltoall:
            return partial(alltoall.bruck, channel)
        case Operation.alltoall:
            return partial(alltoall.spread if channel.full_duplex else alltoall.pairwise, channel)
    return python_objects.prepare(channel, call)


def _reduction(channel: Channel, call: Call, function: ReduceFunction, combine: Combine) -> Schedule:
    """Return the schedule of a reduction.

    A custom function is given whole payloads in FMI's order of arguments. The built-in operators commute, so that their
    payloads may be cut into pieces. Pieces move in both directions at once, which needs a full-duplex channel.
    """
    assert call.dtype is not None  # noqa: S101 - every rank of a reduction knows the type
    size_bytes = call.count * call.dtype.itemsize
    cut = channel.full_duplex and channel.size > 1 and function.element_wise
    ordered = function.left_to_right
    match call.operation:
        case Operation.reduce if cut and size_bytes >= SWITCH_POINTS.reduce:
            return PipelinedReduce(channel, call.root, combine)
        case Operation.reduce:
            up = reduce.left_to_right if ordered else reduce.binomial
            return InPlaceReduction(partial(up, channel, root=call.root, combine=combine))
        case Operation.allreduce if cut and size_bytes >= SWITCH_POINTS.allreduce:
            return OutOfPlaceReduction(partial(allreduce.reduce_scatter_allgather, channel, combine=combine))
        case Operation.allreduce:
            small = allreduce.left_to_right if ordered else allreduce.recursive_doubling
            return InPlaceReduction(partial(small, channel, combine=combine))
        case Operation.scan:
            sweep = scan.chain if ordered else scan.up_and_down_sweep
            return InPlaceScan(partial(sweep, channel, combine=combine))
        case Operation.exscan:
            below = scan.exclusive_doubling if function.associative else scan.exclusive_chain
            return ConsumingReduction(partial(below, channel, combine=combine))
        case Operation.reduce_scatterv:
            return ReduceScatterv(channel, function, combine)
        case Operation.reduce_scatter:
            return ReduceScatter(channel, _reduce_scatter(function, channel.size), combine)
    raise AssertionError(f"{call.operation.name} is not a reduction")


def _reduce_scatter(function: ReduceFunction, size: int) -> reduce_scatter.Algorithm:
    if function.left_to_right:
        return reduce_scatter.left_to_right
    if not function.element_wise:
        return reduce_scatter.whole
    return reduce_scatter.pairwise if size & (size - 1) else reduce_scatter.halving


@dataclass(slots=True, eq=False)
class Gather:
    """A gather to `root` up the binomial tree."""

    channel: Channel
    root: int

    def __call__(self, part: Array, whole: Array | None) -> Array | None:
        """Return the ranks' parts at the root, in `whole` where that is given; None elsewhere."""
        parts = gather.binomial(self.channel, part, self.root)
        return None if parts is None else placed(parts, whole)


@dataclass(slots=True, eq=False)
class PipelinedReduce:
    """A reduction of a large payload to `root`, segment by segment."""

    channel: Channel
    root: int
    combine: Combine

    def __call__(self, value: Array, spare: Array | None) -> Array | None:
        """Return the result at the root, in `spare` or in new memory; None elsewhere."""
        result = result_memory(value, spare) if self.channel.rank == self.root else None
        return reduce.pipelined(self.channel, value, result, self.root, self.combine)


@dataclass(slots=True, eq=False)
class ReduceScatter:
    """A reduction of which each rank receives a slice. Copies: one, none where `spare` is the value."""

    channel: Channel
    algorithm: reduce_scatter.Algorithm
    combine: Combine

    def __call__(self, value: Array, spare: Array | None, own: Array) -> None:
        """Leave this rank's slice of the result in `own`."""
        slices = working_copy(value, spare).reshape(self.channel.size, -1)
        self.algorithm(self.channel, slices, own, self.combine)


@dataclass(slots=True, eq=False)
class Allgatherv:
    """An allgather of parts whose sizes all ranks know. The algorithm depends on their sum."""

    channel: Channel

    def __call__(self, parts: Sequence[Array]) -> None:
        """Fill the other ranks' parts."""
        large = sum(part.nbytes for part in parts) >= SWITCH_POINTS.allgather
        algorithm = allgather.ring if large and self.channel.full_duplex else allgather.bruck_of_parts
        algorithm(self.channel, parts)


@dataclass(slots=True, eq=False)
class ReduceScatterv:
    """A reduction of which each rank receives a slice of its own size.

    Copies: of the value one where a custom function needs it whole and `spare` is not the value, else none.
    """

    channel: Channel
    function: ReduceFunction
    combine: Combine

    def __call__(self, value: Array, spare: Array | None, sizes: Sequence[int], own: Array) -> None:
        """Leave this rank's slice of the result in `own`."""
        channel, function = self.channel, self.function
        if function.element_wise:
            reduce_scatter.of_parts(channel, value, sizes, own, self.combine)
        else:
            whole = working_copy(value, spare)
            reduce_scatter.whole_of_parts(channel, whole, sizes, own, self.combine, function.left_to_right)
