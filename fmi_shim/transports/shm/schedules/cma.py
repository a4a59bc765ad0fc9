"""Large payloads that ranks copy out of each other's memory, past the segment; see `in_segment` for the formulas.

Where the system does not let every rank read every other's memory, they go through the segment like small ones.
"""

from __future__ import annotations

from collections.abc import Callable

from fmi_shim.frames import Call
from fmi_shim.operators import Array
from fmi_shim.transports.shm.schedules import exchange
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel
from fmi_shim.transports.shm.schedules.rows import dtype_of

SLICE_BYTES = 1 << 18
"""From so large slices of an alltoall on. On 2 cores, with 16 ranks, of half of it it took a third longer than through
slots, of 1 MiB half as long."""
ROW_BYTES = 2 << 20
"""From so large rows of an allgather on: slots that all read stay in the processor's cache, and do as well up to there.
A bcast gains nothing either: 16 MiB took 0.85 of the time of windows with 2 and 4 ranks, and 1.2 with 16."""


Piece = tuple[int, int, Array]
"""A rank, an offset in the bytes that it lets others read, and what they are to fill."""


def allgather(channel: SegmentChannel, call: Call) -> Callable[[Array], None]:
    """Fill the rows of the result, of which the own one is there.

    Copies, of large rows: one of each other's. Cost: ``2 * sigma + (p - 1) * n * beta``.
    """
    through = exchange.allgather(channel, call)
    collect = collector(channel, call, call.count, ROW_BYTES)
    if collect is None:
        return through
    rank, others = channel.rank, following(channel)

    def run(rows: Array) -> None:
        if not collect(rows[rank], [(other, 0, rows[other]) for other in others]):
            through(rows)

    return run


def alltoall(channel: SegmentChannel, call: Call) -> Callable[[Array, Array], None]:
    """Send each rank its row of `outgoing`, and fill those of `incoming`.

    Copies, of large rows: one of everything. Cost: ``2 * sigma + n * beta``.
    """
    through = exchange.alltoall(channel, call)
    collect = collector(channel, call, call.count // channel.size, SLICE_BYTES)
    if collect is None:
        return through
    rank, others = channel.rank, following(channel)

    def run(outgoing: Array, incoming: Array) -> None:
        offset = rank * incoming[rank].nbytes
        if collect(outgoing, [(other, offset, incoming[other]) for other in others]):
            incoming[rank] = outgoing[rank]
        else:
            through(outgoing, incoming)

    return run


def collector(
    channel: SegmentChannel, call: Call, count: int, least_bytes: int
) -> Callable[[Array, list[Piece]], bool] | None:
    """Return what lets the others read an array, fills pieces out of theirs, and waits until all have done so.

    It returns whether that was done: it is not where memory is found that cannot be read. None for elements that are
    too few for it.
    """
    rounds, mark, neighbours = channel.rounds, channel.mark(call), channel.neighbours
    if neighbours is None or channel.size == 1 or count * dtype_of(call).itemsize < least_bytes:
        return None

    def collect(own: Array, pieces: list[Piece]) -> bool:
        if not neighbours.readable(mark):
            return False
        addresses = neighbours.addresses(mark, own.ctypes.data)
        for other, offset, target in pieces:
            rounds.await_rank(other)
            neighbours.copy(mark, other, int(addresses[other]) + offset, target)
        rounds.begin(mark)
        rounds.meet()
        return True

    return collect


def following(channel: SegmentChannel) -> list[int]:
    """Return the other ranks, from the next one on: so not all read from one at the same time."""
    return [(channel.rank + distance) % channel.size for distance in range(1, channel.size)]
