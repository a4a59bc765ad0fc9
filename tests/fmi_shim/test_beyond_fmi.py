"""The operations that FMI does not have, on real processes and sockets, against plain Python and numpy."""

from pathlib import Path

import numpy as np
import pytest

import fmi_shim as fmi
from fmi_shim.errors import PeerFailedError
from tests.fmi_shim import extended_programs as programs
from tests.fmi_shim.conftest import world_on
from tests.fmi_shim.world import World


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "raw"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_arrays_are_returned_new_in_out_or_in_place(world: World, size: int, framed: bool) -> None:
    assert world.values(programs.every_array_operation, size, framed=framed) == [[]] * size


@pytest.mark.parametrize("channel", ["direct", "shm", "redis", "s3"])
def test_any_buffer_of_numbers_is_an_array(request: pytest.FixtureRequest, tmp_path: Path, channel: str) -> None:
    for result in world_on(channel, request, tmp_path).values(programs.buffers, 2):
        assert result == {
            "filled": b"abc", "joined": b"abxy", "in place": [3.0, 1.0], "view": [1, 4], "or": [True, True, False],
        }  # fmt: skip


ALL_SCHEDULES = [5, 40_000, 270_000]
"""Counts of float64 that take each schedule over TCP and in shared memory: see `SwitchPoints`."""


@pytest.mark.parametrize(
    ("channel", "size", "framed", "counts"),
    [
        ("direct", 2, True, [40_000]),
        ("direct", 3, True, ALL_SCHEDULES),
        ("direct", 5, True, [40_000]),
        ("direct", 3, False, [5, 40_000]),
        ("shm", 3, True, ALL_SCHEDULES),
        ("redis", 3, True, [5, 40_000]),
        ("s3", 2, True, [5]),
    ],
)
def test_out_may_be_another_object_with_the_memory_of_the_value(
    request: pytest.FixtureRequest, tmp_path: Path, channel: str, size: int, framed: bool, counts: list[int]
) -> None:
    world = world_on(channel, request, tmp_path)
    assert world.values(programs.results_in_the_values_memory, size, counts, framed=framed) == [[]] * size


@pytest.mark.parametrize(
    ("channel", "framed", "size"),
    [("direct", True, 3), ("direct", False, 2), ("shm", True, 3), ("redis", True, 2), ("s3", True, 2)],
)
def test_an_out_that_overlaps_the_value_in_part_is_refused_alike_everywhere(
    request: pytest.FixtureRequest, tmp_path: Path, channel: str, framed: bool, size: int
) -> None:
    world = world_on(channel, request, tmp_path)
    assert world.values(programs.results_that_overlap_in_part, size, [1, 5, 40_000], framed=framed) == [[]] * size


@pytest.mark.parametrize(("channel", "framed"), [("direct", True), ("direct", False), ("shm", True), ("redis", True)])
def test_subclasses_of_arrays_are_taken_as_arrays_unless_they_have_a_mask(
    request: pytest.FixtureRequest, tmp_path: Path, channel: str, framed: bool
) -> None:
    world = world_on(channel, request, tmp_path)
    assert world.values(programs.values_of_subclasses, 2, framed=framed) == [[]] * 2


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "raw"])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_posted_messages_are_sent_around_a_ring_without_connections(world: World, size: int, framed: bool) -> None:
    assert world.values(programs.ring_of_requests, size, 1_000_000, framed=framed) == [[True] * 4] * size


@pytest.mark.parametrize("size", [2, 3, 4])
def test_posted_messages_move_while_a_blocking_call_waits(world: World, size: int) -> None:
    values = world.values(programs.blocking_beside_posted, size, 500_000)
    assert values == [[(rank - 1) % size, (rank - 1) % size + 0.5] for rank in range(size)]


def test_a_request_can_be_tested(world: World) -> None:
    early, value = world.values(programs.tested_until_done, 2)[0]
    assert value == 0
    assert isinstance(early, bool)


def test_split_returns_a_communicator_for_each_colour_ordered_by_key(world: World) -> None:
    results = world.values(programs.rows_and_columns, 6)
    assert [result["row"] for result in results] == [
        *[(place, 3, [2, 1, 0]) for place in (2, 1, 0)],
        *[(place, 3, [3, 4, 5]) for place in (0, 1, 2)],
    ]
    assert [result["column"] for result in results] == [
        (0, 2, 3), (0, 2, 5), (0, 1, 2), (1, 2, 3), (1, 2, 5), None,
    ]  # fmt: skip
    assert [result["part"] for result in results] == [[0], [2, 1], [2, 1], [3, 4], [3, 4], [5]]
    assert {result["whole"] for result in results} == {result["whole again"] for result in results} == {15}


