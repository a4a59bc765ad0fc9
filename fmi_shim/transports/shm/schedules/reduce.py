"""Reductions in shared memory.

Every combination is strictly from left to right by rank, whatever the operator, so that all ranks have the same bits at
any size. A custom function is only called with whole payloads, since it need not be defined for parts of them.
`exchange` explains the cost formulas, and why schedules are closures.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import numpy as np

from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, Operator, ReduceFunction
from fmi_shim.transports.shm.layout import MAX_LEAD
from fmi_shim.transports.shm.schedules import exchange as exchanges
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel, dtype_of, piece_starts, window_width

ONE_COMBINES_BYTES = 1 << 16
"""Up to this payload the rank that is last combines everything for all, since sharing the work takes a round more.
Measured on 2 cores: half of it takes two thirds of the time so, twice of it a quarter more."""
EACH_COMBINES_BYTES = 1 << 18
"""Where each rank combines for itself, it combines everything up to this size of all ranks together. Measured on 2
cores: with half of it 16 KiB of 16 ranks take a third more."""
FEW_RANKS = 4
"""Up to this number ranks combine two operands at a time, and do not copy the own one. More combine all at once."""
MIN_REDUCED_WINDOW_BYTES = 1 << 18
"""The smallest part of a payload in a window of which few copies are read: a reduce of 1 MiB among 4 ranks took half
the time with 256 KiB that it took with 1 MiB."""
ROOT_COMBINES_BYTES = 1 << 16
"""Up to this payload the root of a reduction combines everything itself."""
_FEW_ROWS = 3
"""Up to this number rows are combined pair by pair in less time than numpy takes to start with all at once."""


def reduce(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array | None]:
    """Return the schedule of a reduction to the root: it returns the result there, None elsewhere."""
    if not function.element_wise:
        return reduce_whole(channel, call, combine)
    if call.count * dtype_of(call).itemsize <= min(ROOT_COMBINES_BYTES, slot_bytes(channel, call)):
        return reduce_at_root(channel, call, function, combine)
    pipeline = ReducePipeline(channel, call, combine, 0, call.count, MIN_REDUCED_WINDOW_BYTES)

    def run_pipelined_reduce(buffer: Array, spare: Array | None) -> Array | None:
        out = None if channel.rank != call.root else result_memory(buffer, spare)
        pipeline.run(buffer, out)
        return out

    return run_pipelined_reduce


def allreduce(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array]:
    """Return the schedule of a reduction whose result all ranks have."""
    if not function.element_wise:
        return allreduce_whole(channel, call, combine)
    size_bytes = call.count * dtype_of(call).itemsize
    if call.count == 1 and call.dtype == np.float64 and function.operator in (Operator.sum, Operator.prod):
        return allreduce_number(channel, call, function)
    if size_bytes <= slot_bytes(channel, call):
        one_round = ONE_COMBINES_BYTES if channel.rounds.one_rank_combines else EACH_COMBINES_BYTES // channel.size
        schedule = allreduce_one_round if size_bytes <= one_round else allreduce_two_rounds
        return schedule(channel, call, function, combine)
    pipeline = ReducePipeline(channel, call, combine, 0, call.count, exchanges.MIN_WINDOW_BYTES)

    def run_pipelined_allreduce(buffer: Array, spare: Array | None) -> Array:
        out = result_memory(buffer, spare)
        pipeline.run(buffer, out)
        return out

    return run_pipelined_allreduce


def allreduce_one_round(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array]:
    """Fill all rows; the rank that is last combines them, and the others copy its result.

    Copies: one in, one out. Cost: ``sigma + 2 * n * beta``, at the last rank ``(p - 1) * n * gamma`` more.
    """
    rounds, call_tag, fold = channel.rounds, channel.call_tag(call), fold_of(function, call, combine)
    exchange, all_rows = rounds.exchange, channel.rows(dtype_of(call), call.count)
    own, rows, results = [*all_rows[:, channel.rank]], [*all_rows[:, : channel.size]], [*all_rows[:, channel.size]]

    def run_allreduce(buffer: Array, spare: Array | None) -> Array:
        if spare is None:
            spare = np.empty_like(buffer)
        if exchange(call_tag, own, buffer):
            spare[...] = results[rounds.slot_index]
        else:
            fold(rows[rounds.slot_index], spare)
            results[rounds.slot_index][...] = spare
            rounds.publish_result()
        return spare

    def run_allreduce_of_two(buffer: Array, spare: Array | None) -> Array:
        if spare is None:
            spare = np.empty_like(buffer)
        exchange(call_tag, own, buffer)
        values = rows[rounds.slot_index]
        combine(values[0], values[1], spare)  # the other rank does the same, and no third one waits for the result
        return spare

    return run_allreduce_of_two if channel.size == 2 else run_allreduce


def allreduce_number(
    channel: SegmentChannel, call: Call, function: ReduceFunction
) -> Callable[[Array, Array | None], Array]:
    """As `allreduce_one_round`, of one float64, without numpy, whose calls cost more than all the rest."""
    rounds, call_tag, rank, size = channel.rounds, channel.call_tag(call), channel.rank, channel.size
    exchange, all_rows = rounds.exchange, channel.rows(dtype_of(call), 1)
    own, numbers = [row.reshape(()).data for row in all_rows[:, rank]], [rows[:, 0].data for rows in all_rows]
    combine = operator.add if function.operator is Operator.sum else operator.mul

    def run_allreduce_of_number(buffer: Array, spare: Array | None) -> Array:
        if spare is None:
            spare = np.empty_like(buffer)
        if exchange(call_tag, own, buffer.item()):
            spare[0] = numbers[rounds.slot_index][size]
        else:
            cells = numbers[rounds.slot_index]
            spare[0] = cells[size] = functools.reduce(combine, cells.tolist()[:size])
            rounds.publish_result()
        return spare

    def run_allreduce_of_two_numbers(buffer: Array, spare: Array | None) -> Array:
        if spare is None:
            spare = np.empty_like(buffer)
        exchange(call_tag, own, buffer.item())
        cells = numbers[rounds.slot_index]
        spare[0] = combine(cells[0], cells[1])
        return spare

    return run_allreduce_of_two_numbers if size == 2 else run_allreduce_of_number


def allreduce_two_rounds(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array]:
    """Fill all slots; every rank combines a share of them, and copies the result of all shares out.

    Copies: one in, of all but the own share among few ranks, and one out; the result may be the buffer.
    Cost: ``2 * sigma + 2 * n * beta + (p - 1) / p * n * gamma``.
    """
    rounds, call_tag, size, rank = channel.rounds, channel.call_tag(call), channel.size, channel.rank
    slots, fold = channel.slots(dtype_of(call))[:, :, : call.count], fold_of(function, call, combine)
    keeps_own = size <= FEW_RANKS
    first, last = share(call.count, rank, size, dtype_of(call).itemsize)

    def run_shared_allreduce(buffer: Array, spare: Array | None) -> Array:
        rows = slots[rounds.begin(call_tag)]
        if keeps_own:
            rows[rank, :first], rows[rank, last:] = buffer[:first], buffer[last:]
        else:
            rows[rank] = buffer
        rounds.barrier()
        operands, result = rows[:size, first:last], rows[size, first:last]
        if keeps_own:
            combine_in_order([*operands[:rank], buffer[first:last], *operands[rank + 1 :]], result, combine)
        elif last > first:
            fold(operands, result)
        rounds.begin(call_tag)
        rounds.barrier()
        out = result_memory(buffer, spare)
        out[...] = rows[size]
        return out

    return run_shared_allreduce


def reduce_at_root(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array | None]:
    """Fill all slots; the root combines them, and the others do not wait for it.

    Copies: one in. Cost: ``sigma + n * beta + (p - 1) * n * gamma``.
    """
    rounds, call_tag, fold = channel.rounds, channel.call_tag(call), fold_of(function, call, combine)
    slots = channel.rows(dtype_of(call), call.count)[:, : channel.size]
    own, rows = [*slots[:, channel.rank]], [*slots]

    def run_reduce(buffer: Array, spare: Array | None) -> Array | None:
        slot_index = rounds.begin(call_tag)
        own[slot_index][...] = buffer
        rounds.publish()
        if channel.rank != call.root:
            return None
        rounds.await_all()
        out = result_memory(buffer, spare)
        fold(rows[slot_index], out)
        return out

    return run_reduce


def reduce_scatter(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None, Array], None]:
    """Return the schedule of a reduction of which each rank gets a slice.

    Values that a custom function combines are gathered at rank 0, and the result is scattered.
    """
    if not function.element_wise:
        reduce_to_0, scatter = reduce_whole(channel, call, combine), exchanges.scatter(channel, call)

        def run_through_rank_0(buffer: Array, spare: Array | None, own: Array) -> None:
            scatter(reduce_to_0(buffer, spare), own)

        return run_through_rank_0
    length, width = call.count // channel.size, channel.slots(dtype_of(call)).shape[2]
    if call.count <= width:
        return reduce_scatter_one_round(channel, call, combine)
    first = channel.rank * length
    pipeline = ReducePipeline(channel, call, combine, first, first + length, MIN_REDUCED_WINDOW_BYTES)

    def run_pipelined_reduce_scatter(buffer: Array, spare: Array | None, own: Array) -> None:
        pipeline.run(buffer, own)

    return run_pipelined_reduce_scatter


def reduce_scatter_one_round(
    channel: SegmentChannel, call: Call, combine: Combine
) -> Callable[[Array, Array | None, Array], None]:
    """Fill all slots; each rank combines its own slice of all of them.

    Copies: one in. Cost: ``sigma + n * beta + (p - 1) / p * n * gamma``.
    """
    rounds, call_tag, rank = channel.rounds, channel.call_tag(call), channel.rank
    length = call.count // channel.size
    slots = channel.slots(dtype_of(call))[:, : channel.size, : call.count]

    def run_reduce_scatter(buffer: Array, spare: Array | None, own: Array) -> None:
        rows = slots[rounds.begin(call_tag)]
        rows[rank] = buffer
        rounds.barrier()
        combine_in_order([*rows[:, rank * length : (rank + 1) * length]], own, combine)

    return run_reduce_scatter


def reduce_whole(
    channel: SegmentChannel, call: Call, combine: Combine
) -> Callable[[Array, Array | None], Array | None]:
    """Gather all values at the root, which combines them. Copies and cost: `exchange.gather`'s."""
    gather = exchanges.gather(channel, call)

    def run_reduce_of_whole_values(buffer: Array, spare: Array | None) -> Array | None:
        whole = gather(buffer, None)
        if whole is None:
            return None
        out = result_memory(buffer, spare)
        combine_in_order([*whole.reshape(channel.size, -1)], out, combine)
        return out

    return run_reduce_of_whole_values


