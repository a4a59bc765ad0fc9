"""What the log tells of each rank."""

import pytest

from emulator.aws.lambda_.log_lines import Report, end_line, start_line
from emulator.fmi.job import Failure
from emulator.fmi.rank_lines import RankLines
from emulator.fmi.rank_log import RankLog, RankState, counts, fraction_of

KILLED = "RequestId: {} Error: Runtime exited with error: signal: killed\nRuntime.ExitError"


def feed(log: RankLog, lines: RankLines, rank: int | None, *messages: str, request: str = "") -> None:
    request = request or f"request-{rank}"
    mark = [] if rank is None else [f"fmi-rank: {rank} of 3 RequestId: {request}"]
    for time, message in enumerate([start_line(request), *mark, *messages]):
        for line in lines.take(f"stream-{rank}-{request}", time, message):
            log.take(line)


def ending(request: str, status: str | None = None, error_type: str | None = None) -> list[str]:
    return [end_line(request), Report(request, 5.0, 128, 60, None, status, error_type).line()]


def test_a_rank_goes_from_waiting_to_done() -> None:
    log, lines = RankLog(), RankLines()
    feed(log, lines, 1, "epoch 3/4")
    assert counts(log.ranks, log.world_size) == {
        RankState.WAITING: 2,
        RankState.RUNNING: 1,
        RankState.DONE: 0,
        RankState.FAILED: 0,
    }
    assert (log.ranks[1].last_line, log.ranks[1].fraction) == ("epoch 3/4", 0.75)
    assert not log.is_settled()
    feed(log, lines, 0, *ending("request-0"))
    assert log.ranks[0].state is RankState.DONE
    assert [outcome.failure for outcome in log.outcomes()] == [
        None,
        Failure("Stopped", "it was still running after another rank had failed"),
    ]


def test_a_rank_that_was_stopped_while_it_failed_has_failed() -> None:
    log = RankLog()
    feed(log, RankLines(), 0, "[ERROR] ValueError: the cause")
    (outcome,) = log.outcomes()
    assert (outcome.report, outcome.failure) == (None, Failure("ValueError", "the cause"))


def test_an_exception_is_told_with_the_place_in_the_program() -> None:
    log = RankLog()
    feed(
        log,
        RankLines(),
        2,
        "[ERROR] ValueError: 3 is odd: no",
        "Traceback (most recent call last):",
        '  File "/var/task/execute.py", line 57, in handler',
        '  File "/tmp/program/main.py", line 6, in <module>',
        '  File "/tmp/code/fmi_shim/communicator.py", line 77, in barrier',
        *ending("request-2"),
    )
    assert log.ranks[2].state is RankState.FAILED
    assert log.ranks[2].failure == Failure("ValueError", "3 is odd: no", "/tmp/program/main.py:6")


@pytest.mark.parametrize(
    ("said", "status", "error_type", "failure"),
    [
        (KILLED, "error", "Runtime.ExitError", Failure("ProcessEnded", "signal: killed")),
        (
            *(KILLED, "error", "Runtime.OutOfMemory"),
            Failure("OutOfMemory", "it used more than its 128 MB; raise --memory"),
        ),
        (
            *("2026-11-22T15:57:58.385Z id Task timed out after 1.00 seconds", "timeout", None),
            Failure("Timeout", "Task timed out after 1.00 seconds; raise --timeout or look for a deadlock"),
        ),
    ],
)
def test_what_the_platform_did_is_told(said: str, status: str, error_type: str | None, failure: Failure) -> None:
    log = RankLog()
    feed(log, RankLines(), 0, said, *ending("request-0", status, error_type))
    (outcome,) = log.outcomes()
    assert outcome.failure == failure


def test_a_rank_that_is_tried_again_is_what_it_is_now_and_is_paid_for_twice() -> None:
    log, lines = RankLog(), RankLines()
    feed(log, lines, 0, "[ERROR] ValueError: once", *ending("a-1"), request="a-1")
    feed(log, lines, 0, *ending("b-2"), request="b-2")
    (outcome,) = log.outcomes()
    assert outcome.failure is None
    assert len(log.reports) == 2


def test_a_function_without_ranks_is_followed_too() -> None:
    log = RankLog()
    feed(log, RankLines(), None, "[ERROR] KeyError: 'bucket'", *ending("request-None"))
    assert log.unranked is not None
    assert (log.unranked.state, str(log.unranked.failure)) == (RankState.FAILED, "KeyError: 'bucket'")


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        (" 37%|███▋      | 37/100 [00:03<00:06]", 0.37),
        ("batch 3 / 12", 0.25),
        ("100.0 %", 1.0),
        ("no number", None),
        ("2026/11/22", None),
        ("250%", None),
        ("5/0", None),
    ],
)
def test_progress_is_taken_from_what_programs_print(text: str, fraction: float | None) -> None:
    assert fraction_of(text) == fraction
