"""Map states, inline and distributed."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from emulator.cloud import LocalCloud
from tests.emulator.aws.stepfunctions.conftest import distributed, events, inline, invoke, kinds, wait_for_end

Execute = Callable[..., dict[str, Any]]
END = {"Type": "Pass", "End": True}
FAIL_ON_BAD = {
    "C": {"Type": "Choice", "Choices": [{"Variable": "$", "StringEquals": "bad", "Next": "F"}], "Default": "S"},
    "F": {"Type": "Fail", "Error": "Bad", "Cause": "why"},
    "S": {"Type": "Succeed"},
}


def run(sfn: Any, machine: Callable[..., str], states: dict[str, Any], value: Any) -> dict[str, Any]:
    """Run an execution to its end; return its description."""
    started = sfn.start_execution(stateMachineArn=machine(states), input=json.dumps(value))
    return wait_for_end(sfn, started["executionArn"])


def map_run_of(sfn: Any, execution: dict[str, Any]) -> dict[str, Any]:
    (listed,) = sfn.list_map_runs(executionArn=execution["executionArn"])["mapRuns"]
    described: dict[str, Any] = sfn.describe_map_run(mapRunArn=listed["mapRunArn"])
    return described


@pytest.mark.parametrize("mode", [inline, distributed])
def test_outputs_are_in_item_order_and_selectors_are_evaluated_on_the_input(
    execute: Execute, mode: Callable[..., Any]
) -> None:
    selector = {"n.$": "$$.Map.Item.Value.n", "i.$": "$$.Map.Item.Index", "all.$": "$.all"}
    state = mode({"I": END}, ItemsPath="$.l", ItemSelector=selector, ResultPath="$.l")
    output = execute({"M": state}, {"all": "x", "l": [{"n": 5}, {"n": 6}]})["output"]
    assert output == {"all": "x", "l": [{"n": 5, "i": 0, "all": "x"}, {"n": 6, "i": 1, "all": "x"}]}


@pytest.mark.parametrize("mode", [inline, distributed])
def test_no_items_give_no_outputs_and_a_value_other_than_an_array_fails(
    execute: Execute, mode: Callable[..., Any]
) -> None:
    states = {"M": mode({"I": END}, ItemsPath="$.l")}
    assert execute(states, {"l": []})["output"] == []
    execution = execute(states, {"l": {"a": 1}})
    assert (execution["status"], execution["error"]) == ("FAILED", "States.Runtime")
    assert "Reference path '$.l' must point to array" in execution["cause"]


def test_the_former_field_names_of_an_inline_map_are_supported(execute: Execute) -> None:
    state = {"Type": "Map", "Iterator": {"StartAt": "I", "States": {"I": END}}, "End": True,
             "Parameters": {"v.$": "$$.Map.Item.Value"}}  # fmt: skip
    assert execute({"M": state}, [1, 2])["output"] == [{"v": 1}, {"v": 2}]


@pytest.mark.parametrize("mode", [inline, distributed])
@pytest.mark.parametrize("field", [{"MaxConcurrency": 2}, {"MaxConcurrencyPath": "$.most"}])
def test_max_concurrency_limits_the_concurrent_items(
    sfn: Any, cloud: LocalCloud, machine: Callable[..., str], mode: Callable[..., Any], field: dict[str, Any]
) -> None:
    states = {"M": mode({"W": {"Type": "Wait", "Seconds": 0, "Next": "P"}, "P": END}, ItemsPath="$.l", **field)}
    execution = run(sfn, machine, states, {"l": list(range(9)), "most": 2})
    (record,) = [found for found in cloud.executions() if found.arn == execution["executionArn"]]
    assert [item.index for item in record.items] == list(range(9))
    assert {item.status for item in record.items} == {"SUCCEEDED"}
    for item in record.items:
        at_once = [other for other in record.items if other.started_at <= item.started_at < (other.stopped_at or 0)]
        assert len(at_once) <= 2


def test_many_items_do_not_exceed_the_recursion_limit(execute: Execute) -> None:
    states = {"M": inline({"I": END}, MaxConcurrency=1)}
    assert execute(states, list(range(3000)))["output"] == list(range(3000))


def test_a_failed_iteration_stops_the_others(sfn: Any, machine: Callable[..., str], cloud: LocalCloud) -> None:
    waits = {
        "C": {"Type": "Choice", "Choices": [{"Variable": "$", "StringEquals": "bad", "Next": "F"}], "Default": "W"},
        "F": {"Type": "Fail", "Error": "Bad", "Cause": "why"},
        "W": {"Type": "Wait", "Seconds": 1000, "End": True},
    }
    execution = run(sfn, machine, {"M": inline(waits)}, ["good", "bad"])
    assert (execution["status"], execution["error"], execution["cause"]) == ("FAILED", "Bad", "why")
    ends = kinds(sfn, execution["executionArn"])[-5:]
    assert ends == [
        "MapIterationFailed",
        "WaitStateAborted",
        "MapIterationAborted",
        "MapStateFailed",
        "ExecutionFailed",
    ]
    (record,) = [found for found in cloud.executions() if found.arn == execution["executionArn"]]
    assert [item.status for item in record.items] == ["ABORTED", "FAILED"]


def test_a_map_is_retried_and_caught(execute: Execute) -> None:
    state = inline(FAIL_ON_BAD, Retry=[{"ErrorEquals": ["Bad"], "IntervalSeconds": 1, "MaxAttempts": 1}],
                   Catch=[{"ErrorEquals": ["Bad"], "Next": "Done"}])  # fmt: skip
    states = {"M": state, "Done": {"Type": "Succeed"}}
    assert execute(states, ["bad"])["output"] == {"Error": "Bad", "Cause": "why"}


def test_a_failed_child_fails_the_map_run(sfn: Any, machine: Callable[..., str]) -> None:
    execution = run(sfn, machine, {"M": distributed(FAIL_ON_BAD, Label="mine")}, ["good", "bad"])
    assert (execution["status"], execution["error"]) == ("FAILED", "States.ExceedToleratedFailureThreshold")
    assert execution["cause"] == "The specified tolerated failure threshold was exceeded: Bad: why"
    map_run = map_run_of(sfn, execution)
    assert "/mine:" in map_run["mapRunArn"]
    assert map_run["status"] == "FAILED"
    assert (map_run["itemCounts"]["failed"], map_run["itemCounts"]["total"]) == (1, 2)
    assert kinds(sfn, execution["executionArn"])[-4:] == [
        "MapRunStarted",
        "MapRunFailed",
        "MapStateFailed",
        "ExecutionFailed",
    ]


@pytest.mark.parametrize(
    "tolerance",
    [{"ToleratedFailureCount": 1}, {"ToleratedFailurePercentage": 50}, {"ToleratedFailureCountPath": "$.most"}],
)
def test_tolerated_failures_are_described_in_the_output(
    sfn: Any, machine: Callable[..., str], tolerance: dict[str, Any]
) -> None:
    states = {"M": distributed(FAIL_ON_BAD, ItemsPath="$.l", **tolerance)}
    execution = run(sfn, machine, states, {"l": ["good", "bad"], "most": 1})
    good, bad = execution["output"]
    assert good == "good"
    assert (bad["Status"], bad["Error"], bad["Cause"], bad["Input"]) == ("FAILED", "Bad", "why", '"bad"')
    map_run = map_run_of(sfn, execution)
    counts = map_run["executionCounts"]
    assert (map_run["status"], counts["succeeded"], counts["failed"], counts["running"]) == ("SUCCEEDED", 1, 1, 0)
    children = sfn.list_executions(mapRunArn=map_run["mapRunArn"])["executions"]
    assert sorted(child["status"] for child in children) == ["FAILED", "SUCCEEDED"]
    failed = sfn.list_executions(mapRunArn=map_run["mapRunArn"], statusFilter="FAILED")["executions"]
    child = sfn.describe_execution(executionArn=failed[0]["executionArn"])
    assert (child["input"], child["error"], child["mapRunArn"]) == ('"bad"', "Bad", map_run["mapRunArn"])


def test_standard_children_have_their_own_history_and_state_machine(sfn: Any, machine: Callable[..., str]) -> None:
    execution = run(sfn, machine, {"M": distributed({"I": END}, "STANDARD", Label="L")}, ["x"])
    (child,) = sfn.list_executions(mapRunArn=map_run_of(sfn, execution)["mapRunArn"])["executions"]
    assert kinds(sfn, child["executionArn"]) == [
        "ExecutionStarted",
        "PassStateEntered",
        "PassStateExited",
        "ExecutionSucceeded",
    ]
    described = sfn.describe_state_machine_for_execution(executionArn=child["executionArn"])
    assert described["label"] == "L"
    assert described["stateMachineArn"].endswith("/L")


def test_stopping_stops_the_children_too(sfn: Any, machine: Callable[..., str], cloud: LocalCloud) -> None:
    waits = {"W": {"Type": "Wait", "Seconds": 1000, "End": True}}
    arn = machine({"M": distributed(waits, MaxConcurrency=2)})
    started = sfn.start_execution(stateMachineArn=arn, input="[1, 2, 3]")["executionArn"]
    deadline = time.monotonic() + 30
    while kinds(sfn, started)[-1] != "MapRunStarted" or len(cloud.executions()[0].items) < 2:
        assert time.monotonic() < deadline
    sfn.stop_execution(executionArn=started)
    map_run = map_run_of(sfn, {"executionArn": started})
    assert map_run["status"] == "ABORTED"
    assert (map_run["itemCounts"]["aborted"], map_run["itemCounts"]["running"]) == (3, 0)
    assert kinds(sfn, started)[-3:] == ["MapRunAborted", "MapStateAborted", "ExecutionAborted"]


def reader(bucket: str, key: str, **config: Any) -> dict[str, Any]:
    return {
        "Resource": "arn:aws:states:::s3:getObject",
        "ReaderConfig": config,
        "Parameters": {"Bucket": bucket, "Key.$": "$.key"} if key == "$.key" else {"Bucket": bucket, "Key": key},
    }


@pytest.mark.parametrize(
    ("document", "config", "items"),
    [
        ('[{"a": 1}, 2]', {"InputType": "JSON"}, [{"a": 1}, 2]),
        ('{"in": {"a": [1, 2, 3]}}', {"InputType": "JSON", "ItemsPointer": "/in/a", "MaxItems": 2}, [1, 2]),
        ('1\n{"a": "x"}\n', {"InputType": "JSONL"}, [1, {"a": "x"}]),
        ("a,b\n1,2\n", {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"}, [{"a": "1", "b": "2"}]),
        (
            "1;2\n",
            {"InputType": "CSV", "CSVHeaderLocation": "GIVEN", "CSVHeaders": ["x", "y"], "CSVDelimiter": "SEMICOLON"},
            [{"x": "1", "y": "2"}],
        ),
    ],
)
def test_items_are_read_from_s3(
    s3: Any, bucket: str, execute: Execute, document: str, config: dict[str, Any], items: list[Any]
) -> None:
    s3.put_object(Bucket=bucket, Key="items", Body=document.encode())
    states = {"M": distributed({"I": END}, ItemReader=reader(bucket, "$.key", **config))}
    assert execute(states, {"key": "items"})["output"] == items


def test_items_are_the_objects_with_a_prefix(s3: Any, bucket: str, execute: Execute) -> None:
    for key in ("in/1", "in/2", "out/3"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"abc")
    listing = {"Resource": "arn:aws:states:::s3:listObjectsV2", "Parameters": {"Bucket": bucket, "Prefix": "in/"}}
    output = execute({"M": distributed({"I": END}, ItemReader=listing)})["output"]
    assert [(item["Key"], item["Size"], item["StorageClass"]) for item in output] == [
        ("in/1", 3, "STANDARD"),
        ("in/2", 3, "STANDARD"),
    ]


def test_items_that_cannot_be_read_fail_the_map_run(
    sfn: Any, s3: Any, bucket: str, machine: Callable[..., str]
) -> None:
    s3.put_object(Bucket=bucket, Key="object", Body=b"{}")
    for key, cause in (("none", "NoSuchKey"), ("object", "Attempting to map over non-iterable node")):
        states = {"M": distributed({"I": END}, ItemReader=reader(bucket, key, InputType="JSON"))}
        execution = run(sfn, machine, states, {})
        assert (execution["status"], execution["error"]) == ("FAILED", "States.ItemReaderFailed")
        assert cause in execution["cause"]
        assert map_run_of(sfn, execution)["status"] == "FAILED"


def test_items_are_passed_to_children_in_batches(sfn: Any, machine: Callable[..., str]) -> None:
    batcher = {"MaxItemsPerBatch": 2, "BatchInput": {"b.$": "$.b"}}
    states = {"M": distributed({"I": END}, ItemsPath="$.l", ItemBatcher=batcher)}
    execution = run(sfn, machine, states, {"l": [1, 2, 3], "b": "x"})
    assert execution["output"] == [
        {"BatchInput": {"b": "x"}, "Items": [1, 2]},
        {"BatchInput": {"b": "x"}, "Items": [3]},
    ]
    map_run = map_run_of(sfn, execution)
    assert (map_run["itemCounts"]["total"], map_run["executionCounts"]["total"]) == (3, 2)
    children = sfn.list_executions(mapRunArn=map_run["mapRunArn"])["executions"]
    assert sorted(child["itemCount"] for child in children) == [1, 2]


def test_results_are_written_to_s3_with_a_manifest(sfn: Any, s3: Any, bucket: str, machine: Callable[..., str]) -> None:
    writer = {"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": bucket, "Prefix": "out"}}
    states = {"M": distributed(FAIL_ON_BAD, ResultWriter=writer, ToleratedFailureCount=1)}
    execution = run(sfn, machine, states, ["good", "bad", "fine"])
    output = execution["output"]
    map_run = map_run_of(sfn, execution)
    assert output["MapRunArn"] == map_run["mapRunArn"]
    assert map_run["itemCounts"]["resultsWritten"] == 3

    def read(key: str) -> Any:
        return json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    assert output["ResultWriterDetails"]["Bucket"] == bucket
    manifest = read(output["ResultWriterDetails"]["Key"])
    files = {name: [read(file["Key"]) for file in listed] for name, listed in manifest["ResultFiles"].items()}
    assert [result["Output"] for result in files["SUCCEEDED"][0]] == ['"good"', '"fine"']
    assert [(result["Input"], result["Error"]) for result in files["FAILED"][0]] == [('"bad"', "Bad")]
    assert files["PENDING"] == []


def test_results_are_flattened_without_being_written_to_s3(execute: Execute) -> None:
    writer = {"WriterConfig": {"Transformation": "FLATTEN"}}
    states = {"M": distributed({"I": END}, ResultWriter=writer)}
    assert execute(states, [[1, 2], 3, []])["output"] == [1, 2, 3]


def test_the_record_contains_items_invocations_transitions_and_warnings(
    sfn: Any, cloud: LocalCloud, machine: Callable[..., str], deploy: Callable[..., str]
) -> None:
    name = deploy("def handler(event, context): return context.aws_request_id")
    states = {"M": {**distributed({"T": invoke(name)}), "End": False, "Next": "N"}, "N": inline({"I": END})}
    del states["M"]["End"]
    execution = run(sfn, machine, states, list(range(41)))
    (record,) = [found for found in cloud.executions() if found.arn == execution["executionArn"]]
    assert record.status == "SUCCEEDED"
    assert record.started_at == pytest.approx(execution["startDate"].timestamp(), abs=0.001)
    assert [(item.map_state, item.index) for item in record.items] == [(m, i) for m in "MN" for i in range(41)]
    calls = sorted(record.lambda_calls, key=lambda call: call.index or 0)
    assert [call.index for call in calls] == list(range(41))
    assert [call.request_id for call in calls] == execution["output"]
    assert {(call.state, call.function, call.failed) for call in calls} == {("T", name, False)}
    assert record.transitions == 43, (
        "the Maps and the inline iterations: EXPRESS children are not charged by transition"
    )
    assert record.warnings == (
        "N: 41 concurrent iterations: AWS runs at most 40 of an inline Map, so ranks that wait for each other "
        "would block there forever; use a distributed Map",
    )
    assert [event["type"] for event in events(sfn, execution["executionArn"])].count("MapIterationStarted") == 41
