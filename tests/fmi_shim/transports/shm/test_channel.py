"""The shared-memory channel on real processes: results, failures, and that nothing is left behind."""

import os
import signal
import time
from pathlib import Path

import pytest

import fmi_shim as fmi
from fmi_shim.errors import (
    BrokenCommunicatorError,
    ConfigError,
    FmiError,
    MismatchError,
    PeerFailedError,
    PeerLostError,
    PeerOverflowError,
    PeerTimeoutError,
)
from fmi_shim.transports.shm import segment
from tests.fmi_shim import failing_programs, programs
from tests.fmi_shim.transports.shm import programs as shared_memory_programs
from tests.fmi_shim.world import Outcome, World

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="POSIX semaphores in shared memory: Linux")

FOR_EVER = 0


@pytest.fixture
def world(rendezvous_address: str, tmp_path: Path) -> World:
    return World(rendezvous_address, tmp_path, environment={"FMI_CHANNEL": "shm"})


def failed_with(outcome: Outcome, error: type[FmiError], origin: int | None) -> str:
    assert type(outcome.error) is error, outcome
    assert isinstance(outcome.error, FmiError)
    assert outcome.error.origin == origin, outcome
    return str(outcome.error)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_arrays_of_any_shape_go_through_every_operation(world: World, size: int) -> None:
    assert world.values(programs.every_array_operation, size, True) == [[]] * size


@pytest.mark.parametrize("size", [2, 3, 5])
def test_payloads_of_many_slots_and_blocks_come_out_right(world: World, size: int) -> None:
    assert world.values(shared_memory_programs.large_payloads, size) == [[]] * size


@pytest.mark.parametrize("readable", [True, False])
def test_large_slices_go_past_the_segment_where_all_ranks_may_read_each_others_memory(
    world: World, readable: bool
) -> None:
    assert world.values(shared_memory_programs.payloads_past_the_segment, 3, readable) == [[]] * 3


def test_operations_in_any_succession_do_not_disturb_each_other(world: World) -> None:
    assert world.values(shared_memory_programs.mixture, 4, 300) == [[]] * 4


def test_all_works_where_processors_see_stores_in_any_order(world: World) -> None:
    assert world.values(shared_memory_programs.mixture_by_semaphores, 3, 100) == [[]] * 3


def test_posted_messages_may_have_collectives_between_their_ends(world: World) -> None:
    assert world.values(shared_memory_programs.posted_around_a_barrier, 2) == [[], [0, 10, 1, 11, 2, 12]]


def test_floating_point_sums_have_the_same_bits_on_all_ranks_at_every_size(world: World) -> None:
    first, *others = world.values(shared_memory_programs.sums_of_thirds, 5)
    assert all(other == first for other in others)


def test_tensors_come_back_as_tensors(world: World) -> None:
    pytest.importorskip("torch")
    for result in world.values(programs.tensors, 2):
        assert result["allreduce"] == (True, "torch.float32", [[1.0, 3.0, 5.0], [7.0, 9.0, 11.0]])


def test_a_run_does_not_meet_a_crashed_one_of_the_same_name(world: World) -> None:
    again = World(world.address, world.folder, environment=world.environment)
    world.run(shared_memory_programs.die_all_together, 3)
    assert again.values(programs.sum_of_ranks, 3) == [3] * 3


def test_a_segment_has_no_name_once_all_ranks_share_it(world: World) -> None:
    for names in world.values(shared_memory_programs.names_in_use, 3):
        assert names == []


@pytest.mark.parametrize("victim", [0, 1, 3])
@pytest.mark.parametrize(
    "moment", ["between calls", "asleep", "in a large allreduce", "in a large alltoall", "in a receive"]
)
def test_a_killed_rank_is_noticed_at_once_by_all_others(world: World, victim: int, moment: str) -> None:
    outcomes = world.run(shared_memory_programs.die, 4, victim, moment, max_timeout=FOR_EVER)
    assert outcomes[victim].exit_code == -signal.SIGKILL
    for rank, outcome in enumerate(outcomes):
        if rank != victim:
            assert f"lost rank {victim}, whose process ended" in failed_with(outcome, PeerLostError, victim)


def test_a_killed_rank_is_noticed_down_a_chain_of_ranks_that_wait_for_each_other(world: World) -> None:
    outcomes = world.run(failing_programs.chain_of_waits, 5, max_timeout=FOR_EVER)
    for outcome in outcomes[:4]:
        failed_with(outcome, PeerLostError, 4)


