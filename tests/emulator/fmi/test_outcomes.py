"""Which of several failures is the cause of a failed run."""

import pytest

from emulator.aws.lambda_.log_lines import Report
from emulator.fmi.outcomes import STOPPED, FunctionFailure, RankOutcome, RunOutcome, failure_location, is_victim
from fmi_shim.errors import VICTIM_ERRORS, FmiError

REPORT = Report("id", 1.0, 128, 1)


def outcome(rank: int, error_type: str | None) -> RankOutcome:
    return RankOutcome(rank, REPORT, FunctionFailure(error_type, "why") if error_type else None)


def test_a_rank_that_lost_its_peer_is_not_the_cause_even_if_it_ended_first() -> None:
    ends = (outcome(3, "PeerLostError"), outcome(0, None), outcome(2, "ZeroDivisionError"), outcome(1, "Stopped"))
    assert [failed.rank for failed in RunOutcome(ends, ()).failures] == [2, 3, 1]


def test_the_first_to_end_is_named_among_equals() -> None:
    ends = (outcome(1, "PeerTimeoutError"), outcome(0, "PeerTimeoutError"))
    assert [failed.rank for failed in RunOutcome(ends, ()).failures] == [1, 0]


def test_a_failure_is_one_line_with_its_place() -> None:
    assert (
        str(FunctionFailure("ValueError", "what\nand where", "/tmp/a.py:3"))
        == "ValueError: what and where (/tmp/a.py:3)"
    )


@pytest.mark.parametrize("error", VICTIM_ERRORS)
def test_an_error_that_another_rank_caused_is_a_victims(error: type[FmiError]) -> None:
    assert is_victim(error.__name__)
    ends = (outcome(0, error.__name__), outcome(1, "ValueError"))
    assert [failed.rank for failed in RunOutcome(ends, ()).failures] == [1, 0]


@pytest.mark.parametrize(
    "name", ["MismatchError", "ConfigError", "StoreError", "RendezvousError", "ConcurrentCallError", "ValueError", None]
)
def test_an_error_of_the_ranks_own_is_not_a_victims(name: str | None) -> None:
    assert not is_victim(name)


def test_a_rank_that_was_stopped_is_a_victim() -> None:
    assert is_victim(STOPPED)


def test_the_location_of_a_failure_is_the_innermost_line_of_the_program() -> None:
    frames = [("/var/task/execute.py", "9"), ("/tmp/a/main.py", "3"), ("/tmp/a/fmi_shim/communicator.py", "7")]
    assert failure_location(frames) == "/tmp/a/main.py:3"
    assert failure_location(frames[:1]) == ""