def allreduce_whole(channel: SegmentChannel, call: Call, combine: Combine) -> Callable[[Array, Array | None], Array]:
    """Reduce to rank 0, then broadcast, so that all have the same result whatever the function does."""
    reduce_to_0, bcast = reduce_whole(channel, call, combine), exchanges.bcast(channel, call)

    def run_allreduce_of_whole_values(buffer: Array, spare: Array | None) -> Array:
        result = reduce_to_0(buffer, spare)
        return bcast(result_memory(buffer, spare) if result is None else result)

    return run_allreduce_of_whole_values


class ReducePipeline:
    """A reduction of a large payload in windows, rank after rank.

    Rank 0 copies as much of its value as fits into a window. Each other rank combines the window's content with its own
    value, and continues with the next window, which the rank below has finished meanwhile. A rank copies what the last
    rank leaves in a window when it begins the window `MAX_LEAD` later, by which time all have reached it: nobody waits
    for a result but for the last ones. So a rank that gets a processor has work for several windows.

    Copies: one in at rank 0, one out of the elements that a rank wants. Cost, if it wants all:
    ``(n / window + p - 1) * (sigma + window * (beta + gamma))``.

    Parameters
    ----------
    channel, call, combine
        The reduction.
    first, end
        The elements that this rank wants, where it wants any.
    least_bytes
        The smallest part of the payload to put into a window.
    """

    def __init__(
        self, channel: SegmentChannel, call: Call, combine: Combine, first: int, end: int, least_bytes: int
    ) -> None:
        self._rounds, self._call_tag = channel.rounds, channel.call_tag(call)
        self._rank, self._last_rank = channel.rank, channel.size - 1
        self._windows = channel.windows(dtype_of(call))
        self._combine = combine
        self._first, self._end = first, end
        self._least_bytes = least_bytes

    def run(self, buffer: Array, out: Array | None) -> None:
        """Reduce the ranks' `buffer`; fill `out`, which may be a part of the buffer, unless it is None."""
        rounds, windows, combine = self._rounds, self._windows, self._combine
        buffer = source_unaffected_by(buffer, out, self._first)
        width = window_width(buffer, windows, self._least_bytes)
        filled: list[tuple[int, int]] = []
        for start in piece_starts(buffer, width):
            slot_index = rounds.begin(self._call_tag)
            filled.append((start, slot_index))
            if len(filled) > MAX_LEAD:
                self._copy_out(filled, MAX_LEAD, width, out)
            part = buffer[start : start + width]
            window = windows[slot_index][: part.size]
            if self._rank == 0:
                window[...] = part
            else:
                rounds.await_rank(self._rank - 1)
                combine(window, part, window)
            rounds.publish()
        for back in reversed(range(min(MAX_LEAD, len(filled)))):
            self._copy_out(filled, back, width, out)

    def _copy_out(self, filled: list[tuple[int, int]], back: int, width: int, out: Array | None) -> None:
        """Copy the wanted elements of the window `back` rounds before into `out`."""
        if out is None:
            return
        if self._rank != self._last_rank:
            self._rounds.await_earlier(self._last_rank, back)
        start, slot_index = filled[-1 - back]
        low, high = max(start, self._first), min(start + width, self._end)
        if low < high:
            out[low - self._first : high - self._first] = self._windows[slot_index][low - start : high - start]


