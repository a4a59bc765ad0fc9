"""Reductions of ranks that share memory; see `in_segment` for the formulas.

Every combination goes strictly from left to right by rank, whatever the operator, so that all ranks have the same bits
at any size. A custom function is given whole payloads: of one, only whole arrays are known to make sense.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import numpy as np

from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, Operator, ReduceFunction
from fmi_shim.transports.shm.schedules import exchange as exchanges
from fmi_shim.transports.shm.schedules import pipeline
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel
from fmi_shim.transports.shm.schedules.rows import chain, dtype_of, fold_of, result_memory, share, slot_bytes

SETTLED_BYTES = 1 << 16
"""Up to this payload the rank that comes last combines everything for all, since sharing the work takes a round more.
Measured on 2 cores: half of it takes two thirds of the time so, twice of it a quarter more."""
ALONE_BYTES = 1 << 18
"""Where each rank combines for itself, it combines everything up to so many bytes of all ranks together. Measured on 2
cores: with half of it 16 KiB of 16 ranks take a third more."""
FEW_RANKS = 4
"""Up to so many ranks combine two operands at a time, of which the own one is not copied; more combine all at once."""
FOLDED_BYTES = 1 << 18
"""So many at least go through a window where hardly anybody copies them out: a reduce of 1 MiB among 4 ranks took half
the time with 256 KiB that it took with 1 MiB."""
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
    fold = pipeline.chain(channel, call, combine, 0, call.count, FOLDED_BYTES)

    def run(buffer: Array, spare: Array | None) -> Array | None:
        out = None if channel.rank != call.root else result_memory(buffer, spare)
        fold(buffer, out)
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
    if size_bytes <= slot_bytes(channel, call):
        alone = SETTLED_BYTES if channel.rounds.one_settles else ALONE_BYTES // channel.size
        return (allreduce_alone if size_bytes <= alone else allreduce_shared)(channel, call, function, combine)
    fold = pipeline.chain(channel, call, combine, 0, call.count, exchanges.COPIED_BYTES)

    def run(buffer: Array, spare: Array | None) -> Array:
        out = result_memory(buffer, spare)
        fold(buffer, out)
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


def allreduce_shared(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array]:
    """Fill all slots; every rank combines a share of them, and copies the result of all shares out.

    Copies: one in, of all but the own share among few ranks, and one out; the result may be the buffer.
    Cost: ``2 * sigma + 2 * n * beta + (p - 1) / p * n * gamma``.
    """
    rounds, mark, size, rank = channel.rounds, channel.mark(call), channel.size, channel.rank
    slots, fold = channel.slots(dtype_of(call))[:, :, : call.count], fold_of(function, call, combine)
    takes_own = size <= FEW_RANKS
    first, last = share(call.count, rank, size, dtype_of(call).itemsize)

    def run(buffer: Array, spare: Array | None) -> Array:
        rows = slots[rounds.begin(mark)]
        if takes_own:
            rows[rank, :first], rows[rank, last:] = buffer[:first], buffer[last:]
        else:
            rows[rank] = buffer
        rounds.meet()
        operands, result = rows[:size, first:last], rows[size, first:last]
        if takes_own:
            chain([*operands[:rank], buffer[first:last], *operands[rank + 1 :]], result, combine)
        elif last > first:
            fold(operands, result)
        rounds.begin(mark)
        rounds.meet()
        out = result_memory(buffer, spare)
        out[...] = rows[size]
        return out

    return run


def reduce_scatter(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None, Array], None]:
    """Return the schedule of a reduction of which each rank has a slice.

    Values that a custom function combines go to rank 0 and back.
    """
    if function.operator is Operator.custom:
        collect, spread = reduce_whole(channel, call, combine), exchanges.scatter(channel, call)

        def through_rank_0(buffer: Array, spare: Array | None, own: Array) -> None:
            spread(collect(buffer, spare), own)

        return through_rank_0
    length, width = call.count // channel.size, channel.slots(dtype_of(call)).shape[2]
    if call.count <= width:
        return reduce_scatter_alone(channel, call, combine)
    fold = pipeline.chain(channel, call, combine, channel.rank * length, (channel.rank + 1) * length, FOLDED_BYTES)

    def run(buffer: Array, spare: Array | None, own: Array) -> None:
        fold(buffer, own)

    return run


def reduce_scatter_alone(
    channel: SegmentChannel, call: Call, combine: Combine
) -> Callable[[Array, Array | None, Array], None]:
    """Fill all slots; each rank combines its own slice of all of them.

    Copies: one in. Cost: ``sigma + n * beta + (p - 1) / p * n * gamma``.
    """
    rounds, mark, rank, length = channel.rounds, channel.mark(call), channel.rank, call.count // channel.size
    slots = channel.slots(dtype_of(call))[:, : channel.size, : call.count]

    def run(buffer: Array, spare: Array | None, own: Array) -> None:
        rows = slots[rounds.begin(mark)]
        rows[rank] = buffer
        rounds.meet()
        chain([*rows[:, rank * length : (rank + 1) * length]], own, combine)

    return run


def reduce_whole(
    channel: SegmentChannel, call: Call, combine: Combine
) -> Callable[[Array, Array | None], Array | None]:
    """Gather all values at the root, which combines them. Copies and cost: `in_segment.gather`'s."""
    collect = exchanges.gather(channel, call)

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
    collect, tell = reduce_whole(channel, call, combine), exchanges.bcast(channel, call)

    def run(buffer: Array, spare: Array | None) -> Array:
        result = collect(buffer, spare)
        return tell(result_memory(buffer, spare) if result is None else result)

    return run
