"""Which rank an error names if one fails before its first call, or is stopped, late or slow."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import fmi_shim as fmi
from fmi_shim.errors import FmiError, PeerFailedError, PeerLostError, PeerTimeoutError
from tests.fmi_shim.conftest import world_on
from tests.fmi_shim.failing_programs import wait_for_all
from tests.fmi_shim.world import World

NO_LIMIT = 0
ASLEEP_SECONDS = 4.5
SUM = fmi.func(fmi.op.sum)


@pytest.fixture(params=["direct", "shm", "redis", "s3"])
def world(request: pytest.FixtureRequest, rendezvous_address: str, tmp_path: Path) -> World:
    found = world_on(request.param, request, tmp_path)
    found.environment = found.environment | {"FMI_RENDEZVOUS": rendezvous_address, "FMI_JOB": tmp_path.name}
    return found


def end_before_the_first_call(comm: fmi.Communicator, rank: int, size: int, how: str, in_split: bool) -> None:
    if in_split:
        part = comm.split(0)
        assert part is not None
        comm = part
    if rank == 1:
        with comm:
            time.sleep(0.3)
            if how == "raise":
                raise ValueError("the data are missing")
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        return
    comm.allreduce(np.ones(2), SUM)


@pytest.mark.parametrize(
    ("world", "in_split"),
    [("direct", False), ("shm", False), ("redis", False), ("s3", False), ("direct", True)],
    indirect=["world"],
)
@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("raise", PeerFailedError, "rank 1 raised ValueError: the data are missing"),
        ("kill", PeerLostError, "rank 1"),
        ("exit", PeerLostError, "rank 1 closed the communicator too early"),
    ],
)
def test_a_rank_that_ends_before_its_first_call_is_named_at_once(
    world: World, how: str, kind: type[Exception], text: str, in_split: bool
) -> None:
    outcomes = world.run(end_before_the_first_call, 3, how, in_split, max_timeout=NO_LIMIT, limit=20.0)
    for rank in (0, 2):
        error = outcomes[rank].error
        assert type(error) is kind, outcomes
        assert isinstance(error, FmiError)
        assert error.origin == 1
        assert text in str(error), outcomes


def keep_the_others_waiting(comm: fmi.Communicator, rank: int, size: int, how: str, folder: Path) -> None:
    """Ranks 0 to 2 wait for each other in a chain, and the last one for rank 3."""
    wait_for_all(folder, rank, size)
    comm.barrier()
    if rank == 3:
        if how == "stopped" and (stopped := os.getpid()) and os.fork() == 0:
            os.kill(stopped, signal.SIGSTOP)
            time.sleep(ASLEEP_SECONDS)
            os.kill(stopped, signal.SIGKILL)
            os._exit(0)
        time.sleep(ASLEEP_SECONDS)
        return
    if rank < 2:
        time.sleep(0.2 * rank)  # the first to wait is the first whose time is over
    value = np.ones(4)
    if rank > 0:
        comm.recv(rank + 1, out=value)
        comm.send(value, rank - 1)
    else:
        comm.recv(1, out=value)


@pytest.mark.parametrize("how", ["stopped", "slow"])
def test_the_rank_at_the_end_of_a_chain_of_waiting_ranks_is_named(world: World, how: str, tmp_path: Path) -> None:
    outcomes = world.run(keep_the_others_waiting, 4, how, tmp_path, max_timeout=1500, limit=30.0)
    for outcome in outcomes[:3]:
        assert isinstance(outcome.error, PeerTimeoutError), outcomes
        assert outcome.error.origin == 3, outcomes
        assert "rank 3 does not answer: it is stopped, or busy in its own code" in str(outcome.error)


def wait_for_an_absent_rank(comm: fmi.Communicator, rank: int, size: int, folder: Path) -> None:
    wait_for_all(folder, rank if rank < 4 else rank - 1, size - 1)
    comm.allreduce(np.ones(2), SUM)


def test_a_rank_that_was_not_started_is_named(world: World, tmp_path: Path) -> None:
    """Rank 4 of 6 is absent."""
    started = [(rank, 6) for rank in range(6) if rank != 4]
    outcomes = world.run(wait_for_an_absent_rank, started, tmp_path, max_timeout=2000, limit=30.0)
    for outcome in outcomes:
        assert isinstance(outcome.error, PeerTimeoutError), outcomes
        assert outcome.error.origin == 4, outcomes
        assert "rank 4 has not been started" in str(outcome.error)


def die_between_calls(comm: fmi.Communicator, rank: int, size: int) -> None:
    comm.barrier()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.allreduce(np.ones(2), SUM)


def test_a_killed_rank_is_named_by_ranks_that_wait_for_several(world: World) -> None:
    for _ in range(2):
        outcomes = world.run(die_between_calls, 3, max_timeout=NO_LIMIT, limit=20.0)
        for rank in (0, 2):
            error = outcomes[rank].error
            assert isinstance(error, PeerLostError), outcomes
            assert error.origin == 1, outcomes
