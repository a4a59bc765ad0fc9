"""Rounds of collectives: how a rank tells all others that it has come so far, in which call, and hears it of them.

A collective is one round or several, in which each rank writes its slot, *publishes* its *tag*, waits for the tags of
those whose slots it needs, and reads them. All ranks go through the same rounds. A tag is a word made of the call of
this round and of all before it, so that one comparison tells that a rank has come, in the same call, after the same
calls. Its lowest 16 bits are the round's number; the next round of the same call has the next tag. Where a rank's call,
once and for all turns, is not the same, its header is there to tell which one it is.

What all wait for, one rank may *settle*: who sees first that all have come does what is to be done then, and leaves the
result to the others, who have one word to look at.

A slot, a tag and a header serve every `TURNS`-th round. A rank may have come to `AHEAD` rounds before it reads the
slots of the first of them, and it may write its own anew when all have come to the round `AHEAD` before: so one that
needs nothing of others can be some rounds ahead, and one that needs their slots can wait once for several rounds.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from fmi_shim.transports.shm.layout import AHEAD, LINE, SAID_BYTES, TURNS, Layout
from fmi_shim.transports.shm.semaphores import Semaphore

_PRIME = 0x100000001B3  # FNV-1a's for 64 bits, http://www.isthe.com/chongo/tech/comp/fnv/
_HISTORY = (1 << 63) - (1 << 16)
"""The bits of a tag that tell of the calls: not the highest, so that adding to it never leaves a word."""
NUMBER = (1 << 16) - 1
"""The bits that tell the round; two that are compared are a few rounds apart."""


class Mark(NamedTuple):
    """A call, as it goes into tags: a number made of its header, and that header."""

    number: int
    header: bytes

    @staticmethod
    def of(header: bytes) -> Mark:
        """Return the mark of the call with this header."""
        return Mark(int.from_bytes(hashlib.blake2b(header, digest_size=8).digest(), "little"), header)


class Waiter(Protocol):
    """What a rank does while it waits, and what it makes of what it finds."""

    def wait_for(self, arrival: Arrival) -> None:
        """Return when `arrival` has come; raise if it will not."""

    def hear(self, known: bytes) -> bytes:
        """Take note of news, which differ from those `known`; return those that are known then.

        Raise if they are an error.
        """

    def differ(self, rank: int, header: bytes, mark: Mark, sequence: int) -> None:
        """Raise for a rank that is in the call of `header` where this one is, or was, in that of `mark`."""


class Rounds:
    """The part of this rank in the rounds, and its view of the others'.

    What one rank tells another is told by a semaphore for the two of them, which is right on every machine.

    Parameters
    ----------
    memory
        The segment.
    plan
        Where things are in it.
    rank
        This rank.
    waiter
        The channel.

    Attributes
    ----------
    number
        Rounds that were begun.
    sequence
        Number of the call that the round belongs to.
    one_settles
        Whether a round is settled by one rank, mostly; otherwise each does for itself what is to be done.
    """

    one_settles = False

    def __init__(self, memory: mmap.mmap, plan: Layout, rank: int, waiter: Waiter) -> None:
        self.number = 0
        self.sequence = 0
        self.turn = 0
        self._memory = memory
        self._plan = plan
        self._rank = rank
        self._waiter = waiter
        self._others = [other for other in range(plan.size) if other != rank]
        self._words = memoryview(memory).cast("Q")
        self._tag_words = [plan.tags(turn) // 8 for turn in range(TURNS)]
        self._tag = 0
        self._mark = Mark(0, b"")
        self._said = [self._mark] * TURNS
        self._sequences = [0] * TURNS
        self._news = slice(plan.news(rank), plan.news(rank) + plan.news_bytes)
        self._known = bytes(plan.news_bytes)
        self._together = 0  # the last round that all are known to have come to
        self._taken = [0] * plan.size
        self._told = [Semaphore(memory, plan.lane_of(rank, other) + 2 * LINE) for other in self._others]
        self._heard = [Semaphore(memory, plan.lane_of(other, rank) + 2 * LINE) for other in range(plan.size)]

    def begin(self, mark: Mark) -> int:
        """Begin the next round, of the call `mark`; return its turn, whose slot may be written now."""
        number = self.number + 1
        if number - self._together > AHEAD:
            self._catch_up(number - AHEAD)
        self.number = number
        self.turn = turn = number % TURNS
        self._sequences[turn] = self.sequence
        if mark is self._said[turn] and mark is self._mark:
            self._tag += 1
        else:
            self._change(turn, mark)
        return turn

    def _change(self, turn: int, mark: Mark) -> int:
        """Return the next tag: the call is not that of the last round, or not that of the last one at `turn`."""
        if mark.number == self._mark.number:
            self._tag += 1
        else:
            self._tag = (self._tag ^ mark.number) * _PRIME & _HISTORY | self.number & NUMBER
        self._mark = mark
        if self._said[turn] is not mark:
            self._said[turn] = mark
            self.say(turn, mark.header)
        return self._tag

    def say(self, turn: int, header: bytes) -> None:
        """Let others read which call this rank is in."""
        start = self._plan.said(self._rank, turn)
        said = len(header).to_bytes(8, "little") + header
        self._memory[start : start + len(said)] = said

    def heard(self, rank: int, turn: int) -> bytes:
        """Return which call another rank is in."""
        start = self._plan.said(rank, turn)
        length = int.from_bytes(self._memory[start : start + 8], "little")
        return self._memory[start + 8 : start + 8 + min(length, SAID_BYTES - 8)]

    def publish(self) -> None:
        """Tell all that this rank has come to the round, and has written its slot."""
        self._words[self._tag_words[self.turn] + self._rank] = self._tag
        for semaphore in self._told:
            semaphore.post()
        if self._memory[self._news] != self._known:
            self._known = self._waiter.hear(self._known)

    def meet(self) -> None:
        """Publish, and wait until all have come to the round."""
        self.publish()
        self.await_all()

    def exchange(self, mark: Mark, rows: Sequence[Any], value: Any) -> bool:
        """Go through the next round, of the call `mark`, and put `value` into the one of `rows` for its turn.

        A row is an array, or the memoryview of one number, which is set in a sixth of the time. Wait until all have
        come to the round, or one of them has settled it. Return whether it is settled: its result can be read. Else
        all ranks' rows can be, and this rank is to make the result, and to `settle` the round.
        """
        rows[self.begin(mark)][...] = value
        self.meet()
        return False

    def settle(self) -> None:
        """Tell all that the result of the round, to which all have come, can be read: here everyone makes it."""

    def await_all(self) -> None:
        """Wait until all have come to the round; what they wrote before can be read."""
        for rank in self._others:
            self.await_rank(rank)
        self._together = self.number

    def await_rank(self, rank: int) -> None:
        """Wait until `rank` has come to the round; what it wrote before can be read."""
        if not self.has_come(rank, self.number):
            self._waiter.wait_for(Arrival(self, rank, self.number))
        if self._words[self._tag_words[self.turn] + rank] != self._tag:
            self.compare(rank)

    def await_earlier(self, rank: int, back: int) -> None:
        """Wait until `rank` has come to the round so many before this one, at most `AHEAD`; see `await_rank`."""
        number = self.number - back
        if not self.has_come(rank, number):
            self._waiter.wait_for(Arrival(self, rank, number))
        tags = self._tag_words[number % TURNS]
        if self._words[tags + rank] != self._words[tags + self._rank]:
            self.compare(rank)

    def await_header(self, rank: int) -> bytes:
        """Wait until `rank` has come to the round that this rank has yet to begin; return the header of its call."""
        number = self.number + 1
        if not self.has_come(rank, number):
            self._waiter.wait_for(Arrival(self, rank, number))
        return self.heard(rank, number % TURNS)

    def has_come(self, rank: int, number: int) -> bool:
        """Whether `rank` has come to the round of this number."""
        while self._taken[rank] < number:
            if not self._heard[rank].try_wait():
                return False
            self._taken[rank] += 1
        return True

    def sleep(self, rank: int, number: int, seconds: float) -> None:
        """Sleep until `rank` comes to a further round, for at most `seconds`."""
        if not self.has_come(rank, number) and self._heard[rank].wait(seconds):
            self._taken[rank] += 1

    def _catch_up(self, number: int) -> None:
        """Wait until all have come to an earlier round."""
        for rank in self._others:
            if not self.has_come(rank, number):
                self._waiter.wait_for(Arrival(self, rank, number))
        self._together = self._all_have_come_to()

    def _all_have_come_to(self) -> int:
        """Return the last round that all others are known to have come to."""
        return min((self._taken[rank] for rank in self._others), default=self.number)

    def compare(self, rank: int) -> None:
        """Raise for the first round that `rank`, which has come to this one, came to in another call than this rank."""
        for number in range(max(1, self.number - TURNS + 1), self.number + 1):
            turn = number % TURNS
            theirs, ours = (self._words[self._tag_words[turn] + who] for who in (rank, self._rank))
            if theirs != ours and (theirs - number) & NUMBER == 0:  # else it is of a later round
                self._waiter.differ(rank, self.heard(rank, turn), self._said[turn], self._sequences[turn])


class Arrival:
    """That `rank` comes to the round of this number: something to wait for, as the ends of lanes are."""

    __slots__ = ("number", "peer", "rounds")

    def __init__(self, rounds: Rounds, peer: int, number: int) -> None:
        self.rounds = rounds
        self.peer = peer
        self.number = number

    def poll(self) -> bool:
        """Whether it has come."""
        return self.rounds.has_come(self.peer, self.number)

    def sleep(self, seconds: float) -> bool:
        """Sleep until it has come, for at most `seconds`."""
        self.rounds.sleep(self.peer, self.number, seconds)
        return self.poll()