def share(elements: int, rank: int, size: int, itemsize: int) -> tuple[int, int]:
    """Return the first and the end of the elements that `rank` combines: equal shares, divided between cache lines."""
    line = max(1, 128 // itemsize)
    lines = -(-elements // line)
    return min(elements, lines * rank // size * line), min(elements, lines * (rank + 1) // size * line)


def combine_in_order(operands: list[Array], out: Array, combine: Combine) -> None:
    """Combine `operands` from left to right into `out`."""
    if len(operands) == 1:
        out[...] = operands[0]
        return
    combine(operands[0], operands[1], out)
    for operand in operands[2:]:
        combine(out, operand, out)


def fold_of(function: ReduceFunction, call: Call, combine: Combine) -> Callable[[Array, Array], None]:
    """Return a function that combines rows, from first to last, into an array that is none of them."""
    ufunc = {Operator.sum: np.add, Operator.prod: np.multiply}.get(function.operator)
    if ufunc is None or dtype_of(call).kind not in "fc" or call.count < 2:
        return lambda rows, out: combine_in_order([*rows], out, combine)
    reduce_rows = ufunc.reduce  # of two columns or more it adds row after row; of one column it adds pairs

    def fold_by_ufunc(rows: Array, out: Array) -> None:
        many, columns = rows.shape
        if columns == 1 or many <= _FEW_ROWS:
            combine_in_order([*rows], out, combine)
            return
        reduce_rows(rows, 0, None, out)  # type: ignore[call-overload] # by position it takes a tenth less time

    return fold_by_ufunc


def result_memory(buffer: Array, spare: Array | None) -> Array:
    """Return the memory for a result: `spare`, or new memory."""
    return np.empty_like(buffer) if spare is None else spare


def source_unaffected_by(buffer: Array, out: Array | None, first: int = 0) -> Array:
    """Return `buffer`, or a copy of it if filling `out` would overwrite elements that have not been read yet.

    `out` is filled from its start, with elements from `first` on, each after as many have been read.
    """
    if out is None or out is buffer or not np.may_share_memory(buffer, out):
        return buffer
    return buffer if out.ctypes.data <= buffer.ctypes.data + first * buffer.itemsize else buffer.copy()


def slot_bytes(channel: SegmentChannel, call: Call) -> int:
    """Return the size of a slot."""
    slots = channel.slots(dtype_of(call))
    return int(slots.shape[2]) * slots.itemsize
