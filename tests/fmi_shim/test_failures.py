"""Failing ranks: killed, late, closed early, or in another call; the errors on all ranks."""

import contextlib
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import fmi_shim as fmi
from fmi_shim.errors import (
    BrokenCommunicatorError,
    FmiError,
    MismatchError,
    PeerFailedError,
    PeerLostError,
    PeerOverflowError,
    PeerTimeoutError,
    RendezvousError,
    SplitGroup,
)
from tests.fmi_shim import failing_programs, programs
from tests.fmi_shim.programs import INT
from tests.fmi_shim.world import Outcome, World

FOR_EVER = 0
"""As max_timeout: a rank that ends received an error, and did not time out."""


def failed_with(outcome: Outcome, error: type[FmiError], origin: int | None) -> str:
    assert type(outcome.error) is error, outcome
    assert isinstance(outcome.error, FmiError)
    assert outcome.error.origin == origin, outcome
    return str(outcome.error)


@pytest.mark.parametrize("victim", [0, 1, 3])
def test_all_other_ranks_detect_a_killed_rank_at_once(world: World, victim: int) -> None:
    outcomes = world.run(failing_programs.die_before_second_call, 5, victim, max_timeout=FOR_EVER)
    assert outcomes[victim].exit_code == -signal.SIGKILL
    for rank, outcome in enumerate(outcomes):
        if rank != victim:
            assert f"lost rank {victim}" in failed_with(outcome, PeerLostError, victim)


def test_a_chain_of_waiting_ranks_detects_a_killed_rank(world: World) -> None:
    outcomes = world.run(failing_programs.chain_of_waits, 5, max_timeout=FOR_EVER)
    for rank, outcome in enumerate(outcomes[:4]):
        text = failed_with(outcome, PeerLostError, 4)
        assert "rank 3 in recv" in text
        assert "lost rank 4, whose connection was closed" in text
        assert ("(reported by rank" in text) is (rank < 3)


def test_a_rank_that_waits_at_the_rendezvous_server_detects_that_a_connected_rank_died(world: World) -> None:
    outcomes = world.run(failing_programs.die_while_another_is_awaited, 3, max_timeout=FOR_EVER)
    for rank in (0, 2):
        failed_with(outcomes[rank], PeerLostError, 1)


def test_a_killed_rank_is_detected_in_raw_mode(world: World) -> None:
    outcomes = world.run(failing_programs.die_before_second_call, 4, 3, framed=False, max_timeout=FOR_EVER)
    for outcome in outcomes[:3]:
        assert isinstance(outcome.error, PeerLostError)


@pytest.mark.parametrize(
    ("how", "words"), [("killed", "rank 1 was lost: its process"), ("left", "rank 1 closed the communicator too early")]
)
def test_ranks_that_wait_at_the_rendezvous_server_detect_the_end_of_the_awaited_rank(
    world: World, tmp_path: Path, how: str, words: str
) -> None:
    outcomes = world.run(failing_programs.end_before_others_connect, 4, how, tmp_path / "there", max_timeout=FOR_EVER)
    assert any(words in str(outcomes[rank].error) for rank in (0, 2))  # one of the two reports it to the other
    for rank in (0, 2):
        failed_with(outcomes[rank], PeerLostError, 1)


def test_a_rank_that_never_connects_is_named_after_max_timeout(world: World) -> None:
    outcomes = world.run(failing_programs.never_connect, [(0, 2)], 1, max_timeout=1000)
    text = failed_with(outcomes[0], PeerTimeoutError, 1)
    assert text.startswith("rank 0 in barrier (call 0): rank 1 did not connect to the rendezvous server")
    assert "1 s" in text
    assert outcomes[0].seconds >= 1


