"""Where things lie in a segment, without any I/O: a pure function of the world size.

In this order: a first page with the abort record; a semaphore for each rank's farewell; for each ordered pair of
ranks a *lane*, that is two semaphores and a ring of blocks for messages; for each rank two *slots* that it
exposes operands in; two areas for results. All of it together has a bounded size whatever the payloads are.
"""

from __future__ import annotations

from dataclasses import dataclass

LINE = 128
"""Bytes from one semaphore to the next: two cache lines, since some processors fetch them in pairs."""
PAGE = 4096

MAX_RANKS = 256
"""Each ordered pair of ranks has its lane: at 256 ranks they take 288 MiB."""

BLOCKS = 8
"""Blocks in a lane's ring. The receiver gives them back by halves, so that most messages cost no return post."""
BLOCK_PREFIX = 8
"""A block begins with the number of bytes in it, 8 bytes."""

_LANES_BYTES = 16 << 20
_LARGEST_RING, _SMALLEST_RING = 256 << 10, 4 << 10
_SLOTS_BYTES = 20 << 20
_LARGEST_SLOT, _SMALLEST_SLOT = 1 << 20, 32 << 10

CLAIM = 0
"""Semaphore, 1 at first: who takes it may write the abort record."""
GATE = LINE
"""Semaphore, posted once the abort record is written; whoever takes it posts it again."""
ABORT = 1024
"""The abort record."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets and sizes in bytes.

    Attributes
    ----------
    size
        Number of ranks.
    block
        A lane's block, its prefix included.
    slot
        A slot, and a result area.
    """

    size: int
    block: int
    slot: int

    @property
    def lanes(self) -> int:
        """Offset of the lanes."""
        return _up(PAGE + self.size * LINE, PAGE)

    @property
    def lane(self) -> int:
        """Bytes from one lane to the next."""
        return 2 * LINE + BLOCKS * self.block

    @property
    def slots(self) -> int:
        """Offset of the slots."""
        return _up(self.lanes + self.size * self.size * self.lane, PAGE)

    @property
    def results(self) -> int:
        """Offset of the two result areas."""
        return self.slots + 2 * self.size * self.slot

    @property
    def total(self) -> int:
        """Bytes of the whole segment."""
        return self.results + 2 * self.slot

    def farewell(self, rank: int) -> int:
        """Return the offset of the semaphore that `rank` posts when it leaves in peace."""
        return PAGE + rank * LINE

    def lane_of(self, src: int, dst: int) -> int:
        """Return the offset of the lane from `src` to `dst`."""
        return self.lanes + (src * self.size + dst) * self.lane


def layout_for(size: int) -> Layout:
    """Return the layout for `size` ranks, at most `MAX_RANKS`."""
    ring = min(_LARGEST_RING, max(_SMALLEST_RING, _power_of_two(_LANES_BYTES // (size * size))))
    slot = min(_LARGEST_SLOT, max(_SMALLEST_SLOT, _power_of_two(_SLOTS_BYTES // (2 * (size + 1)))))
    return Layout(size, ring // BLOCKS, slot)


def _up(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)
