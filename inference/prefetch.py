"""Fetching the next partition while this one is computed."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Fetched(Generic[Item]):
    """One fetched item.

    Attributes
    ----------
    name : str
    item
        What was fetched.
    waited : float
        Seconds that the consumer waited for it: all of its time for the first item, then what computing did not hide.
    """

    name: str
    item: Item
    waited: float


def prefetched(fetch: Callable[[str], Item], names: Sequence[str]) -> Iterator[Fetched[Item]]:
    """Fetch items in order, each in a thread while the one before is in use; at most two are in memory.

    Parameters
    ----------
    fetch
        Returns the item of a name. Its exception is raised when the item's turn comes.
    names
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        rest = iter(names)
        pending: deque[tuple[str, Future[Item]]] = deque()

        def submit() -> None:
            pending.extend((name, thread.submit(fetch, name)) for name in itertools.islice(rest, 1))

        def take() -> Fetched[Item]:
            name, future = pending.popleft()
            began = time.perf_counter()
            item = future.result()
            waited = time.perf_counter() - began
            submit()
            return Fetched(name, item, waited)

        submit()
        while pending:
            yield take()  # no local variable keeps the item
