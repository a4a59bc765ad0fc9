"""Collectives without combination in shared memory: each rank writes its slot, and the others read it there.

A slot is written, and read by others, in *rounds* (see `fmi_shim.transports.shm.rounds`). A payload larger than a slot
takes several rounds. Cost formulas: p ranks, n bytes of payload; a copy of b bytes takes ``b * beta``, a combination
``b * gamma``, and ``sigma`` is a round: one tag written, and those of others read. A copy counts for the rank that
makes it.

Every function here prepares a schedule. It is called once for a call that may be repeated, and returns the schedule
that each repetition runs with its buffers. Schedules are closures: an object with ``__call__`` takes 0.25 us more for
each call (Python 3.11), and a barrier takes 0.8 us in all.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.frames import Call
from fmi_shim.operators import Array
from fmi_shim.transports.shm.cma import PeerMemory
from fmi_shim.transports.shm.layout import MAX_LEAD, ROUNDS_IN_FLIGHT
from fmi_shim.transports.shm.rounds import CallTag, Rounds

WHOLE_BYTES = 1 << 16
"""Up to this payload the own row is copied along with the others', through the slot: more bytes, and fewer steps."""

MIN_WINDOW_BYTES = 1 << 20
"""The smallest part of a payload in a window that every rank copies: on 2 cores 256 KiB took up to twice as long. (Less
than 1 MiB the C library copies with ``rep movsb``, which on this AMD processor takes longer where addresses differ in
their last bits.)"""


class SegmentChannel(Channel, ABC):
    """A channel whose ranks share memory.

    Attributes
    ----------
    rounds
        How ranks wait for each other.
    peer_memory
        The memory of the other ranks' processes; None where it is never read.
    """

    rounds: Rounds
    peer_memory: PeerMemory | None

    @abstractmethod
    def slots(self, dtype: np.dtype[Any]) -> Array:
        """Return all slots, shape (slot indices, size + 1, elements): one for each rank, and one for the result."""

    @abstractmethod
    def rows(self, dtype: np.dtype[Any], count: int) -> Array:
        """Return a row of `count` elements for each rank and one for the result.

        The shape is (slot indices, size + 1, count). Short rows are contiguous. Longer ones are in the slots, which
        must be large enough.
        """

    @abstractmethod
    def windows(self, dtype: np.dtype[Any]) -> list[Array]:
        """Return the window of each slot index, which is the memory of its slots."""

    @abstractmethod
    def call_tag(self, call: Call) -> CallTag:
        """Return the tag of `call` for the rounds."""

    @abstractmethod
    def expect_messages(self) -> None:
        """Compare the headers of messages with the running call from now on: they belong to it."""

    @abstractmethod
    def allocate(self, header: bytes, src: int) -> tuple[Array, CallTag]:
        """Return a new array of the type and shape in `header`, which rank `src` has written, and its call's tag."""


def barrier(channel: SegmentChannel, call: Call) -> Callable[[], object]:
    """Wait until all ranks have reached the barrier. Cost: ``sigma``; no copy."""
    rounds, call_tag = channel.rounds, channel.call_tag(call)
    exchange, nothing = rounds.exchange, [np.empty(()).data] * ROUNDS_IN_FLIGHT

    def run_barrier() -> None:
        if not exchange(call_tag, nothing, 0):
            rounds.publish_result()

    # Of two ranks none waits for the result. A partial takes less time than a function that calls.
    return functools.partial(exchange, call_tag, nothing, 0) if channel.size == 2 else run_barrier


