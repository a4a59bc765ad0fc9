"""Large payloads that ranks copy out of each other's memory instead of through the segment.

Where the system does not let every rank read every other's memory, they go through the segment like small ones.
`exchange` explains the cost formulas.
"""

from __future__ import annotations

from collections.abc import Callable

from fmi_shim.frames import Call
from fmi_shim.operators import Array
from fmi_shim.transports.shm.schedules import exchange
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel, dtype_of

MIN_SLICE_BYTES = 1 << 18
"""The smallest slice of an alltoall that is read so. On 2 cores, with 16 ranks, of half of it it took a third longer
than through slots, of 1 MiB half as long."""
MIN_ROW_BYTES = 2 << 20
"""The smallest row of an allgather: slots that all read stay in the processor's cache, and take no longer up to there.
A bcast gains nothing either: 16 MiB took 0.85 of the time of windows with 2 and 4 ranks, and 1.2 with 16."""

Piece = tuple[int, int, Array]
"""A rank, an offset in the memory that it exposes, and the array to fill from there."""


def allgather(channel: SegmentChannel, call: Call) -> Callable[[Array], None]:
    """Fill the rows of the result, which hold this rank's own row.

    Copies, of large rows: one of each other's. Cost: ``2 * sigma + (p - 1) * n * beta``.
    """
    in_slots = exchange.allgather(channel, call)
    reader = PeerReader.prepare(channel, call, call.count, MIN_ROW_BYTES)
    if reader is None:
        return in_slots
    rank, others = channel.rank, _following_ranks(channel)

    def run_allgather(rows: Array) -> None:
        if not reader.read(rows[rank], [(other, 0, rows[other]) for other in others]):
            in_slots(rows)

    return run_allgather


def alltoall(channel: SegmentChannel, call: Call) -> Callable[[Array, Array], None]:
    """Send each rank its row of `outgoing`, and fill those of `incoming`.

    Copies, of large rows: one of everything. Cost: ``2 * sigma + n * beta``.
    """
    in_slots = exchange.alltoall(channel, call)
    reader = PeerReader.prepare(channel, call, call.count // channel.size, MIN_SLICE_BYTES)
    if reader is None:
        return in_slots
    rank, others = channel.rank, _following_ranks(channel)

    def run_alltoall(outgoing: Array, incoming: Array) -> None:
        offset = rank * incoming[rank].nbytes
        if reader.read(outgoing, [(other, offset, incoming[other]) for other in others]):
            incoming[rank] = outgoing[rank]
        else:
            in_slots(outgoing, incoming)

    return run_alltoall


class PeerReader:
    """Exposes an array of this rank to the others, and reads from theirs, in one call."""

    def __init__(self, channel: SegmentChannel, call: Call) -> None:
        assert channel.peer_memory is not None  # noqa: S101 - see `prepare`
        self._rounds, self._call_tag, self._peer_memory = channel.rounds, channel.call_tag(call), channel.peer_memory

    @staticmethod
    def prepare(channel: SegmentChannel, call: Call, count: int, least_bytes: int) -> PeerReader | None:
        """Return a reader; None if `count` elements are smaller than `least_bytes`, or nobody's memory can be read."""
        if channel.peer_memory is None or channel.size == 1 or count * dtype_of(call).itemsize < least_bytes:
            return None
        return PeerReader(channel, call)

    def read(self, own: Array, pieces: list[Piece]) -> bool:
        """Expose `own`, fill `pieces`, and wait until all ranks have done so; return False if they may not."""
        rounds, call_tag, peer_memory = self._rounds, self._call_tag, self._peer_memory
        if not peer_memory.all_readable(call_tag):
            return False
        addresses = peer_memory.exchange_addresses(call_tag, own.ctypes.data)
        for other, offset, target in pieces:
            rounds.await_rank(other)
            peer_memory.copy(call_tag, other, int(addresses[other]) + offset, target)
        rounds.begin(call_tag)
        rounds.barrier()
        return True


def _following_ranks(channel: SegmentChannel) -> list[int]:
    """Return the other ranks, beginning with the next one, so that not all read from one at the same time."""
    return [(channel.rank + distance) % channel.size for distance in range(1, channel.size)]
