"""Rounds of collectives: each rank publishes that it has reached a round, and in which call, and waits for the others.

A collective is one round or several. In a round each rank writes its slot, *publishes* its *tag*, waits for the tags of
the ranks whose slots it needs, and reads those slots. All ranks run the same rounds. A tag is a word that is computed
from the call of this round and of all rounds before. So one comparison shows that a rank has reached the round, in the
same call, after the same calls. The lowest 16 bits of a tag are the round's number; the next round of the same call has
the next tag. Where a rank's call changes, the rank also writes the call's header, which a mismatch is reported from.

Of a round in which all ranks wait for all, one rank may *publish the result*: the first rank that sees all tags
computes it, and the others, which poll one more word, only copy it.

A slot, a tag and a header are reused every `ROUNDS_IN_FLIGHT` rounds. A rank may publish `MAX_LEAD` rounds before it
reads the slots of the first of them, and may overwrite its slot when all have reached the round `MAX_LEAD` before. So a
rank that needs no data may be some rounds ahead, and a rank that needs data may wait once for several rounds.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from fmi_shim.transports.shm.layout import CALL_HEADER_BYTES, LINE, MAX_LEAD, ROUNDS_IN_FLIGHT, Layout
from fmi_shim.transports.shm.semaphores import Semaphore

_PRIME = 0x100000001B3  # FNV-1a's for 64 bits, http://www.isthe.com/chongo/tech/comp/fnv/
_CALLS_MASK = (1 << 63) - (1 << 16)
"""The bits of a tag that are computed from the calls: not the highest, so that adding 1 never overflows a word."""
NUMBER_MASK = (1 << 16) - 1
"""The bits that hold the round's number. Two tags that are compared are a few rounds apart."""


class CallTag(NamedTuple):
    """A call as tags identify it: a digest of its header, and that header."""

    digest: int
    header: bytes

    @staticmethod
    def of(header: bytes) -> CallTag:
        """Return the tag of the call with this header."""
        return CallTag(int.from_bytes(hashlib.blake2b(header, digest_size=8).digest(), "little"), header)


class WaitHandler(Protocol):
    """How a rank waits for a round, and how it handles errors that it finds there."""

    def wait_for(self, arrival: RoundArrival) -> None:
        """Return once `arrival.poll()` is true; raise if the rank failed, or its process ended."""

    def check_notifications(self, known: bytes) -> bytes:
        """Handle notifications that differ from those `known`; return the ones that are known now.

        Raises
        ------
        FmiError
            If they report an error.
        """

    def raise_mismatch(self, rank: int, header: bytes, call_tag: CallTag, sequence: int) -> None:
        """Raise: `rank` is in the call of `header` where this rank is, or was, in call `sequence`, `call_tag`."""


