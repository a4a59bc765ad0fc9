"""Unit tests of the schedules over slots and windows, between threads: the order of combination, and no early reads.

Elements are strings, and combining two writes ``(left right)``, as in `test_collectives`. The rounds are
the real ones, of both kinds.
"""

import itertools
import mmap
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fmi_shim as fmi
from fmi_shim.frames import BY_ROWS, Call, Operation
from fmi_shim.operators import Array, builtin_combine
from fmi_shim.transports.shm.layout import LINE, MAX_LEAD, PAGE, ROUNDS_IN_FLIGHT, Layout
from fmi_shim.transports.shm.rounds import CallTag, RoundArrival, Rounds
from fmi_shim.transports.shm.rounds_tso import TsoRounds
from fmi_shim.transports.shm.schedules import exchange, reduce, scan
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel
from fmi_shim.transports.shm.schedules.reduce import share
from fmi_shim.transports.shm.semaphores import Semaphore
from tests.fmi_shim.test_collectives import chained, tell

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="POSIX semaphores in shared memory: Linux")

LARGER = fmi.func(fmi.op.max)
"""Stands for any operator; the combining function is passed beside it."""


class SlotWorld:
    """Slots of `width` strings for each of `size` ranks and the result, windows in their place, and rounds."""

    def __init__(self, kind: type[Rounds], size: int, width: int) -> None:
        self.kind = kind
        self.plan = Layout(size, 64, PAGE)
        self.memory = mmap.mmap(-1, self.plan.total)
        self.slots = np.full((ROUNDS_IN_FLIGHT, size + 1, width), "nothing", object)
        for rank in range(size):
            Semaphore(self.memory, self.plan.doorbell(rank)).initialise()
            for other in range(size):
                Semaphore(self.memory, self.plan.ring(rank, other) + 2 * LINE).initialise()

    def run(self, program: Callable[["SlotChannel"], Any]) -> list[Any]:
        """Run `program` on all ranks; return what they return."""
        results: list[Any] = [None] * self.plan.size
        failures: list[BaseException] = []

        def rank(number: int) -> None:
            try:
                results[number] = program(SlotChannel(number, self))
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)

        threads = [threading.Thread(target=rank, args=(number,)) for number in range(self.plan.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return results


class SlotChannel(SegmentChannel):
    """The channel of one rank in a `SlotWorld`."""

    peer_memory = None

    def __init__(self, rank: int, world: SlotWorld) -> None:
        self.rank, self.size, self.shared = rank, world.plan.size, world
        self.rounds = world.kind(world.memory, world.plan, rank, self)

    def slots(self, dtype: np.dtype[Any]) -> Array:
        return self.shared.slots

    def windows(self, dtype: np.dtype[Any]) -> list[Array]:
        return [*self.shared.slots.reshape(ROUNDS_IN_FLIGHT, -1)]

    def call_tag(self, call: Call) -> CallTag:
        return CallTag.of(str(call).encode())

    def allocate(self, header: bytes, src: int) -> NoReturn:
        raise AssertionError("every rank knows its type here")

    def rows(self, dtype: np.dtype[Any], count: int) -> Array:
        return self.shared.slots[:, :, :count]

    def expect_messages(self) -> NoReturn:
        raise AssertionError("there are no messages here")

    def wait_for(self, arrival: RoundArrival) -> None:
        deadline = time.monotonic() + 20
        while not arrival.poll():
            arrival.sleep(0.001)
            assert time.monotonic() < deadline, f"rank {arrival.peer} does not reach round {arrival.number}"

    def check_notifications(self, known: bytes) -> bytes:
        return known

    def raise_mismatch(self, rank: int, header: bytes, call_tag: CallTag, sequence: int) -> NoReturn:
        raise ValueError(f"rank {rank} is in {header.decode()}, rank {self.rank} in {call_tag.header.decode()}")


def call(operation: Operation, count: int, root: int = 0) -> Call:
    return Call(operation, 0, np.dtype(object), count, root)


def own(rank: int, count: int, number: int = 0) -> Array:
    return np.array([f"{rank}.{number}.{element}" for element in range(count)], object)


def in_rank_order(ranks: int, count: int, number: int = 0) -> list[str]:
    return [chained([f"{rank}.{number}.{element}" for rank in range(ranks)]) for element in range(count)]


kinds = st.sampled_from([Rounds, TsoRounds])
sizes, widths, counts = st.integers(1, 9), st.integers(1, 6), st.integers(0, 40)
few = settings(max_examples=20)


@few
@given(
    kinds,
    st.one_of(sizes, st.just(16)),
    st.integers(1, 3),
    st.integers(-1, 1),
    st.integers(0, 2 * ROUNDS_IN_FLIGHT),
    st.data(),
)
def test_a_pipeline_combines_strictly_in_rank_order_and_fills_the_wanted_elements(
    kind: type[Rounds], size: int, width: int, beside: int, windows: int, data: st.DataObject
) -> None:
    """Payloads around multiples of the window; the result goes into memory of its own, or into the buffer."""
    count = max(0, windows * width * (size + 1) + beside)
    first, end = sorted([data.draw(st.integers(0, count)), data.draw(st.integers(0, count))])
    takers = data.draw(st.sets(st.integers(0, size - 1)))
    place = data.draw(st.sampled_from(["apart", "at the beginning", "in place", "at the end"]))

    def program(channel: SlotChannel) -> list[str]:
        buffer = own(channel.rank, count)
        where = {"at the beginning": 0, "in place": first, "at the end": count - (end - first)}.get(place)
        out = np.empty(end - first, object) if where is None else buffer[where : where + end - first]
        pipeline = reduce.ReducePipeline(channel, call(Operation.reduce_scatter, count), tell, first, end, 8)
        pipeline.run(buffer, out if channel.rank in takers else None)
        return out.tolist() if channel.rank in takers else []

    whole = in_rank_order(size, count)[first:end]
    assert SlotWorld(kind, size, width).run(program) == [whole if rank in takers else [] for rank in range(size)]


def expected(operation: str, rank: int, size: int, count: int, root: int, number: int) -> Any:
    """Return what `rank` gets from an operation on `count` elements, or on as many for each rank."""
    rows = [own(r, count, number).tolist() for r in range(size)]
    wide = [own(r, count * size, number).tolist() for r in range(size)]
    mine = slice(rank * count, (rank + 1) * count)
    match operation:
        case "bcast":
            return rows[root]
        case "allreduce":
            return in_rank_order(size, count, number)
        case "reduce":
            return in_rank_order(size, count, number) if rank == root else None
        case "gather":
            return [*itertools.chain(*rows)] if rank == root else None
        case "allgather":
            return [*itertools.chain(*rows)]
        case "scatter":
            return wide[root][mine]
        case "alltoall":
            return [*itertools.chain(*(row[mine] for row in wide))]
        case "reduce_scatter":
            return in_rank_order(size, count * size, number)[mine]
        case "scan":
            return in_rank_order(rank + 1, count, number)
        case "exscan":
            return in_rank_order(rank, count, number) if rank else None
        case _:
            return None


def run_operation(channel: SlotChannel, operation: str, count: int, root: int, number: int) -> Any:
    """Return the result of `operation`."""
    size, part = channel.size, own(channel.rank, count, number)
    wide, out = own(channel.rank, count * channel.size, number), np.empty(count, object)
    this = call(Operation[operation], count * size if operation == "reduce_scatter" else count, root)
    small = count <= channel.shared.slots.shape[2]
    match operation:
        case "barrier":
            exchange.barrier(channel, this)()
            return None
        case "bcast":
            return exchange.bcast(channel, this)(part if channel.rank == root else out).tolist()
        case "gather":
            whole = exchange.gather(channel, this)(part, None)
            return None if whole is None else whole.tolist()
        case "allgather":
            rows = np.empty((size, count), object)
            rows[channel.rank] = part
            exchange.allgather(channel, this)(rows)
            return rows.reshape(-1).tolist()
        case "scatter":
            return exchange.scatter(channel, this)(wide if channel.rank == root else None, out).tolist()
        case "alltoall":
            incoming = np.empty((size, count), object)
            exchange.alltoall(channel, this)(wide.reshape(size, -1), incoming)
            return incoming.reshape(-1).tolist()
        case "reduce_scatter":
            reduce.reduce_scatter(channel, this, LARGER, tell)(wide, None, out)
        case "allreduce" if small and number % 3 == 0:
            reduce.allreduce_one_round(channel, this, LARGER, tell)(part, out)
        case "allreduce" if small and number % 3 == 1:
            reduce.allreduce_two_rounds(channel, this, LARGER, tell)(part, out)
        case "reduce" if small and number % 2 == 0:
            reduce.reduce_at_root(channel, this, LARGER, tell)(part, out)
        case "allreduce" | "reduce":
            wanted = operation == "allreduce" or channel.rank == root
            reduce.ReducePipeline(channel, this, tell, 0, count, 8).run(part, out if wanted else None)
        case "scan" | "exscan":
            ranks = channel.rank + (operation == "scan")
            up_to = scan.prefix(channel, this, LARGER, tell, ranks)
            assert up_to is not None
            up_to(part, out)
    if (operation == "reduce" and channel.rank != root) or (operation == "exscan" and channel.rank == 0):
        return None
    return out.tolist()


OPERATIONS = [each.name for each in Operation if each not in {Operation.send, Operation.attach} | BY_ROWS]
"""Those that go through slots: parts of different sizes, and objects, are messages."""


@few
@given(
    kinds,
    st.integers(1, 5),
    st.integers(9, 20),
    st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 50)), max_size=20),
    st.data(),
)
def test_an_operation_does_not_overwrite_what_the_last_one_still_reads(
    kind: type[Rounds], size: int, width: int, calls: list[tuple[str, int]], data: st.DataObject
) -> None:
    todo = [
        (name, min(count, width) if name in ("scan", "exscan") else count, data.draw(st.integers(0, size - 1)))
        for name, count in calls
    ]

    def program(channel: SlotChannel) -> list[Any]:
        return [run_operation(channel, *step, number) for number, step in enumerate(todo)]

    for rank, results in enumerate(SlotWorld(kind, size, width).run(program)):
        for number, (name, count, root) in enumerate(todo):
            assert results[number] == expected(name, rank, size, count, root, number), (name, count, root)


