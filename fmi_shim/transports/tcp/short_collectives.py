"""Collectives of short payloads over TCP: the algorithms and messages of `fmi_shim.collectives`, in prepared frames.

A rank takes part in the same way whether it runs the schedule here or the general one: both send the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fmi_shim.channel import Schedule
from fmi_shim.collectives.memory import placed
from fmi_shim.collectives.tree import position
from fmi_shim.frames import Call, Operation, header, signature
from fmi_shim.operators import Array, Combine, CombineNumbers, ReduceFunction, combination_of_numbers
from fmi_shim.transports.tcp.short_messages import SHORT_BYTES, Frame, ShortMessages

_NUMBERS = 0xFFFFFFFF
"""Call numbers in headers are taken modulo 2^32."""

Move = Callable[[Frame, Frame, int], None]
"""`ShortMessages.exchange` or `ShortMessages.receive`: the second frame is received, with the header of the first."""


class Frames:
    """Makes the frames of one call.

    Parameters
    ----------
    call
        The call.
    has_headers
        Whether messages have headers.

    Attributes
    ----------
    made
        All frames that were made.
    """

    def __init__(self, call: Call, dtype: np.dtype[Any], has_headers: bool) -> None:
        self._call = call
        self._dtype = dtype
        self._signature = signature(call) if has_headers else None
        self.made: list[Frame] = []

    def frame(self, parts: int = 1) -> Frame:
        """Return a frame for that many ranks' parts."""
        count = parts * self._call.count
        size_bytes = count * self._dtype.itemsize
        head = b"" if self._signature is None else header(self._signature, size_bytes, self._call.shape)
        self.made.append(Frame(head, count, self._dtype))
        return self.made[-1]