def test_nothing_is_left_when_all_ranks_are_killed(world: World) -> None:
    before = names()
    outcomes = world.run(shared_memory_programs.die_all_together, 3, max_timeout=FOR_EVER)
    assert [outcome.exit_code for outcome in outcomes] == [-signal.SIGKILL] * 3
    lasting, deadline = (
        names() - before,
        time.monotonic() + 2,
    )  # tests beside this one have names, too, for a millisecond
    while lasting and time.monotonic() < deadline:
        lasting &= names()
    assert not lasting


def test_what_ranks_left_that_were_killed_while_they_met_is_swept_away() -> None:
    abandoned, kept = segment.create(2), segment.create(2)
    abandoned[1].close()
    paths = [Path(f"/dev/shm/fmi-{token.hex()}") for token in (abandoned[0], kept[0])]
    try:
        pid = os.fork()
        if pid == 0:  # locks are a process's own: only another one can tell
            for path in paths:
                os.utime(path, (0, 0))
            segment.sweep()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert [path.exists() for path in paths] == [False, True]
    finally:
        for token, _ in (abandoned, kept):
            segment.unlink(token)


def names() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("fmi-*")}


def test_a_rank_that_never_comes_is_named_after_max_timeout(world: World) -> None:
    outcomes = world.run(failing_programs.never_come, 2, 1, max_timeout=2000)
    text = failed_with(outcomes[0], PeerTimeoutError, 1)
    assert "rank 0 in attach" in text


def test_a_late_rank_is_named_and_told_when_it_comes(world: World, tmp_path: Path) -> None:
    soon = 2000  # not sooner: the ranks must meet within that time, too
    outcomes = world.run(failing_programs.come_late, 3, 1, tmp_path / "waited", max_timeout=soon)
    for outcome in outcomes:
        assert isinstance(outcome.error, PeerTimeoutError), outcomes
        assert "for 2 s" in outcome.error.message


@pytest.mark.parametrize(
    ("size", "how", "words"),
    [
        (
            2,
            "receive",
            ["2 ranks wait for each other", "rank 1 in send (call 0, 1 x int32, from rank 0) waits for"],
        ),
        (4, "receive, after messages", ["rank 3 in send (call 1, 1 x int32, from rank 0) waits for rank 0"]),
        (3, "send", ["rank 2 in send (call 0, 3000000 x float64, from rank 2", "sends to rank 0", "sends to rank 1"]),
        (
            3,
            "one sends",
            ["rank 0 in send (call 0, 3000000 x float64", "rank 1 in send (call 0, 1 x int32, from rank 2"],
        ),
        (
            3,
            "one in a barrier",
            ["rank 0 in barrier (call 2, 1 x uint8) waits for", "from rank 2) waits for rank 2"],
        ),
    ],
)
def test_ranks_that_wait_for_each_other_in_a_circle_are_told_of_all_of_it(
    world: World, size: int, how: str, words: list[str]
) -> None:
    for outcome in world.run(failing_programs.in_a_circle, size, how, max_timeout=FOR_EVER):
        assert isinstance(outcome.error, MismatchError), outcome
        assert all(word in str(outcome.error) for word in words), outcome


def test_ranks_that_go_on_after_a_long_wait_are_not_taken_for_stuck(world: World) -> None:
    assert world.values(failing_programs.slow_circle, 3) == [6.0, 4.0, 5.0]


def test_a_rank_that_leaves_early_is_named_and_has_itself_no_error(world: World) -> None:
    outcomes = world.run(failing_programs.leave_early, 4, 2, max_timeout=FOR_EVER)
    assert outcomes[2].value == "left in peace"
    for rank in (0, 1, 3):
        assert "rank 2 has left" in failed_with(outcomes[rank], PeerLostError, 2)


def test_an_exception_in_a_custom_function_is_told_with_its_text(world: World) -> None:
    outcomes = world.run(shared_memory_programs.raise_in_custom_function, 4, max_timeout=FOR_EVER)
    assert isinstance(outcomes[0].error, ZeroDivisionError)
    for outcome in outcomes[1:]:
        text = failed_with(outcome, PeerFailedError, 0)
        assert "rank 0 in allreduce" in text
        assert "raised ZeroDivisionError: in the custom function" in text


@pytest.mark.parametrize("count", [1, 300_000])
def test_a_sum_that_leaves_int32_is_an_overflow_error_on_every_rank(world: World, count: int) -> None:
    for outcome in world.run(shared_memory_programs.overflow, 3, count, max_timeout=FOR_EVER):
        assert isinstance(outcome.error, OverflowError)
        assert isinstance(outcome.error, PeerOverflowError) or "sum of 1073741824 and" in str(outcome.error)


