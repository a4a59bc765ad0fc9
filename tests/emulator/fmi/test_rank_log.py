"""What the lines of a function's log say of each rank."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.lambda_.log_lines import InitReport, Report, end_line, init_start_line, start_line
from emulator.fmi.outcomes import FunctionFailure
from emulator.fmi.rank_log import (
    LineKind,
    LogLine,
    Phase,
    RankLineParser,
    RankLog,
    RankState,
    progress_fraction,
    state_counts,
)

KILLED = "RequestId: {} Error: Runtime exited with error: signal: killed\nRuntime.ExitError"


def feed(log: RankLog, lines: RankLineParser, rank: int | None, *messages: str, request: str = "") -> None:
    request = request or f"request-{rank}"
    mark = [] if rank is None else [f"fmi-rank: {rank} of 3 RequestId: {request}"]
    for time, message in enumerate([start_line(request), *mark, *messages]):
        for line in lines.feed(f"stream-{rank}-{request}", time, message):
            log.add(line)


def ending(request: str, status: str | None = None, error_type: str | None = None) -> list[str]:
    return [end_line(request), Report(request, 5.0, 128, 60, None, status, error_type).line()]


def test_a_rank_goes_from_waiting_to_done() -> None:
    log, lines = RankLog(), RankLineParser()
    feed(log, lines, 1, "epoch 3/4")
    assert state_counts(log.ranks, log.world_size) == {
        RankState.WAITING: 2,
        RankState.RUNNING: 1,
        RankState.DONE: 0,
        RankState.FAILED: 0,
    }
    assert (log.ranks[1].last_line, log.ranks[1].fraction) == ("epoch 3/4", 0.75)
    assert not log.is_complete()
    feed(log, lines, 0, *ending("request-0"))
    assert log.ranks[0].state is RankState.DONE
    assert [outcome.failure for outcome in log.outcomes()] == [
        None,
        FunctionFailure("Stopped", "still running after another rank had failed"),
    ]


def test_a_rank_that_was_stopped_while_it_failed_has_failed() -> None:
    log = RankLog()
    feed(log, RankLineParser(), 0, "[ERROR] ValueError: the cause")
    (outcome,) = log.outcomes()
    assert (outcome.report, outcome.failure) == (None, FunctionFailure("ValueError", "the cause"))


def test_an_exception_has_its_location_in_the_program() -> None:
    log = RankLog()
    feed(
        log,
        RankLineParser(),
        2,
        "[ERROR] ValueError: 3 is odd: no",
        "Traceback (most recent call last):",
        '  File "/var/task/execute.py", line 57, in handler',
        '  File "/tmp/program/main.py", line 6, in <module>',
        '  File "/tmp/code/fmi_shim/communicator.py", line 77, in barrier',
        *ending("request-2"),
    )
    assert log.ranks[2].state is RankState.FAILED
    assert log.ranks[2].failure == FunctionFailure("ValueError", "3 is odd: no", "/tmp/program/main.py:6")


@pytest.mark.parametrize(
    ("said", "status", "error_type", "failure"),
    [
        (KILLED, "error", "Runtime.ExitError", FunctionFailure("ProcessEnded", "signal: killed")),
        (
            *(KILLED, "error", "Runtime.OutOfMemory"),
            FunctionFailure("OutOfMemory", "used more than 128 MB: raise --memory"),
        ),
        (
            *("2026-11-22T15:57:58.385Z id Task timed out after 1.00 seconds", "timeout", None),
            FunctionFailure("Timeout", "Task timed out after 1.00 seconds: raise --timeout, or check for a deadlock"),
        ),
    ],
)
def test_failures_by_the_platform_are_reported(
    said: str, status: str, error_type: str | None, failure: FunctionFailure
) -> None:
    log = RankLog()
    feed(log, RankLineParser(), 0, said, *ending("request-0", status, error_type))
    (outcome,) = log.outcomes()
    assert outcome.failure == failure


def test_a_retried_rank_has_its_latest_state_and_two_reports() -> None:
    log, lines = RankLog(), RankLineParser()
    feed(log, lines, 0, "[ERROR] ValueError: once", *ending("a-1"), request="a-1")
    feed(log, lines, 0, *ending("b-2"), request="b-2")
    (outcome,) = log.outcomes()
    assert outcome.failure is None
    assert len(log.reports) == 2


def test_a_function_without_ranks_is_followed_too() -> None:
    log = RankLog()
    feed(log, RankLineParser(), None, "[ERROR] KeyError: 'bucket'", *ending("request-None"))
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
    assert progress_fraction(text) == fraction


REPORT = Report("a-1", 100.0, 128, 60, 20.0)


def invocation(request_id: str, rank: int | None, *output: str) -> list[str]:
    mark = [] if rank is None else [f"fmi-rank: {rank} of 4 RequestId: {request_id}"]
    return [start_line(request_id), *mark, *output, end_line(request_id), Report(request_id, 1.0, 128, 60).line()]


def read(lines: RankLineParser, messages: list[str], stream: str = "s") -> list[LogLine]:
    return [line for time, message in enumerate(messages) for line in lines.feed(stream, time, message)]


def test_every_line_of_an_invocation_has_its_rank_even_before_the_rank_line() -> None:
    lines = read(RankLineParser(), ["imported", *invocation("a-1", 2, "one", "two")])
    assert [(line.kind, line.text) for line in lines if line.kind is LineKind.OUTPUT] == [
        (LineKind.OUTPUT, "imported"),
        (LineKind.OUTPUT, "one"),
        (LineKind.OUTPUT, "two"),
    ]
    assert {(line.rank, line.world_size, line.request_id) for line in lines} == {(2, 4, "a-1")}
    assert [line.kind for line in lines] == [
        *(
            LineKind.OUTPUT,
            LineKind.START,
            LineKind.RANK,
            LineKind.OUTPUT,
            LineKind.OUTPUT,
            LineKind.END,
            LineKind.REPORT,
        ),
    ]
    assert lines[-1].report == Report("a-1", 1.0, 128, 60)


def test_lines_of_the_init_phase_are_not_output() -> None:
    failed = InitReport(12.5, "init", "error", "Runtime.ExitError").line()
    lines = read(
        RankLineParser(),
        [init_start_line("python:3.11.7", "arn:aws:lambda:us-east-1::runtime:1"), failed, *invocation("a-1", 2, "one")],
    )
    assert [line.kind for line in lines][:2] == [LineKind.INIT, LineKind.INIT]
    assert [line.text for line in lines if line.kind is LineKind.OUTPUT] == ["one"]


def test_a_warm_sandbox_may_be_another_rank_next() -> None:
    lines = read(
        RankLineParser(), [*invocation("a-1", 2, "x"), *invocation("b-2", 0, "y"), *invocation("c-3", None, "z")]
    )
    assert [(line.text, line.rank) for line in lines if line.kind is LineKind.OUTPUT] == [
        ("x", 2),
        ("y", 0),
        ("z", None),
    ]


def test_a_function_that_names_no_rank_is_not_held_back() -> None:
    lines = RankLineParser()
    assert lines.feed("s", 0, start_line("a-1")) == []
    assert [line.text for line in lines.feed("s", 1, "hello")] == [start_line("a-1"), "hello"]
    assert [line.text for line in lines.feed("s", 2, "again\n")] == ["again"]


def test_flush_returns_lines_that_are_held_back() -> None:
    lines = RankLineParser()
    assert lines.feed("s", 5, "in the middle of an invocation") == []
    assert lines.flush(5) == []
    assert [line.text for line in lines.flush(6)] == ["in the middle of an invocation"]
    assert [line.text for line in lines.feed("s", 7, "and on")] == ["and on"]
    assert lines.flush() == []


def test_output_that_looks_like_platform_lines_is_output() -> None:
    forged = ["END RequestId: other", REPORT.line(), "REPORT RequestId: a-1\tgarbage"]
    lines = read(RankLineParser(), [start_line("a-2"), *forged, *invocation("a-2", None)[1:]])
    assert [line.kind for line in lines] == [LineKind.START, *[LineKind.OUTPUT] * 3, LineKind.END, LineKind.REPORT]


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_no_line_is_lost_and_those_of_a_stream_keep_their_order(turns: list[str]) -> None:
    """Three streams' lines, mixed in any way."""
    queues = {name: [f"{name} init", *invocation(f"{name}-1", ord(name) - ord("a"), f"{name} says")] for name in "abc"}
    lines = RankLineParser()
    seen: list[LogLine] = []
    for time, name in enumerate([*turns, *"abc" * 6]):
        if queues[name]:
            seen += lines.feed(name, time, queues[name].pop(0))
    seen += lines.flush()
    assert len(seen) == 18
    for rank, name in enumerate("abc"):
        own = [line for line in seen if line.stream == name]
        assert [line.text for line in own if line.kind is LineKind.OUTPUT] == [f"{name} init", f"{name} says"]
        assert {line.rank for line in own} == {rank}