def test_a_late_rank_and_those_that_wait_for_it_time_out(world: World, tmp_path: Path) -> None:
    outcomes = world.run(failing_programs.start_late, 3, 1, tmp_path / "given-up", max_timeout=2000)
    for outcome in outcomes:
        assert isinstance(outcome.error, PeerTimeoutError), outcomes
        assert "2 s" in outcome.error.message
    assert outcomes[1].error.reported_by in (0, 2)  # rank 2 waits for rank 0 as long as that for rank 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            "two receivers",
            ["gather (call 1, 1 x int32, root 0)", "gather (call 1, 1 x int32, root 1)", "waits for rank 0"],
        ),
        ("two recvs", ["recv (call 0, 1 x int32, from rank 0)", "recv (call 0, 1 x int32, from rank 1)"]),
        ("recv of anything", ["recv (call 0, values of any type, from rank 0)", "waits for rank 0"]),
        ("two sends", ["send (call 0, 3000000 x float64, from rank 0", "from rank 1", "sends to rank 1"]),
        ("two roots", ["bcast (call 1, 3000000 x float64, root 0", "root 1", "sends to rank 1"]),
    ],
)
def test_both_ranks_of_a_deadlock_report_both_calls(world: World, how: str, words: list[str]) -> None:
    for outcome in world.run(failing_programs.mismatched, 2, how, max_timeout=FOR_EVER):
        assert isinstance(outcome.error, MismatchError), outcome
        text = str(outcome.error)
        assert "rank 0 in" in text
        assert "rank 1 in" in text
        assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("size", "how", "words"),
    [
        (
            3,
            "receive",
            ["deadlock: 3 ranks wait for each other", "rank 1 in recv (call 0, 1 x int32, from rank 2) wai"],
        ),
        (4, "receive, after messages", ["rank 3 in recv (call 1, 1 x int32, from rank 0) waits for rank 0"]),
        (3, "send", ["rank 2 in send (call 0, 3000000 x float64, from rank 2", "sends to rank 0", "sends to rank 1"]),
        (
            3,
            "one sends",
            ["rank 0 in send (call 0, 3000000 x float64", "rank 1 in recv (call 0, 1 x int32, from rank 2"],
        ),
        (9, "receive", ["deadlock: 9 ranks wait for each other", "and 3 more ranks"]),
    ],
)
def test_every_rank_of_a_deadlock_cycle_reports_the_whole_cycle(
    world: World, size: int, how: str, words: list[str]
) -> None:
    for outcome in world.run(failing_programs.deadlock_cycle, size, how, max_timeout=FOR_EVER):
        assert isinstance(outcome.error, MismatchError), outcome
        text = str(outcome.error)
        assert all(word in text for word in words), text


def test_ranks_that_continue_after_a_long_wait_are_no_deadlock(world: World) -> None:
    assert world.values(failing_programs.slow_ring, 3) == [6.0, 4.0, 5.0]


def test_a_long_wait_for_a_rank_is_no_deadlock(world: World) -> None:
    assert world.values(failing_programs.wait_after_report, 2) == [2, 3]


def test_a_rank_that_closes_early_is_named_and_raises_no_error_itself(world: World) -> None:
    outcomes = world.run(failing_programs.close_early, 4, 2, max_timeout=FOR_EVER)
    assert outcomes[2].value == "closed"
    for rank in (0, 1, 3):
        assert "rank 2 closed the communicator" in failed_with(outcomes[rank], PeerLostError, 2)


def test_an_exception_between_calls_ends_the_waits_of_the_other_ranks(world: World) -> None:
    outcomes = world.run(failing_programs.raise_in_own_code, 4, 0, max_timeout=FOR_EVER)
    assert isinstance(outcomes[0].error, RuntimeError)
    for outcome in outcomes[1:]:
        failed_with(outcome, PeerLostError, 0)


def test_an_exception_that_ends_a_script_is_reported_with_its_text(world: World) -> None:
    script = (
        "import sys, fmi_shim as fmi\n"
        "rank = int(sys.argv[1])\n"
        "comm = fmi.Communicator(rank, 2, sys.argv[2], 'crash-')\n"
        "comm.barrier()\n"
        "if rank: raise LookupError('no such galaxy')\n"
        "comm.barrier()\n"
    )
    command = [sys.executable, "-c", script]
    config = str(world.config(max_timeout=FOR_EVER))
    ranks = [subprocess.Popen([*command, str(rank), config], stderr=subprocess.PIPE, text=True) for rank in range(2)]
    reported, raised = (rank.communicate(timeout=50)[1].splitlines()[-1] for rank in ranks)
    assert raised == "LookupError: no such galaxy"
    assert reported.startswith(
        "fmi_shim.errors.PeerFailedError: rank 1 raised LookupError: no such galaxy, in its own code between two calls"
    )


def test_an_exception_in_a_custom_function_is_reported_with_its_text(world: World) -> None:
    outcomes = world.run(failing_programs.raise_in_custom_function, 4, max_timeout=FOR_EVER)
    assert isinstance(outcomes[1].error, ZeroDivisionError)
    text = failed_with(outcomes[3], PeerFailedError, 1)  # rank 3 waits for rank 1's half; 0 and 2 may do without
    assert "rank 1 in allreduce" in text
    assert "raised ZeroDivisionError: in the custom function" in text


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_sum_outside_int32_is_an_overflow_error_on_every_rank(world: World, size: int) -> None:
    for outcome in world.run(failing_programs.overflow, size, max_timeout=FOR_EVER):
        assert isinstance(outcome.error, OverflowError)
        assert "is out of range: expected -2147483648 to 2147483647 for int32" in str(outcome.error)
        assert isinstance(outcome.error, PeerOverflowError) or "sum of 1073741824 and" in str(outcome.error)


