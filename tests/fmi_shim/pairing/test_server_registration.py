"""What the rendezvous server reports to ranks that exchange objects through S3 or Redis."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmi_shim.errors import MismatchError, PeerFailedError, PeerLostError
from tests.fmi_shim import failing_programs, programs
from tests.fmi_shim.conftest import world_on
from tests.fmi_shim.world import World

NO_LIMIT = 0
"""As max_timeout: a rank that ends anyway was notified, and did not time out."""


@pytest.fixture(params=["s3", "redis"])
def world(request: pytest.FixtureRequest, rendezvous_address: str, tmp_path: Path) -> Iterator[World]:
    found = world_on(request.param, request, tmp_path)
    found.environment = found.environment | {"FMI_RENDEZVOUS": rendezvous_address, "FMI_JOB": tmp_path.name}
    yield found


def test_a_killed_rank_is_detected_along_a_chain_of_waiting_ranks(world: World) -> None:
    *waiting, killed = world.run(failing_programs.chain_of_waits, 4, max_timeout=NO_LIMIT)
    assert killed.exit_code == -signal.SIGKILL
    for outcome in waiting:
        assert isinstance(outcome.error, PeerLostError), waiting
        assert outcome.error.origin == 3
        assert "lost rank 3, its process ended" in str(outcome.error)


def test_a_rank_that_closes_early_is_named_and_has_no_error_itself(world: World) -> None:
    outcomes = world.run(failing_programs.close_early, 3, 2, max_timeout=NO_LIMIT)
    assert outcomes[2].value == "closed"
    for outcome in outcomes[:2]:
        assert isinstance(outcome.error, PeerLostError), outcomes
        assert "rank 2 closed the communicator too early, or its program ended" in str(outcome.error)


@pytest.mark.parametrize(
    ("how", "calls"),
    [
        (
            "operation",
            ["rank 0 in allreduce (call 1, 1 x int32, operator sum)", "rank 1 in barrier (call 1"],
        ),
        ("two recvs", ["rank 0 in recv (call 0, 1 x int32, from rank 1)", "rank 1 in recv (call 0, 1 x int32, from"]),
    ],
)
def test_ranks_that_wait_for_different_objects_both_get_both_calls(world: World, how: str, calls: list[str]) -> None:
    for outcome in world.run(failing_programs.mismatched, 2, how, max_timeout=NO_LIMIT):
        assert isinstance(outcome.error, MismatchError), outcome
        assert all(call in str(outcome.error) for call in calls), outcome


def test_every_rank_of_a_deadlock_gets_the_whole_cycle(world: World) -> None:
    for outcome in world.run(failing_programs.deadlock_cycle, 3, "receive", max_timeout=NO_LIMIT):
        assert isinstance(outcome.error, MismatchError), outcome
        assert "deadlock: 3 ranks wait for each other" in str(outcome.error)


def test_two_processes_of_one_rank_are_an_error_on_all_ranks(world: World) -> None:
    for outcome in world.run(failing_programs.keep_on, [(0, 2), (1, 2), (1, 2)], max_timeout=NO_LIMIT):
        assert isinstance(outcome.error, MismatchError), outcome
        assert re.search("two processes run as rank 1|a second process with rank 1", str(outcome.error)), outcome


def test_different_world_sizes_are_an_error_on_all_ranks(world: World) -> None:
    for outcome in world.run(failing_programs.keep_on, [(0, 2), (1, 3)], max_timeout=NO_LIMIT):
        assert isinstance(outcome.error, MismatchError), outcome
        assert "with 2" in str(outcome.error)
        assert "with 3" in str(outcome.error)


def test_a_rank_that_calls_late_still_gets_an_earlier_failure(world: World, tmp_path: Path) -> None:
    """The failure is older than the failed rank's record in the store."""
    first, late = world.run(failing_programs.fail_unseen, 2, tmp_path / "over", max_timeout=NO_LIMIT)
    assert isinstance(first.error, RuntimeError)
    assert isinstance(late.error, PeerFailedError)
    assert "a bug of the program" in str(late.error)


def test_ranks_work_without_a_server(world: World) -> None:
    world.environment["FMI_RENDEZVOUS"] = "127.0.0.1:9"
    assert world.values(programs.sum_of_ranks, 2) == [1, 1]
