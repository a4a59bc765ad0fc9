"""A queue of many deadlines, few of which are ever reached, without a timer for each."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

_SMALL = 64


class TimerQueue(Generic[Item]):
    """At most one deadline per item, on the caller's clock.

    Setting and dropping a deadline take logarithmic time at most. The memory is proportional to the items that have
    one: entries that were replaced or dropped are removed once they are the majority.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._current: dict[Item, int] = {}
        self._entries = 0

    def __len__(self) -> int:
        """Return the number of items that have a deadline."""
        return len(self._current)

    def set(self, item: Item, at: float) -> None:
        """Give `item` the deadline `at`, replacing any former one."""
        self._entries += 1
        self._current[item] = self._entries
        heapq.heappush(self._heap, (at, self._entries, item))
        if len(self._heap) > 2 * len(self._current) + _SMALL:
            self._heap = [entry for entry in self._heap if self._current.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def drop(self, item: Item) -> None:
        """Remove `item`'s deadline, if it has one."""
        self._current.pop(item, None)

    def next(self) -> float | None:
        """Return the earliest deadline, None if there is none."""
        self._skip()
        return self._heap[0][0] if self._heap else None

    def reached(self, now: float) -> list[Item]:
        """Return the items whose deadline is reached, earliest first, and remove them."""
        items = []
        self._skip()
        while self._heap and self._heap[0][0] <= now:
            item = heapq.heappop(self._heap)[2]
            del self._current[item]
            items.append(item)
            self._skip()
        return items

    def _skip(self) -> None:
        while self._heap and self._current.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