def test_a_trace_line_is_parsed_and_an_invalid_one_is_output() -> None:
    said = {"phase": "communication", "intervals": [[1.0, 2.5], [3, 4]], "seconds": 2.25, "calls": 7}
    trace = "fmi-trace: " + json.dumps(said)
    phase = Phase("communication", ((1.0, 2.5), (3.0, 4.0)), 2.25, 7)
    assert Phase.parse(trace) == phase
    lines = read(RankLineParser(), invocation("a-1", 0, trace, "fmi-trace: nothing", 'fmi-trace: {"phase": 1}'))
    assert [line.kind for line in lines if line.kind in (LineKind.TRACE, LineKind.OUTPUT)] == [
        *(LineKind.TRACE, LineKind.OUTPUT, LineKind.OUTPUT)
    ]
    assert next(line.phase for line in lines if line.kind is LineKind.TRACE) == phase


def test_ranks_are_recognised_by_the_event_that_the_published_executor_prints() -> None:
    """Its other lines belong to the rank, too; what is not an event with a rank is output."""
    log, lines = RankLog(), RankLineParser()
    event = {"S3_BUCKET": "b", "WORLD_SIZE": "3", "RANK": "2", "DATA_PATH": None}
    for rank, first in ((2, f"received:  {event}"), (None, "received:  {'RANK': 1}"), (None, "received:  {oops(")):
        request = f"request-{first}"
        messages = [start_line(request), first, "parsing args", "step 1/4", *ending(request)]
        found = [line for message in messages for line in lines.feed(f"stream-{first}", 0, message)]
        for line in found:
            log.add(line)
        assert {(line.rank, line.world_size) for line in found} == {(rank, rank and 3)}
        assert [line.text for line in found if line.kind is LineKind.OUTPUT] == messages[1:4]
    assert (log.world_size, list(log.ranks), log.ranks[2].fraction) == (3, [2], 0.25)
