"""Reductions of ranks that share memory; see `in_segment` for the formulas.

Every combination goes strictly from left to right by rank, whatever the operator, so that all ranks have the same bits
at any size. A custom function is given whole payloads: of one, only whole arrays are known to make sense.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import numpy as np

from fmi_shim.collectives import in_segment
from fmi_shim.collectives.in_segment import SegmentChannel
from fmi_shim.collectives.in_segment_rows import chain, dtype_of, fold_of, kept, result_memory, share, slot_bytes
from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, Operator, ReduceFunction

ALONE_BYTES = 1 << 18
"""Up to so many bytes of all ranks together each rank combines everything itself, since sharing the work needs two more
rounds. Measured on 2 cores, where with half of it 16 KiB of 16 ranks take a third longer."""
FEW_RANKS = 4
"""Up to so many ranks combine two operands at a time, of which the own one is not copied; more combine all at once."""
ROOT_BYTES = 1 << 16
"""Up to this payload the root of a reduction combines everything itself."""


def reduce(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array | None]:
    """Return the schedule of a reduction to the root: it returns the result there, None elsewhere."""
    assert call.dtype is not None  # noqa: S101 - all know their value
    if function.operator is Operator.custom:
        return reduce_whole(channel, call, combine)
    if call.count * call.dtype.itemsize <= min(ROOT_BYTES, slot_bytes(channel, call)):
        return reduce_at_root(channel, call, function, combine)
    share_out = pipeline(channel, call, function, combine)
    root = channel.rank == call.root

    def run(buffer: Array, spare: Array | None) -> Array | None:
        out = None if not root else result_memory(buffer, spare)
        share_out(kept(buffer, out), out)
        return out

    return run


def allreduce(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array]:
    """Return the schedule of a reduction whose result all ranks have."""
    assert call.dtype is not None  # noqa: S101 - all know their value
    if function.operator is Operator.custom:
        return allreduce_whole(channel, call, combine)
    size_bytes = call.count * call.dtype.itemsize
    if call.count == 1 and call.dtype == np.float64 and function.operator in (Operator.sum, Operator.prod):
        return allreduce_number(channel, call, function)
    if channel.size * size_bytes <= ALONE_BYTES and size_bytes <= slot_bytes(channel, call):
        return allreduce_alone(channel, call, function, combine)
    share_out = pipeline(channel, call, function, combine)

    def run(buffer: Array, spare: Array | None) -> Array:
        out = result_memory(buffer, spare)
        share_out(kept(buffer, out), out)
        return out

    return run


def allreduce_alone(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array]:
    """Fill all rows; the rank that comes last combines them, and the others copy its result.

    Copies: one in, one out. Cost: ``sigma + 2 * n * beta``, at the rank that comes last ``(p - 1) * n * gamma`` more.
    """
    rounds, mark, fold = channel.rounds, channel.mark(call), fold_of(function, call, combine)
    exchange, turns = rounds.exchange, channel.rows(dtype_of(call), call.count)
    own, rows, results = [*turns[:, channel.rank]], [*turns[:, : channel.size]], [*turns[:, channel.size]]

    def run(buffer: Array, spare: Array | None) -> Array:
        if spare is None:
            spare = np.empty_like(buffer)
        if exchange(mark, own, buffer):
            spare[...] = results[rounds.turn]
        else:
            fold(rows[rounds.turn], spare)
            results[rounds.turn][...] = spare
            rounds.settle()
        return spare

    return run


def allreduce_number(
    channel: SegmentChannel, call: Call, function: ReduceFunction
) -> Callable[[Array, Array | None], Array]:
    """As `allreduce_alone`, of one float64, without numpy, whose calls cost more than the whole rest."""
    rounds, mark, rank, size = channel.rounds, channel.mark(call), channel.rank, channel.size
    exchange, turns = rounds.exchange, channel.rows(dtype_of(call), 1)
    own, numbers = [row.reshape(()).data for row in turns[:, rank]], [rows[:, 0].data for rows in turns]
    combine = operator.add if function.operator is Operator.sum else operator.mul

    def run(buffer: Array, spare: Array | None) -> Array:
        if spare is None:
            spare = np.empty_like(buffer)
        if exchange(mark, own, buffer.item()):
            spare[0] = numbers[rounds.turn][size]
        else:
            cells = numbers[rounds.turn]
            spare[0] = cells[size] = functools.reduce(combine, cells.tolist()[:size])
            rounds.settle()
        return spare

    return run


def reduce_at_root(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array | None]:
    """Fill all slots; the root combines them, and the others do not wait for it.

    Copies: one in. Cost: ``sigma + n * beta + (p - 1) * n * gamma``.
    """
    rounds, mark, fold = channel.rounds, channel.mark(call), fold_of(function, call, combine)
    slots = channel.rows(dtype_of(call), call.count)[:, : channel.size]
    own, rows = [*slots[:, channel.rank]], [*slots]

    def run(buffer: Array, spare: Array | None) -> Array | None:
        turn = rounds.begin(mark)
        own[turn][...] = buffer
        rounds.publish()
        if channel.rank != call.root:
            return None
        rounds.await_all()
        out = result_memory(buffer, spare)
        fold(rows[turn], out)
        return out

    return run


def pipeline(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], None]:
    """Copy in, combine a share of, and copy out a window's width of elements each, in three steps that overlap.

    In round i a rank copies part i into its window, combines its share of part i - 1 from all windows, and copies the
    result of part i - 2 out, where it wants one. What fits a slot has that as its window. Else each half of a rank's
    slots is one: a round is dear, of many ranks to a core above all. These are free when all have met once more, and
    what a round reads was written in the one before.

    Copies: one in, of all but the own share among few ranks, and one out; the result may be the buffer.
    Cost: ``(n / window + 2) * sigma + 2 * n * beta + (p - 1) / p * n * gamma``.
    """
    rounds, mark, size, rank = channel.rounds, channel.mark(call), channel.size, channel.rank
    turns = channel.slots(dtype_of(call))
    fits = call.count <= turns.shape[2]
    windows = turns if fits else _halves(turns)
    width = windows.shape[2]
    fold, takes_own = fold_of(function, call, combine), size <= FEW_RANKS

    def run(buffer: Array, out: Array | None) -> None:
        parts = [slice(start, min(start + width, buffer.size)) for start in range(0, buffer.size, width)]
        places: list[int] = []
        if not fits:
            rounds.begin(mark)
            rounds.meet()
        for number in range(len(parts) + 1):
            turn = rounds.begin(mark)
            places.append(turn if fits else number % 2)
            if number < len(parts):
                mine, window = buffer[parts[number]], windows[places[number], rank]
                first, last = share(mine.size, rank, size, mine.itemsize) if takes_own else (0, 0)
                window[:first] = mine[:first]
                window[last : mine.size] = mine[last:]
            if number:
                part, rows = parts[number - 1], windows[places[number - 1]]
                first, last = share(part.stop - part.start, rank, size, buffer.itemsize)
                if takes_own:
                    operands = [*rows[:size, first:last]]
                    operands[rank] = buffer[part][first:last]
                    chain(operands, rows[size, first:last], combine)
                elif last > first:
                    fold(rows[:size, first:last], rows[size, first:last])
            if number > 1 and out is not None:
                _copy_out(windows[places[number - 2], size], out[parts[number - 2]])
            rounds.meet()
        if out is not None and parts:
            _copy_out(windows[places[-2], size], out[parts[-1]])

    return run


def _halves(turns: Array) -> Array:
    """Return all slots as two windows for each rank, shape (2, size + 1, elements), for `pipeline`."""
    by_rank = turns.transpose(1, 0, 2)
    return by_rank.reshape(by_rank.shape[0], 2, -1).transpose(1, 0, 2)


def _copy_out(window: Array, out: Array) -> None:
    out[...] = window[: out.size]


def reduce_scatter(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None, Array], None]:
    """Lay pieces of a rank's slices side by side in its slot; each rank combines its own out of all slots.

    Values that a custom function combines go to rank 0 and back.
    Copies: one in. Cost: ``n / slot * sigma + n * beta + n * gamma``.
    """
    if function.operator is Operator.custom:
        collect, spread = reduce_whole(channel, call, combine), in_segment.scatter(channel, call)

        def through_rank_0(buffer: Array, spare: Array | None, own: Array) -> None:
            spread(collect(buffer, spare), own)

        return through_rank_0
    rounds, mark = channel.rounds, channel.mark(call)
    slots = in_segment.divided(channel.slots(dtype_of(call))[:, : channel.size], channel.size)
    rank, width = channel.rank, slots.shape[3]

    def run(buffer: Array, spare: Array | None, own: Array) -> None:
        rows = buffer.reshape(channel.size, -1)
        for start in in_segment.starts(own, width):
            part = rows[:, start : start + width]
            turn = rounds.begin(mark)
            slots[turn, rank, :, : part.shape[1]] = part
            rounds.meet()
            chain([*slots[turn, :, rank, : part.shape[1]]], own[start : start + width], combine)

    return run


def reduce_whole(
    channel: SegmentChannel, call: Call, combine: Combine
) -> Callable[[Array, Array | None], Array | None]:
    """Gather all values at the root, which combines them. Copies and cost: `in_segment.gather`'s."""
    collect = in_segment.gather(channel, call)

    def run(buffer: Array, spare: Array | None) -> Array | None:
        whole = collect(buffer, None)
        if whole is None:
            return None
        out = result_memory(buffer, spare)
        chain([*whole.reshape(channel.size, -1)], out, combine)
        return out

    return run


def allreduce_whole(channel: SegmentChannel, call: Call, combine: Combine) -> Callable[[Array, Array | None], Array]:
    """Reduce to rank 0, then broadcast, so that all have the same result whatever the function does."""
    collect, tell = reduce_whole(channel, call, combine), in_segment.bcast(channel, call)

    def run(buffer: Array, spare: Array | None) -> Array:
        result = collect(buffer, spare)
        return tell(result_memory(buffer, spare) if result is None else result)

    return run
