"""Collectives in shared memory whose ranks send messages through the rings: parts of different sizes, and objects.

Copies: of each message one into a ring and one out of it, beside those of the algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fmi_shim.channel import Schedule
from fmi_shim.collectives import allgather, alltoall, gather, reduce_scatter, scatter
from fmi_shim.collectives import python_objects as collectives_of_objects
from fmi_shim.collectives.memory import working_copy
from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel


def begin_messages(channel: SegmentChannel, call: Call) -> None:
    """Publish which call this rank is in, before it sends messages that belong to it.

    Where only the root knows the type, this waits for the root to publish it.
    """
    if call.dtype is None:
        _, call_tag = channel.allocate(channel.rounds.await_header(call.root), call.root)
    else:
        call_tag = channel.call_tag(call)
    channel.rounds.begin(call_tag)
    channel.rounds.publish()
    channel.expect_messages()


def objects(channel: SegmentChannel, call: Call) -> Schedule:
    """Return the schedule of a collective of Python objects."""
    schedule = collectives_of_objects.prepare(channel, call)

    def run_collective_of_objects(*buffers: Any) -> Any:
        begin_messages(channel, call)
        return schedule(*buffers)

    return run_collective_of_objects


def gatherv(channel: SegmentChannel, call: Call) -> Callable[[Array, Sequence[Array] | None], list[Array] | None]:
    """Return the schedule of `gather.linear`."""

    def run_gatherv(part: Array, parts: Sequence[Array] | None) -> list[Array] | None:
        begin_messages(channel, call)
        return gather.linear(channel, part, parts, call.root)

    return run_gatherv


def scatterv(channel: SegmentChannel, call: Call) -> Callable[[Sequence[Array] | None, Array | None], Array]:
    """Return the schedule of `scatter.linear`."""

    def run_scatterv(parts: Sequence[Array] | None, own: Array | None) -> Array:
        begin_messages(channel, call)
        return scatter.linear(channel, parts, own, call.root)

    return run_scatterv


def allgatherv(channel: SegmentChannel, call: Call) -> Callable[[Sequence[Array]], None]:
    """Return the schedule of `allgather.ring`."""

    def run_allgatherv(parts: Sequence[Array]) -> None:
        begin_messages(channel, call)
        allgather.ring(channel, parts)

    return run_allgatherv


def alltoallv(channel: SegmentChannel, call: Call) -> Callable[[Sequence[Array], Sequence[Array]], None]:
    """Return the schedule of `alltoall.spread`."""

    def run_alltoallv(outgoing: Sequence[Array], incoming: Sequence[Array]) -> None:
        begin_messages(channel, call)
        alltoall.spread(channel, outgoing, incoming)

    return run_alltoallv


def reduce_scatterv(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None, Sequence[int], Array], None]:
    """Return the schedule of `reduce_scatter.of_parts`, or of whole payloads where the function needs them."""

    def run_reduce_scatterv(value: Array, spare: Array | None, sizes: Sequence[int], own: Array) -> None:
        begin_messages(channel, call)
        if function.element_wise:
            reduce_scatter.of_parts(channel, value, sizes, own, combine)
        else:
            whole = working_copy(value, spare)
            reduce_scatter.whole_of_parts(channel, whole, sizes, own, combine, function.left_to_right)

    return run_reduce_scatterv
