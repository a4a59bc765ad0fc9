"""A lane: one-way messages from one rank to another through a ring of blocks.

The sender fills a block and posts ``filled``; the receiver takes the post, reads, and posts ``free`` once for each
half of the ring. Who has a post or a credit owns the block, so that each byte has one owner at any time.
"""

from __future__ import annotations

import mmap
import struct

from fmi_shim.errors import MismatchError
from fmi_shim.transports.shm.layout import BLOCK_PREFIX, BLOCKS, LINE, Layout
from fmi_shim.transports.shm.semaphores import Semaphore
from fmi_shim.transports.transfers import Buffers, advance

_HALF = BLOCKS // 2
_PREFIX = struct.Struct("<II")


class LanePair:
    """The way to rank `peer` and back.

    Attributes
    ----------
    peer
        Rank at the other end.
    outlet, inlet
        The ends of the two lanes that are this rank's.
    sent, received
        Number of messages that were begun in each direction.
    ended
        Always False: that the other end left is seen only when it is waited for.
    """

    __slots__ = ("ended", "inlet", "outlet", "peer", "received", "sent")

    def __init__(self, memory: mmap.mmap, plan: Layout, rank: int, peer: int) -> None:
        self.peer = peer
        self.outlet = Outlet(memory, plan, rank, peer)
        self.inlet = Inlet(memory, plan, peer, rank)
        self.ended = False
        self.sent = 0
        self.received = 0

    def push_back(self, data: bytes) -> None:
        """Have no use for it: through lanes nobody says that it waits."""


class _End:
    """What both ends share: where the next block is, the semaphore that lets this end go on, and who has the other."""

    __slots__ = ("_awaited", "_first", "_last", "_memory", "_offset", "_room", "_told", "_view", "peer", "ready")

    def __init__(
        self, memory: mmap.mmap, plan: Layout, peer: int, lane: int, awaited: int, told: int, ready: int
    ) -> None:
        self.peer = peer
        self._memory = memory
        self._view = memoryview(memory)
        self._awaited = Semaphore(memory, lane + awaited)
        self._told = Semaphore(memory, lane + told)
        self._first = self._offset = lane + 3 * LINE
        self._last = self._first + (BLOCKS - 1) * plan.block
        self._room = plan.block - BLOCK_PREFIX
        self.ready = ready

    def _next(self) -> None:
        self._offset = self._first if self._offset == self._last else self._offset + BLOCK_PREFIX + self._room


class Outlet(_End):
    """The sender's end. ``ready`` counts the blocks that may be filled."""

    __slots__ = ()

    def __init__(self, memory: mmap.mmap, plan: Layout, src: int, dst: int) -> None:
        super().__init__(memory, plan, dst, plan.lane_of(src, dst), LINE, 0, BLOCKS)

    def poll(self) -> bool:
        """Whether a block may be filled."""
        if not self.ready and self._awaited.try_wait():
            self.ready = _HALF
        return self.ready > 0

    def sleep(self, seconds: float) -> bool:
        """Sleep until a block may be filled, for at most `seconds`."""
        if not self.ready and self._awaited.wait(seconds):
            self.ready = _HALF
        return self.ready > 0

    def push(self, buffers: Buffers, label: int = 0) -> int:
        """Move what fits into a block, if one may be filled, out of `buffers`; return the number of bytes.

        The label, where it is not 0, marks the beginning of a message, and tells the receiver something of it.
        """
        if not self.poll():
            return 0
        start = self._offset + BLOCK_PREFIX
        end, last = start, start + self._room
        while buffers and end < last:
            part = buffers[0][: last - end]
            self._view[end : end + len(part)] = part
            end += len(part)
            advance(buffers, len(part))
        _PREFIX.pack_into(self._memory, self._offset, end - start, label)
        self._told.post()
        self.ready -= 1
        self._next()
        return end - start


class Inlet(_End):
    """The receiver's end. ``ready`` counts the blocks that may be read.

    ``label`` is that of the block read last, ``labels`` counts those that had one.
    """

    __slots__ = ("_cursor", "_taken", "label", "labels")

    def __init__(self, memory: mmap.mmap, plan: Layout, src: int, dst: int) -> None:
        super().__init__(memory, plan, src, plan.lane_of(src, dst), 0, LINE, 0)
        self._cursor = 0
        self._taken = 0
        self.label = 0
        self.labels = 0

    def poll(self) -> bool:
        """Whether a block may be read."""
        if not self.ready and self._awaited.try_wait():
            self.ready = 1
        return self.ready > 0

    def sleep(self, seconds: float) -> bool:
        """Sleep until a block may be read, for at most `seconds`."""
        if not self.ready and self._awaited.wait(seconds):
            self.ready = 1
        return self.ready > 0

    def peek(self) -> int:
        """Return the label of the next block, 0 where it has none or has not come."""
        if self._cursor or not self.poll():
            return 0
        label: int = _PREFIX.unpack_from(self._memory, self._offset)[1]
        return label

    def pull(self, buffers: Buffers) -> int:
        """Move from the next block, if one may be read, into `buffers` what they take; return the number of bytes.

        Raises
        ------
        MismatchError
            If the block announces more than fits one: other programs than the ranks have written to the segment.
        """
        if not self.poll():
            return 0
        start = self._offset + BLOCK_PREFIX
        length, label = _PREFIX.unpack_from(self._memory, self._offset)
        if length > self._room:
            raise MismatchError(
                f"the shared memory is damaged: rank {self.peer} announces a block of {length} bytes, {self._room} fit"
            )
        if not self._cursor:
            self.label = label
            self.labels += label > 0
        end = start + length
        position = start + self._cursor
        moved = 0
        while buffers and position < end:
            part = (
                self._view[position : position + len(buffers[0])]
                if len(buffers[0]) < end - position
                else (self._view[position:end])
            )
            buffers[0][: len(part)] = part
            position += len(part)
            moved += len(part)
            advance(buffers, len(part))
        self._cursor = position - start
        if position == end:
            self._give_back()
        return moved

    def _give_back(self) -> None:
        self.ready -= 1
        self._cursor = 0
        self._taken += 1
        if self._taken % _HALF == 0:
            self._told.post()
        self._next()
