"""Collectives of ranks that share memory: what one has for others lies in its slot, and all read it where it is.

A slot is written, and read by others, in *rounds* (see `fmi_shim.transports.shm.rounds`); a payload that is wider than
a slot takes several. Formulas: p ranks, n bytes of payload, a copy of b bytes takes ``b * beta``, combining
``b * gamma``, and ``sigma`` is a round: one tag written, and those of others read. A copy counts for the rank that
makes it.

Every function here prepares a schedule: it is called once for a call that may come again and again, and returns what
then runs with the buffers. Reductions are in `in_segment_folds`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.frames import Call
from fmi_shim.operators import Array
from fmi_shim.transports.shm.cma import Neighbours
from fmi_shim.transports.shm.layout import AHEAD, TURNS
from fmi_shim.transports.shm.rounds import Mark, Rounds

WHOLE_BYTES = 1 << 16
"""Up to this payload the own row is copied along with the others', through the slot: more bytes, and fewer steps."""

COPIED_BYTES = 1 << 20
"""So many at least go through a window where every rank copies them out: on 2 cores 256 KiB took up to twice as long.
(Of less the C library copies with ``rep movsb``, which on this AMD processor takes longer where addresses differ in
their last bits.)"""


class SegmentChannel(Channel, ABC):
    """A channel whose ranks share memory.

    Attributes
    ----------
    rounds
        How ranks wait for each other.
    neighbours
        Their processes' memory; None where nobody reads another's.
    """

    rounds: Rounds
    neighbours: Neighbours | None

    @abstractmethod
    def slots(self, dtype: np.dtype[Any]) -> Array:
        """Return all slots, shape (turns, size + 1, elements): one for each rank, and one for results."""

    @abstractmethod
    def rows(self, dtype: np.dtype[Any], count: int) -> Array:
        """Return a row of `count` elements for each rank, and one for the result, shape (turns, size + 1, count).

        Short ones lie side by side, longer ones in the slots, which must have room for them.
        """

    @abstractmethod
    def windows(self, dtype: np.dtype[Any]) -> list[Array]:
        """Return, for each turn, the window that is there in the place of its slots."""

    @abstractmethod
    def mark(self, call: Call) -> Mark:
        """Return how the rounds know `call`."""

    @abstractmethod
    def sign(self) -> None:
        """Have messages compared with the running call from now on: they are part of it."""

    @abstractmethod
    def announced(self, header: bytes, src: int) -> tuple[Array, Mark]:
        """Return a new array of the type and shape in `header`, which rank `src` has sent, and its call's mark."""


def barrier(channel: SegmentChannel, call: Call) -> Callable[[], None]:
    """Every rank waits for all. Cost: ``sigma``; no copy."""
    rounds, mark = channel.rounds, channel.mark(call)
    exchange, nothing = rounds.exchange, [np.empty(()).data] * TURNS

    def run() -> None:
        if not exchange(mark, nothing, 0):
            rounds.settle()

    return run


def bcast(channel: SegmentChannel, call: Call) -> Callable[[Array | None], Array]:
    """Copy from windows, which the root fills some rounds ahead of the readers.

    Copies: one in at the root, one out at each other rank. Cost: ``n / window * sigma + (n + window) * beta``, since
    copying in overlaps with copying out.
    """
    root, rounds = call.root, channel.rounds
    known = None if call.dtype is None else (channel.mark(call), channel.windows(call.dtype))

    def send(buffer: Array) -> Array:
        assert known is not None  # noqa: S101 - the root has what it sends
        mark, windows = known
        flat = buffer.reshape(-1)
        for part in pieces(flat, stretch(flat, windows)):
            windows[rounds.begin(mark)][: part.size] = part
            rounds.publish()
        return buffer

    def receive(buffer: Array | None) -> Array:
        if buffer is None:
            filled, mark = channel.announced(rounds.await_header(root), root)
            windows = channel.windows(filled.dtype)
        else:
            assert known is not None  # noqa: S101 - there is an array to fill
            filled, (mark, windows) = buffer, known
        for part in pieces(filled.reshape(-1), stretch(filled, windows)):
            turn = rounds.begin(mark)
            rounds.publish()
            rounds.await_rank(root)
            part[...] = windows[turn][: part.size]
        return filled

    return send if channel.rank == root else receive  # type: ignore[return-value] # the root has a buffer


def gather(channel: SegmentChannel, call: Call) -> Callable[[Array, Array | None], Array | None]:
    """Fill all slots; the root reads them. Returns the parts in rank order at the root, None elsewhere.

    Copies: one in at each rank, one out of everything at the root; the others do not wait for it.
    Cost: ``n / slot * sigma + (p + 1) * n * beta``.
    """
    assert call.dtype is not None  # noqa: S101 - all know their part
    rounds, mark, slots = channel.rounds, channel.mark(call), channel.slots(call.dtype)[:, : channel.size]
    rank, size, root, width = channel.rank, channel.size, call.root, slots.shape[2]

    def run(part: Array, whole: Array | None) -> Array | None:
        if rank == root and whole is None:
            whole = np.empty(size * part.size, part.dtype)
        rows = None if whole is None or rank != root else whole.reshape(size, -1)
        for start, piece in zip(starts(part, width), pieces(part, width), strict=True):
            turn = rounds.begin(mark)
            slots[turn, rank, : piece.size] = piece
            rounds.publish()
            if rows is not None:
                rounds.await_all()
                rows[:, start : start + piece.size] = slots[turn, :, : piece.size]
        return whole if rank == root else None

    return run


