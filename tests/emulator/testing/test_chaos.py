"""Seeded worlds with random faults: right results or named errors, in time, nothing left behind.

CHAOS_WORLDS is their number: 100 by default, and 500 in ``make campaign``.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import fmi_shim as fmi
from emulator.testing import World, WorldError
from emulator.testing.launch import shared_services
from emulator.testing.services import WorldChannel
from fmi_shim import errors
from fmi_shim.faults import Action, parse_faults

WORLDS = int(os.environ.get("CHAOS_WORLDS", "100"))
WORLDS_OF_A_TEST = 10
SUM = fmi.func(fmi.op.sum)
INT = fmi.types(fmi.datatypes.int)
MARK = "CHAOS_WORLD"
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


@pytest.mark.parametrize("first_seed", range(0, WORLDS, WORLDS_OF_A_TEST))
def test_every_rank_returns_the_right_result_or_a_named_error(first_seed: int) -> None:
    mark = f"{os.getpid()}-{first_seed}"
    # What is started once is there before the count.
    for channel, framed in ((WorldChannel.DIRECT, False), (WorldChannel.DIRECT, True), (WorldChannel.SHM, True)):
        World(2, shared_services(), channel, framed)(program, 1)
    before = Present.now()
    for seed in range(first_seed, min(first_seed + WORLDS_OF_A_TEST, WORLDS)):
        check_world(seed, mark)
    before.require_no_more(mark)


def check_world(seed: int, mark: str) -> None:
    chance = random.Random(seed)
    size, rounds = chance.randint(2, 4), 3
    texts = chance.sample(HARMLESS, chance.randint(0, 2))
    if chance.random() < 0.5:
        texts.append("kill rank any at random 15")
    if chance.random() < 0.06:  # such a world starts a server of its own
        texts.append("restart server at random 0.1s")
    framed = chance.random() < 0.7
    channel = WorldChannel.SHM if framed and chance.random() < 0.25 else WorldChannel.DIRECT
    # Without headers, a rank that has no connection to the lost one learns of it by its own time limit.
    settings: dict[str, Any] = {"framed": framed, "max_timeout_s": 10 if framed else 2.5, "limit_s": 25}
    environment = {MARK: mark}
    world = World(
        size,
        shared_services(),
        channel,
        faults=tuple(texts),
        seed=seed,
        environment=environment,
        **settings,
    )
    killed = [fault.ranks[0] for fault in parse_faults("; ".join(texts), size, seed) if fault.action is Action.KILL]
    what = f"{'; '.join(texts)} (seed {seed}, {size} ranks, {channel.value}, {settings})"
    try:
        values = world(program, rounds)
    except WorldError as error:
        assert killed, f"{what}: {error}"
        assert error.origin in killed, f"{what}: {error}"
        assert {failure.kind for failure in error.failures} <= NAMED, f"{what}: {error}"
    else:
        assert not killed, what
        assert values == [expected(rank, size, rounds) for rank in range(size)], what


class Present:
    """What this process has: its children and descriptors; and the segments of shared memory that nobody uses."""

    def __init__(self, children: set[int], descriptors: int, segments: set[str]) -> None:
        self._children = children
        self._descriptors = descriptors
        self._segments = segments

    @classmethod
    def now(cls) -> "Present":
        children = {child.pid for child in psutil.Process().children(recursive=True)}
        return cls(children, len([*Path("/proc/self/fd").iterdir()]), abandoned_segments())

    def require_no_more(self, mark: str) -> None:
        """Wait until nothing is there that was not before: no child or orphan, no descriptor, no segment."""
        deadline = time.monotonic() + 10
        while True:
            now = Present.now()
            left = (
                [(pid, psutil.Process(pid).cmdline()) for pid in sorted(now._children - self._children)],
                max(0, now._descriptors - self._descriptors),
                sorted(now._segments - self._segments),
                list(marked_processes(mark)),
            )
            if not any(left):
                return
            # Another test's segment may be between its creation and its first mapping; an orphan may be ending.
            assert time.monotonic() < deadline, f"left behind: children, descriptors, segments, orphans: {left}"
            time.sleep(0.1)


def marked_processes(mark: str) -> Iterator[int]:
    """Return the programs that ranks have started, whoever is their parent now: they have the rank's environment."""
    wanted = f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)
        except OSError:
            continue  # it has ended, or is another user's


def abandoned_segments() -> set[str]:
    """Return the files of shared memory that no process maps."""
    found = {str(path) for path in Path("/dev/shm").iterdir()}
    for path in Path("/proc").glob("[0-9]*/maps"):
        try:
            found -= {line.rpartition(" ")[2] for line in path.read_text().splitlines() if "/dev/shm/" in line}
        except OSError:
            continue
    return found
