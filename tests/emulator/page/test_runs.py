"""Which invocations belong together."""

from dataclasses import replace

from emulator.aws.lambda_.core.history import InvocationStatus
from emulator.aws.stepfunctions.core.records import ExecutionRecord, LambdaCall, Status
from emulator.fmi.event_rank import rank_of
from emulator.page.runs import RunState, group_runs
from tests.emulator.page.calls import call


def execution(status: Status, request_ids: list[str], stopped_at: float | None = 110.0) -> ExecutionRecord:
    calls = tuple(
        LambdaCall("Execute", index, "execute", request_id, 100.0, 103.0, False)
        for index, request_id in enumerate(request_ids)
    )
    return ExecutionRecord(
        *("arn:one", "one", "pipeline", status, 99.0, stopped_at, None, None, (), calls, 5, ()),
    )


def test_ranks_that_were_invoked_at_once_are_a_run() -> None:
    (run,) = group_runs([], [call(1), call(0, 100.1), call(None, 101.0)])
    assert [rank_of(each).rank for each in run.calls] == [0, 1]
    assert (run.state, run.ranks, run.started, run.ended) == (RunState.SUCCEEDED, 2, 100.0, 102.6)


def test_a_repeated_rank_or_a_later_time_begins_the_next_run() -> None:
    again, later = call(0, 103.0), call(1, 200.0)
    runs = group_runs([], [call(0), call(1), again, later])
    assert [[each.received for each in run.calls] for run in runs] == [[200.0], [103.0], [100.0, 100.0]]


def test_a_throttled_rank_may_be_tried_again_in_the_same_run() -> None:
    throttled = call(0, status=InvocationStatus.THROTTLED, started=None, init_ms=None)
    (run,) = group_runs([], [throttled, call(1), call(0, 101.0)])
    assert run.state is RunState.SUCCEEDED
    assert len(run.calls) == 3


def test_a_failed_run_shows_the_cause_not_a_victim() -> None:
    failed = InvocationStatus.FAILED
    lost = call(0, status=failed, error_type="PeerLostError", ended=102.0)
    (run,) = group_runs([], [lost, call(2, status=failed, error_type="ValueError", ended=102.1)])
    assert (run.state, run.problem) == (RunState.FAILED, "rank 2: ValueError")


def test_an_execution_has_its_invocations_in_the_order_of_its_states() -> None:
    first = call(None, 99.0, function="initialize")
    ranks = [call(rank, 101.0) for rank in (1, 0)]
    last = call(None, 105.0, function="summarize")
    other = call(0, 101.0, request_id="elsewhere")
    record = execution(Status.SUCCEEDED, [each.request_id for each in (first, *ranks, last)])
    run, apart = group_runs([record], [first, *ranks, last, other])[::-1]
    assert [(each.function, rank_of(each).rank) for each in run.calls] == [
        *(("initialize", None), ("execute", 0), ("execute", 1), ("summarize", None)),
    ]
    assert (run.name, run.machine, run.ranks, run.transitions) == ("one", "pipeline", 2, 5)
    assert apart.calls == (other,)


def test_a_running_invocation_belongs_to_the_running_execution() -> None:
    running = call(0, status=InvocationStatus.RUNNING, ended=None)
    record = execution(Status.RUNNING, [], stopped_at=None)
    (run,) = group_runs([replace(record, warnings=("too many",))], [running])
    assert run.warnings == ("too many",)
    assert (run.state, run.calls, run.ended) == (RunState.RUNNING, (running,), None)


def test_the_cause_of_a_failed_execution_names_the_rank_and_the_error() -> None:
    said = '{"errorMessage": "broken", "errorType": "ValueError", "requestId": "request-2-100.0", "stackTrace": []}'
    record = replace(execution(Status.FAILED, ["request-2-100.0"]), error="ValueError", cause=said)
    assert group_runs([record], [call(2)])[0].problem == "rank 2: ValueError: broken"
    assert group_runs([record], [])[0].problem == "ValueError: broken"
    plain = replace(record, error="States.Timeout", cause=None)
    assert group_runs([plain], [])[0].problem == "States.Timeout"
