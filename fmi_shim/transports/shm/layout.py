"""Offsets of everything in a segment, without any I/O: a pure function of the world size.

The order is:

- a first page with the abort record;
- for each of the `ROUNDS_IN_FLIGHT` slot indices, the tags of all ranks, side by side;
- for each slot index, *rows* for small values, one for each rank and one for the result, as close to each other as
  their length allows;
- for each rank, a page with its notifications and call headers;
- for each ordered pair of ranks, a *ring*: three semaphores and the blocks for messages;
- for each slot index, a *slot* for each rank and one for the result. The same memory serves as one *window* for all
  ranks together, for payloads larger than a slot.

The round with number n uses slot index ``n % ROUNDS_IN_FLIGHT``. The total size is bounded, whatever the payloads are.
"""

from __future__ import annotations

from dataclasses import dataclass

LINE = 128
"""Bytes from one semaphore to the next: two cache lines, since some processors fetch them in pairs."""
PAGE = 4096
_CACHE_LINE = 64

MAX_RANKS = 256
"""Each ordered pair of ranks has a ring: at 256 ranks the rings take 300 MiB."""

ROUNDS_IN_FLIGHT = 8
"""Number of rounds whose memory exists at the same time."""
MAX_LEAD = ROUNDS_IN_FLIGHT // 2
"""Rounds that a rank may be ahead of the others. A rank that reads their data may wait once for as many rounds."""

BLOCKS = 8
"""Blocks in a ring. The receiver releases them in halves, so that most messages need no post in return."""
BLOCK_PREFIX = 8
"""A block begins with the number of bytes in it, 4 bytes, and its label, 4 bytes."""

MAX_ROW_BYTES = 4096
"""The longest value that fits a row."""

_RINGS_BYTES = 8 << 20
_LARGEST_RING, _SMALLEST_RING = 256 << 10, 4 << 10
_SLOTS_BYTES = 34 << 20
_LARGEST_SLOT, _SMALLEST_SLOT = 256 << 10, 8 << 10
WINDOW_BYTES = 1 << 21
"""With half of it 16 MiB took up to a quarter longer among 4 ranks on 2 cores, with an eighth half as long again among
16."""

ABORT_CLAIM = 0
"""Semaphore, 1 at first: the rank that takes it may write the abort record."""
ABORT_READY = LINE
"""Semaphore, posted once the abort record is written; each reader takes the post and posts again."""
ABORT_RECORD = 1024

_CLOSED, _DOORBELL, _NOTIFICATIONS = 0, LINE, 2 * LINE
_CALL_HEADERS = _NOTIFICATIONS + MAX_RANKS + 8 * (MAX_RANKS + 1)
CALL_HEADER_BYTES = 8 + 32 + 8 * 32
"""Room for the length of a call's header, and the header with the largest number of axes."""
_RANK_PAGE_BYTES = _CALL_HEADERS + ROUNDS_IN_FLIGHT * CALL_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets and sizes in bytes.

    Attributes
    ----------
    size
        Number of ranks.
    block
        Size of a ring's block, its prefix included.
    slot
        Size of a slot.
    """

    size: int
    block: int
    slot: int

    @property
    def rings(self) -> int:
        """Offset of the first ring."""
        return self._rank_page(self.size)

    @property
    def ring_stride(self) -> int:
        """Bytes from one ring to the next."""
        return 3 * LINE + BLOCKS * self.block

    @property
    def slots(self) -> int:
        """Offset of the first slot."""
        return _round_up(self.rings + self.size * self.size * self.ring_stride, PAGE)

    @property
    def slot_stride(self) -> int:
        """Bytes from one rank's slot to the next: a line more than a slot, so that equal offsets share no cache set."""
        return self.slot + LINE

    @property
    def round_stride(self) -> int:
        """Bytes from the slots, or the window, of one slot index to those of the next."""
        return _round_up(max((self.size + 1) * self.slot_stride, WINDOW_BYTES), PAGE)

    @property
    def total(self) -> int:
        """Bytes of the whole segment."""
        return self.slots + ROUNDS_IN_FLIGHT * self.round_stride

    def tags(self, slot_index: int) -> int:
        """Return the offset of the ranks' tags, one word for each rank."""
        return PAGE + slot_index * self._tags_bytes

    def result_tag(self, slot_index: int) -> int:
        """Return the offset of the word with the tag of the last round whose result is published, behind the tags."""
        return self.tags(slot_index) + self._tags_bytes - LINE

    def rows(self, slot_index: int) -> int:
        """Return the offset of the first row."""
        return _round_up(self.tags(ROUNDS_IN_FLIGHT), PAGE) + slot_index * self._rows_bytes

    @staticmethod
    def row_stride(length: int) -> int:
        """Return the bytes from one row of `length` bytes to the next.

        Rows of one word are contiguous. Longer ones begin on cache lines of their own, an odd number of lines apart, so
        that equal offsets of long rows share no cache set.
        """
        lines = -(-length // _CACHE_LINE)
        return 8 if length <= 8 else (lines if lines == 1 else lines | 1) * _CACHE_LINE

    def closed(self, rank: int) -> int:
        """Return the offset of the semaphore that `rank` posts when it closes without an error."""
        return self._rank_page(rank) + _CLOSED

    def doorbell(self, rank: int) -> int:
        """Return the offset of the semaphore that `rank` sleeps on while it waits for a round."""
        return self._rank_page(rank) + _DOORBELL

    def notifications(self, rank: int) -> int:
        """Return the offset of the notifications to `rank`, which it checks in each round.

        They are: one word, 1 once the abort record is written; for each sender a word, the number of messages it has
        sent to `rank`; for each rank a byte, 1 while that rank sleeps until `rank` publishes.
        """
        return self._rank_page(rank) + _NOTIFICATIONS

    @property
    def notifications_bytes(self) -> int:
        """Length of a rank's notifications."""
        return 8 * (self.size + 1) + self.size

    def call_header(self, rank: int, slot_index: int) -> int:
        """Return the offset of the header of the call that `rank` is in."""
        return self._rank_page(rank) + _CALL_HEADERS + slot_index * CALL_HEADER_BYTES

    @property
    def _tags_bytes(self) -> int:
        return _round_up(8 * self.size, LINE) + LINE

    @property
    def _rows_bytes(self) -> int:
        return _round_up((self.size + 1) * self.row_stride(MAX_ROW_BYTES), PAGE)

    def _rank_page(self, rank: int) -> int:
        return self.rows(ROUNDS_IN_FLIGHT) + rank * _round_up(_RANK_PAGE_BYTES, PAGE)

    def ring(self, src: int, dst: int) -> int:
        """Return the offset of the ring from `src` to `dst`."""
        return self.rings + (src * self.size + dst) * self.ring_stride


def layout_for(size: int) -> Layout:
    """Return the layout for `size` ranks, at most `MAX_RANKS`."""
    ring = min(_LARGEST_RING, max(_SMALLEST_RING, _power_of_two(_RINGS_BYTES // (size * size))))
    slot = min(_LARGEST_SLOT, max(_SMALLEST_SLOT, _power_of_two(_SLOTS_BYTES // (ROUNDS_IN_FLIGHT * (size + 1)))))
    return Layout(size, ring // BLOCKS, slot)


def _round_up(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)
