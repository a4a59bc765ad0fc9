"""The API: its operations, errors and pages."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulator.aws.stepfunctions.conftest import events, invoke, wait_for_end
from tests.emulator.conftest import ROLE, archive

END = {"Type": "Pass", "End": True}
TEXT = json.dumps({"StartAt": "A", "States": {"A": END}})


def error_of(call: Callable[..., Any], **arguments: Any) -> tuple[str, str]:
    """Return the code and the message of a call's error."""
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    error = raised.value.response["Error"]
    return error["Code"], error["Message"]


def test_a_state_machine_is_created_described_listed_updated_and_deleted(sfn: Any) -> None:
    created = sfn.create_state_machine(name="life", definition=TEXT, roleArn=ROLE, tags=[{"key": "a", "value": "1"}])
    arn = created["stateMachineArn"]
    assert arn == "arn:aws:states:us-east-1:123456789012:stateMachine:life"
    assert sfn.create_state_machine(name="life", definition=TEXT, roleArn=ROLE)["stateMachineArn"] == arn
    other = TEXT.replace("Pass", "Succeed").replace(', "End": true', "")
    code, _ = error_of(sfn.create_state_machine, name="life", definition=other, roleArn=ROLE)
    assert code == "StateMachineAlreadyExists"
    before = sfn.describe_state_machine(stateMachineArn=arn)
    assert (before["name"], before["type"], before["status"]) == ("life", "STANDARD", "ACTIVE")
    assert before["definition"] == TEXT
    assert arn in [found["stateMachineArn"] for found in sfn.list_state_machines()["stateMachines"]]
    updated = sfn.update_state_machine(stateMachineArn=arn, definition=other)
    after = sfn.describe_state_machine(stateMachineArn=arn)
    assert (after["definition"], after["revisionId"]) == (other, updated["revisionId"])
    assert "revisionId" not in before
    sfn.tag_resource(resourceArn=arn, tags=[{"key": "b", "value": "2"}])
    sfn.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert sfn.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "b", "value": "2"}]
    sfn.delete_state_machine(stateMachineArn=arn)
    sfn.delete_state_machine(stateMachineArn=arn)
    assert error_of(sfn.describe_state_machine, stateMachineArn=arn)[0] == "StateMachineDoesNotExist"


def test_an_invalid_definition_is_rejected_with_the_location_of_the_mistake(
    sfn: Any, machine: Callable[..., str]
) -> None:
    processor = {"StartAt": "X", "States": {"X": {"Type": "Pass", "Next": "Y"}}}
    states = {"Map": {"Type": "Map", "ItemProcessor": processor, "End": True}}
    text = json.dumps({"StartAt": "Map", "States": states})
    location = "/States/Map/ItemProcessor/States/X/Next"
    expected = f"MISSING_TRANSITION_TARGET: no state is named 'Y' at {location}"
    for code, message in (
        error_of(sfn.create_state_machine, name="wrong", definition=text, roleArn=ROLE),
        error_of(sfn.update_state_machine, stateMachineArn=machine({"A": END}), definition=text),
    ):
        assert code == "InvalidDefinition"
        assert message.startswith("Invalid State Machine Definition: '")
        assert expected in message
    validated = sfn.validate_state_machine_definition(definition=text)
    assert validated["result"] == "FAIL"
    assert validated["diagnostics"][0] == {
        "severity": "ERROR",
        "code": "MISSING_TRANSITION_TARGET",
        "message": "no state is named 'Y'",
        "location": location,
    }
    assert sfn.validate_state_machine_definition(definition=TEXT) | {"ResponseMetadata": 0} == {
        "result": "OK",
        "diagnostics": [],
        "truncated": False,
        "ResponseMetadata": 0,
    }


@pytest.mark.parametrize("name", ["a b", "a/b", "a*", "a#", "a\u0085b"])
def test_an_invalid_name_is_rejected(sfn: Any, machine: Callable[..., str], name: str) -> None:
    assert error_of(sfn.create_state_machine, name=name, definition=TEXT, roleArn=ROLE)[0] == "InvalidName"
    assert error_of(sfn.start_execution, stateMachineArn=machine({"A": END}), name=name)[0] == "InvalidName"


