"""Collectives of ranks that share memory: operands are exposed in slots, and all combine where they lie.

Every combination goes strictly from left to right by rank, whatever the operator, so that all ranks have the same
bits at any size. Formulas: p ranks, n bytes of payload, a copy of b bytes takes ``b * beta``, combining
``b * gamma``, and a signal from one rank to another ``alpha``.

Who may write where, and when: a rank writes its own slots at the start of an operation, after `settle`; by then all
who read them in earlier operations have said so. Results are written only after all ranks have signalled in the same
operation, when all are through with earlier results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from fmi_shim.channels.base import Channel
from fmi_shim.operators import Array, Combine

SMALL_BYTES = 1 << 16
"""Up to this size rank 0 combines alone, since sharing the work needs a second round of signals."""


class SegmentChannel(Channel, ABC):
    """A channel whose ranks share memory."""

    @abstractmethod
    def slots(self, dtype: np.dtype[Any]) -> Array:
        """Return all slots, shape (2, size, elements): two for each rank, which it alone may write."""

    @abstractmethod
    def results(self, dtype: np.dtype[Any]) -> Array:
        """Return the two areas for results, shape (2, elements)."""

    @abstractmethod
    def signal(self, dst: int) -> None:
        """Tell rank `dst` that this rank has come so far in the running call."""

    @abstractmethod
    def await_signal(self, src: int) -> None:
        """Wait until rank `src` has come so far in the running call; what it wrote before can be read."""

    @abstractmethod
    def await_announcement(self, src: int) -> Array:
        """Wait for a signal of rank `src`, and return a new array of the type and shape that it has in the call."""

    @abstractmethod
    def owe(self, src: int, signals: int) -> None:
        """Leave signals of rank `src` to be awaited later."""

    @abstractmethod
    def settle(self) -> None:
        """Await what was left for later."""


def barrier(channel: SegmentChannel) -> None:
    """Rank 0 hears from all, then tells all; two ranks tell each other. Cost: ``2 * (p - 1) * alpha``, or ``alpha``."""
    if channel.size == 2:
        channel.signal(1 - channel.rank)
        channel.await_signal(1 - channel.rank)
        return
    _collect(channel, 0)
    _release(channel, 0)


def bcast(channel: SegmentChannel, buffer: Array | None, root: int) -> Array:
    """Copy from the root's slots, which it fills in turns.

    Copies: one in, and one out at each other rank. The root does not wait for the last readers.
    Cost: ``n * beta`` for copying in while others copy out, plus ``(p - 1) * alpha`` a slot.
    """
    if channel.rank == root:
        assert buffer is not None  # noqa: S101 - the root has what it sends
        return _expose(channel, buffer)
    filled = buffer
    if filled is None:
        filled = channel.await_announcement(root)
    else:
        channel.await_signal(root)
    flat = filled.reshape(-1)
    slots = channel.slots(flat.dtype)[:, root]
    width = slots.shape[1]
    for turn, start in enumerate(range(0, max(1, flat.size), width)):
        if turn:
            channel.await_signal(root)
        part = flat[start : start + width]
        part[...] = slots[turn % 2, : part.size]
        channel.signal(root)
    return filled


def _expose(channel: SegmentChannel, buffer: Array) -> Array:
    """Fill the root's slots in turns, each after all ranks have read what it held before."""
    channel.settle()
    others = [rank for rank in range(channel.size) if rank != channel.rank]
    flat = buffer.reshape(-1)
    slots = channel.slots(flat.dtype)[:, channel.rank]
    width = slots.shape[1]
    turns = range(0, max(1, flat.size), width)
    for turn, start in enumerate(turns):
        if turn >= 2:
            for rank in others:
                channel.await_signal(rank)
        part = flat[start : start + width]
        slots[turn % 2, : part.size] = part
        for rank in others:
            channel.signal(rank)
    for rank in others:
        channel.owe(rank, min(2, len(turns)))
    return buffer