@pytest.mark.parametrize(("how", "words"), failing_programs.MISMATCHES)
def test_ranks_in_different_calls_both_report_both_calls(world: World, how: str, words: list[str]) -> None:
    outcomes = world.run(failing_programs.mismatched, 2, how, max_timeout=FOR_EVER)
    for outcome in outcomes:
        assert isinstance(outcome.error, MismatchError), outcome
        text = str(outcome.error)
        assert "rank 0" in text
        assert "rank 1" in text
        assert all(word in text for word in words), text


@pytest.mark.parametrize("how", ["direction", "open type", "order", "root"])
def test_a_mismatch_of_calls_that_do_not_wait_is_reported_by_the_next_call(world: World, how: str) -> None:
    outcomes = world.run(failing_programs.errors_of_two_calls, 2, how, max_timeout=FOR_EVER)
    found = [error for outcome in outcomes for error in outcome.value if isinstance(error, MismatchError)]
    assert found, outcomes


def test_after_an_error_every_further_call_is_refused_with_the_first_cause(world: World) -> None:
    for outcome in world.run(failing_programs.errors_of_two_calls, 2, "operation", max_timeout=FOR_EVER):
        first, second = outcome.value
        assert isinstance(first, MismatchError)
        assert isinstance(second, BrokenCommunicatorError)
        assert "barrier (call 2) refused: the communicator ended with MismatchError" in str(second)


def test_ctrl_c_interrupts_a_receive_and_the_other_rank_reports_it(world: World) -> None:
    outcomes = world.run(failing_programs.interrupted, 2, max_timeout=FOR_EVER)
    assert isinstance(outcomes[0].error, KeyboardInterrupt)
    assert "rank 0 in recv" in failed_with(outcomes[1], PeerFailedError, 0)
    assert "KeyboardInterrupt" in str(outcomes[1].error)


def test_two_processes_of_one_rank_raise_an_error(world: World) -> None:
    outcomes = world.run(programs.sum_of_ranks, [(0, 2), (0, 2)], max_timeout=FOR_EVER)
    for outcome in outcomes:
        assert "two processes run as rank 0" in failed_with(outcome, MismatchError, None)


@pytest.mark.parametrize("places", [[(0, 3), (1, 3), (2, 3), (1, 3)], [(0, 4), (1, 4), (1, 4), (2, 4), (3, 4), (3, 4)]])
def test_a_rank_that_was_started_twice_is_an_error_on_all_ranks(
    rendezvous_address: str, tmp_path: Path, places: list[tuple[int, int]]
) -> None:
    world = World(rendezvous_address, tmp_path, environment={"FMI_JOB": tmp_path.name})
    for outcome in world.run(failing_programs.keep_on, places, max_timeout=FOR_EVER):
        assert isinstance(outcome.error, FmiError), outcome
        assert "two processes run as rank" in str(outcome.error), outcome


@pytest.mark.parametrize("places", [[(0, 2), (1, 3)], [(0, 3), (1, 3), (2, 4)], [(0, 5), (1, 4), (2, 4), (3, 4)]])
def test_different_world_sizes_are_an_error_on_all_ranks(
    rendezvous_address: str, tmp_path: Path, places: list[tuple[int, int]]
) -> None:
    world = World(rendezvous_address, tmp_path, environment={"FMI_JOB": tmp_path.name})
    for outcome in world.run(programs.sum_of_ranks, places, max_timeout=FOR_EVER):
        assert isinstance(outcome.error, FmiError)
        sizes = {size for _, size in places}
        assert all(f"with {size}" in str(outcome.error) for size in sizes), outcome


def left_over(
    address: str, folder: Path, stale: str, job: str, size: int, ranks: Sequence[int], longest: int = 20_000
) -> list[Outcome]:
    """Run some of `size` ranks while rank 1 of an earlier run of the same name still waits, in another or in no job."""
    worlds = [World(address, folder, environment={"FMI_JOB": name}) for name in (stale, job)]
    started = folder / "started"
    with worlds[0].begun(failing_programs.sum_after_start, [(1, size)], started, max_timeout=FOR_EVER):
        failing_programs.wait_for(started)
        time.sleep(0.5)  # for its registration
        return worlds[1].run(programs.sum_of_ranks, [(rank, size) for rank in ranks], max_timeout=longest)