def prepare(
    messages: ShortMessages,
    rank: int,
    size: int,
    call: Call,
    function: ReduceFunction | None,
    combine: Combine | None,
    has_headers: bool,
) -> Schedule | None:
    """Return the schedule of a short collective of rank `rank` of `size`; None for other calls.

    Parameters
    ----------
    messages
        The channel's short messages.
    call, function, combine
        See `Channel.prepare`.
    has_headers
        Whether messages have headers.
    """
    if call.dtype is None or size == 1 or sys.byteorder != "little":  # headers have little-endian numbers
        return None
    frames = Frames(call, call.dtype, has_headers)
    part_bytes = call.count * call.dtype.itemsize
    if part_bytes > SHORT_BYTES or not call.count:
        return None
    match call.operation:
        case Operation.allreduce if function is not None and combine is not None and not function.left_to_right:
            core = 1 << size.bit_length() - 1
            if rank >= core:
                return None
            partner = rank + core if rank + core < size else None
            steps: list[tuple[Move, int]] = [] if partner is None else [(messages.receive, partner)]
            steps += [(messages.exchange, rank ^ 1 << bit) for bit in range(core.bit_length() - 1)]
            return _reduction(messages, frames, steps, partner, True, function, combine)
        case Operation.reduce if function is not None and combine is not None and not function.left_to_right:
            place = position(rank, size, call.root)
            steps = [(messages.receive, child.rank) for child in place.children]
            return _reduction(messages, frames, steps, place.parent, place.parent is None, function, combine)
        case Operation.barrier if not size & (size - 1):
            return ShortBarrier(messages, frames, rank, size)
        case Operation.bcast:
            return ShortBcast(messages, frames, rank, size, call.root)
        case Operation.gather if part_bytes * (size // 2) <= SHORT_BYTES:
            return ShortGather(messages, frames, rank, size, call.root)
        case Operation.scatter if part_bytes * (size // 2) <= SHORT_BYTES:
            return ShortScatter(messages, frames, rank, size, call.root)
        case Operation.allgather if part_bytes * size <= SHORT_BYTES:
            return ShortAllgather(messages, frames, rank, size)
    return None


def _reduction(
    messages: ShortMessages,
    frames: Frames,
    steps: list[tuple[Move, int]],
    onward: int | None,
    keeps_result: bool,
    function: ReduceFunction,
    combine: Combine,
) -> Schedule:
    incoming, own = frames.frame(), frames.frame()
    numbers = combination_of_numbers(function, own.payload.dtype, combine) if own.payload.size == 1 else None
    if numbers is not None:
        return NumberReduction(messages, own, incoming, steps, onward, keeps_result, numbers)
    results = [frames.frame() for _ in steps]
    return ShortReduction(messages, [own, *results], incoming, steps, onward, keeps_result, combine)


class ShortReduction:
    """The schedule of an allreduce (`allreduce.recursive_doubling`) or a reduce (`reduce.binomial`).

    The rank combines its value with those that it receives one after another. Each result is in another frame: numpy
    takes 2.6 times as long to replace a single element by its result. Copies: the value into the first frame.

    Parameters
    ----------
    messages
        The channel's short messages.
    own
        The frames for the value and for the result of each step.
    incoming
        The frame for received messages.
    steps
        How a value is received, and from which rank.
    onward
        The rank that the result is sent to, if any.
    keeps_result
        Whether this rank returns the result.
    combine
        Combines two payloads.
    """

    __slots__ = ("_combine", "_incoming", "_keeps_result", "_messages", "_onward", "_own", "_steps")

    def __init__(
        self,
        messages: ShortMessages,
        own: list[Frame],
        incoming: Frame,
        steps: list[tuple[Move, int]],
        onward: int | None,
        keeps_result: bool,
        combine: Combine,
    ) -> None:
        self._messages = messages
        self._own = own[0]
        self._incoming = incoming
        results: list[Frame | None] = [*own[1:]]
        if onward is None:
            results[-1] = None
        self._steps = [(move, peer, into) for (move, peer), into in zip(steps, results, strict=True)]
        self._onward = onward
        self._keeps_result = keeps_result
        self._combine = combine

    def __call__(self, value: Array, spare: Array | None) -> Array | None:
        """Return the result in `spare`, or in new memory where that is None; None on ranks that have none."""
        own, incoming, combine = self._own, self._incoming, self._combine
        own.number[0] = number = self._messages.channel.sequence & _NUMBERS
        own.payload[...] = value
        for move, peer, into in self._steps:
            move(own, incoming, peer)
            if into is None:  # the last step, of a rank that sends no result
                result = value.copy() if spare is None else spare
                combine(own.payload, incoming.payload, result)
                return result
            into.number[0] = number
            combine(own.payload, incoming.payload, into.payload)
            own = into
        assert self._onward is not None  # noqa: S101 - else there is a last step
        self._messages.send(own, self._onward)
        return placed(own.payload, value.copy() if spare is None else spare) if self._keeps_result else None


class NumberReduction:
    """A `ShortReduction` of a single number by Python's arithmetic, which takes a third of numpy's time.

    Parameters
    ----------
    own, incoming
        The frames for the messages of this rank, and for received ones.
    combine
        Combines two numbers.
    """

    __slots__ = (
        "_combine",
        "_incoming",
        "_incoming_number",
        "_keeps_result",
        "_messages",
        "_onward",
        "_own",
        "_own_number",
        "_steps",
    )

    def __init__(
        self,
        messages: ShortMessages,
        own: Frame,
        incoming: Frame,
        steps: list[tuple[Move, int]],
        onward: int | None,
        keeps_result: bool,
        combine: CombineNumbers,
    ) -> None:
        self._messages = messages
        self._own = own
        self._own_number = own.payload.data
        self._incoming = incoming
        self._incoming_number = incoming.payload.data
        self._steps = steps
        self._onward = onward
        self._keeps_result = keeps_result
        self._combine = combine

    def __call__(self, value: Array, spare: Array | None) -> Array | None:
        """Return the result in `spare`, or in new memory where that is None; None on ranks that have none."""
        own, incoming, combine = self._own, self._incoming, self._combine
        sent, received = self._own_number, self._incoming_number
        own.number[0] = self._messages.channel.sequence & _NUMBERS
        sent[0] = result = value.item()
        for move, peer in self._steps:
            move(own, incoming, peer)
            sent[0] = result = combine(result, received[0])
        if self._onward is not None:
            self._messages.send(own, self._onward)
        if not self._keeps_result:
            return None
        place = value.copy() if spare is None else spare
        place[0] = result
        return place


class ShortBarrier:
    """The schedule of a barrier among 2^k ranks: an allreduce of bytes that are not combined."""

    __slots__ = ("_incoming", "_messages", "_own", "_peers")

    def __init__(self, messages: ShortMessages, frames: Frames, rank: int, size: int) -> None:
        self._messages = messages
        self._own = frames.frame()
        self._own.payload[...] = 1
        self._incoming = frames.frame()
        self._peers = [rank ^ 1 << bit for bit in range(size.bit_length() - 1)]

    def __call__(self) -> None:
        """Return when all ranks have called it."""
        messages, own = self._messages, self._own
        own.number[0] = messages.channel.sequence & _NUMBERS
        for peer in self._peers:
            messages.exchange(own, self._incoming, peer)


class ShortBcast:
    """The schedule of `bcast.binomial`. Copies: the payload into or out of a frame, which is passed on as it is."""

    __slots__ = ("_children", "_expected", "_frame", "_messages", "_parent")

    def __init__(self, messages: ShortMessages, frames: Frames, rank: int, size: int, root: int) -> None:
        place = position(rank, size, root)
        self._messages = messages
        self._parent = place.parent
        self._children = [child.rank for child in reversed(place.children)]
        self._expected = frames.frame()
        self._frame = self._expected if place.parent is None else frames.frame()

    def __call__(self, buffer: Array) -> Array:
        """Return `buffer`, filled with the root's payload."""
        messages, frame, expected = self._messages, self._frame, self._expected
        expected.number[0] = messages.channel.sequence & _NUMBERS
        if self._parent is None:
            frame.payload[...] = buffer
        else:
            messages.receive(expected, frame, self._parent)
        for child in self._children:
            messages.send(frame, child)
        if self._parent is not None:
            buffer[...] = frame.payload
        return buffer


class Rows:
    """A frame whose payload is parts of successive ranks, in an array of all ranks' parts.

    Parameters
    ----------
    frame
        The frame.
    first, count, size
        The first rank of these, their number, and the number of all ranks; rank 0 follows the last one.
    """

    __slots__ = ("_pairs", "frame")

    def __init__(self, frame: Frame, first: int, count: int, size: int) -> None:
        self.frame = frame
        rows = frame.payload.reshape(count, -1)
        before_end = min(count, size - first)
        self._pairs = [(rows[:before_end], slice(first, first + before_end))]
        if before_end < count:
            self._pairs.append((rows[before_end:], slice(count - before_end)))

    def write(self, parts: Array) -> None:
        """Copy the ranks' parts into the frame."""
        for rows, place in self._pairs:
            rows[...] = parts[place]

    def read(self, parts: Array) -> None:
        """Copy the ranks' parts out of the frame."""
        for rows, place in self._pairs:
            parts[place] = rows


class ShortGather:
    """The schedule of `gather.binomial`. Copies: each part into a frame or into its place, and out of a frame."""

    __slots__ = ("_children", "_frames", "_messages", "_own_row", "_parent", "_rows", "_size", "_up")

    def __init__(self, messages: ShortMessages, frames: Frames, rank: int, size: int, root: int) -> None:
        place = position(rank, size, root)
        self._messages = messages
        self._size = size
        self._parent = place.parent
        # At the root all parts in the order of the ranks, else those of the subtree in rotated order.
        self._own_row = root if place.parent is None else 0
        self._up = None if place.parent is None else frames.frame(place.subtree)
        self._rows = None if self._up is None else self._up.payload.reshape(place.subtree, -1)
        self._children = [
            (frames.frame(n), Rows(frames.frame(n), (self._own_row + child.offset) % size, n, size), child.rank)
            for child in place.children
            for n in (child.subtree,)
        ]
        self._frames = frames.made

    def __call__(self, part: Array, whole: Array | None) -> Array | None:
        """Return the ranks' parts at the root, in `whole` where that is given; None elsewhere."""
        messages = self._messages
        number = messages.channel.sequence & _NUMBERS
        for frame in self._frames:
            frame.number[0] = number
        rows = self._rows
        if rows is None:
            whole = np.empty(self._size * part.size, part.dtype) if whole is None else whole
            rows = whole.reshape(self._size, -1)
        rows[self._own_row] = part
        for expected, received, child in self._children:
            messages.receive(expected, received.frame, child)
            received.read(rows)
        if self._up is None or self._parent is None:
            return whole
        messages.send(self._up, self._parent)
        return None


class ShortScatter:
    """The schedule of `scatter.binomial`. Copies: each slice into a frame for each rank that it passes, and out."""

    __slots__ = ("_children", "_down", "_expected", "_frames", "_messages", "_own_row", "_parent", "_rows", "_size")

    def __init__(self, messages: ShortMessages, frames: Frames, rank: int, size: int, root: int) -> None:
        place = position(rank, size, root)
        self._messages = messages
        self._size = size
        self._parent = place.parent
        self._own_row = root if place.parent is None else 0
        self._down = None if place.parent is None else frames.frame(place.subtree)
        self._expected = None if place.parent is None else frames.frame(place.subtree)
        self._rows = None if self._down is None else self._down.payload.reshape(place.subtree, -1)
        self._children = [
            (Rows(frames.frame(n), (self._own_row + child.offset) % size, n, size), child.rank)
            for child in reversed(place.children)
            for n in (child.subtree,)
        ]
        self._frames = frames.made

    def __call__(self, whole: Array | None, own: Array) -> Array:
        """Return `own`, filled with this rank's slice of the root's `whole`."""
        messages = self._messages
        number = messages.channel.sequence & _NUMBERS
        for frame in self._frames:
            frame.number[0] = number
        rows = self._rows
        if rows is None:
            assert whole is not None  # noqa: S101 - the root has what it scatters
            rows = whole.reshape(self._size, -1)
        elif self._down is not None and self._expected is not None and self._parent is not None:
            messages.receive(self._expected, self._down, self._parent)
        for sent, child in self._children:
            sent.write(rows)
            messages.send(sent.frame, child)
        own[...] = rows[self._own_row]
        return own


class ShortAllgather:
    """The schedule of `allgather.bruck`. Copies: a rank's parts into a frame and out of one, once a round."""

    __slots__ = ("_frames", "_messages", "_rounds")

    def __init__(self, messages: ShortMessages, frames: Frames, rank: int, size: int) -> None:
        self._messages = messages
        self._rounds = []
        known = 1
        while known < size:
            step = min(known, size - known)
            to, source = (rank - known) % size, (rank + known) % size
            outgoing = Rows(frames.frame(step), rank, step, size)
            self._rounds.append((outgoing, Rows(frames.frame(step), source, step, size), source, to))
            known += step
        self._frames = frames.made

    def __call__(self, parts: Array) -> None:
        """Fill `parts`, shape (p, n), which has this rank's row."""
        messages = self._messages
        number = messages.channel.sequence & _NUMBERS
        for frame in self._frames:
            frame.number[0] = number
        for outgoing, incoming, source, to in self._rounds:
            outgoing.write(parts)
            messages.shift(outgoing.frame, to, incoming.frame, source)
            incoming.read(parts)
