"""Which of several failures is called the cause."""

from emulator.aws.lambda_.log_lines import Report
from emulator.fmi.job import Failure, RankOutcome, RunOutcome

REPORT = Report("id", 1.0, 128, 1)


def outcome(rank: int, error_type: str | None) -> RankOutcome:
    return RankOutcome(rank, REPORT, Failure(error_type, "why") if error_type else None)


def test_a_rank_that_lost_its_peer_is_not_the_cause_even_if_it_ended_first() -> None:
    ends = (outcome(3, "PeerLostError"), outcome(0, None), outcome(2, "ZeroDivisionError"), outcome(1, "Stopped"))
    assert [failed.rank for failed in RunOutcome(ends, ()).failures] == [2, 3, 1]


def test_the_first_to_end_is_named_among_equals() -> None:
    ends = (outcome(1, "PeerTimeoutError"), outcome(0, "PeerTimeoutError"))
    assert [failed.rank for failed in RunOutcome(ends, ()).failures] == [1, 0]


def test_a_failure_is_one_line_with_its_place() -> None:
    assert str(Failure("ValueError", "what\nand where", "/tmp/a.py:3")) == "ValueError: what and where (/tmp/a.py:3)"
