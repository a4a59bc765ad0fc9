"""System tests of the shared-memory channel on real processes: results, failures and cleanup."""

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
def test_every_operation_is_correct_for_arrays_of_any_shape(world: World, size: int) -> None:
    assert world.values(programs.every_array_operation, size, True) == [[]] * size


@pytest.mark.parametrize("size", [2, 3, 5])
def test_results_are_correct_for_payloads_of_many_slots_and_blocks(world: World, size: int) -> None:
    assert world.values(shared_memory_programs.large_payloads, size) == [[]] * size


@pytest.mark.parametrize("readable", [True, False])
def test_large_slices_are_read_from_the_processes_where_all_ranks_may_read_all(world: World, readable: bool) -> None:
    assert world.values(shared_memory_programs.payloads_around_the_segment, 3, readable) == [[]] * 3


def test_results_are_correct_for_operations_in_any_order(world: World) -> None:
    assert world.values(shared_memory_programs.mixture, 4, 300) == [[]] * 4


def test_results_are_correct_without_total_store_order(world: World) -> None:
    assert world.values(shared_memory_programs.mixture_with_semaphores, 3, 100) == [[]] * 3


def test_collectives_may_be_between_the_two_ends_of_a_posted_message(world: World) -> None:
    assert world.values(shared_memory_programs.posted_around_a_barrier, 2) == [[], [0, 10, 1, 11, 2, 12]]


def test_floating_point_sums_have_the_same_bits_on_all_ranks_at_every_size(world: World) -> None:
    first, *others = world.values(shared_memory_programs.sums_of_thirds, 5)
    assert all(other == first for other in others)


def test_tensors_are_returned_as_tensors(world: World) -> None:
    pytest.importorskip("torch")
    for result in world.values(programs.tensors, 2):
        assert result["allreduce"] == (True, "torch.float32", [[1.0, 3.0, 5.0], [7.0, 9.0, 11.0]])


def test_a_run_does_not_connect_to_a_crashed_one_of_the_same_name(world: World) -> None:
    again = World(world.address, world.folder, environment=world.environment)
    world.run(shared_memory_programs.die_all_together, 3)
    assert again.values(programs.sum_of_ranks, 3) == [3] * 3


def test_a_segment_has_no_name_once_all_ranks_have_opened_it(world: World) -> None:
    for names in world.values(shared_memory_programs.names_in_use, 3):
        assert names == []


@pytest.mark.parametrize("victim", [0, 1, 3])
@pytest.mark.parametrize(
    "moment", ["between calls", "asleep", "in a large allreduce", "in a large alltoall", "in a receive"]
)
def test_all_other_ranks_detect_a_killed_rank_at_once(world: World, victim: int, moment: str) -> None:
    outcomes = world.run(shared_memory_programs.die, 4, victim, moment, max_timeout=FOR_EVER)
    assert outcomes[victim].exit_code == -signal.SIGKILL
    for rank, outcome in enumerate(outcomes):
        if rank != victim:
            assert f"lost rank {victim}, whose process ended" in failed_with(outcome, PeerLostError, victim)


def test_a_chain_of_waiting_ranks_detects_a_killed_rank(world: World) -> None:
    outcomes = world.run(failing_programs.chain_of_waits, 5, max_timeout=FOR_EVER)
    for outcome in outcomes[:4]:
        failed_with(outcome, PeerLostError, 4)


def test_no_file_remains_when_all_ranks_are_killed(world: World) -> None:
    before = names()
    outcomes = world.run(shared_memory_programs.die_all_together, 3, max_timeout=FOR_EVER)
    assert [outcome.exit_code for outcome in outcomes] == [-signal.SIGKILL] * 3
    lasting, deadline = (
        names() - before,
        time.monotonic() + 2,
    )  # concurrent tests have names, too, for a millisecond
    while lasting and time.monotonic() < deadline:
        lasting &= names()
    assert not lasting


def test_abandoned_files_are_removed_and_files_of_living_ranks_are_kept() -> None:
    abandoned, kept = segment.create(2), segment.create(2)
    abandoned[1].close()
    paths = [Path(f"/dev/shm/fmi-{token.hex()}") for token in (abandoned[0], kept[0])]
    try:
        pid = os.fork()
        if pid == 0:  # a process does not see its own locks
            for path in paths:
                os.utime(path, (0, 0))
            segment.remove_abandoned()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert [path.exists() for path in paths] == [False, True]
    finally:
        for token, _ in (abandoned, kept):
            segment.unlink(token)


