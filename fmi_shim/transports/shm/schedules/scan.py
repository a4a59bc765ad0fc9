"""Prefix reductions of ranks that share memory; see `in_segment` for the formulas, `in_segment_folds` for the order."""

from __future__ import annotations

from collections.abc import Callable

from fmi_shim.collectives import scan as messages
from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, Operator, ReduceFunction
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel
from fmi_shim.transports.shm.schedules.rows import chain, dtype_of, result_memory, slot_bytes


def scan(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array]:
    """Combine the values of all ranks up to this one, in slots or by messages; see `prefix`."""
    up_to = prefix(channel, call, function, combine, channel.rank + 1)

    def run(buffer: Array, spare: Array | None) -> Array:
        out = result_memory(buffer, spare)
        if up_to is not None:
            up_to(buffer, out)
            return out
        _announce(channel, call)
        if spare is None or spare is not buffer:
            out[...] = buffer
        messages.chain(channel, out, combine)
        return out

    return run


def exscan(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None, Array], None]:
    """Combine the values of all ranks below this one, in slots or by messages; see `prefix`."""
    below = prefix(channel, call, function, combine, channel.rank)

    def run(buffer: Array, spare: Array | None, out: Array) -> None:
        if below is not None:
            below(buffer, out)
            return
        _announce(channel, call)
        messages.exclusive_chain(channel, buffer if spare is not None else buffer.copy(), out, combine)

    return run


def prefix(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine, ranks: int
) -> Callable[[Array, Array], None] | None:
    """Fill all slots; every rank combines the first ones. None for what is no business of slots.

    Those are custom functions, and payloads wider than a slot, which go from rank to rank.
    Copies: one in. Cost: ``sigma + n * beta + ranks * n * gamma``.
    """
    if function.operator is Operator.custom or call.count * dtype_of(call).itemsize > slot_bytes(channel, call):
        return None
    rounds, mark, slots = channel.rounds, channel.mark(call), channel.slots(dtype_of(call))[:, :, : call.count]

    def run(buffer: Array, out: Array) -> None:
        turn = rounds.begin(mark)
        slots[turn, channel.rank] = buffer
        rounds.publish()
        for below in range(ranks):
            if below != channel.rank:
                rounds.await_rank(below)
        if ranks:
            chain([*slots[turn, :ranks]], out, combine)

    return run


def _announce(channel: SegmentChannel, call: Call) -> None:
    """Tell all which call this rank is in, before it sends messages that are part of it."""
    channel.rounds.begin(channel.mark(call))
    channel.rounds.publish()
    channel.sign()