def test_errors_have_awss_codes(sfn: Any, machine: Callable[..., str]) -> None:
    arn = machine({"A": END})
    unknown = "arn:aws:states:us-east-1:123456789012:execution:none:none"
    for call, arguments, code in (
        (sfn.start_execution, {"stateMachineArn": "x"}, "InvalidArn"),
        (sfn.start_execution, {"stateMachineArn": arn + "x"}, "StateMachineDoesNotExist"),
        (sfn.start_execution, {"stateMachineArn": arn, "input": "{"}, "InvalidExecutionInput"),
        (sfn.start_execution, {"stateMachineArn": arn, "input": "NaN"}, "InvalidExecutionInput"),
        (sfn.start_execution, {"stateMachineArn": arn, "input": json.dumps("x" * 262_143)}, "ValidationException"),
        (sfn.start_sync_execution, {"stateMachineArn": arn}, "StateMachineTypeNotSupported"),
        (sfn.describe_execution, {"executionArn": arn}, "InvalidArn"),
        (sfn.describe_execution, {"executionArn": unknown}, "ExecutionDoesNotExist"),
        (sfn.stop_execution, {"executionArn": unknown}, "ExecutionDoesNotExist"),
        (sfn.get_execution_history, {"executionArn": unknown}, "ExecutionDoesNotExist"),
        (sfn.describe_map_run, {"mapRunArn": unknown.replace("execution", "mapRun")}, "ResourceNotFound"),
        (sfn.list_executions, {}, "ValidationException"),
        (sfn.list_executions, {"stateMachineArn": arn, "nextToken": "x"}, "InvalidToken"),
        (sfn.update_state_machine, {"stateMachineArn": arn}, "MissingRequiredParameter"),
        (sfn.list_executions, {"stateMachineArn": arn, "nextToken": "LTE="}, "InvalidToken"),
        (sfn.tag_resource, {"resourceArn": arn, "tags": [{"key": str(n)} for n in range(51)]}, "TooManyTags"),
        (sfn.create_activity, {"name": "a"}, "NotImplementedException"),
    ):
        assert error_of(call, **arguments)[0] == code, arguments


def test_starting_a_running_execution_again_with_the_same_input_returns_it(
    sfn: Any, machine: Callable[..., str]
) -> None:
    arn = machine({"W": {"Type": "Wait", "SecondsPath": "$.s", "End": True}})
    first = sfn.start_execution(stateMachineArn=arn, name="one", input='{"s": 1000}')
    assert first["executionArn"].endswith(":one")
    assert sfn.start_execution(stateMachineArn=arn, name="one", input='{"s": 1000}') | {
        "ResponseMetadata": 0
    } == first | {"ResponseMetadata": 0}
    again = {"stateMachineArn": arn, "name": "one", "input": '{"s": 0}'}
    assert error_of(sfn.start_execution, **again)[0] == "ExecutionAlreadyExists"
    sfn.stop_execution(executionArn=first["executionArn"])
    again["input"] = '{"s": 1000}'
    assert error_of(sfn.start_execution, **again)[0] == "ExecutionAlreadyExists"


def test_executions_are_listed_in_pages_and_by_status(sfn: Any, machine: Callable[..., str]) -> None:
    arn = machine({"A": END})
    started = [sfn.start_execution(stateMachineArn=arn)["executionArn"] for _ in range(5)]
    for execution in started:
        wait_for_end(sfn, execution)
    pages = sfn.get_paginator("list_executions").paginate(stateMachineArn=arn, PaginationConfig={"PageSize": 2})
    listed = [[found["executionArn"] for found in page["executions"]] for page in pages]
    assert [len(page) for page in listed] == [2, 2, 1]
    assert [execution for page in listed for execution in page] == started[::-1]
    assert sfn.list_executions(stateMachineArn=arn, statusFilter="FAILED")["executions"] == []
    page = sfn.get_execution_history(executionArn=started[0], maxResults=3)
    rest = sfn.get_execution_history(executionArn=started[0], maxResults=3, nextToken=page["nextToken"])
    assert [event["id"] for event in page["events"] + rest["events"]] == [1, 2, 3, 4]
    assert "nextToken" not in rest


def test_an_express_workflow_runs_synchronously_and_cannot_be_described(sfn: Any, machine: Callable[..., str]) -> None:
    arn = machine({"A": {**END, "Parameters": {"y.$": "$.x"}}}, "EXPRESS")
    answer = sfn.start_sync_execution(stateMachineArn=arn, input='{"x": 1}')
    assert (answer["status"], json.loads(answer["output"])) == ("SUCCEEDED", {"y": 1})
    assert answer["billingDetails"]["billedDurationInMilliseconds"] >= 100
    failed = sfn.start_sync_execution(stateMachineArn=arn, input="{}")
    assert (failed["status"], failed["error"]) == ("FAILED", "States.Runtime")
    started = sfn.start_execution(stateMachineArn=arn, input='{"x": 1}')["executionArn"]
    assert ":express:" in started
    assert error_of(sfn.describe_execution, executionArn=started)[0] == "InvalidArn"
    assert error_of(sfn.list_executions, stateMachineArn=arn)[0] == "StateMachineTypeNotSupported"