@pytest.mark.parametrize("kind", [Rounds, TsoRounds])
def test_a_rank_that_reads_no_data_is_at_most_max_lead_rounds_ahead(kind: type[Rounds]) -> None:
    world = SlotWorld(kind, 2, 1)
    sender, reader = SlotChannel(0, world), SlotChannel(1, world)
    send = exchange.bcast(sender, call(Operation.bcast, 1))
    receive = exchange.bcast(reader, call(Operation.bcast, 1))
    for number in range(MAX_LEAD):
        send(own(0, 1, number))
    ahead = threading.Thread(
        target=lambda: [send(own(0, 1, number)) for number in range(MAX_LEAD, 3 * ROUNDS_IN_FLIGHT)]
    )
    ahead.start()
    received = [receive(np.empty(1, object)).tolist() for _ in range(3 * ROUNDS_IN_FLIGHT)]
    ahead.join()
    assert received == [own(0, 1, number).tolist() for number in range(3 * ROUNDS_IN_FLIGHT)]


@pytest.mark.parametrize("kind", [Rounds, TsoRounds])
def test_a_mismatch_is_detected_even_calls_later(kind: type[Rounds]) -> None:
    """Two roots that broadcast never wait for each other; the barrier after it detects the mismatch."""

    def program(channel: SlotChannel) -> None:
        exchange.bcast(channel, call(Operation.bcast, 1, root=channel.rank))(own(channel.rank, 1))
        exchange.barrier(channel, call(Operation.barrier, 1))()

    with pytest.raises(ValueError, match=r"rank (\d) is in bcast .*root \1\), rank (\d) in bcast .*root \2\)"):
        SlotWorld(kind, 2, 1).run(program)


