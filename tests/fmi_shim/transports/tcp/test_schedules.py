"""The choice of an algorithm over TCP, and what it leaves of the program's value."""

from functools import partial

import numpy as np
import pytest

import fmi_shim as fmi
from fmi_shim.channel import Schedule
from fmi_shim.collectives import allreduce, reduce_scatter
from fmi_shim.collectives.memory import InPlaceReduction, OutOfPlaceReduction
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array
from fmi_shim.transports.tcp import schedules
from fmi_shim.transports.tcp.switch_points import SWITCH_POINTS
from tests.fmi_shim.test_collectives import QueueChannel, QueueWorld, chained, own, tell

SUM = fmi.func(fmi.op.sum)


def prepared(channel: QueueChannel, operation: Operation, size_bytes: int) -> Schedule:
    call = Call(operation, 0, np.dtype(np.float64), size_bytes // 8, 0, SUM.code)
    return schedules.prepare(channel, call, SUM, tell)  # type: ignore[arg-type] # as much of a channel as is needed


def test_a_pipelined_reduce_leaves_the_value_of_the_root_unchanged() -> None:
    def reduced(channel: QueueChannel) -> tuple[list[str], list[str] | None]:
        value = own(channel.rank)
        result: Array | None = prepared(channel, Operation.reduce, SWITCH_POINTS.reduce)(value, None)
        return value.tolist(), None if result is None else result.tolist()

    assert QueueWorld(2).run(reduced) == [(["0"], [chained(["0", "1"])]), (["1"], None)]


@pytest.mark.parametrize(
    ("size_bytes", "kind"), [(8, InPlaceReduction), (SWITCH_POINTS.allreduce, OutOfPlaceReduction)]
)
def test_the_size_decides_the_algorithm_of_an_allreduce(size_bytes: int, kind: type) -> None:
    channel = QueueChannel(0, 2, QueueWorld(2))
    schedule = prepared(channel, Operation.allreduce, size_bytes)
    assert type(schedule) is kind
    expected = allreduce.recursive_doubling if kind is InPlaceReduction else allreduce.reduce_scatter_allgather
    algorithm = schedule.algorithm
    assert isinstance(algorithm, partial)
    assert algorithm.func is expected


@pytest.mark.parametrize(("size", "algorithm"), [(4, reduce_scatter.halving), (3, reduce_scatter.pairwise)])
def test_the_number_of_ranks_decides_the_algorithm_of_a_reduce_scatter(
    size: int, algorithm: reduce_scatter.Algorithm
) -> None:
    schedule = prepared(QueueChannel(0, size, QueueWorld(size)), Operation.reduce_scatter, 8 * size)
    assert schedule.algorithm is algorithm