def test_an_exception_in_a_with_block_is_reported_with_its_text(world: World) -> None:
    outcomes = world.run(programs.raise_in_with_block, 3, max_timeout=0)
    assert isinstance(outcomes[1].error, LookupError)
    for outcome in (outcomes[0], outcomes[2]):
        assert isinstance(outcome.error, PeerFailedError)
        assert "raised LookupError: no such galaxy" in str(outcome.error)


@pytest.mark.parametrize(
    ("channel", "framed", "what"),
    [
        ("direct", True, "barrier"),
        ("direct", True, "close"),
        ("direct", False, "send"),
        ("shm", True, "barrier"),
        ("shm", True, "send"),
        ("redis", True, "send"),
    ],
)
def test_a_call_that_begins_during_another_one_raises_in_both(
    request: pytest.FixtureRequest, tmp_path: Path, channel: str, framed: bool, what: str
) -> None:
    outcomes = world_on(channel, request, tmp_path).run(programs.call_during_a_call, 2, what, framed=framed)
    first, during, later = outcomes[0].value
    assert first == during
    assert first.startswith("ConcurrentCallError: rank 0: ")
    assert f"{what} (" in first or what == "close"
    assert "while send was running: expected one call at a time: use a lock, or a communicator for each" in first
    assert later.startswith("BrokenCommunicatorError: barrier")
    (other,) = outcomes[1].value
    assert other.startswith("PeerFailedError" if framed else "PeerLostError"), other
    assert ("expected one call at a time" in other) is framed


@pytest.mark.parametrize("channel", ["direct", "shm"])
def test_a_call_in_a_custom_function_is_refused(request: pytest.FixtureRequest, tmp_path: Path, channel: str) -> None:
    outcomes = world_on(channel, request, tmp_path).run(programs.call_in_a_custom_function, 2)
    errors = [outcome.value[0] for outcome in outcomes]
    assert any(error.startswith("ConcurrentCallError") for error in errors)
    assert all("while allreduce was running" in error for error in errors), errors


@pytest.mark.parametrize("channel", ["direct", "shm"])
def test_calls_may_come_from_threads_in_turn(request: pytest.FixtureRequest, tmp_path: Path, channel: str) -> None:
    world = world_on(channel, request, tmp_path)
    assert world.values(programs.calls_from_threads_in_turn, 2) == [[0, 2, 4, 6, 8]] * 2
    assert world.values(programs.two_communicators_in_two_threads, 2) == [[True, True]] * 2


def test_rank_and_size_are_properties(world: World) -> None:
    with fmi.Communicator(2, 5, world.config(), "name") as comm:
        assert (comm.rank, comm.size) == (2, 5)


def test_wrong_arguments_raise_before_anything_is_sent(world: World) -> None:
    comm = fmi.Communicator(0, 2, world.config(), "name")
    total, readonly = fmi.func(fmi.op.sum), np.ones(2)
    readonly.flags.writeable = False
    wrong = [
        (lambda: comm.sendrecv(np.ones(2), 1, 2), ValueError, "invalid src 2: expected 0 to 1"),
        (lambda: comm.recv(1, out=readonly), ValueError, "invalid out: expected an array to fill that is C-contiguous"),
        (
            lambda: comm.allreduce(np.ones(2), total, out=np.ones(3)),
            ValueError,
            r"invalid out float64\[3\]: expected .*",
        ),
        (lambda: comm.allgather(np.ones(2), out=np.ones(2)), ValueError, r"expected .*float64\[4\]"),
        (
            lambda: comm.reduce(1, 0, total, fmi.types(fmi.datatypes.int), out=np.ones(1)),
            TypeError,
            "invalid out: expected None with t",
        ),
        (
            lambda: comm.alltoall(np.ones(3)),
            ValueError,
            "invalid value of 3 rows or elements: expected a m",
        ),
        (lambda: comm.reduce_scatter(np.ones(()), total), ValueError, "invalid value of a single element"),
        (lambda: comm.split("red"), TypeError, "invalid colour 'red': expected a whole number"),
        (lambda: comm.split(-1), ValueError, "invalid colour -1: expected 0 to"),
        (lambda: comm.split(1, key=2**31), ValueError, "invalid key 2147483648: expected -2147483648 to"),
        (lambda: comm.exscan(np.ones(2), np.add), TypeError, r"invalid f .*expected fmi.func"),
        (lambda: comm.allreduce(b"12", fmi.func(fmi.op.custom)), TypeError, "invalid function None"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="POSIX semaphores in shared memory: Linux")
@pytest.mark.parametrize("size", [2, 3])
def test_extended_operations_work_over_shared_memory(rendezvous_address: str, tmp_path: Path, size: int) -> None:
    world = World(rendezvous_address, tmp_path, environment={"FMI_CHANNEL": "shm"})
    assert world.values(programs.every_array_operation, size) == [[]] * size
    assert world.values(programs.ring_of_requests, size, 300_000) == [[True] * 4] * size