def test_rounds_continue_where_the_numbers_in_their_tags_overflow() -> None:
    """A tag holds the lowest 16 bits of a round's number."""

    def program(channel: SlotChannel) -> list[Any]:
        channel.rounds.number = channel.rounds._reached_by_all = (1 << 16) - 5 * ROUNDS_IN_FLIGHT
        operations = ("allreduce", "bcast", "gather", "barrier") * (3 * ROUNDS_IN_FLIGHT)
        return [run_operation(channel, name, 2, number % 3, 2 * number) for number, name in enumerate(operations)]

    for rank, results in enumerate(SlotWorld(TsoRounds, 3, 3).run(program)):
        for number, name in enumerate(("allreduce", "bcast", "gather", "barrier") * (3 * ROUNDS_IN_FLIGHT)):
            assert results[number] == expected(name, rank, 3, 2, number % 3, 2 * number)


@pytest.mark.parametrize("kind", [Rounds, TsoRounds])
def test_a_write_before_a_tag_is_visible_after_the_tag(kind: type[Rounds]) -> None:
    world = SlotWorld(kind, 2, 1)
    start = world.plan.slots
    call_tag = CallTag.of(b"a call")

    def exchange_numbers(rank: int, many: int) -> None:
        rounds = SlotChannel(rank, world).rounds
        for number in range(many):
            slot_index = rounds.begin(call_tag)
            place, other = (start + (2 * slot_index + r) * 8 for r in (rank, 1 - rank))
            world.memory[place : place + 8] = number.to_bytes(8, "little")
            rounds.barrier()
            assert int.from_bytes(world.memory[other : other + 8], "little") == number

    child = os.fork()
    if child == 0:
        status = 1
        try:
            exchange_numbers(1, 3000)
            status = 0
        finally:
            os._exit(status)
    exchange_numbers(0, 3000)
    assert os.waitpid(child, 0)[1] == 0