class Rounds:
    """The rounds of one rank, over one semaphore for each ordered pair of ranks: correct on every machine.

    Parameters
    ----------
    memory
        The segment.
    plan
        Its layout.
    rank
        This rank.
    wait_handler
        The channel.

    Attributes
    ----------
    number
        Number of rounds that were begun.
    sequence
        Number of the call that the round belongs to.
    slot_index
        Where the round's slots, tags and headers are.
    one_rank_combines
        Whether the first rank that sees all tags publishes the result. Otherwise each rank computes it.
    """

    one_rank_combines = False

    def __init__(self, memory: mmap.mmap, plan: Layout, rank: int, wait_handler: WaitHandler) -> None:
        self.number = 0
        self.sequence = 0
        self.slot_index = 0
        self._memory = memory
        self._plan = plan
        self._rank = rank
        self._wait_handler = wait_handler
        self._others = [other for other in range(plan.size) if other != rank]
        self._words = memoryview(memory).cast("Q")
        self._tag_words = [plan.tags(slot_index) // 8 for slot_index in range(ROUNDS_IN_FLIGHT)]
        self._tag = 0
        self._call_tag = CallTag(0, b"")
        self._written = [self._call_tag] * ROUNDS_IN_FLIGHT
        self._sequences = [0] * ROUNDS_IN_FLIGHT
        self._notifications = slice(plan.notifications(rank), plan.notifications(rank) + plan.notifications_bytes)
        self._known = bytes(plan.notifications_bytes)
        self._reached_by_all = 0  # the last round that all are known to have reached
        self._taken = [0] * plan.size
        self._outgoing = [Semaphore(memory, plan.ring(rank, other) + 2 * LINE) for other in self._others]
        self._incoming = [Semaphore(memory, plan.ring(other, rank) + 2 * LINE) for other in range(plan.size)]

    def begin(self, call_tag: CallTag) -> int:
        """Begin the next round; return its slot index, whose slot this rank may write now.

        Waits if this rank is `MAX_LEAD` rounds ahead of another.
        """
        number = self.number + 1
        if number - self._reached_by_all > MAX_LEAD:
            self._wait_for_slowest(number - MAX_LEAD)
        self.number = number
        self.slot_index = slot_index = number % ROUNDS_IN_FLIGHT
        self._sequences[slot_index] = self.sequence
        if call_tag is self._written[slot_index] and call_tag is self._call_tag:
            self._tag += 1
        else:
            self._change_call(slot_index, call_tag)
        return slot_index

    def _change_call(self, slot_index: int, call_tag: CallTag) -> int:
        """Set and return the next tag, where the call of the last round, or of the last one here, was another."""
        if call_tag.digest == self._call_tag.digest:
            self._tag += 1
        else:
            self._tag = (self._tag ^ call_tag.digest) * _PRIME & _CALLS_MASK | self.number & NUMBER_MASK
        self._call_tag = call_tag
        if self._written[slot_index] is not call_tag:
            self._written[slot_index] = call_tag
            self.write_call_header(slot_index, call_tag.header)
        return self._tag

    def write_call_header(self, slot_index: int, header: bytes) -> None:
        """Write the header of the call that this rank is in."""
        start = self._plan.call_header(self._rank, slot_index)
        record = len(header).to_bytes(8, "little") + header
        self._memory[start : start + len(record)] = record

    def call_header(self, rank: int, slot_index: int) -> bytes:
        """Return the header of the call that another rank is in."""
        start = self._plan.call_header(rank, slot_index)
        length = int.from_bytes(self._memory[start : start + 8], "little")
        return self._memory[start + 8 : start + 8 + min(length, CALL_HEADER_BYTES - 8)]

    def publish(self) -> None:
        """Publish that this rank has reached the round, and has written its slot."""
        self._words[self._tag_words[self.slot_index] + self._rank] = self._tag
        for semaphore in self._outgoing:
            semaphore.post()
        if self._memory[self._notifications] != self._known:
            self._known = self._wait_handler.check_notifications(self._known)

    def barrier(self) -> None:
        """Publish, and wait until all ranks have reached the round."""
        self.publish()
        self.await_all()

    def exchange(self, call_tag: CallTag, rows: Sequence[Any], value: Any) -> bool:
        """Run the next round: write `value`, publish, and wait for all tags or for the published result.

        Parameters
        ----------
        call_tag
            The round's call.
        rows
            This rank's row for each slot index: an array, or the memoryview of one number, which is written in a sixth
            of the time.
        value
            What goes into the row.

        Returns
        -------
        bool
            True if a rank has published the result, which can be read now. False if all rows can be read: this rank is
            to compute the result from them, and to call `publish_result`.
        """
        rows[self.begin(call_tag)][...] = value
        self.barrier()
        return False

    def publish_result(self) -> None:
        """Publish that the round's result is written. Does nothing here: each rank computes it for itself."""

    def await_all(self) -> None:
        """Wait until all ranks have reached the round. What they wrote before can be read then."""
        for rank in self._others:
            self.await_rank(rank)
        self._reached_by_all = self.number

    def await_rank(self, rank: int) -> None:
        """Wait until `rank` has reached the round. What it wrote before can be read then."""
        if not self.has_reached(rank, self.number):
            self._wait_handler.wait_for(RoundArrival(self, rank, self.number))
        if self._words[self._tag_words[self.slot_index] + rank] != self._tag:
            self.check_calls(rank)

    def await_earlier(self, rank: int, back: int) -> None:
        """Wait until `rank` has reached the round `back` rounds before, at most `MAX_LEAD`; see `await_rank`."""
        number = self.number - back
        if not self.has_reached(rank, number):
            self._wait_handler.wait_for(RoundArrival(self, rank, number))
        tags = self._tag_words[number % ROUNDS_IN_FLIGHT]
        if self._words[tags + rank] != self._words[tags + self._rank]:
            self.check_calls(rank)

    def await_header(self, rank: int) -> bytes:
        """Wait until `rank` has reached the next round, before this rank begins it; return the header of its call."""
        number = self.number + 1
        if not self.has_reached(rank, number):
            self._wait_handler.wait_for(RoundArrival(self, rank, number))
        return self.call_header(rank, number % ROUNDS_IN_FLIGHT)

    def has_reached(self, rank: int, number: int) -> bool:
        """Return whether `rank` has reached round `number`."""
        while self._taken[rank] < number:
            if not self._incoming[rank].try_wait():
                return False
            self._taken[rank] += 1
        return True

    def sleep(self, rank: int, number: int, seconds: float) -> None:
        """Sleep until `rank` reaches a further round on its way to round `number`, for at most `seconds`."""
        if not self.has_reached(rank, number) and self._incoming[rank].wait(seconds):
            self._taken[rank] += 1

    def _wait_for_slowest(self, number: int) -> None:
        """Wait until all ranks have reached an earlier round."""
        for rank in self._others:
            if not self.has_reached(rank, number):
                self._wait_handler.wait_for(RoundArrival(self, rank, number))
        self._reached_by_all = self._lowest_reached()

    def _lowest_reached(self) -> int:
        """Return the last round that all other ranks are known to have reached."""
        return min((self._taken[rank] for rank in self._others), default=self.number)

    def check_calls(self, rank: int) -> None:
        """Raise for the first round that `rank`, which has reached this one, ran in another call than this rank."""
        for number in range(max(1, self.number - ROUNDS_IN_FLIGHT + 1), self.number + 1):
            slot_index = number % ROUNDS_IN_FLIGHT
            theirs, ours = (self._words[self._tag_words[slot_index] + who] for who in (rank, self._rank))
            if theirs != ours and (theirs - number) & NUMBER_MASK == 0:  # else it is of a later round
                header, sequence = self.call_header(rank, slot_index), self._sequences[slot_index]
                self._wait_handler.raise_mismatch(rank, header, self._written[slot_index], sequence)


class RoundArrival:
    """The event that rank `peer` reaches round `number`: polled and slept on like the ends of rings."""

    __slots__ = ("number", "peer", "rounds")

    def __init__(self, rounds: Rounds, peer: int, number: int) -> None:
        self.rounds = rounds
        self.peer = peer
        self.number = number

    def poll(self) -> bool:
        """Return whether the rank has reached the round."""
        return self.rounds.has_reached(self.peer, self.number)

    def sleep(self, seconds: float) -> bool:
        """Sleep until the rank reaches the round, for at most `seconds`; return whether it has."""
        self.rounds.sleep(self.peer, self.number, seconds)
        return self.poll()
