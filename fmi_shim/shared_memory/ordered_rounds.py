"""Rounds without semaphores, where the machine keeps the order of stores; and which kind is right on this one."""

from __future__ import annotations

import mmap
import os
import platform

from fmi_shim.shared_memory.layout import TURNS, Layout
from fmi_shim.shared_memory.rounds import REMEMBERED, Rounds, Waiter
from fmi_shim.shared_memory.semaphores import Semaphore

_SPINS = 200
"""How often a rank looks for another before it offers its core to others, where each rank may have one of its own."""
_YIELDS = 100
"""How often it then looks and offers its core, before it waits as for messages."""

ORDERED = platform.machine() in ("x86_64", "AMD64")
"""Whether all processors see the stores of one in their order (Intel SDM 3A, 8.2.2; AMD64 APM 2, 7.2)."""


class OrderedRounds(Rounds):
    """Rounds on machines where all see a processor's stores in their order: tags themselves are polled.

    What a rank wrote before its tag is seen by whoever sees the tag, without a system call or a locked instruction: a
    tag is one aligned word, which the interpreter stores and loads with one instruction. Before a rank sleeps, it
    writes whom it waits for, and looks again; who publishes rings for those that sleep for it. Should both look before
    either sees what the other has written, the sleep ends by itself, after the time that is given for it.
    """

    def __init__(self, memory: mmap.mmap, plan: Layout, rank: int, waiter: Waiter) -> None:
        super().__init__(memory, plan, rank, waiter)
        self._spins = _SPINS if plan.size <= len(os.sched_getaffinity(0)) else 0
        self._own_tags, self._own_progress = self._tag_words[rank], self._progress_words[rank]
        self._places = [[(other, self._tag_words[other] + turn) for other in self._others] for turn in range(TURNS)]
        self._doorbells = [Semaphore(memory, plan.doorbell(other)) for other in range(plan.size)]

    def publish(self) -> None:
        """Tell all that this rank has come to the round, and has written its slot."""
        words = self._words
        words[self._own_tags + self.turn] = self._tag
        words[self._own_progress] = self.number
        if self._memory[self._news] != self._known:
            self._wake()
            self._known = self._waiter.hear(self._known)

    def await_all(self) -> None:
        """Wait until all have come to the round; what they wrote before can be read."""
        words, tag = self._words, self._tag
        for rank, place in self._places[self.turn]:
            if words[place] != tag:
                self._await_tag(rank, place)
        self._together = self.number

    def await_rank(self, rank: int) -> None:
        """Wait until `rank` has come to the round; what it wrote before can be read."""
        place = self._tag_words[rank] + self.turn
        if self._words[place] != self._tag:
            self._await_tag(rank, place)

    def _await_tag(self, rank: int, place: int) -> None:
        words, tag = self._words, self._tag
        for _ in range(self._spins):
            if words[place] == tag:
                return
        offer, former = os.sched_yield, self._tags[(self.number - TURNS) % REMEMBERED]
        for _ in range(_YIELDS):
            offer()
            value = words[place]
            if value == tag:
                return
            if value != former:
                break
        super().await_rank(rank)

    def has_come(self, rank: int, number: int) -> bool:
        """Whether `rank` has come to the round of this number."""
        return self._words[self._progress_words[rank]] >= number

    def _all_have_come_to(self) -> int:
        return min((self._words[self._progress_words[rank]] for rank in self._others), default=self.number)

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