def bcast(channel: SegmentChannel, call: Call) -> Callable[[Array | None], Array]:
    """Copy from windows, which the root fills up to `MAX_LEAD` rounds ahead of the readers.

    Copies: one in at the root, one out at each other rank. Cost: ``n / window * sigma + (n + window) * beta``, since
    copying in overlaps with copying out.
    """
    root, rounds = call.root, channel.rounds
    known = None if call.dtype is None else (channel.call_tag(call), channel.windows(call.dtype))

    def send(buffer: Array) -> Array:
        assert known is not None  # noqa: S101 - the root has a buffer
        call_tag, windows = known
        flat = buffer.reshape(-1)
        for part in pieces(flat, window_width(flat, windows)):
            windows[rounds.begin(call_tag)][: part.size] = part
            rounds.publish()
        return buffer

    def receive(buffer: Array | None) -> Array:
        if buffer is None:
            filled, call_tag = channel.allocate(rounds.await_header(root), root)
            windows = channel.windows(filled.dtype)
        else:
            assert known is not None  # noqa: S101 - the caller gave an array
            filled, (call_tag, windows) = buffer, known
        for part in pieces(filled.reshape(-1), window_width(filled, windows)):
            slot_index = rounds.begin(call_tag)
            rounds.publish()
            rounds.await_rank(root)
            part[...] = windows[slot_index][: part.size]
        return filled

    return send if channel.rank == root else receive  # type: ignore[return-value] # the root has a buffer


def gather(channel: SegmentChannel, call: Call) -> Callable[[Array, Array | None], Array | None]:
    """Fill all slots; the root reads them. The schedule returns the parts in rank order at the root, None elsewhere.

    Copies: one in at each rank, one out of everything at the root. The others do not wait for it.
    Cost: ``n / slot * sigma + (p + 1) * n * beta``.
    """
    rounds, call_tag, slots = channel.rounds, channel.call_tag(call), channel.slots(dtype_of(call))[:, : channel.size]
    rank, size, root, width = channel.rank, channel.size, call.root, slots.shape[2]

    def run_gather(part: Array, whole: Array | None) -> Array | None:
        if rank == root and whole is None:
            whole = np.empty(size * part.size, part.dtype)
        rows = None if whole is None or rank != root else whole.reshape(size, -1)
        for start, piece in zip(piece_starts(part, width), pieces(part, width), strict=True):
            slot_index = rounds.begin(call_tag)
            slots[slot_index, rank, : piece.size] = piece
            rounds.publish()
            if rows is not None:
                rounds.await_all()
                rows[:, start : start + piece.size] = slots[slot_index, :, : piece.size]
        return whole if rank == root else None

    return run_gather


def allgather(channel: SegmentChannel, call: Call) -> Callable[[Array], None]:
    """Fill all slots; all read them. `rows` hold this rank's own row when the schedule is called.

    Copies: one in, one out of everything, in large payloads but for the own row. Cost:
    ``n / (MAX_LEAD * slot) * sigma + p * n * beta``, since a rank writes `MAX_LEAD` rounds and waits for the
    last of them.
    """
    rounds, call_tag, slots = channel.rounds, channel.call_tag(call), channel.slots(dtype_of(call))[:, : channel.size]
    rank, width = channel.rank, slots.shape[2]
    copied_rows = _copied_rows(channel, channel.size * call.count * dtype_of(call).itemsize)

    def run_allgather(rows: Array) -> None:
        for few in batches(piece_starts(rows[0], width)):
            filled = []
            for start in few:
                part = rows[rank, start : start + width]
                slot_index = rounds.begin(call_tag)
                slots[slot_index, rank, : part.size] = part
                rounds.publish()
                filled.append(slot_index)
            rounds.await_all()
            for start, slot_index in zip(few, filled, strict=True):
                part = rows[:, start : start + width]
                for row in copied_rows:
                    part[row] = slots[slot_index, row, : part.shape[1]]

    return run_allgather


def scatter(channel: SegmentChannel, call: Call) -> Callable[[Array | None, Array | None], Array]:
    """Write pieces of all slices side by side into the root's slot; each rank reads its own.

    Copies: one in of everything at the root, one out at each other rank; the root does not wait for the readers.
    Cost: ``p * n / slot * sigma + p * n * beta`` for slices of n bytes.
    """
    rank, size, root, rounds = channel.rank, channel.size, call.root, channel.rounds

    def slices_of_root(dtype: np.dtype[Any]) -> Array:
        return divide(channel.slots(dtype)[:, root], size)

    known = None if call.dtype is None else (channel.call_tag(call), slices_of_root(call.dtype))

    def send(whole: Array, own: Array) -> Array:
        assert known is not None  # noqa: S101 - the root has a buffer
        call_tag, slots = known
        rows = whole.reshape(size, -1)
        for start in piece_starts(own, slots.shape[2]):
            part = rows[:, start : start + slots.shape[2]]
            slots[rounds.begin(call_tag), :, : part.shape[1]] = part
            rounds.publish()
        own.reshape(-1)[...] = rows[root]
        return own

    def receive(whole: None, own: Array | None) -> Array:
        if own is None:
            filled, call_tag = channel.allocate(rounds.await_header(root), root)
            slots = slices_of_root(filled.dtype)
        else:
            assert known is not None  # noqa: S101 - the caller gave an array
            filled, (call_tag, slots) = own, known
        for part in pieces(filled.reshape(-1), slots.shape[2]):
            slot_index = rounds.begin(call_tag)
            rounds.publish()
            rounds.await_rank(root)
            part[...] = slots[slot_index, rank, : part.size]
        return filled

    return send if rank == root else receive  # type: ignore[return-value] # each rank passes what its role has


