"""The algorithms alone, over queues between threads: who sends what to whom, in which order, combined how.

Elements are strings, and combining two writes ``(left right)``: a result tells its own story.
"""

import collections
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmi_shim.backoff import Deadline
from fmi_shim.channel import Pending
from fmi_shim.collectives import (
    allgather,
    allreduce,
    alltoall,
    barrier,
    bcast,
    gather,
    memory,
    pipelining,
    reduce,
    reduce_scatter,
    scan,
    scatter,
)
from fmi_shim.collectives.tree import position
from fmi_shim.frames import Call
from fmi_shim.operators import Array, Operator, builtin_combine
from fmi_shim.transports.transfers import Transfer, UncheckedMessage

Message = tuple[int, int, list[Any]]


class QueueChannel:
    """One rank's end of a world in memory; a message is kept in `sent` as (source, destination, elements)."""

    full_duplex = True
    call_deadline = Deadline(None)

    def __init__(self, rank: int, size: int, world: "QueueWorld") -> None:
        self.rank, self.size, self.world = rank, size, world
        self.buffers: list[Array] = []

    def begin(self, call: Call, sequence: int) -> None: ...

    def send(self, buffer: Array, dst: int) -> None:
        assert dst != self.rank
        self.buffers.append(buffer)
        self.world.put(self.rank, dst, buffer)

    def recv(self, buffer: Array, src: int) -> Array:
        self.buffers.append(buffer)
        message = self.world.get(src, self.rank)
        assert message.size == buffer.size
        buffer[...] = message.reshape(buffer.shape)
        return buffer

    def recv_new(self, src: int, parts: int | None = None) -> Array:
        message = self.world.get(src, self.rank)
        assert parts is None or len(message) == parts
        return message

    def sendrecv(self, outgoing: Array, dst: int, incoming: Array, src: int) -> None:
        self.send(outgoing, dst)
        self.recv(incoming, src)

    def isend(self, buffer: Array, dst: int) -> Transfer[object]:
        self.send(buffer, dst)
        return Transfer(dst, True, lambda link: UncheckedMessage([]), object())

    def progress(self, pending: Sequence[Pending], wait: bool) -> bool:
        return all(transfer.done for transfer in pending)

    def fail(self, error: BaseException) -> None: ...

    def close(self) -> None: ...


