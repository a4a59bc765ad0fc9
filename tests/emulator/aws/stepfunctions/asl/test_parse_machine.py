"""The parser of definitions: valid ones, and the diagnostics of invalid ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emulator.fmi.functions
from emulator.aws.stepfunctions.asl.definition import ChoiceState, MachineType, MapState, TaskState, Transformation
from emulator.aws.stepfunctions.asl.diagnostics import DefinitionError, Diagnostic
from emulator.aws.stepfunctions.asl.parse_machine import parse_definition

few = settings(max_examples=50)

PASS = {"Type": "Pass", "End": True}
LAMBDA = {
    "Type": "Task",
    "Resource": "arn:aws:states:::lambda:invoke",
    "Parameters": {"FunctionName": "f"},
    "End": True,
}
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:f:live"


def of(states: dict[str, Any], **more: Any) -> str:
    return json.dumps({"StartAt": next(iter(states)), "States": states, **more})


def diagnostics_of(text: str, kind: MachineType = MachineType.STANDARD) -> tuple[Diagnostic, ...]:
    with pytest.raises(DefinitionError) as raised:
        parse_definition(text, kind)
    return raised.value.diagnostics


def only_diagnostic(text: str, kind: MachineType = MachineType.STANDARD) -> Diagnostic:
    found = diagnostics_of(text, kind)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("field", ["Retry", "Catch"])
def test_an_empty_list_of_retriers_or_catchers_is_valid(field: str) -> None:
    state = parse_definition(of({"T": {**LAMBDA, field: []}})).program.states["T"]
    assert isinstance(state, TaskState)
    assert (state.retriers, state.catchers) == ((), ())


@pytest.mark.parametrize(
    ("text", "location", "message"),
    [
        ("{", "", "invalid JSON: Expecting"),
        ("[]", "", "expected an object, got []"),
        (of({"A": {**PASS, "Result": float("nan")}}), "", "invalid JSON: NaN is not allowed in JSON"),
        (json.dumps({"States": {"A": PASS}}), "", "'StartAt' is required"),
        (json.dumps({"StartAt": "B", "States": {"A": PASS}}), "/StartAt", "no state is named 'B'"),
        (of({"A": PASS}, TimeoutSeconds=0), "/TimeoutSeconds", "expected an integer from 1 to"),
        (of({"A": PASS}, Timeout=5), "/Timeout", "unknown field 'Timeout' of a state machine"),
        (
            of({"A": PASS}, QueryLanguage="JSONata"),
            "/QueryLanguage",
            'expected JSONPath, the only query language emulated, got "JSONata"',
        ),
        (
            of({"A": {**PASS, "QueryLanguage": "JSONata"}}),
            "/States/A/QueryLanguage",
            'expected JSONPath, the only query language emulated, got "JSONata"',
        ),
        (of({"A": PASS, "B": PASS}), "/States/B", "'B' is not reachable"),
        (of({"A": {"Type": "Pass", "Next": "A"}}), "/States", "no reachable state is terminal"),
        (of({"A" * 81: PASS}), "/States/" + "A" * 81, "expected a state name of at most 80 characters, got 81"),
    ],
)
def test_a_mistake_in_a_state_machine_is_reported_at_its_location(text: str, location: str, message: str) -> None:
    found = diagnostics_of(text)
    assert (location, True) in [(diagnostic.location, message in diagnostic.message) for diagnostic in found], found


@pytest.mark.parametrize(
    ("state", "location", "message"),
    [
        ({"Type": "Work", "End": True}, "/Type", "expected one of Task, Pass, Choice"),
        ({"End": True}, "", "'Type' is required"),
        ({"Type": "Pass"}, "", "expected either Next, or End with true"),
        ({"Type": "Pass", "End": True, "Next": "A"}, "", "not both"),
        ({"Type": "Pass", "Next": "Y"}, "/Next", "no state is named 'Y'"),
        ({"Type": "Pass", "Next": 5}, "/Next", "expected a string, got 5"),
        ({**PASS, "Resource": "x"}, "/Resource", "unknown field 'Resource' of a Pass state"),
        ({**PASS, "InputPath": "a"}, "/InputPath", "expected a JSONPath that starts with $, got 'a'"),
        ({**PASS, "ResultPath": "$.a[*]"}, "/ResultPath", "expected a reference path"),
        (
            {**PASS, "Parameters": {"l": [{"x.$": "y"}]}},
            "/Parameters/l/0/x.$",
            "expected a JSONPath that starts with $",
        ),
        ({**PASS, "Parameters": {"x.$": 5}}, "/Parameters/x.$", "expected a JSONPath or a call"),
        ({**PASS, "Parameters": {"x.$": "States.Nope()"}}, "/Parameters/x.$", "unknown intrinsic function States.Nope"),
        ({**PASS, "Assign": 5}, "/Assign", "expected an object, got 5"),
        ({"Type": "Succeed", "Next": "A"}, "/Next", "unknown field 'Next' of a Succeed state"),
        ({"Type": "Fail", "Error": "E", "ErrorPath": "$.e"}, "/ErrorPath", "only one of Error and ErrorPath"),
        ({"Type": "Wait", "End": True}, "", "expected exactly one of Seconds"),
        ({"Type": "Wait", "Seconds": 1.5, "End": True}, "/Seconds", "expected an integer from 0"),
        ({"Type": "Wait", "Timestamp": "noon", "End": True}, "/Timestamp", "expected a timestamp such as"),
        ({"Type": "Choice", "Choices": []}, "/Choices", "at least 1 objects"),
        ({"Type": "Choice", "Choices": [{"Next": "A"}]}, "/Choices/0", "exactly one comparison"),
        (
            {"Type": "Choice", "Choices": [{"Variable": "$.a", "NumericIs": 1, "Next": "A"}]},
            "/Choices/0",
            "got none, but 'NumericIs'",
        ),
        (
            {"Type": "Choice", "Choices": [{"Variable": "$.a", "NumericEquals": "1", "Next": "A"}]},
            "/Choices/0/NumericEquals",
            'expected a number, got "1"',
        ),
        (
            {"Type": "Choice", "Choices": [{"Variable": "$.a", "IsNull": True, "Next": "Y"}]},
            "/Choices/0/Next",
            "no state is named 'Y'",
        ),
        (
            {"Type": "Choice", "Choices": [{"And": [{"Variable": "$.a", "IsNull": True, "Next": "A"}], "Next": "A"}]},
            "/Choices/0/And/0/Next",
            "expected Next only in the outermost rule",
        ),
        (
            {"Type": "Choice", "Default": "Y", "Choices": [{"Variable": "$", "IsNull": True, "Next": "A"}]},
            "/Default",
            "'Y'",
        ),
        ({"Type": "Parallel", "End": True}, "", "'Branches' is required"),
        (
            {
                "Type": "Parallel",
                "Branches": [{"StartAt": "X", "States": {"X": {"Type": "Pass", "Next": "A"}}}],
                "End": True,
            },
            "/Branches/0/States/X/Next",
            "no state is named 'A'",
        ),
        (
            {"Type": "Parallel", "Branches": [{"StartAt": "A", "States": {"A": PASS}}], "End": True},
            "/Branches/0/States/A",
            "duplicate state name 'A': a state at /States/A has the same name",
        ),
    ],
)
def test_a_mistake_in_a_state_is_reported_at_its_location(state: dict[str, Any], location: str, message: str) -> None:
    found = diagnostics_of(of({"A": state}))
    assert ("/States/A" + location, True) in [
        (diagnostic.location, message in diagnostic.message) for diagnostic in found
    ], found


@pytest.mark.parametrize(
    ("change", "location", "message"),
    [
        ({"Resource": 5}, "/Resource", "expected a string"),
        ({"Resource": "lambda"}, "/Resource", "expected the ARN of a Lambda function or of an integration"),
        ({"Resource": "arn:aws:states:::glue:startJobRun"}, "/Resource", "'glue:startJobRun' is not emulated"),
        ({"Resource": "arn:aws:states:::lambda:invoke.sync"}, "/Resource", "expected no .sync after lambda:invoke"),
        (
            {"Resource": "arn:aws:states:::lambda:invoke.soon"},
            "/Resource",
            "expected .sync, .sync:2, .waitForTaskToken",
        ),
        ({"Resource": "arn:aws:states:us-east-1:123456789012:activity:a"}, "/Resource", "activities are not emulated"),
        (
            {"Resource": "arn:aws:states:::aws-sdk:s3:getObject.sync"},
            "/Resource",
            "expected no .sync after an aws-sdk integration",
        ),
        ({"Parameters": {"Payload.$": "$"}}, "/Parameters", "'FunctionName' is required"),
        (
            {"Parameters": {"FunctionName": "f", "Event": 1}},
            "/Parameters/Event",
            "unknown field 'Event' of lambda:invoke",
        ),
        ({"TimeoutSeconds": 5, "HeartbeatSeconds": 5}, "/HeartbeatSeconds", "less than TimeoutSeconds (5)"),
        ({"TimeoutSeconds": 5, "TimeoutSecondsPath": "$.t"}, "/TimeoutSecondsPath", "only one of"),
        ({"Retry": {}}, "/Retry", "expected an array"),
        ({"Retry": [{"MaxAttempts": 1}]}, "/Retry/0", "'ErrorEquals' is required"),
        ({"Retry": [{"ErrorEquals": []}]}, "/Retry/0/ErrorEquals", "expected an array of error names"),
        ({"Retry": [{"ErrorEquals": ["States.All"]}]}, "/Retry/0/ErrorEquals", "unknown error 'States.All'"),
        ({"Retry": [{"ErrorEquals": ["States.ALL", "E"]}]}, "/Retry/0/ErrorEquals", "expected States.ALL alone"),
        (
            {"Retry": [{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["E"]}]},
            "/Retry/0/ErrorEquals",
            "in the last entry",
        ),
        ({"Retry": [{"ErrorEquals": ["E"], "BackoffRate": 0.5}]}, "/Retry/0/BackoffRate", "a number from 1"),
        ({"Retry": [{"ErrorEquals": ["E"], "IntervalSeconds": 0}]}, "/Retry/0/IntervalSeconds", "from 1 to"),
        (
            {"Retry": [{"ErrorEquals": ["E"], "IntervalSeconds": 5, "MaxDelaySeconds": 5}]},
            "/Retry/0/MaxDelaySeconds",
            "more than IntervalSeconds (5)",
        ),
        (
            {"Retry": [{"ErrorEquals": ["E"], "JitterStrategy": "SOME"}]},
            "/Retry/0/JitterStrategy",
            "expected one of FULL, NONE",
        ),
        ({"Retry": [{"ErrorEquals": ["E"], "Delay": 1}]}, "/Retry/0/Delay", "unknown field 'Delay' of a retrier"),
        ({"Catch": [{"ErrorEquals": ["E"]}]}, "/Catch/0", "'Next' is required"),
        ({"Catch": [{"ErrorEquals": ["E"], "Next": "Y"}]}, "/Catch/0/Next", "no state is named 'Y'"),
    ],
)
def test_a_mistake_in_a_task_is_reported_at_its_location(change: dict[str, Any], location: str, message: str) -> None:
    found = diagnostics_of(of({"A": {**LAMBDA, **change}}))
    assert ("/States/A" + location, True) in [
        (diagnostic.location, message in diagnostic.message) for diagnostic in found
    ], found


DISTRIBUTED = {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"}
READER = {
    "Resource": "arn:aws:states:::s3:getObject",
    "ReaderConfig": {"InputType": "JSON"},
    "Parameters": {"Bucket": "b", "Key": "k"},
}


def a_map(config: dict[str, str] | None, **more: Any) -> str:
    processor = {"StartAt": "X", "States": {"X": PASS}, **({"ProcessorConfig": config} if config else {})}
    return of({"M": {"Type": "Map", "ItemProcessor": processor, "End": True, **more}})


def test_an_express_workflow_has_no_task_tokens_and_no_distributed_maps() -> None:
    waiting = of({"A": {**LAMBDA, "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken"}})
    assert parse_definition(waiting)
    assert only_diagnostic(waiting, MachineType.EXPRESS).location == "/States/A/Resource"
    assert only_diagnostic(a_map(DISTRIBUTED), MachineType.EXPRESS).message.startswith(
        "expected INLINE: an EXPRESS workflow cannot have a distributed Map"
    )


def test_states_nested_too_deeply_are_reported() -> None:
    text = json.dumps(PASS)
    for level in range(3000):
        name = f"S{level}"
        program = f'{{"StartAt": "{name}", "States": {{"{name}": {text}}}}}'
        text = f'{{"Type": "Parallel", "Branches": [{program}], "End": true}}'
    found = diagnostics_of(f'{{"StartAt": "A", "States": {{"A": {text}}}}}')
    assert found[-1].code in ("INVALID_JSON_DESCRIPTION", "TOO_DEEPLY_NESTED")


def test_all_mistakes_are_reported_together_with_awss_codes() -> None:
    found = diagnostics_of(
        of({"A": {"Type": "Pass", "Next": "Y"}, "B": {**LAMBDA, "Resource": "r"}, "C": {"Type": "Wait"}})
    )
    assert {(diagnostic.code, diagnostic.location) for diagnostic in found} >= {
        ("MISSING_TRANSITION_TARGET", "/States/A/Next"),
        ("INVALID_RESOURCE", "/States/B/Resource"),
        ("SCHEMA_VALIDATION_FAILED", "/States/C"),
    }
    assert str(found[-1]) == f"{found[-1].code}: {found[-1].message} at {found[-1].location}"


def test_the_fields_of_a_definition_are_parsed() -> None:
    definition = parse_definition(
        of(
            {
                "T": {**LAMBDA, "Resource": FUNCTION, "End": False, "Next": "C", "TimeoutSecondsPath": "$.t"},
                "C": {"Type": "Choice", "Choices": [{"Variable": "$.a", "IsNull": True, "Next": "M"}], "Default": "M"},
                "M": json.loads(
                    a_map(
                        DISTRIBUTED,
                        ItemReader=READER,
                        MaxConcurrency=7,
                        ToleratedFailurePercentagePath="$.p",
                        ResultWriter={"WriterConfig": {"Transformation": "FLATTEN", "OutputType": "JSONL"}},
                    )
                )["States"]["M"],
            },
            TimeoutSeconds=9,
            Comment="why",
        )
    )
    assert (definition.timeout_s, definition.comment, definition.program.start_at) == (9, "why", "T")
    task, choice, a_map_state = definition.program.states.values()
    assert isinstance(task, TaskState)
    assert task.resource.is_function
    assert (task.kind, task.next) == ("Task", "C")
    assert isinstance(choice, ChoiceState)
    assert choice.default == "M"
    assert isinstance(a_map_state, MapState)
    assert a_map_state.max_concurrency == 7
    assert a_map_state.distribution is not None
    assert a_map_state.distribution.child_type is MachineType.EXPRESS
    assert a_map_state.distribution.label == "M"
    assert a_map_state.distribution.writer is not None
    assert a_map_state.distribution.writer.transformation is Transformation.FLATTEN


@pytest.mark.parametrize(
    "path", sorted(Path(emulator.fmi.functions.__file__).parent.glob("*.asl.json")), ids=lambda p: p.name
)
def test_the_published_definitions_are_valid(path: Path) -> None:
    parse_definition(path.read_text())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
WHOLE = json.loads(
    a_map(DISTRIBUTED, ItemReader=READER, ItemBatcher={"MaxItemsPerBatch": 2}, Retry=[{"ErrorEquals": ["E"]}])
)


@few
@given(st.data())
def test_any_value_at_any_location_parses_or_raises_a_definition_error(data: st.DataObject) -> None:
    changed = json.loads(json.dumps(WHOLE))
    location: Any = changed
    while True:
        key = data.draw(st.sampled_from(sorted(location) if isinstance(location, dict) else range(len(location))))
        if not isinstance(location[key], dict | list) or not location[key] or data.draw(st.booleans()):
            break
        location = location[key]
    location[key] = data.draw(json_values)
    try:
        parse_definition(json.dumps(changed))
    except DefinitionError as error:
        assert error.diagnostics
