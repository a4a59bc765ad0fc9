"""Messages to oneself, into larger memory and of unknown size; waits for several requests; time limits of a call."""

from pathlib import Path

import pytest

import fmi_shim as fmi
from fmi_shim.errors import MismatchError
from tests.fmi_shim import message_programs as programs
from tests.fmi_shim.conftest import world_on
from tests.fmi_shim.world import World

FRAMED = [("direct", True), ("shm", True), ("redis", True), ("s3", True)]
ALL = [*FRAMED, ("direct", False), ("redis", False)]


@pytest.fixture
def on(request: pytest.FixtureRequest, tmp_path: Path, channel: str) -> World:
    return world_on(channel, request, tmp_path)


@pytest.mark.parametrize(("channel", "framed"), ALL)
def test_a_rank_sends_messages_to_itself(on: World, framed: bool) -> None:
    for size in (1, 2):
        for rank, found in enumerate(on.values(programs.to_itself, size, framed=framed)):
            assert found == {
                "typed": [rank, 7],
                "copied": [rank, rank + 1, rank + 2],
                "early": False,
                "posted": [0.5, 0.5],
                "exchanged": [rank, (rank + 1) % size],
                "in place": True,
                "ring": [(rank - 1) % size, 0],
            }


@pytest.mark.parametrize("channel", ["direct"])
def test_a_message_to_oneself_describes_itself(on: World) -> None:
    assert on.values(programs.to_itself_framed, 1) == [{"unknown": (2, 3), "shorter": [0, 1]}]


@pytest.mark.parametrize("channel", ["direct"])
@pytest.mark.parametrize("posted", [False, True])
def test_a_rank_that_waits_for_itself_is_told_so(on: World, posted: bool) -> None:
    (outcome,) = on.run(programs.wait_for_itself, 1, posted, max_timeout=0)
    assert isinstance(outcome.error, MismatchError)
    assert "waits for a message from itself, which it has not sent: expected send or isend before" in str(outcome.error)


@pytest.mark.parametrize("channel", ["direct"])
@pytest.mark.parametrize("framed", [False, True])
def test_a_message_to_oneself_of_another_type_is_told(on: World, framed: bool) -> None:
    (outcome,) = on.run(programs.receive_another_type_from_itself, 1, framed=framed)
    assert isinstance(outcome.error, MismatchError)
    assert "rank 0 receives from itself in recv (call 0, 2 x int32" in str(outcome.error)


@pytest.mark.parametrize(("channel", "rows"), [("direct", 2), ("direct", 40_000), ("shm", 2), ("shm", 40_000)])
def test_an_array_is_received_into_larger_memory(on: World, rows: int) -> None:
    assert on.values(programs.larger_buffers, 2, rows, 4) == [[], []]


@pytest.mark.parametrize("channel", ["redis", "s3"])
def test_an_object_is_received_into_larger_memory(on: World) -> None:
    assert on.values(programs.larger_buffers, 2, 3, 1) == [[], []]


@pytest.mark.parametrize("channel", ["direct"])
def test_a_bytearray_may_be_larger_than_the_message(on: World) -> None:
    assert on.values(programs.larger_buffer_of_another_kind, 2)[1] == b"abc"


@pytest.mark.parametrize("channel", ["direct", "shm", "redis"])
@pytest.mark.parametrize("shape", [(3, 2), (8,), (4, 3), (9, 1)])
def test_memory_that_is_not_larger_by_rows_is_refused(on: World, shape: tuple[int, ...]) -> None:
    outcomes = on.run(programs.too_small, 2, shape)
    assert isinstance(outcomes[1].error, MismatchError)


@pytest.mark.parametrize(("channel", "size"), [("direct", 4), ("shm", 3), ("redis", 3), ("s3", 3)])
def test_the_first_of_several_requests_is_returned(on: World, size: int) -> None:
    found = on.values(programs.many_requests, size)[0]
    assert found == {
        "tested": (None, None),
        "order": [(index, [index + 1] * (index + 1)) for index in range(1, size - 1)],
        "last": (0, [1]),
        "none left": (None, None),
        "all": [*([rank, 5] for rank in range(1, size)), None, [0.0]],
        "tested after": (None, None),
    }


@pytest.mark.parametrize("channel", ["direct", "redis"])
def test_requests_of_several_channels_are_waited_for_together(on: World) -> None:
    assert on.values(programs.requests_of_two_channels, 2)[0] == (1, [[9], [8]])


@pytest.mark.parametrize(
    ("channel", "framed", "operation"),
    [
        ("direct", True, "recv"),
        ("direct", True, "allreduce"),
        ("direct", False, "barrier"),
        ("direct", False, "sendrecv"),
        ("shm", True, "recv"),
        ("shm", True, "gather"),
        ("redis", True, "recv"),
        ("s3", False, "allreduce"),
    ],
)
def test_a_call_ends_within_its_own_time_limit(on: World, framed: bool, operation: str) -> None:
    error = on.values(programs.limited, 2, operation, framed=framed)[0]
    assert "0.3 s" in error
    assert "raise timeout if it needs longer" in error


@pytest.mark.parametrize("channel", ["shm"])
def test_messages_need_only_their_two_ranks(on: World) -> None:
    outcomes = on.run(programs.before_the_others, [(0, 3), (1, 3)])  # rank 2 never comes
    assert [(outcome.error, outcome.value) for outcome in outcomes] == [(None, [3, 4]), (None, [1, 2])]
    found = on.values(programs.messages_before_and_after, 2)
    assert found == [(1, [1, 1], [1, 0]), (1, [0, 1], [0, 0])]


@pytest.mark.parametrize(("channel", "framed"), [("direct", True), ("direct", False), ("shm", True), ("redis", True)])
def test_a_request_can_be_waited_for_again(on: World, framed: bool) -> None:
    assert on.values(programs.late_sender, 2, framed=framed)[0] == (2, [3, 4], [3, 4])


@pytest.mark.parametrize("channel", ["direct"])
@pytest.mark.parametrize(
    ("timeout", "message"),
    [
        (0, "invalid timeout 0: expected seconds above 0"),
        (float("nan"), "invalid timeout nan: expected seconds above 0"),
        (True, "invalid timeout True: expected a number of seconds"),
        ("1", "invalid timeout '1': expected a number of seconds"),
    ],
)
def test_a_time_limit_that_is_none_is_refused(on: World, timeout: object, message: str) -> None:
    comm = fmi.Communicator(0, 1, on.config(), "limits")
    with comm, pytest.raises((TypeError, ValueError), match=message):
        comm.barrier(timeout=timeout)  # type: ignore[arg-type]


@pytest.mark.parametrize("channel", ["direct"])
def test_only_requests_are_waited_for(on: World) -> None:
    with pytest.raises(TypeError, match="invalid request 3: expected what isend, irecv and the like"):
        fmi.Request.waitall([3])  # type: ignore[list-item]
