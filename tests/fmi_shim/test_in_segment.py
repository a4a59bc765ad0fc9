"""The schedules over shared slots alone, between threads: who combines what in which order, and nobody reads too early.

Elements are strings, and combining two writes ``(left right)``, as in `test_collectives`.
"""

import itertools
import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fmi_shim.collectives import in_segment
from fmi_shim.collectives.in_segment import SegmentChannel, share
from fmi_shim.operators import Array
from tests.fmi_shim.test_collectives import QueueChannel, chained, tell


class SlotWorld:
    """Slots of `width` strings for each of `size` ranks, and queues for their signals."""

    def __init__(self, size: int, width: int) -> None:
        self.size = size
        self.slots = np.full((2, size, width), "nothing", object)
        self.results = np.full((2, width), "nothing", object)
        self.signals = {(a, b): queue.SimpleQueue[None]() for a in range(size) for b in range(size)}

    def run(self, program: Callable[["SlotChannel"], Any]) -> list[Any]:
        """Run `program` on all ranks; return what they return."""
        results: list[Any] = [None] * self.size
        failures: list[BaseException] = []

        def rank(number: int) -> None:
            try:
                results[number] = program(SlotChannel(number, self))
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)

        threads = [threading.Thread(target=rank, args=(number,)) for number in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return results


class SlotChannel(QueueChannel, SegmentChannel):  # type: ignore[misc] # the messages' double has what is needed
    """One rank's end of a `SlotWorld`."""

    def __init__(self, rank: int, world: SlotWorld) -> None:
        self.rank, self.size, self.shared = rank, world.size, world
        self.owed: list[tuple[int, int]] = []

    def slots(self, dtype: np.dtype[Any]) -> Array:
        return self.shared.slots

    def results(self, dtype: np.dtype[Any]) -> Array:
        return self.shared.results

    def signal(self, dst: int) -> None:
        self.shared.signals[self.rank, dst].put(None)

    def await_signal(self, src: int) -> None:
        for owed in [entry for entry in self.owed if entry[0] == src]:
            self.owed.remove(owed)
            for _ in range(owed[1]):
                self.shared.signals[src, self.rank].get(timeout=10)
        self.shared.signals[src, self.rank].get(timeout=10)

    def await_announcement(self, src: int) -> Array:
        raise AssertionError("every rank knows its type here")

    def owe(self, src: int, signals: int) -> None:
        self.owed.append((src, signals))

    def settle(self) -> None:
        for src, signals in self.owed:
            for _ in range(signals):
                self.shared.signals[src, self.rank].get(timeout=10)
        self.owed.clear()


def own(rank: int, count: int, call: int = 0) -> Array:
    return np.array([f"{rank}.{call}.{element}" for element in range(count)], object)


def in_rank_order(size: int, count: int, call: int = 0) -> list[str]:
    return [chained([f"{rank}.{call}.{element}" for rank in range(size)]) for element in range(count)]


sizes, widths, counts = st.integers(1, 9), st.integers(1, 6), st.integers(0, 40)
few = settings(max_examples=20, deadline=None)


@few
@given(sizes, widths, counts, st.booleans())
def test_allreduce_combines_strictly_in_rank_order_in_place_or_not(
    size: int, width: int, count: int, in_place: bool
) -> None:
    def program(channel: SlotChannel) -> list[str]:
        buffer = own(channel.rank, count)
        out = buffer if in_place else np.empty_like(buffer)
        in_segment._pipeline(channel, buffer, out, tell)
        return out.tolist()

    assert SlotWorld(size, width).run(program) == [in_rank_order(size, count)] * size


@few
@given(
    sizes,
    widths,
    st.lists(st.tuples(st.sampled_from(["allreduce", "reduce", "bcast", "barrier"]), counts), max_size=6),
    st.data(),
)
def test_operations_follow_each_other_without_disturbing_the_last_readers(
    size: int, width: int, calls: list[tuple[str, int]], data: st.DataObject
) -> None:
    roots = [data.draw(st.integers(0, size - 1)) for _ in calls]

    def program(channel: SlotChannel) -> list[list[str] | None]:
        results: list[list[str] | None] = []
        for number, ((operation, count), root) in enumerate(zip(calls, roots, strict=True)):
            buffer = own(channel.rank, count, number)
            out = np.empty_like(buffer)
            small = count <= width and number % 2 == 0
            in_root = out if channel.rank == root else None
            if operation == "barrier":
                in_segment.barrier(channel)
                results.append(None)
            elif operation == "bcast":
                results.append(in_segment.bcast(channel, buffer, root).tolist())
            elif operation == "allreduce":
                (in_segment.allreduce if small else in_segment._pipeline)(channel, buffer, out, tell)
                results.append(out.tolist())
            elif small:
                in_segment.reduce(channel, buffer, in_root, root, tell)
                results.append(None if in_root is None else out.tolist())
            else:
                in_segment._pipeline(channel, buffer, in_root, tell)
                results.append(None if in_root is None else out.tolist())
        return results

    for rank, results in enumerate(SlotWorld(size, width).run(program)):
        for number, (operation, count) in enumerate(calls):
            expected: list[str] | None = None
            if operation == "bcast":
                expected = own(roots[number], count, number).tolist()
            elif operation == "allreduce" or (operation == "reduce" and rank == roots[number]):
                expected = in_rank_order(size, count, number)
            assert results[number] == expected


@given(st.integers(0, 10_000), st.integers(1, 64), st.sampled_from([1, 2, 4, 8, 16]))
def test_shares_make_up_the_slot_and_part_it_between_cache_lines(elements: int, size: int, itemsize: int) -> None:
    shares = [share(elements, rank, size, itemsize) for rank in range(size)]
    assert shares[0][0] == 0
    assert shares[-1][1] == elements
    assert all(before[1] == after[0] for before, after in itertools.pairwise(shares))
    assert all(first == elements or first * itemsize % 64 == 0 for first, _ in shares)
    assert max(last - first for first, last in shares) * size <= elements + 128 * size * 2
