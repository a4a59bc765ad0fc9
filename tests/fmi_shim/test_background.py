"""Non-blocking collectives, which a thread runs, and duplicates of a communicator."""

from pathlib import Path

import numpy as np
import pytest

import fmi_shim as fmi
from fmi_shim.errors import PeerFailedError
from tests.fmi_shim import background_programs as programs
from tests.fmi_shim.conftest import world_on
from tests.fmi_shim.world import World


@pytest.fixture
def on(request: pytest.FixtureRequest, tmp_path: Path, channel: str) -> World:
    return world_on(channel, request, tmp_path)


@pytest.mark.parametrize(
    ("channel", "size", "framed"),
    [
        ("direct", 1, True),
        ("direct", 3, True),
        ("direct", 2, False),
        ("shm", 3, True),
        ("redis", 2, True),
        ("redis", 2, False),
        ("s3", 2, True),
    ],
)
def test_collectives_run_beside_all_other_calls(on: World, size: int, framed: bool) -> None:
    total = sum(range(size))
    for rank, found in enumerate(on.values(programs.every_collective, size, framed=framed)):
        assert found == {
            "total": total,
            "allreduce": [total, size],
            "barrier": None,
            "bcast": [5, 6],
            "gather": list(range(size)) if rank == 0 else [],
            "in place": [total] * 3,
            "tested": True,
            "none left": (None, None),
        }


@pytest.mark.parametrize("channel", ["direct"])
def test_a_collective_ends_without_further_calls(on: World) -> None:
    assert on.values(programs.overlapped, 3) == [True] * 3


@pytest.mark.parametrize("channel", ["direct", "redis"])
def test_messages_and_collectives_are_waited_for_together(on: World) -> None:
    assert on.values(programs.together_with_messages, 2)[0] == ((1, [1, 3]), (0, None))


@pytest.mark.parametrize("channel", ["direct"])
def test_a_collective_can_be_waited_for_again(on: World) -> None:
    text, value = on.values(programs.late_rank, 2)[0]
    assert text.startswith("rank 0 in ibarrier did not end within 0.1 s: check that all ranks have called it")
    assert value is None


@pytest.mark.parametrize("channel", ["direct"])
def test_an_error_of_a_collective_closes_the_communicator(on: World) -> None:
    for kind, text in on.values(programs.mismatched, 2):
        assert kind == "MismatchError"
        assert "barrier" in text
        assert "allreduce" in text


@pytest.mark.parametrize("channel", ["direct"])
def test_a_rank_that_fails_is_told_to_those_that_wait_for_a_collective(on: World) -> None:
    outcomes = on.run(programs.raise_in_block, 3, max_timeout=0)
    assert isinstance(outcomes[1].error, LookupError)
    for outcome in (outcomes[0], outcomes[2]):
        assert isinstance(outcome.error, PeerFailedError)
        assert "raised LookupError: no such galaxy" in str(outcome.error)


@pytest.mark.parametrize(("channel", "framed"), [("direct", True), ("direct", False), ("shm", True), ("redis", True)])
def test_a_duplicate_has_messages_of_its_own(on: World, framed: bool) -> None:
    for rank, (found, place, refused) in enumerate(on.values(programs.duplicates, 2, framed=framed)):
        assert found == ([[2, 2], [1, 1]] if rank == 1 else [])
        assert place == (rank, 2, 1)
        message = (
            "a communicator cannot be pickled or copied, since its connections belong to this process: use dup(), "
        )
        assert refused == [message + "or make one in the other process"] * 3


@pytest.mark.parametrize("channel", ["direct"])
def test_wrong_arguments_raise_at_once(on: World) -> None:
    with fmi.Communicator(0, 2, on.config(), "wrong") as comm:
        for call, message in [
            (lambda: comm.ibcast(np.ones(2), 2), "invalid root 2: expected 0 to 1"),
            (lambda: comm.ibcast(np.ones(4)[::2], 1), "invalid value: expected an array to fill"),
            (lambda: comm.igather(1, 0), "expected a numpy array"),
            (lambda: comm.igather(np.ones(2), 0, out=np.ones(2)), "invalid out"),
            (lambda: comm.iallreduce(np.ones(2), max), "invalid f"),  # type: ignore[arg-type]
            (lambda: comm.iallreduce(np.ones(2, bool), fmi.func(fmi.op.sum)), "invalid f fmi.op.sum for elements"),
        ]:
            with pytest.raises((TypeError, ValueError), match=message):
                call()
