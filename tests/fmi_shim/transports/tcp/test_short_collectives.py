"""Short collectives of threads over pairs of sockets: the same results and bytes as those of the general schedules."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fmi_shim.channel import Channel, Schedule
from fmi_shim.config import DirectConfig
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array, Combine, Operator, ReduceFunction, builtin_combine
from fmi_shim.transports.tcp import schedules
from fmi_shim.transports.tcp.connections import Stream
from fmi_shim.transports.tcp.framed import FramedChannel
from fmi_shim.transports.tcp.raw import RawChannel
from fmi_shim.transports.tcp.short_messages import SHORT_BYTES

SUM = ReduceFunction(Operator.sum)
SHORT = "fmi_shim.transports.tcp.short_collectives"
FLOAT = np.dtype("float64")


class World:
    """Channels of ranks in threads, connected to each other."""

    def __init__(self, size: int, framed: bool) -> None:
        make = FramedChannel if framed else RawChannel
        config = DirectConfig("127.0.0.1", 1, 10.0, framed=framed)
        self.channels = [make(rank, size, "world", config) for rank in range(size)]
        self.threads = ThreadPoolExecutor(size)
        self.calls = 0
        for one, other in combinations(range(size), 2):
            for rank, peer, end in zip((one, other), (other, one), socket.socketpair(), strict=True):
                stream = Stream(end, peer)
                self.channels[rank]._streams[peer] = stream
                self.channels[rank]._by_descriptor[stream.descriptor] = stream

    def run(self, call: Call, arguments: list[tuple[Any, ...]], general: frozenset[int] = frozenset()) -> list[Any]:
        """Return what each rank's schedule returns; the ranks `general` run the general one."""
        function = SUM if call.operator else None
        combine = builtin_combine(Operator.sum, FLOAT) if call.operator else None
        number, self.calls = self.calls, self.calls + 1

        def run_rank(rank: int) -> Any:
            channel = self.channels[rank]
            prepare = (lambda *given: schedules.prepare(channel, *given)) if rank in general else channel.prepare
            schedule = prepare(call, function, combine)
            channel.begin(call, number)
            return schedule(*arguments[rank])

        return [future.result() for future in [self.threads.submit(run_rank, rank) for rank in range(len(arguments))]]

    def close(self) -> None:
        self.threads.shutdown()
        for channel in self.channels:
            channel.close()


@pytest.fixture(params=[(2, True), (4, True), (5, True), (8, True), (3, False), (4, False)], ids=str)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(*request.param)
    yield made
    made.close()


def call_of(operation: Operation, count: int, root: int = 0) -> Call:
    reduces = operation in (Operation.reduce, Operation.allreduce)
    return Call(operation, 0, FLOAT, count, root, SUM.code if reduces else 0, (count,))


def values_of(size: int, count: int) -> list[Array]:
    return [np.arange(count) + 10.0**rank for rank in range(size)]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("mixed", [False, True], ids=["short", "mixed"])
