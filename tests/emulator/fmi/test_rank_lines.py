"""Which rank wrote which line, told from a log."""

import json

from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.lambda_.log_lines import InitReport, Report, end_line, init_start_line, start_line
from emulator.fmi.rank_lines import Kind, LogLine, Phase, RankLines, parse_phase

REPORT = Report("a-1", 100.0, 128, 60, 20.0)


def invocation(request_id: str, rank: int | None, *output: str) -> list[str]:
    mark = [] if rank is None else [f"fmi-rank: {rank} of 4 RequestId: {request_id}"]
    return [start_line(request_id), *mark, *output, end_line(request_id), Report(request_id, 1.0, 128, 60).line()]


def read(lines: RankLines, messages: list[str], stream: str = "s") -> list[LogLine]:
    return [line for time, message in enumerate(messages) for line in lines.take(stream, time, message)]


def test_every_line_of_an_invocation_has_its_rank_and_request_from_before_the_mark_on() -> None:
    lines = read(RankLines(), ["imported", *invocation("a-1", 2, "one", "two")])
    assert [(line.kind, line.text) for line in lines if line.kind is Kind.OUTPUT] == [
        (Kind.OUTPUT, "imported"),
        (Kind.OUTPUT, "one"),
        (Kind.OUTPUT, "two"),
    ]
    assert {(line.rank, line.world_size, line.request_id) for line in lines} == {(2, 4, "a-1")}
    assert [line.kind for line in lines] == [
        *(Kind.OUTPUT, Kind.START, Kind.RANK, Kind.OUTPUT, Kind.OUTPUT, Kind.END, Kind.REPORT),
    ]
    assert lines[-1].report == Report("a-1", 1.0, 128, 60)


def test_the_init_phases_lines_are_no_ranks_output() -> None:
    failed = InitReport(12.5, "init", "error", "Runtime.ExitError").line()
    lines = read(RankLines(), [init_start_line("python:3.11.7"), failed, *invocation("a-1", 2, "one")])
    assert [line.kind for line in lines][:2] == [Kind.INIT, Kind.INIT]
    assert [line.text for line in lines if line.kind is Kind.OUTPUT] == ["one"]


def test_a_warm_sandbox_may_be_another_rank_next() -> None:
    lines = read(RankLines(), [*invocation("a-1", 2, "x"), *invocation("b-2", 0, "y"), *invocation("c-3", None, "z")])
    assert [(line.text, line.rank) for line in lines if line.kind is Kind.OUTPUT] == [("x", 2), ("y", 0), ("z", None)]


def test_a_function_that_names_no_rank_is_not_held_back() -> None:
    lines = RankLines()
    assert lines.take("s", 0, start_line("a-1")) == []
    assert [line.text for line in lines.take("s", 1, "hello")] == [start_line("a-1"), "hello"]
    assert [line.text for line in lines.take("s", 2, "again\n")] == ["again"]


def test_what_is_held_back_comes_out_when_nothing_follows() -> None:
    lines = RankLines()
    assert lines.take("s", 5, "in the middle of an invocation") == []
    assert lines.overdue(5) == []
    assert [line.text for line in lines.overdue(6)] == ["in the middle of an invocation"]
    assert [line.text for line in lines.take("s", 7, "and on")] == ["and on"]
    assert lines.overdue() == []


def test_a_program_that_prints_like_the_platform_is_not_the_platform() -> None:
    forged = ["END RequestId: other", REPORT.line(), "REPORT RequestId: a-1\tgarbage"]
    lines = read(RankLines(), [start_line("a-2"), *forged, *invocation("a-2", None)[1:]])
    assert [line.kind for line in lines] == [Kind.START, *[Kind.OUTPUT] * 3, Kind.END, Kind.REPORT]


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_no_line_is_lost_and_those_of_a_stream_keep_their_order(turns: list[str]) -> None:
    """Three streams' lines, mixed in any way."""
    queues = {name: [f"{name} init", *invocation(f"{name}-1", ord(name) - ord("a"), f"{name} says")] for name in "abc"}
    lines = RankLines()
    seen: list[LogLine] = []
    for time, name in enumerate([*turns, *"abc" * 6]):
        if queues[name]:
            seen += lines.take(name, time, queues[name].pop(0))
    seen += lines.overdue()
    assert len(seen) == 18
    for rank, name in enumerate("abc"):
        own = [line for line in seen if line.stream == name]
        assert [line.text for line in own if line.kind is Kind.OUTPUT] == [f"{name} init", f"{name} says"]
        assert {line.rank for line in own} == {rank}


def test_a_trace_line_is_read_and_what_only_looks_like_one_is_output() -> None:
    said = {"phase": "communication", "intervals": [[1.0, 2.5], [3, 4]], "seconds": 2.25, "calls": 7}
    trace = "fmi-trace: " + json.dumps(said)
    phase = Phase("communication", ((1.0, 2.5), (3.0, 4.0)), 2.25, 7)
    assert parse_phase(trace) == phase
    lines = read(RankLines(), invocation("a-1", 0, trace, "fmi-trace: nothing", 'fmi-trace: {"phase": 1}'))
    assert [line.kind for line in lines if line.kind in (Kind.TRACE, Kind.OUTPUT)] == [
        *(Kind.TRACE, Kind.OUTPUT, Kind.OUTPUT)
    ]
    assert next(line.phase for line in lines if line.kind is Kind.TRACE) == phase
