"""Hundreds of seeded worlds with random faults: right results or named errors, in time, nothing left behind."""

import random
from typing import Any

import numpy as np
import psutil
import pytest

import fmi_shim as fmi
from emulator.testing import World, WorldError
from emulator.testing.launch import shared_services
from fmi_shim import errors
from fmi_shim.faults import Action, parse_faults

WORLDS = 200
SHARDS = 10
SUM = fmi.func(fmi.op.sum)
INT = fmi.types(fmi.datatypes.int)
HARMLESS = (
    "stop rank any at random 10 for 0.05s",
    "delay rank any by 0.05s",
    "slow link any-any by 1ms jitter 2ms",
    "limit link all to 200mbit",
    "lose link any-any 2%",
    "cut link any-any at random 10 for 0.05s",
)
"""Delays: every rank must return the right result."""
NAMED = {"Killed", *(kind.__name__ for kind in vars(errors).values() if isinstance(kind, type))}


def program(comm: fmi.Communicator, rounds: int) -> list[int]:
    """Run collectives whose results are known; return one number of each."""
    size, rank, found = comm.size, comm.rank, []
    for number in range(rounds):
        found.append(comm.allreduce(rank + number, SUM, INT))
        found.append(
            int(comm.bcast(np.full(3, number) if rank == number % size else np.empty(3, int), number % size)[0])
        )
        found.append(int(comm.alltoall(np.arange(size) + rank)[0]))
        found.append(comm.sendrecv(rank, (rank + 1) % size, (rank - 1) % size, INT))
        comm.barrier()
    return found


def expected(rank: int, size: int, rounds: int) -> list[int]:
    total = size * (size - 1) // 2
    return [value for number in range(rounds) for value in (total + size * number, number, rank, (rank - 1) % size)]


@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_rank_returns_the_right_result_or_a_named_error(shard: int) -> None:
    for seed in range(shard, WORLDS, SHARDS):
        chance = random.Random(seed)
        size, rounds = chance.randint(2, 4), 3
        texts = chance.sample(HARMLESS, chance.randint(0, 2))
        if chance.random() < 0.5:
            texts.append("kill rank any at random 15")
        framed = chance.random() < 0.7
        # Without headers, a rank that has no connection to the lost one learns of it by its own time limit.
        settings: dict[str, Any] = {"framed": framed, "max_timeout_s": 10 if framed else 2.5, "limit_s": 25}
        world = World(size, shared_services(), faults=tuple(texts), seed=seed, **settings)
        killed = [fault.ranks[0] for fault in parse_faults("; ".join(texts), size, seed) if fault.action is Action.KILL]
        what = f"{'; '.join(texts)} (seed {seed}, {size} ranks, {settings})"
        try:
            values = world(program, rounds)
        except WorldError as error:
            assert killed, f"{what}: {error}"
            assert error.origin in killed, f"{what}: {error}"
            assert {failure.kind for failure in error.failures} <= NAMED, f"{what}: {error}"
        else:
            assert not killed, what
            assert values == [expected(rank, size, rounds) for rank in range(size)], what
    own = {shared_services().rendezvous(framed=framed).pid for framed in (True, False)}
    left = [process for process in psutil.Process().children() if process.pid not in own and "rank" in process.name()]
    assert not left