def test_a_running_execution_continues_with_the_previous_revision(sfn: Any, machine: Callable[..., str]) -> None:
    arn = machine({"W": {"Type": "Wait", "Seconds": 1, "Next": "A"}, "A": {**END, "Result": "old"}})
    started = sfn.start_execution(stateMachineArn=arn)["executionArn"]
    sfn.update_state_machine(stateMachineArn=arn, definition=TEXT)
    assert wait_for_end(sfn, started)["output"] == "old"
    described = sfn.describe_state_machine_for_execution(executionArn=started)
    assert "old" in described["definition"]


def test_requests_are_checked_by_the_model(raw: Callable[..., tuple[str, str]]) -> None:
    """What no client would send is refused with AWS's wording."""
    for operation, members, expected in (
        (
            "DescribeStateMachine",
            {},
            "Value null at 'stateMachineArn' failed to satisfy constraint: Member must not be null",
        ),
        (
            "ListExecutions",
            {"stateMachineArn": "x", "maxResults": 1001, "nextToken": "x" * 3097},
            "Value '1001' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to "
            f"1000; Value '{'x' * 3097}' at 'nextToken' failed to satisfy constraint: Member must have length less "
            "than or equal to 3096",
        ),
        (
            "StartExecution",
            {"stateMachineArn": "x", "input": " " * 262_145},
            "Value at 'input' failed to satisfy constraint: Member must have length less than or equal to 262144",
        ),
        (
            "CreateStateMachine",
            {"name": "n", "definition": "{}", "roleArn": ROLE, "type": "fast"},
            "Value 'fast' at 'type' failed to satisfy constraint: Member must satisfy enum value set: "
            "[STANDARD, EXPRESS]",
        ),
    ):
        code, message = raw("AWSStepFunctions", operation, members)
        count = expected.count("; Value") + 1
        assert code == "ValidationException"
        assert message == f"{count} validation error{'s' * (count > 1)} detected: {expected}"
    assert raw("AWSStepFunctions", "StartExecution", {"stateMachineArn": 1})[0] == "SerializationException"
    code, message = raw("AWSStepFunctions", "CreateActivity", {"name": "a"})
    assert (code, "CreateActivity is not emulated" in message) == ("NotImplementedException", True)
    assert raw("AWSStepFunctions", "NoSuchThing", {})[0] == "UnknownOperationException"


def test_equal_names_of_two_regions_are_apart(
    client: Callable[..., Any], sfn: Any, machine: Callable[..., str], deploy: Callable[..., str]
) -> None:
    """A state machine of another region runs the functions of that region, and is not found in this one."""
    ireland, name = (
        client("stepfunctions", "eu-west-1"),
        machine({"A": {**END, "Result": "us-east-1"}}).rpartition(":")[2],
    )
    source = (
        "import os\ndef handler(event, context):\n    return [os.environ['AWS_REGION'], context.invoked_function_arn]"
    )
    function = deploy(source)
    functions = client("lambda", "eu-west-1")
    code = {"ZipFile": archive(main=source)}
    functions.create_function(
        FunctionName=function, Runtime="python3.11", Handler="main.handler", Role=ROLE, Code=code, Timeout=20
    )
    states = {"StartAt": "A", "States": {"A": invoke(function)}}
    made = ireland.create_state_machine(name=name, definition=json.dumps(states), roleArn=ROLE)["stateMachineArn"]
    assert made == f"arn:aws:states:eu-west-1:123456789012:stateMachine:{name}"
    assert [found["stateMachineArn"] for found in ireland.list_state_machines()["stateMachines"]] == [made]
    assert made not in [found["stateMachineArn"] for found in sfn.list_state_machines()["stateMachines"]]
    started = ireland.start_execution(stateMachineArn=made)["executionArn"]
    assert started.startswith(f"arn:aws:states:eu-west-1:123456789012:execution:{name}:")
    ended = wait_for_end(ireland, started)
    assert ended["output"] == ["eu-west-1", f"arn:aws:lambda:eu-west-1:123456789012:function:{function}"]
    assert {
        event["taskScheduledEventDetails"]["region"]
        for event in events(ireland, started)
        if event["type"] == "TaskScheduled"
    } == {"eu-west-1"}
    assert error_of(sfn.describe_execution, executionArn=started)[0] == "ExecutionDoesNotExist"
    assert error_of(sfn.start_execution, stateMachineArn=made)[0] == "StateMachineDoesNotExist"
    groups = client("logs", "eu-west-1").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{function}")["logGroups"]
    assert [group["logGroupName"] for group in groups] == [f"/aws/lambda/{function}"]
    ireland.delete_state_machine(stateMachineArn=made)
    assert sfn.describe_state_machine(stateMachineArn=made.replace("eu-west-1", "us-east-1"))["name"] == name
    functions.delete_function(FunctionName=function)
