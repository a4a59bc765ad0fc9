"""A send or recv that timed out before its first byte is repeated, as programs for the original FMI do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fmi_shim.errors import BrokenCommunicatorError, PeerTimeoutError
from tests.fmi_shim import polling_programs
from tests.fmi_shim.test_objects import SECRET
from tests.fmi_shim.world import Program, World

Run = Callable[..., list[Any]]
LIMIT = 600
"""ms; longer than a rank waits until it reports its wait."""


@pytest.fixture(params=["framed", "raw", "shm", "redis", "raw redis"])
def run(request: pytest.FixtureRequest) -> Run:
    kind = request.param.split()[-1]
    world: World = request.getfixturevalue({"shm": "shm_world", "redis": "redis_world"}.get(kind, "world"))
    framed = not request.param.startswith("raw")

    def values(program: Program, size: int, *arguments: object) -> list[Any]:
        outcomes = world.run(program, size, *arguments, framed=framed, max_timeout=LIMIT)
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        return [outcome.value for outcome in outcomes]

    return values


@pytest.mark.parametrize("connected", [False, True], ids=["at first", "connected"])
def test_a_late_value_arrives_at_a_rank_that_polls(run: Run, connected: bool, request: pytest.FixtureRequest) -> None:
    if not connected and request.node.callspec.params["run"] == "shm":
        pytest.skip("ranks that share memory open it together, or fail together")
    polls, other = run(polling_programs.late_value, 2, connected)
    assert polls >= 3
    assert other is None


def test_a_wait_that_timed_out_is_no_part_of_a_deadlock(run: Run) -> None:
    assert run(polling_programs.wait_the_other_way_round, 2) == [True, None]


def test_a_send_to_a_rank_that_has_not_connected_is_repeated(world: World) -> None:
    for framed in True, False:
        outcomes = world.run(polling_programs.send_to_a_late_rank, 2, framed=framed, max_timeout=LIMIT)
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert outcomes[0].value >= 2


def test_a_receive_that_timed_out_after_a_byte_is_final(world: World) -> None:
    first, second = world.run(polling_programs.half_a_message, 2, framed=False, max_timeout=LIMIT)[0].value
    assert isinstance(first, PeerTimeoutError)
    assert not first.repeatable
    assert isinstance(second, BrokenCommunicatorError)


def test_a_collective_that_timed_out_is_final(world: World) -> None:
    first, second = world.run(polling_programs.late_for_a_barrier, 2, max_timeout=LIMIT)[0].value
    assert isinstance(first, PeerTimeoutError)
    assert isinstance(second, BrokenCommunicatorError)


def test_objects_are_polled_for(world: World) -> None:
    world.environment.update(SECRET)
    outcomes = world.run(polling_programs.late_object, 2, max_timeout=LIMIT)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert outcomes[0].value >= 2