def names() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("fmi-*")}


def test_a_rank_that_never_connects_is_named_after_max_timeout(world: World) -> None:
    outcomes = world.run(failing_programs.never_connect, [(0, 2)], 1, max_timeout=2000)
    text = failed_with(outcomes[0], PeerTimeoutError, 1)
    assert "rank 0 in attach" in text


def test_a_late_rank_and_those_that_wait_for_it_time_out(world: World, tmp_path: Path) -> None:
    soon = 2000  # not less: the ranks must connect within that time, too
    outcomes = world.run(failing_programs.start_late, 3, 1, tmp_path / "waited", max_timeout=soon)
    for outcome in outcomes:
        assert isinstance(outcome.error, PeerTimeoutError), outcomes
        assert "2 s" in outcome.error.message


@pytest.mark.parametrize(
    ("size", "how", "words"),
    [
        (
            2,
            "receive",
            ["2 ranks wait for each other", "rank 1 in recv (call 0, 1 x int32, from rank 0) waits for"],
        ),
        (4, "receive, after messages", ["rank 3 in recv (call 1, 1 x int32, from rank 0) waits for rank 0"]),
        (3, "send", ["rank 2 in send (call 0, 3000000 x float64, from rank 2", "sends to rank 0", "sends to rank 1"]),
        (
            3,
            "one sends",
            ["rank 0 in send (call 0, 3000000 x float64", "rank 1 in recv (call 0, 1 x int32, from rank 2"],
        ),
        (
            3,
            "one in a barrier",
            ["rank 0 in barrier (call 2) waits for", "from rank 2) waits for rank 2"],
        ),
    ],
)
def test_every_rank_of_a_deadlock_cycle_reports_the_whole_cycle(
    world: World, size: int, how: str, words: list[str]
) -> None:
    for outcome in world.run(failing_programs.deadlock_cycle, size, how, max_timeout=FOR_EVER):
        assert isinstance(outcome.error, MismatchError), outcome
        assert all(word in str(outcome.error) for word in words), outcome


def test_ranks_that_continue_after_a_long_wait_are_no_deadlock(world: World) -> None:
    assert world.values(failing_programs.slow_ring, 3) == [6.0, 4.0, 5.0]


def test_a_rank_that_closes_early_is_named_and_raises_no_error_itself(world: World) -> None:
    outcomes = world.run(failing_programs.close_early, 4, 2, max_timeout=FOR_EVER)
    assert outcomes[2].value == "closed"
    for rank in (0, 1, 3):
        assert "rank 2 closed the communicator" in failed_with(outcomes[rank], PeerLostError, 2)


def test_all_ranks_report_the_text_of_an_exception_in_a_custom_function(world: World) -> None:
    outcomes = world.run(shared_memory_programs.raise_in_custom_function, 4, max_timeout=FOR_EVER)
    assert isinstance(outcomes[0].error, ZeroDivisionError)
    for outcome in outcomes[1:]:
        text = failed_with(outcome, PeerFailedError, 0)
        assert "rank 0 in allreduce" in text
        assert "raised ZeroDivisionError: in the custom function" in text


@pytest.mark.parametrize("count", [1, 300_000])
def test_a_sum_outside_int32_is_an_overflow_error_on_every_rank(world: World, count: int) -> None:
    for outcome in world.run(shared_memory_programs.overflow, 3, count, max_timeout=FOR_EVER):
        assert isinstance(outcome.error, OverflowError)
        assert isinstance(outcome.error, PeerOverflowError) or "sum of 1073741824 and" in str(outcome.error)


@pytest.mark.parametrize(("how", "words"), failing_programs.MISMATCHES)
def test_ranks_in_different_calls_both_report_both_calls(world: World, how: str, words: list[str]) -> None:
    outcomes = world.run(failing_programs.mismatched, 2, how, max_timeout=FOR_EVER)
    for outcome in outcomes:
        assert isinstance(outcome.error, MismatchError), outcome
        text = str(outcome.error)
        assert all(word in text for word in words), text


