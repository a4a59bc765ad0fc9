"""One-way messages from one rank to another through a ring of blocks.

The writer fills a block and posts the first semaphore. The reader takes the post, reads the block, and posts the second
semaphore once for each half of the ring. Whoever has taken a post owns the block, so that each byte has one owner at
any time.
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


class RingPair:
    """The two rings between this rank and rank `peer`. Implements `Link`.

    Attributes
    ----------
    peer
        Rank at the other end.
    writer, reader
        This rank's ends of the rings to and from `peer`.
    sent, received
        Number of messages that were begun in each direction.
    ended
        Always False: a rank detects that the peer has closed only when it waits for it.
    """

    __slots__ = ("ended", "peer", "reader", "received", "sent", "writer")

    def __init__(self, memory: mmap.mmap, plan: Layout, rank: int, peer: int) -> None:
        self.peer = peer
        self.writer = RingWriter(memory, plan, rank, peer)
        self.reader = RingReader(memory, plan, peer, rank)
        self.ended = False
        self.sent = 0
        self.received = 0

    def push_back(self, data: bytes) -> None:
        """Do nothing: no rank sends notices of a wait through a ring, behind which data would have been read."""


class _RingEnd:
    """What both ends share: the offset of the next block, and the semaphores of this end and of the peer's."""

    __slots__ = ("_capacity", "_first", "_last", "_memory", "_offset", "_own", "_peers", "_view", "peer", "ready")

    def __init__(self, memory: mmap.mmap, plan: Layout, peer: int, ring: int, own: int, peers: int, ready: int) -> None:
        self.peer = peer
        self._memory = memory
        self._view = memoryview(memory)
        self._own = Semaphore(memory, ring + own)
        self._peers = Semaphore(memory, ring + peers)
        self._first = self._offset = ring + 3 * LINE
        self._last = self._first + (BLOCKS - 1) * plan.block
        self._capacity = plan.block - BLOCK_PREFIX
        self.ready = ready

    def _next(self) -> None:
        self._offset = self._first if self._offset == self._last else self._offset + BLOCK_PREFIX + self._capacity


class RingWriter(_RingEnd):
    """The sender's end. ``ready`` is the number of free blocks."""

    __slots__ = ()

    def __init__(self, memory: mmap.mmap, plan: Layout, src: int, dst: int) -> None:
        super().__init__(memory, plan, dst, plan.ring(src, dst), LINE, 0, BLOCKS)

    def poll(self) -> bool:
        """Return whether a block is free."""
        if not self.ready and self._own.try_wait():
            self.ready = _HALF
        return self.ready > 0

    def sleep(self, seconds: float) -> bool:
        """Sleep until a block is free, for at most `seconds`; return whether one is."""
        if not self.ready and self._own.wait(seconds):
            self.ready = _HALF
        return self.ready > 0

    def push(self, buffers: Buffers, label: int = 0) -> int:
        """Copy from `buffers` into the next block, if it is free; return the number of bytes.

        A label other than 0 marks the first block of a message, and is passed to the reader.
        """
        if not self.poll():
            return 0
        start = self._offset + BLOCK_PREFIX
        end, last = start, start + self._capacity
        while buffers and end < last:
            part = buffers[0][: last - end]
            self._view[end : end + len(part)] = part
            end += len(part)
            advance(buffers, len(part))
        _PREFIX.pack_into(self._memory, self._offset, end - start, label)
        self._peers.post()
        self.ready -= 1
        self._next()
        return end - start


class RingReader(_RingEnd):
    """The receiver's end. ``ready`` is the number of filled blocks.

    ``label`` is that of the block read last, ``labelled`` counts the blocks that had one.
    """

    __slots__ = ("_cursor", "_taken", "label", "labelled")

    def __init__(self, memory: mmap.mmap, plan: Layout, src: int, dst: int) -> None:
        super().__init__(memory, plan, src, plan.ring(src, dst), 0, LINE, 0)
        self._cursor = 0
        self._taken = 0
        self.label = 0
        self.labelled = 0

    def poll(self) -> bool:
        """Return whether a block is filled."""
        if not self.ready and self._own.try_wait():
            self.ready = 1
        return self.ready > 0

    def sleep(self, seconds: float) -> bool:
        """Sleep until a block is filled, for at most `seconds`; return whether one is."""
        if not self.ready and self._own.wait(seconds):
            self.ready = 1
        return self.ready > 0

    def peek(self) -> int:
        """Return the label of the next block; 0 if it has none, or is not filled yet."""
        if self._cursor or not self.poll():
            return 0
        label: int = _PREFIX.unpack_from(self._memory, self._offset)[1]
        return label

    def pull(self, buffers: Buffers) -> int:
        """Copy from the next block, if it is filled, into `buffers`; return the number of bytes.

        Raises
        ------
        MismatchError
            If the block's length exceeds its capacity: another program has written to the segment.
        """
        if not self.poll():
            return 0
        start = self._offset + BLOCK_PREFIX
        length, label = _PREFIX.unpack_from(self._memory, self._offset)
        if length > self._capacity:
            raise MismatchError(
                f"shared memory is damaged: block of rank {self.peer}: expected at most {self._capacity} bytes, "
                f"got {length}"
            )
        if not self._cursor:
            self.label = label
            self.labelled += label > 0
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
            self._release_block()
        return moved

    def _release_block(self) -> None:
        self.ready -= 1
        self._cursor = 0
        self._taken += 1
        if self._taken % _HALF == 0:
            self._peers.post()
        self._next()