def allgather(channel: SegmentChannel, call: Call) -> Callable[[Array], None]:
    """Fill all slots; all read them. The rows of the result are there, the own one filled.

    Copies: one in, one out of everything, in large payloads but for the own row. Cost:
    ``n / (AHEAD * slot) * sigma + p * n * beta``, since a rank writes some rounds ahead and waits for the last of them.
    """
    assert call.dtype is not None  # noqa: S101 - all know their part
    rounds, mark, slots = channel.rounds, channel.mark(call), channel.slots(call.dtype)[:, : channel.size]
    rank, width = channel.rank, slots.shape[2]
    blocks = _blocks(channel, channel.size * call.count * call.dtype.itemsize)

    def run(rows: Array) -> None:
        for few in batches(starts(rows[0], width)):
            places = []
            for start in few:
                part = rows[rank, start : start + width]
                turn = rounds.begin(mark)
                slots[turn, rank, : part.size] = part
                rounds.publish()
                places.append(turn)
            rounds.await_all()
            for start, turn in zip(few, places, strict=True):
                part = rows[:, start : start + width]
                for block in blocks:
                    part[block] = slots[turn, block, : part.shape[1]]

    return run


def scatter(channel: SegmentChannel, call: Call) -> Callable[[Array | None, Array | None], Array]:
    """Lay pieces of all slices side by side in the root's slot; each rank reads its own.

    Copies: one in of everything at the root, one out at each other rank; the root does not wait for the readers.
    Cost: ``p * n / slot * sigma + p * n * beta`` for slices of n bytes.
    """
    rank, size, root, rounds = channel.rank, channel.size, call.root, channel.rounds

    def parted(dtype: np.dtype[Any]) -> Array:
        return divided(channel.slots(dtype)[:, root], size)

    known = None if call.dtype is None else (channel.mark(call), parted(call.dtype))

    def send(whole: Array, own: Array) -> Array:
        assert known is not None  # noqa: S101 - the root has what it sends
        mark, slots = known
        rows = whole.reshape(size, -1)
        for start in starts(own, slots.shape[2]):
            part = rows[:, start : start + slots.shape[2]]
            slots[rounds.begin(mark), :, : part.shape[1]] = part
            rounds.publish()
        own.reshape(-1)[...] = rows[root]
        return own

    def receive(whole: None, own: Array | None) -> Array:
        if own is None:
            filled, mark = channel.announced(rounds.await_header(root), root)
            slots = parted(filled.dtype)
        else:
            assert known is not None  # noqa: S101 - there is an array to fill
            filled, (mark, slots) = own, known
        for part in pieces(filled.reshape(-1), slots.shape[2]):
            turn = rounds.begin(mark)
            rounds.publish()
            rounds.await_rank(root)
            part[...] = slots[turn, rank, : part.size]
        return filled

    return send if rank == root else receive  # type: ignore[return-value] # each is given what its place has


def alltoall(channel: SegmentChannel, call: Call) -> Callable[[Array, Array], None]:
    """Lay pieces of a rank's slices side by side in its slot; each rank reads its own out of all slots.

    Copies: one in and one out of everything; large payloads' own slices are copied once, past the slot.
    Cost: ``n / (AHEAD * slot) * sigma + 2 * n * beta``, since a rank writes some rounds ahead, and waits for the last
    of them.
    """
    assert call.dtype is not None  # noqa: S101 - all know their value
    rounds, mark = channel.rounds, channel.mark(call)
    slots = divided(channel.slots(call.dtype)[:, : channel.size], channel.size)
    rank, width = channel.rank, slots.shape[3]
    blocks = _blocks(channel, call.count * call.dtype.itemsize)

    def run(outgoing: Array, incoming: Array) -> None:
        if len(blocks) > 1:
            incoming[rank] = outgoing[rank]
        for few in batches(starts(outgoing[0], width)):
            places = []
            for start in few:
                part = outgoing[:, start : start + width]
                turn = rounds.begin(mark)
                for block in blocks:
                    slots[turn, rank, block, : part.shape[1]] = part[block]
                rounds.publish()
                places.append(turn)
            rounds.await_all()
            for start, turn in zip(few, places, strict=True):
                part = incoming[:, start : start + width]
                for block in blocks:
                    part[block] = slots[turn, block, rank, : part.shape[1]]

    return run


def _blocks(channel: SegmentChannel, size_bytes: int) -> tuple[slice, ...]:
    """Return the rows of a payload that go through slots: all of a small one, of a large one all but the own row."""
    if size_bytes <= WHOLE_BYTES:
        return (slice(0, channel.size),)
    return slice(0, channel.rank), slice(channel.rank + 1, channel.size)


def stretch(payload: Array, windows: list[Array], least_bytes: int = COPIED_BYTES) -> int:
    """Return how many elements of a payload go into a window: a quarter, so that ranks overlap, but not too few."""
    return min(windows[0].size, max(least_bytes // payload.itemsize, payload.size // 4))


def divided(slots: Array, size: int) -> Array:
    """Return `slots` with their last axis, the elements, parted for `size` ranks."""
    width = slots.shape[-1] // size
    return slots[..., : size * width].reshape(*slots.shape[:-1], size, width)


def starts(flat: Array, width: int) -> range:
    """Return where pieces of at most `width` elements begin; an empty payload is one empty piece."""
    return range(0, max(1, flat.size), width)


def batches(steps: range) -> Iterator[range]:
    """Yield as many of `steps` as a rank may write before it reads the first."""
    for first in range(0, len(steps), AHEAD):
        yield steps[first : first + AHEAD]


def pieces(flat: Array, width: int) -> Iterator[Array]:
    """Yield views of at most `width` elements."""
    for start in starts(flat, width):
        yield flat[start : start + width]
