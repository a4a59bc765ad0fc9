"""Reductions of large payloads of ranks that share memory: see `in_segment` for the formulas.

Every combination goes strictly from left to right by rank, as in `in_segment_folds`.
"""

from __future__ import annotations

from collections.abc import Callable

from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine
from fmi_shim.transports.shm.layout import AHEAD
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel, starts, stretch
from fmi_shim.transports.shm.schedules.rows import dtype_of, kept


def chain(
    channel: SegmentChannel, call: Call, combine: Combine, first: int, end: int, least_bytes: int
) -> Callable[[Array, Array | None], None]:
    """Combine in windows, rank after rank; fill `out`, where there is one, with elements `first` to `end` of all.

    Rank 0 copies as much of its value as fits into a window; each other rank combines what it finds there with its own,
    and so on with the next window, in which the rank below has been meanwhile. What the last rank leaves in a window
    is copied out when a rank begins the one `AHEAD` of it, before which all have been there: nobody waits for a result
    but for the last ones. So a rank that gets a processor has work for several windows.

    Copies: one in at rank 0, one out of what fills `out`, which may be the buffer. Cost, of all elements:
    ``(n / window + p - 1) * (sigma + window * (beta + gamma))``.
    """
    rounds, mark, rank, last = channel.rounds, channel.mark(call), channel.rank, channel.size - 1
    windows = channel.windows(dtype_of(call))

    def run(buffer: Array, out: Array | None) -> None:
        buffer = kept(buffer, out, first)
        width = stretch(buffer, windows, least_bytes)
        places: list[tuple[int, int]] = []

        def copy_out(back: int) -> None:
            if out is not None:
                if rank != last:
                    rounds.await_earlier(last, back)
                start, turn = places[-1 - back]
                low, high = max(start, first), min(start + width, end)
                if low < high:
                    out[low - first : high - first] = windows[turn][low - start : high - start]

        for start in starts(buffer, width):
            turn = rounds.begin(mark)
            places.append((start, turn))
            if len(places) > AHEAD:
                copy_out(AHEAD)
            part = buffer[start : start + width]
            window = windows[turn][: part.size]
            if rank == 0:
                window[...] = part
            else:
                rounds.await_rank(rank - 1)
                combine(window, part, window)
            rounds.publish()
        for back in reversed(range(min(AHEAD, len(places)))):
            copy_out(back)

    return run