def alltoall(channel: SegmentChannel, call: Call) -> Callable[[Array, Array], None]:
    """Write pieces of a rank's slices side by side into its slot; each rank reads its own out of all slots.

    Copies: one in and one out of everything; large payloads' own slices are copied once, directly.
    Cost: ``n / (MAX_LEAD * slot) * sigma + 2 * n * beta``, since a rank writes `MAX_LEAD` rounds, and waits for the
    last of them.
    """
    rounds, call_tag = channel.rounds, channel.call_tag(call)
    slots = divide(channel.slots(dtype_of(call))[:, : channel.size], channel.size)
    rank, width = channel.rank, slots.shape[3]
    copied_rows = _copied_rows(channel, call.count * dtype_of(call).itemsize)

    def run_alltoall(outgoing: Array, incoming: Array) -> None:
        if len(copied_rows) > 1:
            incoming[rank] = outgoing[rank]
        for few in batches(piece_starts(outgoing[0], width)):
            filled = []
            for start in few:
                part = outgoing[:, start : start + width]
                slot_index = rounds.begin(call_tag)
                for row in copied_rows:
                    slots[slot_index, rank, row, : part.shape[1]] = part[row]
                rounds.publish()
                filled.append(slot_index)
            rounds.await_all()
            for start, slot_index in zip(few, filled, strict=True):
                part = incoming[:, start : start + width]
                for row in copied_rows:
                    part[row] = slots[slot_index, row, rank, : part.shape[1]]

    return run_alltoall


def _copied_rows(channel: SegmentChannel, size_bytes: int) -> tuple[slice, ...]:
    """Return the rows of a payload that go through slots: all of a small one, all but the own row of a large one."""
    if size_bytes <= WHOLE_BYTES:
        return (slice(0, channel.size),)
    return slice(0, channel.rank), slice(channel.rank + 1, channel.size)


def window_width(payload: Array, windows: list[Array], least_bytes: int = MIN_WINDOW_BYTES) -> int:
    """Return how many elements go into a window: a quarter of the payload, so that ranks overlap, or `least_bytes`."""
    return min(windows[0].size, max(least_bytes // payload.itemsize, payload.size // 4))


def divide(slots: Array, size: int) -> Array:
    """Return `slots` with their last axis, the elements, divided into equal parts for `size` ranks."""
    width = slots.shape[-1] // size
    return slots[..., : size * width].reshape(*slots.shape[:-1], size, width)


def piece_starts(flat: Array, width: int) -> range:
    """Return the indices at which pieces of at most `width` elements begin; an empty payload is one empty piece."""
    return range(0, max(1, flat.size), width)


def batches(steps: range) -> Iterator[range]:
    """Yield the steps in batches of `MAX_LEAD`, which a rank may write before it reads the first."""
    for first in range(0, len(steps), MAX_LEAD):
        yield steps[first : first + MAX_LEAD]


def dtype_of(call: Call) -> np.dtype[Any]:
    """Return the element type of a call of which every rank knows it."""
    assert call.dtype is not None  # noqa: S101 - of all calls but bcast and scatter, every rank knows the type
    return call.dtype


def pieces(flat: Array, width: int) -> Iterator[Array]:
    """Yield views of at most `width` elements of `flat`."""
    for start in piece_starts(flat, width):
        yield flat[start : start + width]
