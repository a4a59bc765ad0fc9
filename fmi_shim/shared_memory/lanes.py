"""A lane: one-way messages from one rank to another through a ring of blocks.

The sender fills a block and posts ``filled``; the receiver takes the post, reads, and posts ``free`` once for each
half of the ring. Who has a post or a credit owns the block, so that each byte has one owner at any time.
"""

from __future__ import annotations

import mmap

from fmi_shim.channels.stream import Buffers, advance
from fmi_shim.shared_memory.layout import BLOCK_PREFIX, BLOCKS, LINE, Layout
from fmi_shim.shared_memory.semaphores import Semaphore

_HALF = BLOCKS // 2


class _End:
    """What both ends share: where the next block is, and the semaphore that lets this end go on."""

    __slots__ = ("_awaited", "_first", "_last", "_memory", "_offset", "_room", "_told", "_view", "ready")

    def __init__(self, memory: mmap.mmap, plan: Layout, lane: int, awaited: int, told: int, ready: int) -> None:
        self._memory = memory
        self._view = memoryview(memory)
        self._awaited = Semaphore(memory, lane + awaited)
        self._told = Semaphore(memory, lane + told)
        self._first = self._offset = lane + 2 * LINE
        self._last = self._first + (BLOCKS - 1) * plan.block
        self._room = plan.block - BLOCK_PREFIX
        self.ready = ready

    def _next(self) -> None:
        self._offset = self._first if self._offset == self._last else self._offset + BLOCK_PREFIX + self._room


class Outlet(_End):
    """The sender's end. ``ready`` counts the blocks that may be filled."""

    __slots__ = ()

    def __init__(self, memory: mmap.mmap, plan: Layout, src: int, dst: int) -> None:
        super().__init__(memory, plan, plan.lane_of(src, dst), LINE, 0, BLOCKS)

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

    def put(self, block: bytes) -> None:
        """Fill a block, which may be filled, with `block`: its prefix and contents."""
        self._memory[self._offset : self._offset + len(block)] = block
        self._told.post()
        self.ready -= 1
        self._next()

    def push(self, buffers: Buffers) -> int:
        """Move what fits into a block, if one may be filled, out of `buffers`; return the number of bytes."""
        if not self.poll():
            return 0
        start = self._offset + BLOCK_PREFIX
        end, last = start, start + self._room
        while buffers and end < last:
            part = buffers[0][: last - end]
            self._view[end : end + len(part)] = part
            end += len(part)
            advance(buffers, len(part))
        self._memory[self._offset : start] = (end - start).to_bytes(BLOCK_PREFIX, "little")
        self._told.post()
        self.ready -= 1
        self._next()
        return end - start


class Inlet(_End):
    """The receiver's end. ``ready`` counts the blocks that may be read."""

    __slots__ = ("_cursor", "_taken")

    def __init__(self, memory: mmap.mmap, plan: Layout, src: int, dst: int) -> None:
        super().__init__(memory, plan, plan.lane_of(src, dst), 0, LINE, 0)
        self._cursor = 0
        self._taken = 0

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

    def take(self, block: bytes) -> bool:
        """Take the next block, which may be read, if it is `block`: prefix and contents; else leave it."""
        if self._cursor or self._memory[self._offset : self._offset + len(block)] != block:
            return False
        self._give_back()
        return True

    def pull(self, buffers: Buffers) -> int:
        """Move from the next block, if one may be read, into `buffers` what they take; return the number of bytes."""
        if not self.poll():
            return 0
        start = self._offset + BLOCK_PREFIX
        end = start + int.from_bytes(self._memory[self._offset : start], "little")
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