class QueueWorld:
    """Queues between all pairs of ranks; fails at once when all ranks that still run wait for a message."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.queues: dict[tuple[int, int], collections.deque[Array]] = collections.defaultdict(collections.deque)
        self.sent: list[Message] = []
        self._changed = threading.Condition()
        self._running = size
        self._waiting: dict[int, int] = {}

    def put(self, src: int, dst: int, buffer: Array) -> None:
        with self._changed:
            self.sent.append((src, dst, buffer.ravel().tolist()))
            assert len(self.sent) < 10_000, "the ranks never stop to send"
            self.queues[src, dst].append(buffer.copy())
            if self._waiting.get(dst) == src:
                del self._waiting[dst]
                self._changed.notify_all()

    def get(self, src: int, dst: int) -> Array:
        with self._changed:
            if not self.queues[src, dst]:
                self._waiting[dst] = src
                self._changed.notify_all()
                while self._waiting.get(dst) == src:
                    assert len(self._waiting) < self._running, f"deadlock: {self._waiting}"
                    self._changed.wait()
            return self.queues[src, dst].popleft()

    def run(self, schedule: Callable[[QueueChannel], Any]) -> list[Any]:
        """Run `schedule` on all ranks; nothing may be left over in the queues."""
        results: list[Any] = [None] * self.size
        failures: list[BaseException] = []

        def rank(number: int) -> None:
            try:
                results[number] = schedule(QueueChannel(number, self.size, self))
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

        threads = [threading.Thread(target=rank, args=(number,)) for number in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        assert not any(self.queues.values())
        return results


def tell(left: Array, right: Array, out: Array) -> None:
    out[...] = np.array([f"({a} {b})" for a, b in zip(left.tolist(), right.tolist(), strict=True)], object)


def own(rank: int, count: int = 1) -> Array:
    return np.array([f"{rank}{chr(97 + i)}" if count > 1 else f"{rank}" for i in range(count)], object)


def tree(values: list[str]) -> str:
    while len(values) > 1:
        values = [
            f"({' '.join(values[i : i + 2])})" if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)
        ]
    return values[0]


def chained(values: list[str]) -> str:
    story = values[0]
    for value in values[1:]:
        story = f"({story} {value})"
    return story


def leaves(story: str) -> list[int]:
    return sorted(int(word) for word in story.replace("(", " ").replace(")", " ").split())


def unordered(story: str) -> Any:
    """The story as sets of two, in which left and right do not matter."""
    stack: list[list[Any]] = [[]]
    for word in story.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            stack.append([])
        elif word == ")":
            pair = frozenset(stack.pop())
            stack[-1].append(pair)
        else:
            stack[-1].append(word)
    return stack[0][0]


SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16]
sizes = st.integers(1, 20)
few = settings(max_examples=25)


@given(st.integers(1, 200), st.data())
def test_the_tree_has_every_rank_once_with_consistent_parents_and_children(size: int, data: st.DataObject) -> None:
    root = data.draw(st.integers(0, size - 1))
    places = [position(rank, size, root) for rank in range(size)]
    assert places[root].parent is None
    assert places[root].subtree == size
    children = [child for place in places for child in place.children]
    assert sorted(child.rank for child in children) == [rank for rank in range(size) if rank != root]
    for rank, place in enumerate(places):
        for child in place.children:
            assert places[child.rank].parent == rank
            assert places[child.rank].subtree == child.subtree
            assert places[child.rank].virtual == place.virtual + child.offset


@few
@given(sizes, st.data())
def test_bcast_reaches_every_rank_with_one_message_each(size: int, data: st.DataObject) -> None:
    root = data.draw(st.integers(0, size - 1))
    world = QueueWorld(size)
    results = world.run(
        lambda c: bcast.binomial(c, own(root) if c.rank == root else np.empty(1, object), root).tolist()
    )
    assert results == [[str(root)]] * size
    assert len(world.sent) == size - 1


def test_bcast_sends_to_the_farthest_child_first() -> None:
    world = QueueWorld(8)
    world.run(lambda c: bcast.binomial(c, own(3) if c.rank == 3 else None, 3))
    assert [dst for src, dst, _ in world.sent if src == 3] == [7, 5, 4]


@few
@given(sizes, st.integers(1, 3), st.data())
def test_gather_and_scatter_move_blocks_in_rotated_order(size: int, count: int, data: st.DataObject) -> None:
    root = data.draw(st.integers(0, size - 1))
    everything = np.concatenate([own(rank, count) for rank in range(size)])
    world = QueueWorld(size)
    gathered = world.run(lambda c: gather.binomial(c, own(c.rank, count), root))
    assert gathered[root].tolist() == everything.tolist()
    assert all(result is None for rank, result in enumerate(gathered) if rank != root)
    scattering = QueueWorld(size)
    scattered = scattering.run(
        lambda c: scatter.binomial(c, everything if c.rank == root else None, np.empty(count, object), root).tolist()
    )
    assert scattered == [own(rank, count).tolist() for rank in range(size)]
    for src, dst, elements in world.sent:
        ranks = [(src + i) % size for i in range(len(elements) // count)]
        assert elements == np.concatenate([own(rank, count) for rank in ranks]).tolist()
        assert (dst, src, elements) in scattering.sent
    assert len(world.sent) == len(scattering.sent) == size - 1


@few
@given(sizes, st.data())
def test_reduce_follows_fmis_tree_own_value_first(size: int, data: st.DataObject) -> None:
    root = data.draw(st.integers(0, size - 1))
    results = QueueWorld(size).run(lambda c: reduce.binomial(c, own(c.rank), root, tell))
    ranks = [str((root + i) % size) for i in range(size)]
    assert [None if r is None else r.tolist() for r in results] == [
        [tree(ranks)] if rank == root else None for rank in range(size)
    ]


@few
@given(sizes, st.integers(0, 7), st.data())
def test_pipelined_reduce_combines_every_element_in_the_tree_of_the_whole(
    size: int, count: int, data: st.DataObject
) -> None:
    size = max(2, size)
    root = data.draw(st.integers(0, size - 1))

    def pipelined(c: QueueChannel) -> Array | None:
        value = own(c.rank, count)
        result = reduce.pipelined(c, value, np.empty_like(value) if c.rank == root else None, root, tell)
        assert value.tolist() == own(c.rank, count).tolist()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelining, "SEGMENT_BYTES", 16)  # two elements
        results = QueueWorld(size).run(pipelined)
    whole = QueueWorld(size).run(lambda c: reduce.binomial(c, own(c.rank, count), root, tell))
    assert [None if r is None else r.tolist() for r in results] == [None if r is None else r.tolist() for r in whole]


@few
@given(sizes, st.integers(1, 3))
def test_allgather_returns_all_parts_in_rank_order_on_all_ranks(size: int, count: int) -> None:
    def filled(c: QueueChannel, schedule: Callable[[QueueChannel, Array], None]) -> list[str]:
        parts = np.empty((size, count), object)
        parts[c.rank] = own(c.rank, count)
        schedule(c, parts)
        return parts.ravel().tolist()

    everything = [element for rank in range(size) for element in own(rank, count).tolist()]
    doubling, ring = QueueWorld(size), QueueWorld(size)
    assert doubling.run(lambda c: filled(c, allgather.bruck)) == [everything] * size
    assert ring.run(lambda c: filled(c, allgather.ring)) == [everything] * size
    assert len(doubling.sent) == size * (size - 1).bit_length()
    assert len(ring.sent) == size * (size - 1)


@pytest.mark.parametrize("schedule", [alltoall.pairwise, alltoall.spread, alltoall.bruck])
@pytest.mark.parametrize("size", SIZES)
def test_alltoall_sends_each_slice_to_its_rank(schedule: Callable[..., None], size: int) -> None:
    def turned(c: QueueChannel) -> list[str]:
        incoming = np.empty((size, 1), object)
        schedule(c, np.array([[f"{c.rank}>{to}"] for to in range(size)], object), incoming)
        return incoming.ravel().tolist()

    world = QueueWorld(size)
    assert world.run(turned) == [[f"{source}>{rank}" for source in range(size)] for rank in range(size)]
    straight = schedule is not alltoall.bruck
    assert len(world.sent) == size * (size - 1 if straight else (size - 1).bit_length())


@pytest.mark.parametrize("size", SIZES)
def test_reduce_scatter_combines_all_of_each_slice(size: int) -> None:
    def slice_of(c: QueueChannel, schedule: reduce_scatter.Algorithm) -> str:
        mine = np.empty(1, object)
        schedule(c, np.array([[str(c.rank)] for _ in range(size)], object), mine, tell)
        return mine[0]

    schedules = [reduce_scatter.pairwise, reduce_scatter.whole]
    schedules += [] if size & (size - 1) else [reduce_scatter.halving]
    for schedule in schedules:
        for story in QueueWorld(size).run(lambda c, schedule=schedule: slice_of(c, schedule)):
            assert leaves(story) == list(range(size))
    ordered = QueueWorld(size).run(lambda c: slice_of(c, reduce_scatter.left_to_right))
    assert ordered == [chained([str(rank) for rank in range(size)])] * size


@pytest.mark.parametrize("size", SIZES)
def test_exclusive_scans_return_the_combination_below_each_rank_in_rank_order(size: int) -> None:
    def prefix(c: QueueChannel, schedule: Callable[..., None]) -> str:
        below = np.array(["untouched"], object)
        schedule(c, own(c.rank), below, tell)
        return below[0]

    for rank, story in enumerate(QueueWorld(size).run(lambda c: prefix(c, scan.exclusive_doubling))):
        told = story.replace("(", "").replace(")", "")
        assert told == (" ".join(str(r) for r in range(rank)) if rank else "untouched")
    chain = QueueWorld(size).run(lambda c: prefix(c, scan.exclusive_chain))
    assert chain == ["untouched", *(chained([str(r) for r in range(rank)]) for rank in range(1, size))]


@few
@given(sizes, st.data())
def test_left_to_right_reduce_is_strictly_in_rank_order(size: int, data: st.DataObject) -> None:
    root = data.draw(st.integers(0, size - 1))
    results = QueueWorld(size).run(lambda c: reduce.left_to_right(c, own(c.rank), root, tell))
    assert results[root].tolist() == [chained([str(rank) for rank in range(size)])]


@pytest.mark.parametrize("size", SIZES)
def test_left_to_right_allreduce_returns_the_ordered_combination_on_all_ranks(size: int) -> None:
    results = QueueWorld(size).run(lambda c: allreduce.left_to_right(c, own(c.rank), tell).tolist())
    assert results == [[chained([str(rank) for rank in range(size)])]] * size


@pytest.mark.parametrize(
    ("size", "stories"),
    [
        (1, ["0"]),
        (2, ["(0 1)", "(1 0)"]),
        (3, ["((0 2) 1)", "(1 (0 2))", "((0 2) 1)"]),
        (4, ["((0 1) (2 3))", "((1 0) (3 2))", "((2 3) (0 1))", "((3 2) (1 0))"]),
        (6, ["(((0 4) (1 5)) (2 3))", "(((1 5) (0 4)) (3 2))", "((2 3) ((0 4) (1 5)))", "((3 2) ((1 5) (0 4)))"]),
    ],
)
def test_allreduce_doubles_as_fmi_does(size: int, stories: list[str]) -> None:
    results = QueueWorld(size).run(lambda c: allreduce.recursive_doubling(c, own(c.rank), tell).tolist())
    assert results[: len(stories)] == [[story] for story in stories]


@few
@given(sizes, st.integers(0, 9), st.booleans())
def test_halving_combines_every_element_in_the_tree_of_doubling(size: int, count: int, in_place: bool) -> None:
    def halve(c: QueueChannel) -> list[str]:
        value = values(c.rank)
        result = value if in_place else np.empty_like(value)
        assert allreduce.reduce_scatter_allgather(c, value, result, tell) is result
        assert in_place or value.tolist() == values(c.rank).tolist()
        return result.tolist()

    size = max(2, size)
    values = lambda rank: np.array([str(rank)] * count, object)  # noqa: E731
    doubled = QueueWorld(size).run(lambda c: allreduce.recursive_doubling(c, values(c.rank), tell).tolist())
    world = QueueWorld(size)
    halved = world.run(halve)
    assert all(story == halved[0] for story in halved)
    assert [unordered(story) for story in halved[0]] == [unordered(story) for story in doubled[0]]
    if size & (size - 1) == 0:
        for rank in range(size):
            sent = sum(len(elements) for source, _, elements in world.sent if source == rank)
            assert sent <= 2 * (count - count // size) + 2 * size.bit_length()


@pytest.mark.parametrize("size", SIZES)
def test_scan_returns_the_combination_up_to_each_rank(size: int) -> None:
    def sweep(c: QueueChannel) -> list[str]:
        buffer = own(c.rank)
        scan.up_and_down_sweep(c, buffer, tell)
        return buffer.tolist()

    def chain(c: QueueChannel) -> list[str]:
        buffer = own(c.rank)
        scan.chain(c, buffer, tell)
        return buffer.tolist()

    for rank, (story,) in enumerate(QueueWorld(size).run(sweep)):
        assert leaves(story) == list(range(rank + 1))
    assert QueueWorld(size).run(chain) == [[chained([str(r) for r in range(rank + 1)])] for rank in range(size)]


def test_scan_sweeps_as_fmi_does() -> None:
    def sweep(c: QueueChannel) -> str:
        buffer = own(c.rank)
        scan.up_and_down_sweep(c, buffer, tell)
        return str(buffer[0])

    assert QueueWorld(6).run(sweep) == [
        "0",
        "(1 0)",
        "(2 (1 0))",
        "((3 2) (1 0))",
        "(4 ((3 2) (1 0)))",
        "((5 4) ((3 2) (1 0)))",
    ]


@pytest.mark.parametrize("size", range(1, 10))
def test_no_rank_returns_from_a_barrier_before_all_have_called_it(size: int) -> None:
    come = []

    def enter(c: QueueChannel) -> int:
        come.append(c.rank)
        barrier.one_byte_allreduce(c)
        return len(come)

    world = QueueWorld(size)
    assert world.run(enter) == [size] * size
    assert all(elements == [1] for _, _, elements in world.sent)


@pytest.mark.parametrize(
    ("size", "root", "children"),
    [
        (1, 0, {}),
        (2, 1, {1: [(0, 1, 1)]}),
        (6, 0, {0: [(1, 1, 1), (2, 2, 2), (4, 4, 2)], 2: [(3, 1, 1)], 4: [(5, 1, 1)]}),
        (7, 3, {3: [(4, 1, 1), (5, 2, 2), (0, 4, 3)], 5: [(6, 1, 1)], 0: [(1, 1, 1), (2, 2, 1)]}),
    ],
)
def test_the_binomial_tree_is_fmis(size: int, root: int, children: dict[int, list[tuple[int, int, int]]]) -> None:
    places = [position(rank, size, root) for rank in range(size)]
    found = {
        rank: [(child.rank, child.offset, child.subtree) for child in place.children]
        for rank, place in enumerate(places)
        if place.children
    }
    assert found == children
    assert [place.virtual for place in places] == [(rank - root) % size for rank in range(size)]


@pytest.mark.parametrize(
    ("count", "lengths"),
    [
        (4, [(1, 2), (2, 1), (2, 1), (1, 2)]),
        (5, [(1, 2), (2, 1), (2, 2), (1, 3)]),
        (7, [(1, 3), (2, 2), (2, 2), (1, 4)]),
        (1, [(2, 1), (1, 1)]),
    ],
)
def test_halving_keeps_the_larger_half_on_the_lower_rank(count: int, lengths: list[tuple[int, int]]) -> None:
    """Rank 0 of 4 sends the upper half to rank 1, the upper half of the rest to rank 2, then the results."""
    world = QueueWorld(4)

    def halve(c: QueueChannel) -> None:
        value = np.array([str(c.rank)] * count, object)
        allreduce.reduce_scatter_allgather(c, value, value, tell)

    world.run(halve)
    assert [(dst, len(elements)) for src, dst, elements in world.sent if src == 0] == lengths


def test_a_fold_of_halving_receives_into_the_result_unless_that_is_the_value() -> None:
    def first_buffer(c: QueueChannel, in_place: bool) -> bool:
        value = own(c.rank)
        result = value if in_place else np.empty_like(value)
        allreduce.reduce_scatter_allgather(c, value, result, tell)
        return c.buffers[0] is result

    assert QueueWorld(3).run(lambda c: first_buffer(c, False))[0]
    assert not QueueWorld(3).run(lambda c: first_buffer(c, True))[0]


@pytest.mark.parametrize("size", [1, 4, 6])
def test_gather_and_scatter_around_rank_0_do_not_reorder_a_copy(size: int) -> None:
    def shares(c: QueueChannel) -> tuple[bool, bool]:
        gathered = gather.binomial(c, own(c.rank), 0)
        received = all(gathered is None or np.shares_memory(gathered, buffer) for buffer in c.buffers)
        c.buffers.clear()
        scatter.binomial(c, gathered, np.empty(1, object), 0)
        return received, all(gathered is None or np.shares_memory(gathered, buffer) for buffer in c.buffers)

    assert QueueWorld(size).run(shares) == [(True, True)] * size


@pytest.mark.parametrize("root", [0, 2])
def test_scatter_takes_whatever_the_root_sends_into_memory_of_its_own(root: int) -> None:
    everything = np.arange(14)

    def scattered(c: QueueChannel) -> list[int]:
        slice_of = scatter.binomial(c, everything if c.rank == root else None, None, root)
        assert slice_of.base is None or slice_of.base.size == slice_of.size, "no view of what other ranks receive"
        return slice_of.tolist()

    assert QueueWorld(7).run(scattered) == [[2 * rank, 2 * rank + 1] for rank in range(7)]


@pytest.mark.parametrize("algorithm", [reduce_scatter.halving, reduce_scatter.pairwise, reduce_scatter.left_to_right])
def test_reduce_scatter_gives_each_rank_its_own_slice(algorithm: reduce_scatter.Algorithm) -> None:
    def slice_of(c: QueueChannel) -> list[int]:
        slices, mine = np.arange(12).reshape(4, 3) * 10**c.rank, np.empty(3, int)
        algorithm(c, slices, mine, builtin_combine(Operator.sum, slices.dtype))
        return mine.tolist()

    assert QueueWorld(4).run(slice_of) == (np.arange(12).reshape(4, 3) * 1111).tolist()


def test_segments_are_views_of_at_most_one_mebibyte() -> None:
    assert pipelining.SEGMENT_BYTES == 1_048_576
    values = np.arange(300_000, dtype=np.float64)
    parts = list(pipelining.segments(values))
    assert [part.size for part in parts] == [131_072, 131_072, 37_856]
    assert all(np.shares_memory(part, values) for part in parts)
    assert np.concatenate(parts).tolist() == values.tolist()
    assert (pipelining.scratch(values).size, pipelining.scratch(values).dtype) == (131_072, np.float64)
    assert pipelining.scratch(values[:7]).size == 7


def test_an_element_longer_than_a_segment_is_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelining, "SEGMENT_BYTES", 4)
    assert [part.tolist() for part in pipelining.segments(np.arange(3.0))] == [[0.0], [1.0], [2.0]]
    assert pipelining.scratch(np.arange(3.0)).size == 1


@pytest.mark.parametrize(
    ("lengths", "messages"), [((5, 5), (3, 3)), ((5, 2), (3, 1)), ((0, 3), (0, 2)), ((1, 6), (1, 3))]
)
def test_an_exchange_sends_and_combines_segments_in_turns(
    monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, int], messages: tuple[int, int]
) -> None:
    monkeypatch.setattr(pipelining, "SEGMENT_BYTES", 16)  # two elements
    texts = [np.array([f"{rank}.{i}" for i in range(5 + 6)], object) for rank in range(2)]
    world = QueueWorld(2)

    def exchanged(c: QueueChannel) -> list[str]:
        mine = texts[c.rank][: lengths[1 - c.rank]]
        result = np.empty_like(mine)
        pipelining.exchange(c, texts[c.rank][: lengths[c.rank]], mine, result, 1 - c.rank, tell)
        return result.tolist()

    zero, one = world.run(exchanged)
    assert zero == [f"(0.{i} 1.{i})" for i in range(lengths[1])]
    assert one == [f"(1.{i} 0.{i})" for i in range(lengths[0])]
    assert tuple(sum(src == rank for src, _, _ in world.sent) for rank in range(2)) == messages


def doubled(buffer: Array) -> Array:
    buffer *= 2
    return buffer


def test_a_reduction_in_place_leaves_the_value_and_fills_the_spare_memory() -> None:
    value, spare = np.array([1, 2]), np.zeros(2, int)
    result = memory.InPlaceReduction(doubled)(value, None)
    assert result is not None
    assert (result.tolist(), value.tolist()) == ([2, 4], [1, 2])
    assert memory.InPlaceReduction(doubled)(value, spare) is spare
    assert (spare.tolist(), value.tolist()) == ([2, 4], [1, 2])
    assert memory.InPlaceReduction(doubled)(value, value) is value
    assert value.tolist() == [2, 4]


def test_a_reduction_in_place_copies_a_result_elsewhere_into_the_spare_memory() -> None:
    value, spare = np.array([1, 2]), np.zeros(2, int)
    assert memory.InPlaceReduction(lambda buffer: buffer + 5)(value, spare) is spare
    assert spare.tolist() == [6, 7]
    assert memory.InPlaceReduction(lambda buffer: None)(value, spare) is None
    assert value.tolist() == [1, 2]


def test_a_scan_in_place_leaves_the_value_and_fills_the_spare_memory() -> None:
    value, spare = np.array([1, 2]), np.zeros(2, int)

    def double(buffer: Array) -> None:
        buffer *= 2

    scanned = memory.InPlaceScan(double)
    result = scanned(value, None)
    assert (result.tolist(), value.tolist()) == ([2, 4], [1, 2])
    assert scanned(value, spare) is spare
    assert spare.tolist() == [2, 4]


def test_a_consuming_reduction_overwrites_the_spare_memory_only() -> None:
    value, spare, out = np.array([1, 2]), np.zeros(2, int), np.zeros(2, int)

    def consume(buffer: Array, out: Array) -> None:
        out[...] = doubled(buffer) + 1

    memory.ConsumingReduction(consume)(value, spare, out)
    assert (value.tolist(), spare.tolist(), out.tolist()) == ([1, 2], [2, 4], [3, 5])
    memory.ConsumingReduction(consume)(value, None, out)
    assert (value.tolist(), out.tolist()) == ([1, 2], [3, 5])
    memory.ConsumingReduction(consume)(value, value, out)
    assert (value.tolist(), out.tolist()) == ([2, 4], [3, 5])


def test_a_reduction_out_of_place_gets_the_value_itself_and_the_memory_for_the_result() -> None:
    given_to: list[tuple[Array, Array]] = []

    def algorithm(value: Array, result: Array) -> Array:
        given_to.append((value, result))
        return result

    value, spare = np.array([1, 2]), np.zeros(2, int)
    assert memory.OutOfPlaceReduction(algorithm)(value, spare) is spare
    new = memory.OutOfPlaceReduction(algorithm)(value, None)
    assert given_to[0][0] is value
    assert given_to[0][1] is spare
    assert given_to[1][1] is new
    assert new is not value
    assert (new.dtype, new.shape) == (value.dtype, value.shape)


def test_a_result_is_placed_only_where_there_is_another_place() -> None:
    result, place = np.array([1, 2]), np.zeros(2, int)
    assert memory.placed(result, None) is result
    assert memory.placed(result, result) is result
    assert memory.placed(result, place) is place
    assert place.tolist() == [1, 2]
