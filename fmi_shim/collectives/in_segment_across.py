"""Large payloads that ranks copy out of each other's memory, past the segment; see `in_segment` for the formulas.

Where the system does not let every rank read every other's memory, they go through the segment like small ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fmi_shim.collectives import in_segment
from fmi_shim.collectives.in_segment import SegmentChannel
from fmi_shim.collectives.in_segment_rows import dtype_of
from fmi_shim.frames import Call
from fmi_shim.operators import Array

SLICE_BYTES = 1 << 18
"""From so large slices of an alltoall on. On 2 cores, with 16 ranks, of half of it it took a third longer than through
slots, of 1 MiB half as long."""
ROW_BYTES = 2 << 20
"""From so large rows of an allgather on: slots that all read stay in the processor's cache, and do as well up to there.
A bcast gains nothing either: 16 MiB took 0.85 of the time of windows with 2 and 4 ranks, and 1.2 with 16."""


def allgather(channel: SegmentChannel, call: Call) -> Callable[[Array], None]:
    """Fill the rows of the result, of which the own one is there.

    Copies, of large rows: one of each other's. Cost: ``2 * sigma + (p - 1) * n * beta``.
    """

    def across(rows: Array) -> None:
        rank = channel.rank
        collect(channel, call, rows[rank], [(other, 0, rows[other]) for other in others(channel)])

    return _chosen(
        channel, call, call.count * dtype_of(call).itemsize >= ROW_BYTES, in_segment.allgather(channel, call), across
    )


def alltoall(channel: SegmentChannel, call: Call) -> Callable[[Array, Array], None]:
    """Send each rank its row of `outgoing`, and fill those of `incoming`.

    Copies, of large rows: one of everything. Cost: ``2 * sigma + n * beta``.
    """

    def across(outgoing: Array, incoming: Array) -> None:
        rank = channel.rank
        incoming[rank] = outgoing[rank]
        offset = rank * outgoing[0].nbytes
        collect(channel, call, outgoing, [(other, offset, incoming[other]) for other in others(channel)])

    large = call.count // channel.size * dtype_of(call).itemsize >= SLICE_BYTES
    return _chosen(channel, call, large, in_segment.alltoall(channel, call), across)


def collect(channel: SegmentChannel, call: Call, own: Array, pieces: list[tuple[int, int, Array]]) -> None:
    """Leave `own` to the others, and fill arrays out of what they have left, each from an offset of a rank's bytes on.

    All wait until all have done so.
    """
    rounds, mark, neighbours = channel.rounds, channel.mark(call), channel.neighbours
    assert neighbours is not None  # noqa: S101 - their memory is readable
    addresses = neighbours.addresses(mark, own.ctypes.data)
    for other, offset, target in pieces:
        rounds.await_rank(other)
        neighbours.copy(mark, other, int(addresses[other]) + offset, target)
    rounds.begin(mark)
    rounds.meet()


def others(channel: SegmentChannel) -> list[int]:
    """Return the other ranks, from the next one on: so not all read from one at the same time."""
    return [(channel.rank + distance) % channel.size for distance in range(1, channel.size)]


def _chosen(
    channel: SegmentChannel, call: Call, large: bool, through: Callable[..., None], across: Callable[..., None]
) -> Callable[..., None]:
    """Return `across` for what is large, where all memory is found readable; else `through`."""
    neighbours, mark = channel.neighbours, channel.mark(call)
    if neighbours is None or channel.size == 1 or not large:
        return through

    def run(*arrays: Any) -> None:
        (across if neighbours.readable(mark) else through)(*arrays)

    return run