@pytest.mark.parametrize(("how", "words"), failing_programs.MISMATCHES)
def test_ranks_in_different_calls_are_both_told_both_calls(world: World, how: str, words: list[str]) -> None:
    outcomes = world.run(failing_programs.mismatched, 2, how, max_timeout=FOR_EVER)
    for outcome in outcomes:
        assert isinstance(outcome.error, MismatchError), outcome
        text = str(outcome.error)
        assert all(word in text for word in words), text


@pytest.mark.parametrize("how", ["direction", "open type", "order", "root"])
def test_calls_that_do_not_meet_at_once_are_told_at_the_next(world: World, how: str) -> None:
    outcomes = world.run(failing_programs.errors_of_two_calls, 2, how, max_timeout=FOR_EVER)
    assert [error for outcome in outcomes for error in outcome.value if isinstance(error, MismatchError)], outcomes


def test_after_an_error_every_further_call_is_refused_with_the_first_cause(world: World) -> None:
    for outcome in world.run(failing_programs.errors_of_two_calls, 2, "operation", max_timeout=FOR_EVER):
        first, second = outcome.value
        assert isinstance(first, MismatchError)
        assert isinstance(second, BrokenCommunicatorError)


def test_ctrl_c_works_in_the_middle_of_a_receive_and_the_other_rank_is_told(world: World) -> None:
    outcomes = world.run(failing_programs.interrupted, 2, max_timeout=FOR_EVER)
    assert isinstance(outcomes[0].error, KeyboardInterrupt)
    assert "KeyboardInterrupt" in failed_with(outcomes[1], PeerFailedError, 0)


def test_a_waiting_rank_sleeps(world: World) -> None:
    """A rank that waits for half a second uses a small part of that of the processor."""
    waited, used = world.values(shared_memory_programs.processor_time_of_a_wait, 2)[0]
    assert waited > 0.4
    assert used < waited / 4


def test_a_forked_child_that_ends_leaves_its_parents_segment_alone(world: World) -> None:
    assert world.values(programs.fork_a_child, 2) == [1, 1]


@pytest.mark.parametrize(("trouble", "framed"), [("", True), ("blind", True), ("full", True), ("", False)])
def test_fast_takes_shared_memory_where_all_ranks_have_it_and_are_framed(
    rendezvous_address: str, tmp_path: Path, trouble: str, framed: bool
) -> None:
    world = World(rendezvous_address, tmp_path)
    shared = ["SharedMemory"] if framed and not trouble else []
    for rank, (opened, came) in enumerate(world.values(shared_memory_programs.hint_fast, 3, trouble, framed=framed)):
        assert opened == [["Direct"], ["Direct", *shared], ["Direct", *shared], ["Direct", *shared]]
        assert came == [(rank - 1) % 3, 3] * 4


def test_a_lone_rank_and_the_emulators_stay_with_the_network(rendezvous_address: str, tmp_path: Path) -> None:
    world = World(rendezvous_address, tmp_path, environment={"FMI_CHANNEL": "network"})
    assert world.values(shared_memory_programs.hint_fast, 2, "")[0][0] == [["Direct"]] * 4
    (lone,) = World(rendezvous_address, tmp_path).values(shared_memory_programs.hint_fast, 1, "")
    assert lone[0][1:] == [["Direct"]] * 3


def test_ranks_that_do_not_share_memory_are_all_told(world: World) -> None:
    for outcome in world.run(shared_memory_programs.see_another_folder, 3, 1):
        assert isinstance(outcome.error, ConfigError)
        assert "rank(s) 1 cannot see the memory of rank 0" in str(outcome.error)


def test_a_full_memory_is_told_before_anything_is_written(world: World) -> None:
    outcomes = world.run(shared_memory_programs.reserve_too_much, 2)
    assert isinstance(outcomes[0].error, ConfigError)
    assert "has no room for the" in str(outcomes[0].error)
    assert "has no room for the" in failed_with(outcomes[1], PeerFailedError, 0)


def test_too_many_ranks_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMI_CHANNEL", "shm")
    comm = fmi.Communicator(0, 257, world.config(), "name")
    with pytest.raises(ConfigError, match="which 256 ranks may share, not 257"):
        comm.barrier()


def test_an_unknown_channel_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMI_CHANNEL", "pigeon")
    with pytest.raises(ConfigError, match="FMI_CHANNEL is 'pigeon', allowed are shm, network, and nothing"):
        fmi.Communicator(0, 2, world.config(), "name")
