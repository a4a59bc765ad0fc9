"""Where things lie in a segment, without any I/O: a pure function of the world size.

In this order: a first page with the abort record; for each of the *turns* that the rounds of collectives take the tags
of all ranks, side by side; for each turn *rows* for small values, one for each rank and one for the result, which lie
as near to each other as their length allows; for each rank a page with what else it tells the others; for each
ordered pair of ranks a *lane*, that is three semaphores and a ring of blocks for messages; for each turn a *slot* for
each rank, and one for results; or, in their place, a *window* for all ranks together, for payloads that fit no slot.
All of it together has a bounded size whatever the payloads are.
"""

from __future__ import annotations

from dataclasses import dataclass

LINE = 128
"""Bytes from one semaphore to the next: two cache lines, since some processors fetch them in pairs."""
PAGE = 4096
_CACHE_LINE = 64

MAX_RANKS = 256
"""Each ordered pair of ranks has its lane: at 256 ranks they take 300 MiB."""

TURNS = 8
"""Rounds of collectives that may be under way."""
AHEAD = TURNS // 2
"""A rank that needs no other's data is so many rounds ahead at most, and one that does waits once for as many."""

BLOCKS = 8
"""Blocks in a lane's ring. The receiver gives them back by halves, so that most messages cost no return post."""
BLOCK_PREFIX = 8
"""A block begins with the number of bytes in it, 4 bytes, and its label, 4 bytes."""

ROW_BYTES = 4096
"""The longest value that goes into a row."""

_LANES_BYTES = 8 << 20
_LARGEST_RING, _SMALLEST_RING = 256 << 10, 4 << 10
_SLOTS_BYTES = 34 << 20
_LARGEST_SLOT, _SMALLEST_SLOT = 256 << 10, 8 << 10
WINDOW_BYTES = 1 << 21
"""With half of it 16 MiB took up to a quarter longer among 4 ranks on 2 cores, with an eighth half as long again among
16."""

CLAIM = 0
"""Semaphore, 1 at first: who takes it may write the abort record."""
GATE = LINE
"""Semaphore, posted once the abort record is written; whoever takes it posts it again."""
ABORT = 1024
"""The abort record."""

_FAREWELL, _DOORBELL, _NEWS, _SAID = 0, LINE, 2 * LINE, 2 * LINE + MAX_RANKS + 8 * (MAX_RANKS + 1)
SAID_BYTES = 8 + 32 + 8 * 32
"""Room for the header of a call, with as many axes as there can be, behind its length."""
_PAGE = _SAID + (TURNS + 1) * SAID_BYTES


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
        A slot.
    """

    size: int
    block: int
    slot: int

    @property
    def lanes(self) -> int:
        """Offset of the lanes."""
        return self._page(self.size)

    @property
    def lane(self) -> int:
        """Bytes from one lane to the next."""
        return 3 * LINE + BLOCKS * self.block

    @property
    def slots(self) -> int:
        """Offset of the slots."""
        return _up(self.lanes + self.size * self.size * self.lane, PAGE)

    @property
    def stride(self) -> int:
        """Bytes from one rank's slot to the next's, a line more so that like places do not share cache sets."""
        return self.slot + LINE

    @property
    def turn(self) -> int:
        """Bytes from one turn's slots, or window, to the next's."""
        return _up(max((self.size + 1) * self.stride, WINDOW_BYTES), PAGE)

    @property
    def total(self) -> int:
        """Bytes of the whole segment."""
        return self.slots + TURNS * self.turn

    def tags(self, turn: int) -> int:
        """Return the offset of the words that tell, rank by rank, what all have come to at `turn`."""
        return PAGE + turn * self._tags_bytes

    def settled(self, turn: int) -> int:
        """Return the offset of the word that tells which round at `turn` is settled: a line behind the tags."""
        return self.tags(turn) + self._tags_bytes - LINE

    def rows(self, turn: int) -> int:
        """Return the offset of the first row at `turn`."""
        return _up(self.tags(TURNS), PAGE) + turn * self._rows_bytes

    @staticmethod
    def row(length: int) -> int:
        """Return the bytes from one row of so many bytes to the next.

        One word lies beside the other; what is longer, on cache lines of its own, of which an odd number keeps like
        places of long rows in different cache sets.
        """
        lines = -(-length // _CACHE_LINE)
        return 8 if length <= 8 else (lines if lines == 1 else lines | 1) * _CACHE_LINE

    def farewell(self, rank: int) -> int:
        """Return the offset of the semaphore that `rank` posts when it leaves in peace."""
        return self._page(rank) + _FAREWELL

    def doorbell(self, rank: int) -> int:
        """Return the offset of the semaphore that `rank` sleeps on while it waits for a round."""
        return self._page(rank) + _DOORBELL

    def news(self, rank: int) -> int:
        """Return the offset of what `rank` looks at in each round.

        That is a word that is 1 once the abort record is written; for each rank the number of messages it has sent
        there, a word each; and for each rank a byte that is 1 while it sleeps for this one.
        """
        return self._page(rank) + _NEWS

    @property
    def news_bytes(self) -> int:
        """Return how long that is."""
        return 8 * (self.size + 1) + self.size

    def said(self, rank: int, turn: int) -> int:
        """Return the offset of the header of the call that `rank` is in at `turn`; at `TURNS`, of what it waits in."""
        return self._page(rank) + _SAID + turn * SAID_BYTES

    @property
    def _tags_bytes(self) -> int:
        return _up(8 * self.size, LINE) + LINE

    @property
    def _rows_bytes(self) -> int:
        return _up((self.size + 1) * self.row(ROW_BYTES), PAGE)

    def _page(self, rank: int) -> int:
        return self.rows(TURNS) + rank * _up(_PAGE, PAGE)

    def lane_of(self, src: int, dst: int) -> int:
        """Return the offset of the lane from `src` to `dst`."""
        return self.lanes + (src * self.size + dst) * self.lane


def layout_for(size: int) -> Layout:
    """Return the layout for `size` ranks, at most `MAX_RANKS`."""
    ring = min(_LARGEST_RING, max(_SMALLEST_RING, _power_of_two(_LANES_BYTES // (size * size))))
    slot = min(_LARGEST_SLOT, max(_SMALLEST_SLOT, _power_of_two(_SLOTS_BYTES // (TURNS * (size + 1)))))
    return Layout(size, ring // BLOCKS, slot)


def _up(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)