def test_a_rank_of_an_earlier_job_is_never_connected(rendezvous_address: str, tmp_path: Path) -> None:
    outcomes = left_over(rendezvous_address, tmp_path, "earlier", "later", 2, (0, 1))
    assert [outcome.value for outcome in outcomes] == [1, 1]


def test_a_rank_of_an_earlier_run_without_a_job_raises_an_error(rendezvous_address: str, tmp_path: Path) -> None:
    """Alone, it cannot come after the others have ended with the earlier one."""
    (outcome,) = left_over(rendezvous_address, tmp_path, "", "", 3, (1,), longest=3000)
    assert "two processes run as rank 1" in str(outcome.error), outcome


def test_a_missing_rendezvous_server_raises_an_error_at_once(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        world.address = f"127.0.0.1:{free.getsockname()[1]}"
    comm = fmi.Communicator(0, 2, world.config(), "name")
    with pytest.raises(
        RendezvousError,
        match=f"cannot connect to a rendezvous server at {world.address}: .*; start one with fmi",
    ):
        comm.recv(1, INT)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"", "closed the connection before the peer connected"),
        (b"HTTP/1.1 400 Bad Request", "is not a rendezvous server"),
    ],
)
def test_a_foreign_or_closing_server_raises_an_error(world: World, reply: bytes, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        world.address = f"127.0.0.1:{listener.getsockname()[1]}"
        comm = fmi.Communicator(0, 2, world.config(max_timeout=20_000), "name")
        listener.settimeout(0.05)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(20)
                        connection.recv(1000)
                        connection.sendall(reply)

        server = threading.Thread(target=serve)
        server.start()
        try:
            with pytest.raises(RendezvousError, match=message):
                comm.recv(1, INT)
        finally:
            ended.set()
            server.join()


@pytest.mark.parametrize("how", ["killed", "raises", "late"])
def test_an_error_in_a_split_names_the_communicator_and_the_ranks_of_the_world(world: World, how: str) -> None:
    outcomes = world.run(failing_programs.fail_in_a_split, 5, how, max_timeout=FOR_EVER)
    error = outcomes[1].error
    assert isinstance(error, FmiError)
    assert (error.origin, error.world_origin) == (1, 3)
    assert error.communicator is not None
    assert f"in communicator {error.communicator!r}, " in str(error)
    assert "rank 1 is world rank 3" in str(error)
    for rank in (0, 2, 4):  # which rank 1 or rank 3 informs, in the world
        error = outcomes[rank].error
        assert isinstance(error, FmiError)
        assert (error.origin, error.world_origin, error.communicator) == (3, 3, None)


def test_a_chain_of_waits_through_a_split_names_its_end(world: World, tmp_path: Path) -> None:
    outcomes = world.run(failing_programs.chain_through_a_split, 3, tmp_path / "over", max_timeout=FOR_EVER)
    text = failed_with(outcomes[0], PeerTimeoutError, 2)
    assert "rank 0 of communicator " in text
    assert " waits for rank 1 of communicator " in text
    assert "(rank 2 here) does not answer: it is stopped, or busy in its own code" in text
    assert [outcome.error for outcome in outcomes[1:]] == [None, None]


def test_an_error_of_a_split_is_that_of_another_communicator_with_its_ranks() -> None:
    error = PeerLostError("rank 0 in barrier: lost rank 2", origin=2, reported_by=1)
    error.split_group = SplitGroup("comm0.1/", (5, 3, 1))
    text = (
        "rank 0 in barrier: lost rank 2 (reported by rank 1); in communicator 'comm0.1/', rank 0 is world rank 5, "
        "rank 1 is world rank 3, rank 2 is world rank 1"
    )
    assert (str(error), error.world_origin, error.communicator) == (text, 1, "comm0.1/")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(again), again.world_origin) == (text, 1)
    for split_group, origin in ((None, 1), (SplitGroup("comm1.0/", (0, 1)), 1), (SplitGroup("comm1.0/", (3, 0)), None)):
        moved = error.within(split_group)
        assert (type(moved), moved.origin, moved.split_group) == (PeerLostError, origin, split_group)
        assert str(moved).startswith(text)
    assert error.within(SplitGroup("comm0.1/", (5, 3, 1))) is error