def reduce(channel: SegmentChannel, buffer: Array, out: Array | None, root: int, combine: Combine) -> None:
    """Combine into the root's `out`.

    Small payloads: one copy in, the root combines in place in the slots; others do not wait for it. Cost:
    ``n * (beta + (p - 1) * gamma) + (p - 1) * alpha``. Large ones as in `allreduce`, with a copy out at the root alone.
    """
    if buffer.nbytes > SMALL_BYTES:
        _pipeline(channel, buffer, out, combine)
        return
    channel.settle()
    slots = channel.slots(buffer.dtype)[0]
    if channel.rank != root:
        slots[channel.rank, : buffer.size] = buffer
        channel.signal(root)
        channel.owe(root, 1)
        return
    assert out is not None  # noqa: S101 - the root has a place for the result
    _collect(channel, root)
    operands = [buffer if rank == root else slots[rank, : buffer.size] for rank in range(channel.size)]
    _fold(operands, out, combine)
    _release(channel, root)


def allreduce(channel: SegmentChannel, buffer: Array, out: Array, combine: Combine) -> None:
    """Combine into every rank's `out`, which may be `buffer`.

    Small payloads: one copy in, rank 0 combines, one copy out. Cost: ``n * (2 * beta + (p - 1) * gamma) + 2 *
    (p - 1) * alpha``. Large ones: one copy in of all but the rank's share, which it combines, one copy out.
    Cost: ``n * ((2 - 1/p) * beta + (1 - 1/p) * gamma)``, plus ``2 * (p - 1) * alpha`` a slot and twice more.
    """
    if buffer.nbytes > SMALL_BYTES:
        _pipeline(channel, buffer, out, combine)
        return
    channel.settle()
    slots, result = channel.slots(buffer.dtype)[0], channel.results(buffer.dtype)[0, : buffer.size]
    if channel.rank:
        slots[channel.rank, : buffer.size] = buffer
        channel.signal(0)
        channel.await_signal(0)
        out[...] = result
        return
    _collect(channel, 0)
    _fold([buffer, *slots[1:, : buffer.size]], out, combine)
    result[...] = out
    _release(channel, 0)


def _pipeline(channel: SegmentChannel, buffer: Array, out: Array | None, combine: Combine) -> None:
    """Copy in, combine a share of, and copy out a slot's width of elements each, in three steps that overlap.

    In step i a rank copies part i into one of its two slots, combines its share of part i - 1 from all ranks'
    other slots, and copies the result of part i - 2 out; then all wait for each other. What is read in a step was
    written in the one before, what is written was last read in the one before.
    """
    channel.settle()
    slots, results = channel.slots(buffer.dtype), channel.results(buffer.dtype)
    width = slots.shape[2]
    parts = [(start, min(start + width, buffer.size)) for start in range(0, buffer.size, width)]
    for step in range(len(parts) + 2):
        if step:
            barrier(channel)
        half = step % 2
        if step >= 2 and out is not None:
            start, stop = parts[step - 2]
            out[start:stop] = results[half, : stop - start]
        if step < len(parts):
            start, stop = parts[step]
            first, last = share(stop - start, channel.rank, channel.size, buffer.itemsize)
            slot = slots[half, channel.rank]
            slot[:first] = buffer[start : start + first]
            slot[last : stop - start] = buffer[start + last : stop]
        if 1 <= step <= len(parts):
            start, stop = parts[step - 1]
            first, last = share(stop - start, channel.rank, channel.size, buffer.itemsize)
            operands = [*slots[1 - half, :, first:last]]
            operands[channel.rank] = buffer[start + first : start + last]
            _fold(operands, results[1 - half, first:last], combine)


def share(elements: int, rank: int, size: int, itemsize: int) -> tuple[int, int]:
    """Return the elements of a slot that `rank` combines: equal shares, parted between cache lines."""
    line = max(1, 128 // itemsize)
    lines = -(-elements // line)
    return min(elements, lines * rank // size * line), min(elements, lines * (rank + 1) // size * line)


def _fold(operands: list[Array], out: Array, combine: Combine) -> None:
    """Combine `operands` from left to right into `out`."""
    if len(operands) == 1:
        out[...] = operands[0]
        return
    combine(operands[0], operands[1], out)
    for operand in operands[2:]:
        combine(out, operand, out)


def _collect(channel: SegmentChannel, root: int) -> None:
    """Let the root know that all have come."""
    if channel.rank != root:
        channel.signal(root)
        return
    for rank in range(channel.size):
        if rank != root:
            channel.await_signal(rank)


def _release(channel: SegmentChannel, root: int) -> None:
    """Let all know that the root has come."""
    if channel.rank != root:
        channel.await_signal(root)
        return
    for rank in range(channel.size):
        if rank != root:
            channel.signal(rank)