@pytest.mark.parametrize("how", ["direction", "open type", "order", "root"])
def test_a_mismatch_of_calls_that_do_not_wait_is_reported_by_the_next_call(world: World, how: str) -> None:
    outcomes = world.run(failing_programs.errors_of_two_calls, 2, how, max_timeout=FOR_EVER)
    assert [error for outcome in outcomes for error in outcome.value if isinstance(error, MismatchError)], outcomes


def test_after_an_error_every_further_call_is_refused_with_the_first_cause(world: World) -> None:
    for outcome in world.run(failing_programs.errors_of_two_calls, 2, "operation", max_timeout=FOR_EVER):
        first, second = outcome.value
        assert isinstance(first, MismatchError)
        assert isinstance(second, BrokenCommunicatorError)


def test_ctrl_c_interrupts_a_receive_and_the_other_rank_reports_it(world: World) -> None:
    outcomes = world.run(failing_programs.interrupted, 2, max_timeout=FOR_EVER)
    assert isinstance(outcomes[0].error, KeyboardInterrupt)
    assert "KeyboardInterrupt" in failed_with(outcomes[1], PeerFailedError, 0)


def test_a_waiting_rank_sleeps(world: World) -> None:
    """A rank that waits for half a second uses the processor for less than a quarter of it."""
    waited, used = world.values(shared_memory_programs.processor_time_of_a_wait, 2)[0]
    assert waited > 0.4
    assert used < waited / 4


def test_a_forked_child_that_exits_does_not_close_its_parents_segment(world: World) -> None:
    assert world.values(programs.fork_a_child, 2) == [1, 1]


@pytest.mark.parametrize(("trouble", "framed"), [("", True), ("blind", True), ("full", True), ("", False)])
def test_fast_selects_shared_memory_where_all_ranks_have_it_and_are_framed(
    rendezvous_address: str, tmp_path: Path, trouble: str, framed: bool
) -> None:
    world = World(rendezvous_address, tmp_path)
    shared = ["SharedMemory"] if framed and not trouble else []
    for rank, (opened, came) in enumerate(world.values(shared_memory_programs.hint_fast, 3, trouble, framed=framed)):
        assert opened == [["Direct"], ["Direct", *shared], ["Direct", *shared], ["Direct", *shared]]
        assert came == [(rank - 1) % 3, 3] * 4


def test_a_single_rank_and_the_emulators_ranks_use_the_network(rendezvous_address: str, tmp_path: Path) -> None:
    world = World(rendezvous_address, tmp_path, environment={"FMI_CHANNEL": "network"})
    assert world.values(shared_memory_programs.hint_fast, 2, "")[0][0] == [["Direct"]] * 4
    (lone,) = World(rendezvous_address, tmp_path).values(shared_memory_programs.hint_fast, 1, "")
    assert lone[0][1:] == [["Direct"]] * 3


def test_all_ranks_raise_if_they_do_not_share_memory(world: World) -> None:
    outcomes = world.run(shared_memory_programs.see_another_folder, 3, 1)
    assert any(isinstance(outcome.error, ConfigError) for outcome in outcomes)
    for outcome in outcomes:
        # A rank may learn it from another one that was faster.
        assert isinstance(outcome.error, (ConfigError, PeerFailedError))
        assert "rank(s) 1 cannot see the memory of rank 0" in str(outcome.error)


def test_a_full_memory_is_an_error_before_anything_is_written(world: World) -> None:
    outcomes = world.run(shared_memory_programs.reserve_too_much, 2)
    assert isinstance(outcomes[0].error, ConfigError)
    assert "is full: expected room for the" in str(outcomes[0].error)
    assert "is full: expected room for the" in failed_with(outcomes[1], PeerFailedError, 0)


def test_too_many_ranks_are_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMI_CHANNEL", "shm")
    comm = fmi.Communicator(0, 257, world.config(), "name")
    with pytest.raises(ConfigError, match="with 257 ranks: expected at most 256"):
        comm.barrier()


def test_an_unknown_channel_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMI_CHANNEL", "pigeon")
    with pytest.raises(ConfigError, match="invalid FMI_CHANNEL 'pigeon': expected shm, network, or nothing"):
        fmi.Communicator(0, 2, world.config(), "name")
