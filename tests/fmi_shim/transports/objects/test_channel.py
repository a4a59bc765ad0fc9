"""The object channel over a store in memory: names, contents, waits, deletion, order of combination."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fmi_shim as fmi
from fmi_shim.collectives import allreduce, reduce, scan
from fmi_shim.errors import MismatchError, PeerTimeoutError
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array
from fmi_shim.transports.objects import schedules
from fmi_shim.transports.objects.channel import ObjectChannel
from tests.fmi_shim.test_collectives import QueueWorld, few, own, sizes, tell
from tests.fmi_shim.transports.objects.memory_store import MemoryStore, channel, run

SUM = fmi.func(fmi.op.sum)
ORDERED = fmi.func(fmi.op.custom, tell, False, True)
STORY = np.dtype("U120")


def story(rank: int) -> Array:
    return own(rank).astype(STORY)


@few
@given(sizes, st.data())
def test_reduce_has_the_combination_tree_of_message_passing(size: int, data: st.DataObject) -> None:
    root = data.draw(st.integers(0, size - 1))
    results = run(MemoryStore(), size, lambda c: schedules.reduce(c, story(c.rank), root, SUM, tell))
    expected = QueueWorld(size).run(lambda c: reduce.binomial(c, own(c.rank), root, tell))
    assert results[root].tolist() == expected[root].tolist()
    assert all(result is None for rank, result in enumerate(results) if rank != root)


@few
@given(sizes, st.data())
def test_an_ordered_reduce_combines_strictly_by_rank(size: int, data: st.DataObject) -> None:
    root = data.draw(st.integers(0, size - 1))
    results = run(MemoryStore(), size, lambda c: schedules.reduce(c, story(c.rank), root, ORDERED, tell))
    expected = QueueWorld(size).run(lambda c: reduce.left_to_right(c, own(c.rank), root, tell))
    assert results[root].tolist() == expected[root].tolist()


@few
@given(sizes, st.booleans())
def test_allreduce_returns_rank_0s_result_of_message_passing_on_all_ranks(size: int, ordered: bool) -> None:
    function, schedule = (ORDERED, allreduce.left_to_right) if ordered else (SUM, allreduce.recursive_doubling)
    results = run(MemoryStore(), size, lambda c: schedules.allreduce(c, story(c.rank), function, tell).tolist())
    expected = QueueWorld(size).run(lambda c: schedule(c, own(c.rank), tell).tolist())
    assert results == [expected[0]] * size


@few
@given(sizes, st.booleans())
def test_scan_has_the_combination_order_of_message_passing(size: int, ordered: bool) -> None:
    def ours(c: ObjectChannel) -> list[str]:
        buffer = story(c.rank)
        schedules.scan(c, buffer, ORDERED if ordered else SUM, tell)
        return buffer.tolist()

    def theirs(c: Any) -> list[str]:
        buffer = own(c.rank)
        (scan.chain if ordered else scan.up_and_down_sweep)(c, buffer, tell)
        return buffer.tolist()

    assert run(MemoryStore(), size, ours) == QueueWorld(size).run(theirs)


def two_calls_of_each(c: ObjectChannel) -> None:
    for _ in range(2):
        value = np.array([c.rank + 0.5])
        add = lambda left, right, out: np.add(left, right, out=out)  # noqa: E731
        schedules.bcast(c, value, 1)
        schedules.reduce(c, value.copy(), 2, SUM, add)
        schedules.allreduce(c, value.copy(), SUM, add)
        schedules.scan(c, value.copy(), SUM, add)
        schedules.gather(c, value, 0)
        schedules.scatter(c, np.arange(3.0) if c.rank == 1 else None, value, 1)
        schedules.barrier(c)


def test_keys_and_contents_are_those_of_fmi() -> None:
    store = MemoryStore()
    run(store, 3, two_calls_of_each)
    # bcast, also of the allreduce; reduce to 2, then to 0; scans; gather to 0; scatter from 1
    expected = {f"Test1_bcast_{n}" for n in (0, 2)} | {f"Test0_bcast_{n}" for n in (1, 3)}
    expected |= {f"Test{rank}_reduce_{n}" for n in (0, 2) for rank in (0, 1)}
    expected |= {f"Test{rank}_reduce_{n}" for n in (1, 3) for rank in (1, 2)}
    expected |= {f"Test{rank}_scan_{n}" for n in (0, 1) for rank in (0, 1)}
    expected |= {"Test2_0_0", "Test2_0_1", "Test1_2_0", "Test1_2_1"}
    expected |= {f"Test1_0_{n}" for n in range(4)}  # rank 1 sends to 0 in the gather and in the scatter
    expected |= {f"Test{rank}_barrier_{n}" for n in (0, 1) for rank in range(3)}
    assert store.written.keys() == expected | {f"Test{rank}_left" for rank in range(3)}
    assert store.written["Test1_bcast_0"] == np.array([1.5]).tobytes()
    assert store.written["Test0_barrier_0"] == b"1"
    assert set(store.deleted) == store.written.keys()


def test_every_object_is_deleted_at_the_end() -> None:
    store = MemoryStore()
    assert run(store, 3, two_calls_of_each) == [None] * 3
    assert store.objects == {}
    assert store.closed == 3


@pytest.mark.parametrize("framed", [True, False])
def test_other_communicators_are_neither_read_nor_deleted(framed: bool) -> None:
    store = MemoryStore()
    names = ["Test", "Test1", "Tes", "Test-", ""]
    foreign = {f"{name}{rank}_barrier_0": b"x" for name in names[1:] for rank in range(3, 9)}
    foreign |= {"Test0_barrier_00": b"x", "xTest0_barrier_0": b"x", "Test1_bcast_9": b"x", "unrelated": b"x"}
    store.objects |= foreign
    assert run(store, 3, two_calls_of_each, framed=framed) == [None] * 3
    assert store.objects == foreign
    assert not foreign.keys() & (store.read | set(store.deleted))


def test_communicators_with_a_common_name_prefix_are_independent() -> None:
    store = MemoryStore()
    counts = []

    def both(name: str) -> None:
        counts.append(run(store, 2, lambda c: schedules.barrier(c) or c.rank, name=name))

    threads = [threading.Thread(target=both, args=(name,)) for name in ("Test", "Test_", "Test1x")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [[0, 1]] * 3
    assert store.objects == {}


def test_a_writer_deletes_its_objects_when_its_readers_have_closed() -> None:
    store = MemoryStore()
    closing = threading.Event()

    def late_reader(c: ObjectChannel) -> float:
        value = np.array([float(c.rank)])
        if c.rank == 0:
            c.send(value, 1)
            schedules.bcast(c, value, 0)
            closing.set()
        else:
            closing.wait(10)
            while "Test0_left" not in store.objects:  # rank 0 is in close
                time.sleep(0.001)
            c.recv(value, 0)
            schedules.bcast(c, value, 0)
        return float(value[0])

    assert run(store, 2, late_reader) == [0.0, 0.0]
    assert store.objects == {}


def test_the_last_rank_of_a_barrier_finds_all_objects() -> None:
    store = MemoryStore()
    for _ in range(20):
        assert run(store, 4, lambda c: schedules.barrier(c)) == [None] * 4
        assert store.objects == {}


def test_a_writer_whose_reader_never_starts_times_out_and_deletes() -> None:
    store = MemoryStore()
    opened = channel(store, 0, 2, longest=0.02)
    opened.send(np.ones(1), 1)
    opened.close()
    opened.close()
    assert store.objects == {}
    assert store.closed == 1


def test_the_wait_for_a_reader_that_has_not_started_is_longer_than_for_one_that_has_ended() -> None:
    """A store that detects absence: a writer does not treat a reader that starts late as killed."""
    store = MemoryStore()
    opened = channel(store, 0, 2, longest=0.6, framed=True)
    opened.send(np.ones(1), 1)
    begun = time.monotonic()
    opened.close()
    assert time.monotonic() - begun >= 0.6
    opened = channel(store, 0, 2, longest=None, framed=True)
    store.there.add("Test1")
    opened.send(np.ones(1), 1)
    threading.Timer(0.4, store.there.clear).start()
    opened.close()
    assert store.objects == {}


def test_a_rank_that_wrote_and_read_nothing_closes_at_once() -> None:
    store = MemoryStore()
    channel(store, 0, 2, longest=None).close()
    assert store.deleted == []
    assert run(store, 1, two_calls_of_one) == [None]
    assert store.deleted == []


def two_calls_of_one(c: ObjectChannel) -> None:
    for _ in range(2):
        value = np.array([1.0])
        schedules.bcast(c, value, 0)
        assert schedules.gather(c, value, 0) is not None
        schedules.scatter(c, value, value, 0)
        schedules.scan(c, value, SUM, tell)
        schedules.barrier(c)


def test_the_objects_of_a_failed_rank_are_deleted_at_once() -> None:
    store = MemoryStore()
    opened = channel(store, 0, 3, longest=None)
    opened.send(np.ones(1), 1)
    opened.fail(RuntimeError("its program"))
    assert store.objects == {}
    assert store.closed == 1
    opened.close()
    assert store.closed == 1


def test_a_timeout_names_the_missing_objects() -> None:
    opened = channel(MemoryStore(), 2, 4, longest=0.01)
    opened.begin(Call(Operation.reduce, 0, np.dtype(float), 1, 2, SUM.code), 7)
    with pytest.raises(PeerTimeoutError) as caught:
        schedules.reduce(opened, np.ones(1), 2, SUM, tell)
    assert str(caught.value).startswith(
        "rank 2 in reduce (call 7, 1 x float64, root 2, operator sum): 'Test0_reduce_0' in the memory store "
        "(and 2 more) did not appear for 0.01 s: check that rank 0 has not ended and is not stopped, late, or in "
        "another call; raise max_timeout"
    )
    assert caught.value.origin == 0
    with pytest.raises(PeerTimeoutError, match=r"'Test0_barrier_0' in the memory store \(and 2 more\) did not appear"):
        schedules.barrier(opened)


def test_a_poll_of_missing_objects_requests_one_alone() -> None:
    """All are requested at first, and again when that one exists: on S3 each is a paid request."""
    store = MemoryStore()
    asked: list[int] = []

    def get(keys: Sequence[str]) -> list[bytes | None]:
        if "Test_failed" not in keys:
            asked.append(len(keys))
            if len(asked) > 4:
                store.objects |= {f"Test{rank}_reduce_0": np.ones(1).tobytes() for rank in range(1, 8)}
        return MemoryStore.get(store, keys)

    store.get = get  # type: ignore[method-assign]
    result = schedules.reduce(channel(store, 0, 8), np.ones(1), 0, SUM, lambda a, b, out: np.add(a, b, out=out))
    assert result is not None
    assert result.tolist() == [8.0]
    assert asked == [7, 1, 1, 1, 1, 6]


def test_an_existing_object_is_not_overwritten() -> None:
    store = MemoryStore()
    store.objects["Test0_bcast_0"] = b"of an earlier run"
    opened = channel(store, 0, 2)
    with pytest.raises(
        MismatchError, match="'Test0_bcast_0' exists already in the memory store: written by a run that was"
    ):
        schedules.bcast(opened, np.ones(1), 0)
    opened.fail(RuntimeError())
    assert store.objects == {"Test0_bcast_0": b"of an earlier run"}
