"""Rounds without semaphores, where the machine keeps the order of stores; and which kind is right on this one."""

from __future__ import annotations

import mmap
import os
import platform

from fmi_shim.shared_memory.layout import TURNS, Layout
from fmi_shim.shared_memory.rounds import NUMBER, Rounds, Waiter
from fmi_shim.shared_memory.semaphores import Semaphore

_SPINS = 200
"""How often a rank looks for another before it offers its core to others, where each rank may have one of its own."""
_YIELDS = 100
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

    def __init__(self, memory: mmap.mmap, plan: Layout, rank: int, waiter: Waiter) -> None:
        super().__init__(memory, plan, rank, waiter)
        self._size = plan.size
        self._spins = _SPINS if plan.size <= len(os.sched_getaffinity(0)) else 0
        # For each turn, where the tags of all are, where the own one is, and where that of who has settled it.
        self._places = [
            (slice(plan.tags(turn), plan.tags(turn) + 8 * plan.size), word + rank, plan.settled(turn) // 8)
            for turn, word in enumerate(self._tag_words)
        ]
        self._doorbells = [Semaphore(memory, plan.doorbell(other)) for other in range(plan.size)]

    def publish(self) -> None:
        """Tell all that this rank has come to the round, and has written its slot."""
        self._words[self._tag_words[self.turn] + self._rank] = self._tag
        if self._memory[self._news] != self._known:
            self._hear()

    def arrive(self) -> bool:
        """Publish, and wait until all have come to the round, or one of them has settled it; see `Rounds.arrive`."""
        memory, tag = self._memory, self._tag
        tags, own, settled = self._places[self.turn]
        self._words[own] = tag
        if memory[self._news] != self._known:
            self._hear()
        all_tags = tag.to_bytes(8, "little") * self._size
        if memory[tags] != all_tags:
            return self._await(tags, all_tags, settled)
        self._together = self.number
        return False

    def await_all(self) -> None:
        """Wait until all have come to the round; what they wrote before can be read."""
        tags, _, settled = self._places[self.turn]
        self._await(tags, self._tag.to_bytes(8, "little") * self._size, settled)

    def _await(self, tags: slice, all_tags: bytes, settled: int) -> bool:
        """Wait until all have come to the round or it is settled; return whether it is."""
        memory, words, tag = self._memory, self._words, self._tag
        for _ in range(self._spins):
            if memory[tags] == all_tags:
                break
        else:
            for _ in range(_YIELDS):
                _offer()
                if words[settled] == tag:
                    self._together = self.number
                    return True
                if memory[tags] == all_tags:
                    break
            else:
                for rank in self._others:
                    super().await_rank(rank)
        self._together = self.number
        return False

    def settle(self) -> None:
        """Tell all that the result of the round, to which all have come, can be read."""
        self._words[self._places[self.turn][2]] = self._tag

    def meet(self) -> None:
        """Publish, and wait until all have come to the round."""
        if not self.arrive():
            self.settle()

    def await_rank(self, rank: int) -> None:
        """Wait until `rank` has come to the round; what it wrote before can be read."""
        words, tag, place = self._words, self._tag, self._tag_words[self.turn] + rank
        if words[place] == tag:
            return
        for _ in range(self._spins):
            if words[place] == tag:
                return
        for _ in range(_YIELDS):
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
