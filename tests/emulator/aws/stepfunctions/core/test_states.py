"""Every type of state, executed through boto3."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.emulator.aws.stepfunctions.conftest import events, inline, kinds, wait_for_end

Execute = Callable[..., dict[str, Any]]
END = {"Type": "Pass", "End": True}


def passed(value: Any, **fields: Any) -> tuple[dict[str, Any], Any]:
    """Return a Pass state with fields, and its input."""
    return {"A": {**END, **fields}}, value


@pytest.mark.parametrize(
    ("fields", "value", "output"),
    [
        ({}, {"x": 1}, {"x": 1}),
        ({"Result": [1]}, {"x": 1}, [1]),
        ({"Result": None}, {"x": 1}, None),
        ({"Result": 5, "ResultPath": "$.y.z"}, {"x": 1}, {"x": 1, "y": {"z": 5}}),
        ({"Result": 5, "ResultPath": None}, {"x": 1}, {"x": 1}),
        ({"InputPath": "$.x"}, {"x": {"y": 1}}, {"y": 1}),
        ({"InputPath": None}, {"x": 1}, {}),
        ({"InputPath": "$.x", "ResultPath": "$.z"}, {"x": 1}, {"x": 1, "z": 1}),
        ({"OutputPath": "$.x[1:]"}, {"x": [1, 2, 3]}, [2, 3]),
        ({"OutputPath": None}, {"x": 1}, {}),
        ({"Parameters": {"a.$": "$.x", "b": {"c.$": "$$.State.Name"}, "d": [{"e.$": "$.x"}]}}, {"x": 1},
         {"a": 1, "b": {"c": "A"}, "d": [{"e": 1}]}),
        ({"Parameters": {"a.$": "$$.Execution.Input.x", "n.$": "States.ArrayLength($.l)"}}, {"x": 7, "l": [1, 2]},
         {"a": 7, "n": 2}),
    ],
)  # fmt: skip
def test_paths_and_parameters_select_input_and_output(
    execute: Execute, fields: dict[str, Any], value: Any, output: Any
) -> None:
    execution = execute(*passed(value, **fields))
    assert execution["status"] == "SUCCEEDED", execution
    assert execution["output"] == output


@pytest.mark.parametrize(
    ("fields", "error", "cause"),
    [
        ({"InputPath": "$.no"}, "States.Runtime", "Invalid path '$.no' in InputPath"),
        ({"OutputPath": "$.no"}, "States.Runtime", "Invalid path '$.no' in OutputPath"),
        (
            {"Parameters": {"y.$": "$.no"}},
            "States.Runtime",
            "The JSONPath '$.no' specified for the field 'y.$' could not be found in the input '{\"x\":1}'",
        ),
        ({"ResultPath": "$.x.y"}, "States.ResultPathMatchFailure", "Unable to apply ReferencePath $.x.y"),
        (
            {"Parameters": {"y.$": "States.MathAdd($.x, 'a')"}},
            "States.IntrinsicFailure",
            "States.MathAdd: second number",
        ),
        ({"Parameters": {"y.$": "States.Format('{}', $$.Execution.Nothing)"}}, "States.Runtime", "Execution.Nothing"),
    ],
)
def test_a_path_without_a_match_fails_the_execution_and_names_the_state(
    execute: Execute, fields: dict[str, Any], error: str, cause: str
) -> None:
    execution = execute(*passed({"x": 1}, **fields))
    assert (execution["status"], execution["error"]) == ("FAILED", error)
    assert execution["cause"].startswith(
        "An error occurred while executing the state 'A' (entered at the event id #2). "
    )
    assert cause in execution["cause"]


@pytest.mark.parametrize("path", ["$$.State.Name", "$$", "$kept", "$kept.y", "$"])
def test_input_and_output_paths_select_from_the_context_object_and_from_variables(execute: Execute, path: str) -> None:
    expected: dict[str, Any] = {"$$.State.Name": "A", "$kept": {"y": 7}, "$kept.y": 7, "$": {"x": 1}}
    for field in ("InputPath", "OutputPath"):
        states = {
            "Before": {"Type": "Pass", "Assign": {"kept": {"y": 7}}, "Next": "A"},
            "A": {"Type": "Pass", field: path, "End": True},
        }
        output = execute(states, {"x": 1})["output"]
        if path == "$$":
            assert output["Execution"]["Input"] == {"x": 1}
            assert (output["State"]["Name"], "RetryCount" in output["State"]) == ("A", False)
        else:
            assert output == expected[path]


def test_variables_are_available_in_later_and_nested_states(execute: Execute) -> None:
    summed = {**END, "Parameters": {"sum.$": "States.MathAdd($, $fixed[1])", "kept.$": "$kept"}}
    states = {
        "A": {"Type": "Pass", "Assign": {"kept.$": "$.x", "fixed": [1, 2]}, "Next": "B"},
        "B": {**inline({"I": summed}), "ItemsPath": "$fixed", "ResultPath": "$.made"},
    }
    execution = execute(states, {"x": 5})
    assert execution["output"] == {"x": 5, "made": [{"sum": 3, "kept": 5}, {"sum": 4, "kept": 5}]}


def test_a_choice_continues_with_the_first_true_rule_or_the_default(execute: Execute) -> None:
    states = {
        "C": {
            "Type": "Choice",
            "Choices": [
                {"Variable": "$.n", "NumericGreaterThan": 10, "Next": "Large"},
                {"Variable": "$.n", "NumericGreaterThan": 5, "Next": "Middle"},
            ],
            "Default": "Small",
        },
        **{name: {**END, "Result": name} for name in ("Large", "Middle", "Small")},
    }
    assert [execute(states, {"n": n})["output"] for n in (11, 6, 5)] == ["Large", "Middle", "Small"]
    del states["C"]["Default"], states["Small"]
    execution = execute(states, {"n": 5})
    assert (execution["status"], execution["error"]) == ("FAILED", "States.NoChoiceMatched")


def test_a_loop_runs_thousands_of_states(execute: Execute) -> None:
    states = {
        "More": {"Type": "Pass", "Parameters": {"n.$": "States.MathAdd($.n, 1)"}, "Next": "Enough"},
        "Enough": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.n", "NumericGreaterThanEquals": 2000, "Next": "Done"}],
            "Default": "More",
        },
        "Done": {"Type": "Succeed"},
    }
    assert execute(states, {"n": 0})["output"] == {"n": 2000}


def test_a_full_history_fails_the_execution(sfn: Any, execute: Execute) -> None:
    execution = execute({"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Choice", "Default": "A", "Choices": [
        {"Variable": "$", "IsString": True, "Next": "C"}]}, "C": {"Type": "Succeed"}})  # fmt: skip
    assert (execution["status"], execution["error"]) == ("FAILED", "States.Runtime")
    assert execution["cause"] == "The execution reached the maximum number of history events (25000)."
    last = sfn.get_execution_history(executionArn=execution["executionArn"], reverseOrder=True, maxResults=1)["events"]
    assert [(event["id"], event["type"]) for event in last] == [(25000, "ExecutionFailed")]


@pytest.mark.parametrize(
    "fields", [{"Seconds": 0}, {"SecondsPath": "$.s"}, {"TimestampPath": "$.past"}, {"TimestampPath": "$.soon"}]
)
def test_a_wait_lasts_for_its_seconds_or_until_its_timestamp(execute: Execute, fields: dict[str, Any]) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    value = {"s": 0, "past": "2020-01-01T00:00:00Z", "soon": soon.isoformat().replace("+00:00", "Z")}
    execution = execute({"W": {"Type": "Wait", "End": True, **fields}}, value)
    assert execution["output"] == value
    if "soon" in str(fields):
        assert execution["stopDate"] >= soon - timedelta(milliseconds=1)


def test_a_wait_for_an_invalid_time_fails(execute: Execute) -> None:
    for fields in ({"SecondsPath": "$.t"}, {"TimestampPath": "$.t"}):
        execution = execute({"W": {"Type": "Wait", "End": True, **fields}}, {"t": "soon"})
        assert (execution["status"], execution["error"]) == ("FAILED", "States.Runtime")


@pytest.mark.parametrize(
    ("fields", "error", "cause"),
    [
        ({"Error": "Mine", "Cause": "why"}, "Mine", "why"),
        ({"ErrorPath": "$.e", "CausePath": "States.Format('it was {}', $.c)"}, "E", "it was 5"),
        ({}, None, None),
    ],
)
def test_a_fail_state_fails_with_its_error_and_cause(
    sfn: Any, execute: Execute, fields: dict[str, Any], error: str | None, cause: str | None
) -> None:
    execution = execute({"F": {"Type": "Fail", **fields}}, {"e": "E", "c": 5})
    assert (execution["status"], execution.get("error"), execution.get("cause")) == ("FAILED", error, cause)
    assert kinds(sfn, execution["executionArn"]) == ["ExecutionStarted", "FailStateEntered", "ExecutionFailed"]


def test_branches_run_concurrently_and_their_outputs_are_in_order(sfn: Any, execute: Execute) -> None:
    slow = {
        "StartAt": "W",
        "States": {"W": {"Type": "Wait", "Seconds": 1, "Next": "S"}, "S": {**END, "Result": "slow"}},
    }
    also = {"StartAt": "W2", "States": {"W2": {"Type": "Wait", "Seconds": 1, "Next": "S2"}, "S2": {"Type": "Succeed"}}}
    states = {"P": {"Type": "Parallel", "Parameters": {"x.$": "$.n"}, "Branches": [slow, also],
                    "ResultSelector": {"both.$": "$"}, "ResultPath": "$.out", "End": True}}  # fmt: skip
    execution = execute(states, {"n": 1})
    assert execution["output"] == {"n": 1, "out": {"both": ["slow", {"x": 1}]}}
    history = events(sfn, execution["executionArn"])
    entered = [event["timestamp"] for event in history if event["type"] == "WaitStateEntered"]
    exited = [event["timestamp"] for event in history if event["type"] == "WaitStateExited"]
    assert max(entered) < min(exited)


def test_a_failed_branch_stops_the_others_and_is_caught(sfn: Any, execute: Execute) -> None:
    fails = {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "Mine", "Cause": "why"}}}
    waits = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1000, "End": True}}}
    states = {
        "P": {"Type": "Parallel", "Branches": [waits, fails], "End": True,
              "Catch": [{"ErrorEquals": ["Other"], "Next": "No"},
                        {"ErrorEquals": ["States.ALL"], "ResultPath": "$.caught", "Next": "Yes"}]},
        "No": {"Type": "Fail"},
        "Yes": {"Type": "Succeed"},
    }  # fmt: skip
    execution = execute(states, {"n": 1})
    assert execution["output"] == {"n": 1, "caught": {"Error": "Mine", "Cause": "why"}}
    assert kinds(sfn, execution["executionArn"])[3:] == [
        "WaitStateEntered",
        "FailStateEntered",
        "WaitStateAborted",
        "ParallelStateFailed",
        "ParallelStateExited",
        "SucceedStateEntered",
        "SucceedStateExited",
        "ExecutionSucceeded",
    ]


def test_an_execution_times_out(sfn: Any, execute: Execute) -> None:
    execution = execute({"W": {"Type": "Wait", "Seconds": 1000, "End": True}}, TimeoutSeconds=1)
    assert execution["status"] == "TIMED_OUT"
    assert kinds(sfn, execution["executionArn"])[-2:] == ["WaitStateAborted", "ExecutionTimedOut"]


def test_output_above_the_size_limit_fails_and_states_all_does_not_match_it(execute: Execute) -> None:
    doubled = {"a.$": "$.a", "b.$": "$.a"}
    states = {
        "P": {"Type": "Parallel", "Branches": [{"StartAt": "D", "States": {"D": {**END, "Parameters": doubled}}}],
              "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "No"}], "End": True},
        "No": {"Type": "Succeed"},
    }  # fmt: skip
    execution = execute(states, {"a": "x" * 200_000})
    assert (execution["status"], execution["error"]) == ("FAILED", "States.DataLimitExceeded")
    assert "The state/task 'D' returned a result with a size exceeding" in execution["cause"]


def test_the_history_links_every_event_to_the_one_that_led_to_it(sfn: Any, machine: Callable[..., str]) -> None:
    arn = machine({"M": {**inline({"I": END}), "ItemsPath": "$.l"}})
    started = sfn.start_execution(stateMachineArn=arn, input='{"l": [7, 8]}')["executionArn"]
    wait_for_end(sfn, started)
    history = events(sfn, started)
    assert [event["id"] for event in history] == list(range(1, len(history) + 1))
    links = {event["id"]: (event["type"], event["previousEventId"]) for event in history}
    assert links[1] == ("ExecutionStarted", 0)
    assert links[2] == ("MapStateEntered", 0)
    assert links[3] == ("MapStateStarted", 2)
    chains = {}
    for event in history:
        if event["type"] == "MapIterationSucceeded":
            chain, at = [], event["id"]
            while at:
                chain.append(links[at][0])
                at = links[at][1]
            chains[event["mapIterationSucceededEventDetails"]["index"]] = chain[::-1]
    expected = ["MapStateEntered", "MapStateStarted", "MapIterationStarted", "PassStateEntered", "PassStateExited"]
    assert chains == {index: [*expected, "MapIterationSucceeded"] for index in (0, 1)}
    assert [links[event_id][0] for event_id in sorted(links)[-3:]] == [
        "MapStateSucceeded",
        "MapStateExited",
        "ExecutionSucceeded",
    ]
    assert history[0]["executionStartedEventDetails"]["input"] == '{"l": [7, 8]}'
    assert history[-2]["stateExitedEventDetails"]["output"] == "[7,8]"
    without = sfn.get_execution_history(executionArn=started, includeExecutionData=False)["events"]
    assert "input" not in without[0]["executionStartedEventDetails"]


def test_stopping_an_execution_aborts_it(sfn: Any, machine: Callable[..., str]) -> None:
    arn = machine({"W": {"Type": "Wait", "Seconds": 1000, "End": True}})
    started = sfn.start_execution(stateMachineArn=arn)["executionArn"]
    began = time.monotonic()
    sfn.stop_execution(executionArn=started, error="Mine", cause="why")
    assert time.monotonic() - began < 30
    stopped = sfn.describe_execution(executionArn=started)
    assert (stopped["status"], stopped["error"], stopped["cause"]) == ("ABORTED", "Mine", "why")
    assert kinds(sfn, started)[-1] == "ExecutionAborted"
    again = sfn.stop_execution(executionArn=started)
    assert again["stopDate"] == stopped["stopDate"], "an ended execution is unchanged"