@settings(max_examples=50)
@given(
    st.integers(1, 40), st.integers(2, 70), st.sampled_from(["float32", "float64", "complex128", "float16"]), st.data()
)
def test_rows_are_combined_in_order_with_the_same_bits(rows: int, count: int, dtype: str, data: st.DataObject) -> None:
    noise = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    values = (noise.standard_normal((rows, count + 3)) / 3).astype(dtype)[:, :count]
    for operator in (fmi.op.sum, fmi.op.prod):
        combine = builtin_combine(operator, values.dtype)
        this = Call(Operation.allreduce, 0, values.dtype, count)
        found, one_by_one = np.empty(count, dtype), np.empty(count, dtype)
        reduce.fold_of(fmi.func(operator), this, combine)(values, found)
        reduce.combine_in_order([*values], one_by_one, combine)
        assert found.tobytes() == one_by_one.tobytes()


@given(st.integers(0, 10_000), st.integers(1, 64), st.sampled_from([1, 2, 4, 8, 16]))
def test_shares_cover_the_slot_and_divide_it_between_cache_lines(elements: int, size: int, itemsize: int) -> None:
    shares = [share(elements, rank, size, itemsize) for rank in range(size)]
    assert shares[0][0] == 0
    assert shares[-1][1] == elements
    assert all(before[1] == after[0] for before, after in itertools.pairwise(shares))
    assert all(first == elements or first * itemsize % 64 == 0 for first, _ in shares)
    assert max(last - first for first, last in shares) * size <= elements + 128 * size * 2
