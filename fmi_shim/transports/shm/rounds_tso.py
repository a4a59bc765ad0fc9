"""Rounds without semaphores, where the machine keeps the order of stores; and which kind is right on this one."""

from __future__ import annotations

import mmap
import os
import platform
from collections.abc import Sequence
from typing import Any

from fmi_shim.transports.shm.layout import AHEAD, TURNS, Layout
from fmi_shim.transports.shm.rounds import NUMBER, Mark, Rounds, Waiter
from fmi_shim.transports.shm.semaphores import Semaphore

_SPINS = range(200)
"""How often a rank looks for another before it offers its core to others, where each rank may have one of its own."""
_YIELDS = range(100)
"""How often it then looks and offers its core, before it waits as for messages."""

_offer = os.sched_yield  # found with one look where each costs

ORDERED = platform.machine() in ("x86_64", "AMD64")
"""Whether all processors see the stores of one in their order (Intel SDM 3A, 8.2.2; AMD64 APM 2, 7.2)."""


class OrderedRounds(Rounds):
    """Rounds on machines where all see a processor's stores in their order: tags themselves are polled.

    What a rank wrote before its tag is seen by whoever sees the tag, without a system call or a locked instruction: a
    tag is one aligned word, which the interpreter stores and loads with one instruction. Before a rank sleeps, it
    writes whom it waits for, and looks again; who publishes rings for those that sleep for it. Should both look before
    either sees what the other has written, the sleep ends by itself, after the time that is given for it.

    Two ranks may settle a round at the same time: both write the same bits.
    """

    one_settles = True

    def __init__(self, memory: mmap.mmap, plan: Layout, rank: int, waiter: Waiter) -> None:
        super().__init__(memory, plan, rank, waiter)
        self._size = plan.size
        self._spins = _SPINS if plan.size <= len(os.sched_getaffinity(0)) else range(0)
        self._tags = [slice(plan.tags(turn), plan.tags(turn) + 8 * plan.size) for turn in range(TURNS)]
        self._places = [(plan.tags(turn) // 8, plan.settled(turn) // 8) for turn in range(TURNS)]
        self._late = self._others[-1] if self._others else rank
        self._doorbells = [Semaphore(memory, plan.doorbell(other)) for other in range(plan.size)]

    def publish(self) -> None:
        """Tell all that this rank has come to the round, and has written its slot."""
        self._words[self._tag_words[self.turn] + self._rank] = self._tag
        if self._memory[self._news] != self._known:
            self._hear()

    def exchange(self, mark: Mark, rows: Sequence[Any], value: Any) -> bool:
        """Go through the next round; see `Rounds.exchange`.

        This is `begin`, `publish` and the wait in one: in a small call, calls of methods are what costs most.
        """
        number = self.number + 1
        if number - self._together > AHEAD:
            self._catch_up(number - AHEAD)
        self.number = number
        self.turn = turn = number % TURNS
        self._sequences[turn] = self.sequence
        if mark is self._said[turn] and mark is self._mark:
            self._tag = tag = self._tag + 1
        else:
            tag = self._change(turn, mark)
        rows[turn][...] = value
        words = self._words
        first, settled = self._places[turn]
        words[first + self._rank] = tag
        if self._memory[self._news] != self._known:
            self._hear()
        late = first + self._late
        if words[late] != tag or not self._all_are_here():
            for _ in self._spins:
                if words[late] == tag and self._all_are_here():
                    break
            else:
                for _ in _YIELDS:
                    _offer()
                    if words[settled] == tag:
                        self._together = number
                        return True
                    if words[late] == tag and self._all_are_here():
                        break
                else:
                    self._await_others()
        self._together = number
        return False

    def await_all(self) -> None:
        """Wait until all have come to the round; what they wrote before can be read."""
        while not self._all_are_here():
            self.await_rank(self._late)
        self._together = self.number

    def _await_others(self) -> None:
        """Wait for all as for messages, one after another."""
        for rank in self._others:
            super().await_rank(rank)

    def _all_are_here(self) -> bool:
        """Whether all have come to the round; note one that has not."""
        words, tag, turn = self._words, self._tag, self.turn
        if self._memory[self._tags[turn]] == tag.to_bytes(8, "little") * self._size:
            return True
        first = self._places[turn][0]
        for rank in self._others:
            if words[first + rank] != tag:
                self._late = rank
                return False
        return True

    def settle(self) -> None:
        """Tell all that the result of the round, to which all have come, can be read."""
        self._words[self._places[self.turn][1]] = self._tag

    def await_rank(self, rank: int) -> None:
        """Wait until `rank` has come to the round; what it wrote before can be read."""
        words, tag, place = self._words, self._tag, self._tag_words[self.turn] + rank
        if words[place] == tag:
            return
        for _ in self._spins:
            if words[place] == tag:
                return
        for _ in _YIELDS:
            _offer()
            if words[place] == tag:
                return
        super().await_rank(rank)

    def has_come(self, rank: int, number: int) -> bool:
        """Whether `rank` has come to the round of this number."""
        return self._words[self._tag_words[number % TURNS] + rank] - number & NUMBER < 2 * TURNS

    def _all_have_come_to(self) -> int:
        return min((self._progress(rank) for rank in self._others), default=self.number)

    def _progress(self, rank: int) -> int:
        """Return the last round that `rank` has come to."""
        lowest = self.number - 2 * TURNS
        tags = (self._words[word + rank] for word in self._tag_words)
        return max(lowest + (tag - lowest & NUMBER) for tag in tags)

    def _hear(self) -> None:
        self._wake()
        self._known = self._waiter.hear(self._known)

    def sleep(self, rank: int, number: int, seconds: float) -> None:
        """Sleep until `rank` comes to the round, for at most `seconds`."""
        place = self._plan.news(rank) + 8 * (self._plan.size + 1) + self._rank
        self._memory[place] = 1
        os.sched_yield()
        if not self.has_come(rank, number):
            self._doorbells[self._rank].wait(seconds)
        self._memory[place] = 0

    def _wake(self) -> None:
        for rank, sleeps in enumerate(self._memory[self._news][-self._plan.size :]):
            if sleeps:
                self._doorbells[rank].post()


def rounds(memory: mmap.mmap, plan: Layout, rank: int, waiter: Waiter) -> Rounds:
    """Return the kind of rounds that is right on this machine, and fastest."""
    return (OrderedRounds if ORDERED else Rounds)(memory, plan, rank, waiter)