def test_each_collective_returns_what_the_general_one_does(world: World, count: int, mixed: bool) -> None:
    size = len(world.channels)
    values, joined = values_of(size, count), np.concatenate(values_of(size, count))
    total = np.sum(values, axis=0)
    general = frozenset(range(0, size, 2)) if mixed else frozenset()
    for root in {0, size - 1, size // 2}:
        for outs in ([None] * size, [np.empty(count) for _ in range(size)], [value.copy() for value in values]):
            call, root_call = call_of(Operation.allreduce, count), call_of(Operation.reduce, count, root)
            given = [
                out if out is not None and out[0] == value[0] else value
                for value, out in zip(values, outs, strict=True)
            ]
            saved = [value.copy() for value in given]
            for result, out in zip(world.run(call, list(zip(given, outs, strict=True)), general), outs, strict=True):
                np.testing.assert_array_equal(result, total)
                assert out is None or result is out
            for value, kept in zip(given, saved, strict=True):
                value[...] = kept
            for rank, result in enumerate(world.run(root_call, list(zip(given, outs, strict=True)), general)):
                assert (result is None) == (rank != root)
                if rank == root:
                    np.testing.assert_array_equal(result, total)
        buffers = [(value.copy(),) for value in values]
        for result in world.run(call_of(Operation.bcast, count, root), buffers, general):
            np.testing.assert_array_equal(result, values[root])
        for whole in (None, np.empty(joined.size)):
            places = [(value, whole if rank == root else None) for rank, value in enumerate(values)]
            results = world.run(call_of(Operation.gather, count, root), places, general)
            assert [result is None for result in results] == [rank != root for rank in range(size)]
            np.testing.assert_array_equal(results[root], joined)
        slices = [(joined if rank == root else None, np.empty(count)) for rank in range(size)]
        for result, value in zip(
            world.run(call_of(Operation.scatter, count, root), slices, general), values, strict=True
        ):
            np.testing.assert_array_equal(result, value)
        tables = [np.zeros((size, count)) for _ in range(size)]
        for table, row, value in zip(tables, range(size), values, strict=True):
            table[row] = value
        world.run(call_of(Operation.allgather, count), [(table,) for table in tables], general)
        for table in tables:
            np.testing.assert_array_equal(table.reshape(-1), joined)
        world.run(Call(Operation.barrier, 0, np.dtype("uint8"), 1), [()] * size, general)
    for value, unchanged in zip(values, values_of(size, count), strict=True):
        np.testing.assert_array_equal(value, unchanged)


@pytest.mark.parametrize("operation", [Operation.bcast, Operation.reduce, Operation.gather, Operation.scatter])
def test_a_message_that_comes_in_pieces_is_passed_on(operation: Operation) -> None:
    """Rank 2 of 4 is between the root and rank 3: what the short path did not receive whole has its header, too."""
    world = World(4, framed=True)
    try:
        for channel in world.channels:
            for stream in channel._streams.values():
                stream.send = in_pieces(stream.socket)
        joined = np.arange(8.0)
        given: dict[Operation, list[tuple[Any, ...]]] = {
            Operation.bcast: [(np.full(2, float(rank)),) for rank in range(4)],
            Operation.reduce: [(np.full(2, float(rank)), None) for rank in range(4)],
            Operation.gather: [(joined[2 * rank :][:2], None) for rank in range(4)],
            Operation.scatter: [(joined if rank == 0 else None, np.empty(2)) for rank in range(4)],
        }
        results = world.run(call_of(operation, 2), given[operation])
        expected: dict[Operation, list[Any]] = {
            Operation.bcast: [[0, 0]] * 4,
            Operation.reduce: [[6, 6], None, None, None],
            Operation.gather: [joined.tolist(), None, None, None],
            Operation.scatter: joined.reshape(4, 2).tolist(),
        }
        assert [None if result is None else result.tolist() for result in results] == expected[operation]
    finally:
        world.close()


def in_pieces(connection: socket.socket) -> Any:
    """Return a `send` of which the receiver gets 37 bytes first, and the rest when it has waited."""

    def send(data: bytes | bytearray, flags: int = 0) -> int:
        sent = connection.send(memoryview(data)[:37])
        threading.Event().wait(0.03)
        return sent + connection.send(memoryview(data)[37:])

    return send


@pytest.mark.parametrize(
    ("operation", "count", "function"),
    [
        (Operation.allreduce, SHORT_BYTES // 8 + 1, SUM),
        (Operation.reduce, SHORT_BYTES // 8 + 1, SUM),
        (Operation.allreduce, 1, ReduceFunction(Operator.custom, max, False, True)),
        (Operation.reduce, 1, ReduceFunction(Operator.custom, max, False, True)),
        (Operation.bcast, SHORT_BYTES // 8 + 1, None),
        (Operation.gather, SHORT_BYTES // 16 + 1, None),
        (Operation.scatter, SHORT_BYTES // 16 + 1, None),
        (Operation.allgather, SHORT_BYTES // 32 + 1, None),
        (Operation.scan, 1, SUM),
        (Operation.bcast, 0, None),
    ],
)
def test_other_calls_have_the_general_schedule(
    operation: Operation, count: int, function: ReduceFunction | None
) -> None:
    assert type(prepared(4, operation, count, function)).__module__ != SHORT
    if count > 1:
        assert type(prepared(4, operation, count - 1, function)).__module__ == SHORT


def test_a_barrier_of_a_number_of_ranks_that_is_no_power_of_two_has_the_general_schedule() -> None:
    assert type(prepared(4, Operation.barrier, 1, None)).__module__ == SHORT
    assert type(prepared(6, Operation.barrier, 1, None)).__module__ != SHORT


def prepared(size: int, operation: Operation, count: int, function: ReduceFunction | None) -> Schedule:
    channel: Channel = RawChannel(0, size, "other", DirectConfig("127.0.0.1", 1, 5.0, framed=False))
    combine: Combine | None = None if function is None else np.add
    return channel.prepare(Call(operation, 0, FLOAT, count, 0, function.code if function else 0), function, combine)
