"""Prefix reductions in shared memory, from left to right by rank as in `reduce`; `exchange` explains the formulas."""

from __future__ import annotations

from collections.abc import Callable

from fmi_shim.collectives import scan as messages
from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel, dtype_of
from fmi_shim.transports.shm.schedules.messages import begin_messages
from fmi_shim.transports.shm.schedules.reduce import combine_in_order, result_memory, slot_bytes


def scan(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None], Array]:
    """Combine the values of all ranks up to this one, in slots or by messages; see `prefix`."""
    in_slots = prefix(channel, call, function, combine, channel.rank + 1)

    def run_scan(buffer: Array, spare: Array | None) -> Array:
        out = result_memory(buffer, spare)
        if in_slots is not None:
            in_slots(buffer, out)
            return out
        begin_messages(channel, call)
        if spare is None or spare is not buffer:
            out[...] = buffer
        messages.chain(channel, out, combine)
        return out

    return run_scan


def exscan(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine
) -> Callable[[Array, Array | None, Array], None]:
    """Combine the values of all ranks below this one, in slots or by messages; see `prefix`."""
    in_slots = prefix(channel, call, function, combine, channel.rank)

    def run_exscan(buffer: Array, spare: Array | None, out: Array) -> None:
        if in_slots is not None:
            in_slots(buffer, out)
            return
        begin_messages(channel, call)
        messages.exclusive_chain(channel, buffer if spare is not None else buffer.copy(), out, combine)

    return run_exscan


def prefix(
    channel: SegmentChannel, call: Call, function: ReduceFunction, combine: Combine, ranks: int
) -> Callable[[Array, Array], None] | None:
    """Fill all slots; every rank combines those of the first `ranks` ranks.

    Returns None for custom functions, and for payloads larger than a slot, which messages carry from rank to rank.
    Copies: one in. Cost: ``sigma + n * beta + ranks * n * gamma``.
    """
    if not function.element_wise or call.count * dtype_of(call).itemsize > slot_bytes(channel, call):
        return None
    rounds, call_tag, slots = channel.rounds, channel.call_tag(call), channel.slots(dtype_of(call))[:, :, : call.count]

    def run_prefix(buffer: Array, out: Array) -> None:
        slot_index = rounds.begin(call_tag)
        slots[slot_index, channel.rank] = buffer
        rounds.publish()
        for below in range(ranks):
            if below != channel.rank:
                rounds.await_rank(below)
        if ranks:
            combine_in_order([*slots[slot_index, :ranks]], out, combine)

    return run_prefix
