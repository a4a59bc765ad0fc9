"""Rounds without semaphores, for machines with total store order (TSO), and the choice of the kind for this machine."""

from __future__ import annotations

import mmap
import os
import platform
from collections.abc import Sequence
from typing import Any

from fmi_shim.transports.shm.layout import MAX_LEAD, ROUNDS_IN_FLIGHT, Layout
from fmi_shim.transports.shm.rounds import NUMBER_MASK, CallTag, Rounds, WaitHandler
from fmi_shim.transports.shm.semaphores import Semaphore
from fmi_shim.transports.shm.timing import ROUND_SPINS, ROUND_YIELDS

_SPINS, _YIELDS = range(ROUND_SPINS), range(ROUND_YIELDS)

_yield_processor = os.sched_yield  # a global is found with one lookup where each costs

TSO = platform.machine() in ("x86_64", "AMD64")
"""Whether all processors see the stores of one in their order (Intel SDM 3A, 8.2.2; AMD64 APM 2, 7.2)."""


class TsoRounds(Rounds):
    """Rounds that poll the tags themselves, where all processors see a processor's stores in their order.

    A rank that sees a tag also sees what was written before it, without a system call or a locked instruction: a tag
    is one aligned word, which the interpreter stores and loads with one instruction. Before a rank sleeps, it writes
    which rank it waits for, and polls once more; a rank that publishes posts the doorbells of those that sleep until it
    does. If both read before either sees the other's write, the sleep ends by its time limit.

    Two ranks may publish the result of a round at the same time: both write the same bits.
    """

    one_rank_combines = True

    def __init__(self, memory: mmap.mmap, plan: Layout, rank: int, wait_handler: WaitHandler) -> None:
        super().__init__(memory, plan, rank, wait_handler)
        self._size = plan.size
        self._spins = _SPINS if plan.size <= len(os.sched_getaffinity(0)) else range(0)
        self._tag_bytes = [
            slice(plan.tags(index), plan.tags(index) + 8 * plan.size) for index in range(ROUNDS_IN_FLIGHT)
        ]
        self._polled_words = [(plan.tags(index) // 8, plan.result_tag(index) // 8) for index in range(ROUNDS_IN_FLIGHT)]
        self._missing = self._others[-1] if self._others else rank
        self._is_pair = plan.size == 2
        self._doorbells = [Semaphore(memory, plan.doorbell(other)) for other in range(plan.size)]

    def publish(self) -> None:
        """Publish that this rank has reached the round, and has written its slot."""
        self._words[self._tag_words[self.slot_index] + self._rank] = self._tag
        if self._memory[self._notifications] != self._known:
            self._handle_notifications()

    def exchange(self, call_tag: CallTag, rows: Sequence[Any], value: Any) -> bool:
        """Run the next round; see `Rounds.exchange`.

        This is `begin`, `publish` and the wait in one method: method calls are most of the cost of a small collective.
        """
        number = self.number + 1
        if number - self._reached_by_all > MAX_LEAD:
            self._wait_for_slowest(number - MAX_LEAD)
        self.number = number
        self.slot_index = slot_index = number % ROUNDS_IN_FLIGHT
        self._sequences[slot_index] = self.sequence
        if call_tag is self._written[slot_index] and call_tag is self._call_tag:
            self._tag = tag = self._tag + 1
        else:
            tag = self._change_call(slot_index, call_tag)
        rows[slot_index][...] = value
        words = self._words
        first, result = self._polled_words[slot_index]
        words[first + self._rank] = tag
        if self._memory[self._notifications] != self._known:
            self._handle_notifications()
        missing = first + self._missing
        pair = self._is_pair  # whose other rank is the only one that can be missing
        if words[missing] != tag or not (pair or self._all_have_reached()):
            for _ in self._spins:
                if words[missing] == tag and (pair or self._all_have_reached()):
                    break
            else:
                for _ in _YIELDS:
                    _yield_processor()
                    if words[result] == tag:
                        self._reached_by_all = number
                        return True
                    if words[missing] == tag and (pair or self._all_have_reached()):
                        break
                else:
                    self._await_others()
        self._reached_by_all = number
        return False

    def await_all(self) -> None:
        """Wait until all ranks have reached the round. What they wrote before can be read then."""
        while not self._all_have_reached():
            self.await_rank(self._missing)
        self._reached_by_all = self.number

    def _await_others(self) -> None:
        """Wait for all ranks, one after another, as for messages."""
        for rank in self._others:
            super().await_rank(rank)

    def _all_have_reached(self) -> bool:
        """Return whether all ranks have reached the round; if not, store one that has not in ``_missing``."""
        words, tag, slot_index = self._words, self._tag, self.slot_index
        if self._memory[self._tag_bytes[slot_index]] == tag.to_bytes(8, "little") * self._size:
            return True
        first = self._polled_words[slot_index][0]
        for rank in self._others:
            if words[first + rank] != tag:
                self._missing = rank
                return False
        return True

    def publish_result(self) -> None:
        """Publish that the result of the round, which all ranks have reached, is written."""
        self._words[self._polled_words[self.slot_index][1]] = self._tag

    def await_rank(self, rank: int) -> None:
        """Wait until `rank` has reached the round. What it wrote before can be read then."""
        words, tag, word = self._words, self._tag, self._tag_words[self.slot_index] + rank
        if words[word] == tag:
            return
        for _ in self._spins:
            if words[word] == tag:
                return
        for _ in _YIELDS:
            _yield_processor()
            if words[word] == tag:
                return
        super().await_rank(rank)

    def has_reached(self, rank: int, number: int) -> bool:
        """Return whether `rank` has reached round `number`."""
        tag = self._words[self._tag_words[number % ROUNDS_IN_FLIGHT] + rank]
        return tag - number & NUMBER_MASK < 2 * ROUNDS_IN_FLIGHT

    def _lowest_reached(self) -> int:
        return min((self._last_reached(rank) for rank in self._others), default=self.number)

    def _last_reached(self, rank: int) -> int:
        """Return the last round that `rank` has reached."""
        lowest = self.number - 2 * ROUNDS_IN_FLIGHT
        tags = (self._words[word + rank] for word in self._tag_words)
        return max(lowest + (tag - lowest & NUMBER_MASK) for tag in tags)

    def _handle_notifications(self) -> None:
        self._wake_sleepers()
        self._known = self._wait_handler.check_notifications(self._known)

    def sleep(self, rank: int, number: int, seconds: float) -> None:
        """Sleep until `rank` reaches round `number`, for at most `seconds`."""
        flag = self._plan.notifications(rank) + 8 * (self._plan.size + 1) + self._rank
        self._memory[flag] = 1
        os.sched_yield()
        if not self.has_reached(rank, number):
            self._doorbells[self._rank].wait(seconds)
        self._memory[flag] = 0

    def _wake_sleepers(self) -> None:
        for rank, sleeps in enumerate(self._memory[self._notifications][-self._plan.size :]):
            if sleeps:
                self._doorbells[rank].post()


def make_rounds(memory: mmap.mmap, plan: Layout, rank: int, wait_handler: WaitHandler) -> Rounds:
    """Return the fastest kind of rounds that is correct on this machine."""
    return (TsoRounds if TSO else Rounds)(memory, plan, rank, wait_handler)
