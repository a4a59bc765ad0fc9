"""The values that the parser puts into states, and the limits of the language's fields."""

import json
from typing import Any

import pytest

from emulator.aws.stepfunctions.asl.definition import (
    MISSING,
    ChoiceState,
    Definition,
    FailState,
    ItemReader,
    MachineType,
    MapState,
    ParallelState,
    PassState,
    SucceedState,
    TaskState,
    Transformation,
    WaitState,
)
from emulator.aws.stepfunctions.asl.diagnostics import DefinitionError, Diagnostic
from emulator.aws.stepfunctions.asl.expressions import ROOT_PATH, ROOT_REFERENCE, Constant, Path, Scope
from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.asl.parse_machine import parse_definition, targets
from emulator.aws.stepfunctions.asl.resources import OPTIMIZED, Pattern, Resource, ResourceError, parse_resource
from emulator.aws.stepfunctions.asl.retrying import Catcher, Retrier
from tests.emulator.aws.stepfunctions.asl.test_parse_machine import (
    DISTRIBUTED,
    FUNCTION,
    LAMBDA,
    PASS,
    READER,
    a_map,
    diagnostics_of,
    of,
    only_diagnostic,
)

NOWHERE = Scope({}, {})
END = {"End": True}


def state(described: dict[str, Any], *others: str) -> Any:
    """Return the parsed state; `others` are names of states that it refers to."""
    return parse_definition(of({"A": described, **dict.fromkeys(others, PASS)})).program.states["A"]


def text_of(path: Any) -> str | None:
    return None if path is None else path.text


def value(expression: Any, data: Any = None) -> Any:
    return None if expression is None else expression.evaluate(data, NOWHERE)


def is_valid(text: str, machine_type: MachineType = MachineType.STANDARD) -> bool:
    try:
        parse_definition(text, machine_type)
    except DefinitionError:
        return False
    return True


def test_a_pass_state_has_defaults_and_all_its_fields() -> None:
    plain = state(PASS)
    assert isinstance(plain, PassState)
    assert (plain.name, plain.next, plain.result) == ("A", None, MISSING)
    assert (plain.flow.input_path, plain.flow.output_path) == (ROOT_PATH, ROOT_PATH)
    assert plain.flow.result_path == ROOT_REFERENCE
    assert (plain.flow.parameters, plain.flow.result_selector, plain.flow.assign) == (None, None, None)
    full = state(
        {
            "Type": "Pass",
            "Comment": "c",
            "QueryLanguage": "JSONPath",
            "Next": "B",
            "End": False,
            "Result": None,
            "InputPath": "$.in",
            "OutputPath": "$.out",
            "Parameters": {"p.$": "$.x"},
            "ResultPath": "$.r",
            "Assign": {"v.$": "$.y"},
        },
        "B",
    )
    assert (full.next, full.result) == ("B", None)
    assert (text_of(full.flow.input_path), text_of(full.flow.output_path)) == ("$.in", "$.out")
    assert full.flow.result_path.steps == ("r",)
    assert value(full.flow.parameters, {"x": 1}) == {"p": 1}
    assert value(full.flow.assign, {"y": 2}) == {"v": 2}


def test_null_as_a_path_discards_the_value() -> None:
    parsed = state({**PASS, "InputPath": None, "OutputPath": None, "ResultPath": None})
    assert (parsed.flow.input_path, parsed.flow.output_path, parsed.flow.result_path) == (None, None, None)


@pytest.mark.parametrize(
    ("kind", "field", "allowed"),
    [
        ({"Type": "Succeed"}, "Parameters", False),
        ({"Type": "Succeed"}, "ResultPath", False),
        ({"Type": "Succeed"}, "OutputPath", True),
        ({"Type": "Wait", "Seconds": 1, **END}, "Assign", True),
        ({"Type": "Wait", "Seconds": 1, **END}, "ResultPath", False),
        (PASS, "ResultSelector", False),
        (LAMBDA, "ResultSelector", True),
        (LAMBDA, "Assign", True),
        (LAMBDA, "Credentials", True),
    ],
)
def test_a_state_has_the_data_flow_fields_of_its_type(kind: dict[str, Any], field: str, allowed: bool) -> None:
    content = "$.a" if field.endswith("Path") else {}
    assert is_valid(of({"A": {**kind, field: content}})) is allowed


def test_succeed_and_fail_states_have_no_next() -> None:
    done = state({"Type": "Succeed", "InputPath": "$.a"})
    assert isinstance(done, SucceedState)
    assert (done.next, text_of(done.flow.input_path)) == (None, "$.a")
    failed = state({"Type": "Fail", "Error": "E", "CausePath": "States.Format('{}!', $.c)"})
    assert isinstance(failed, FailState)
    assert (failed.next, value(failed.error), value(failed.cause, {"c": "late"})) == (None, "E", "late!")
    empty = state({"Type": "Fail"})
    assert (empty.error, empty.cause) == (None, None)


@pytest.mark.parametrize(
    ("fields", "seconds", "until"),
    [
        ({"Seconds": 0}, 0, None),
        ({"Seconds": 99_999_999}, 99_999_999, None),
        ({"SecondsPath": "$.s"}, "$.s", None),
        ({"Timestamp": "2026-01-31T12:00:00Z"}, None, "2026-01-31T12:00:00Z"),
        ({"TimestampPath": "$.t"}, None, "$.t"),
    ],
)
def test_a_wait_state_has_a_duration_or_a_time(fields: dict[str, Any], seconds: Any, until: Any) -> None:
    waits = state({"Type": "Wait", **fields, **END})
    assert isinstance(waits, WaitState)
    shown = [each.text if isinstance(each, Path) else each for each in (waits.seconds, waits.until)]
    assert shown == [seconds, until]


def test_a_wait_state_with_two_durations_is_invalid() -> None:
    both = {"Type": "Wait", "Seconds": 1, "SecondsPath": "$.s", **END}
    assert only_diagnostic(of({"A": both})).location == "/States/A"


def test_a_choice_state_has_its_rules_default_and_targets() -> None:
    rules = [
        {"Variable": "$.a", "IsNull": True, "Next": "B", "Comment": "c", "Assign": {"v": 1}},
        {"Not": {"Variable": "$.a", "IsString": True, "Comment": "inner"}, "Next": "C"},
    ]
    choice = state({"Type": "Choice", "Choices": rules, "Default": "D", "Assign": {"w": 2}}, "B", "C", "D")
    assert isinstance(choice, ChoiceState)
    assert [(rule.next, value(rule.assign)) for rule in choice.choices] == [("B", {"v": 1}), ("C", None)]
    assert value(choice.flow.assign) == {"w": 2}
    assert targets(choice) == [("Choices/0/Next", "B"), ("Choices/1/Next", "C"), ("Default", "D")]


def test_a_task_has_its_resource_timeouts_retriers_and_catchers() -> None:
    task = state(
        {
            **LAMBDA,
            "TimeoutSeconds": 9,
            "HeartbeatSecondsPath": "$.h",
            "ResultSelector": {"s.$": "$.x"},
            "Retry": [
                {"ErrorEquals": ["A", "States.Timeout"], "Comment": "c"},
                {
                    "ErrorEquals": ["States.ALL"],
                    "IntervalSeconds": 2,
                    "MaxAttempts": 0,
                    "BackoffRate": 1.0,
                    "MaxDelaySeconds": 3,
                    "JitterStrategy": "FULL",
                },
            ],
            "Catch": [
                {"ErrorEquals": ["A"], "Next": "B", "ResultPath": None, "Comment": "c"},
                {"ErrorEquals": ["States.ALL"], "Next": "C", "ResultPath": "$.e", "Assign": {"v": 1}},
            ],
        },
        "B",
        "C",
    )
    assert isinstance(task, TaskState)
    assert (task.timeout_s, text_of(task.heartbeat_s)) == (9, "$.h")
    assert value(task.flow.result_selector, {"x": 1}) == {"s": 1}
    assert value(task.flow.parameters) == {"FunctionName": "f"}
    assert task.retriers == (
        Retrier(("A", "States.Timeout"), 1, 3, 2.0, None, False),
        Retrier(("States.ALL",), 2, 0, 1.0, 3, True),
    )
    first, second = task.catchers
    assert first == Catcher(("A",), "B", None, None)
    assert (second.errors, second.next, text_of(second.result_path), value(second.assign)) == (
        ("States.ALL",),
        "C",
        "$.e",
        {"v": 1},
    )
    assert targets(task) == [("Catch/0/Next", "B"), ("Catch/1/Next", "C")]
    plain = state({**LAMBDA, "Catch": [{"ErrorEquals": ["A"], "Next": "B"}], "End": False, "Next": "B"}, "B")
    assert plain.catchers[0].result_path == ROOT_REFERENCE
    assert targets(plain) == [("Next", "B"), ("Catch/0/Next", "B")]
    assert (plain.timeout_s, plain.heartbeat_s, plain.retriers) == (None, None, ())


def test_a_parallel_state_has_its_branches_and_fields() -> None:
    described = {
        "Type": "Parallel",
        "Branches": [{"StartAt": name, "States": {name: PASS}, "Comment": "c"} for name in "XY"],
        "Parameters": {"p": 1},
        "ResultSelector": {"s": 2},
        "ResultPath": "$.r",
        "Assign": {"v": 3},
        "Retry": [{"ErrorEquals": ["E"]}],
        "Catch": [{"ErrorEquals": ["E"], "Next": "B"}],
        **END,
    }
    parallel = state(described, "B")
    assert isinstance(parallel, ParallelState)
    assert [branch.start_at for branch in parallel.branches] == ["X", "Y"]
    assert [list(branch.states) for branch in parallel.branches] == [["X"], ["Y"]]
    flow = parallel.flow
    assert [value(each) for each in (flow.parameters, flow.result_selector, flow.assign)] == [
        {"p": 1},
        {"s": 2},
        {"v": 3},
    ]
    assert (text_of(flow.result_path), len(parallel.retriers), len(parallel.catchers)) == ("$.r", 1, 1)
    unknown = {**described, "Branches": [{"StartAt": "X", "States": {"X": PASS}, "End": True}]}
    assert only_diagnostic(of({"A": unknown, "B": PASS})).location == "/States/A/Branches/0/End"


def map_of(config: dict[str, str] | None, **more: Any) -> MapState:
    parsed = parse_definition(a_map(config, **more)).program.states["M"]
    assert isinstance(parsed, MapState)
    return parsed


def test_an_inline_map_has_defaults_and_all_its_fields() -> None:
    plain = map_of(None)
    assert (plain.items_path, plain.item_selector, plain.max_concurrency) == (ROOT_PATH, None, 0)
    assert plain.distribution is None
    assert plain.processor.start_at == "X"
    assert map_of({"Mode": "INLINE"}).distribution is None
    full = map_of(
        None,
        ItemsPath="$.l",
        ItemSelector={"s": 1},
        MaxConcurrencyPath="$.m",
        ResultSelector={"r": 2},
        ResultPath="$.p",
        Assign={"v": 3},
        Retry=[{"ErrorEquals": ["E"]}],
    )
    assert (full.items_path.text, value(full.item_selector), text_of(full.max_concurrency)) == ("$.l", {"s": 1}, "$.m")
    assert (value(full.flow.result_selector), text_of(full.flow.result_path)) == ({"r": 2}, "$.p")
    assert (value(full.flow.assign), len(full.retriers), full.catchers) == ({"v": 3}, 1, ())
    assert value(map_of(None, Parameters={"s": 1}).item_selector) == {"s": 1}


def test_the_iterator_is_the_old_name_of_the_processor() -> None:
    text = a_map(None).replace('"ItemProcessor"', '"Iterator"')
    parsed = parse_definition(text).program.states["M"]
    assert isinstance(parsed, MapState)
    assert list(parsed.processor.states) == ["X"]
    both = json.loads(text)
    both["States"]["M"]["ItemProcessor"] = {"StartAt": "Y", "States": {"Y": PASS}}
    assert "/States/M/Iterator" in [found.location for found in diagnostics_of(json.dumps(both))]


def test_a_distributed_map_has_defaults_and_all_its_settings() -> None:
    plain = map_of({"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}).distribution
    assert plain is not None
    assert (plain.child_type, plain.label) == (MachineType.STANDARD, "M")
    assert (plain.reader, plain.batcher, plain.writer) == (None, None, None)
    assert (plain.tolerated_count, plain.tolerated_percentage) == (None, None)
    full = map_of(
        DISTRIBUTED,
        Label="L",
        ItemBatcher={"MaxItemsPerBatch": 2, "MaxInputBytesPerBatch": 262_144, "BatchInput": {"b": 1}},
        ResultWriter={"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": "b", "Prefix": "p"}},
        ToleratedFailureCount=0,
        ToleratedFailurePercentage=100,
    ).distribution
    assert full is not None
    assert (full.child_type, full.label) == (MachineType.EXPRESS, "L")
    assert (full.tolerated_count, full.tolerated_percentage) == (0, 100)
    assert full.batcher is not None
    assert (full.batcher.max_items, full.batcher.max_bytes, value(full.batcher.batch_input)) == (2, 262_144, {"b": 1})
    assert full.writer is not None
    assert value(full.writer.parameters) == {"Bucket": "b", "Prefix": "p"}
    assert (full.writer.transformation, full.writer.lines) == (Transformation.NONE, False)


@pytest.mark.parametrize(
    ("config", "transformation", "lines"),
    [
        ({}, Transformation.COMPACT, False),
        ({"OutputType": "JSONL"}, Transformation.COMPACT, True),
        ({"OutputType": "JSON", "Transformation": "NONE"}, Transformation.NONE, False),
    ],
)
def test_a_writer_without_a_bucket_is_compact(config: Any, transformation: Transformation, lines: bool) -> None:
    distribution = map_of(DISTRIBUTED, ResultWriter={"WriterConfig": config}).distribution
    assert distribution is not None and distribution.writer is not None
    assert (distribution.writer.parameters, distribution.writer.transformation) == (None, transformation)
    assert distribution.writer.lines is lines


def reader_of(**more: Any) -> ItemReader:
    distribution = map_of(DISTRIBUTED, ItemReader={**READER, **more}).distribution
    assert distribution is not None and distribution.reader is not None
    return distribution.reader


def test_a_reader_has_the_settings_of_its_input_type() -> None:
    json_reader = reader_of(ReaderConfig={"InputType": "JSON", "ItemsPointer": "/a", "MaxItems": 3})
    assert (json_reader.action, value(json_reader.parameters)) == ("getObject", {"Bucket": "b", "Key": "k"})
    assert (json_reader.input_type, json_reader.items_pointer, json_reader.max_items) == ("JSON", "/a", 3)
    assert (json_reader.headers, json_reader.delimiter) == (None, ",")
    csv = {"InputType": "CSV", "CSVHeaderLocation": "GIVEN", "CSVHeaders": ["a", "b"], "CSVDelimiter": "TAB"}
    csv_reader = reader_of(ReaderConfig={**csv, "MaxItemsPath": "$.n"})
    assert (csv_reader.input_type, csv_reader.headers, csv_reader.delimiter) == ("CSV", ("a", "b"), "\t")
    assert text_of(csv_reader.max_items) == "$.n"
    first_row = reader_of(ReaderConfig={"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"})
    assert (first_row.headers, first_row.delimiter, first_row.items_pointer) == (None, ",", "")
    lines = reader_of(ReaderConfig={"InputType": "JSONL"})
    assert (lines.input_type, lines.max_items) == ("JSONL", None)
    listing = {"Resource": "arn:aws:states:::s3:listObjectsV2", "Parameters": {"Bucket": "b"}}
    parsed = map_of(DISTRIBUTED, ItemReader=listing).distribution
    assert parsed is not None and parsed.reader is not None
    assert (parsed.reader.action, parsed.reader.max_items) == ("listObjectsV2", None)
    limited = map_of(DISTRIBUTED, ItemReader={**listing, "ReaderConfig": {"MaxItems": 5}}).distribution
    assert limited is not None and limited.reader is not None
    assert (limited.reader.input_type, limited.reader.max_items) == ("JSON", 5)


BUCKET = "arn:aws:states:::s3:putObject"
CSV = {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"}


@pytest.mark.parametrize(
    ("fields", "location"),
    [
        ({"ItemReader": {k: READER[k] for k in ("Resource", "Parameters")}}, "/ItemReader"),
        ({"ItemReader": {**READER, "ReaderConfig": {}}}, "/ItemReader/ReaderConfig"),
        ({"ItemReader": {**READER, "Parameters": 5}}, "/ItemReader/Parameters"),
        ({"ItemReader": {**READER, "Format": 1}}, "/ItemReader/Format"),
        (
            {"ItemReader": {**READER, "ReaderConfig": {**CSV, "CSVHeaders": ["a"]}}},
            "/ItemReader/ReaderConfig/CSVHeaders",
        ),
        (
            {"ItemReader": {**READER, "ReaderConfig": {**CSV, "ItemsPointer": "/a"}}},
            "/ItemReader/ReaderConfig/ItemsPointer",
        ),
        (
            {"ItemReader": {**READER, "ReaderConfig": {"InputType": "JSON", "CSVDelimiter": "TAB"}}},
            "/ItemReader/ReaderConfig/CSVDelimiter",
        ),
        (
            {
                "ItemReader": {
                    **READER,
                    "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "GIVEN", "CSVHeaders": ["a", 1]},
                }
            },
            "/ItemReader/ReaderConfig/CSVHeaders",
        ),
        (
            {
                "ItemReader": {
                    **READER,
                    "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "GIVEN", "CSVHeaders": []},
                }
            },
            "/ItemReader/ReaderConfig/CSVHeaders",
        ),
        ({"ItemBatcher": {"MaxItemsPerBatch": 1, "Size": 1}}, "/ItemBatcher/Size"),
        ({"ItemBatcher": {"MaxInputBytesPerBatch": 262_145}}, "/ItemBatcher/MaxInputBytesPerBatch"),
        ({"ItemBatcher": {"MaxInputBytesPerBatch": 0}}, "/ItemBatcher/MaxInputBytesPerBatch"),
        ({"ItemBatcher": {"MaxItemsPerBatch": 2**31}}, "/ItemBatcher/MaxItemsPerBatch"),
        ({"ResultWriter": {"Resource": BUCKET, "WriterConfig": {}}}, "/ResultWriter"),
        ({"ResultWriter": {"Parameters": {"Bucket": "b"}, "WriterConfig": {}}}, "/ResultWriter"),
        ({"ResultWriter": {"Resource": "s3", "Parameters": {"Bucket": "b"}}}, "/ResultWriter/Resource"),
        ({"ResultWriter": {"Resource": BUCKET, "Parameters": {}}}, "/ResultWriter/Parameters"),
        ({"ResultWriter": {"WriterConfig": {"Form": 1}}}, "/ResultWriter/WriterConfig/Form"),
        ({"ResultWriter": {"WriterConfig": {"OutputType": "CSV"}}}, "/ResultWriter/WriterConfig/OutputType"),
        ({"ResultWriter": {"WriterConfig": {}, "Form": 1}}, "/ResultWriter/Form"),
        ({"ToleratedFailurePercentage": -1}, "/ToleratedFailurePercentage"),
        ({"ToleratedFailureCount": -1}, "/ToleratedFailureCount"),
        ({"Label": ""}, "/Label"),
        ({"Label": "a" * 41}, "/Label"),
    ],
)
def test_a_distributed_map_with_one_mistake_has_one_diagnostic(fields: dict[str, Any], location: str) -> None:
    assert only_diagnostic(a_map(DISTRIBUTED, **fields)).location == "/States/M" + location


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        ({"ToleratedFailurePercentage": 0}, True),
        ({"ToleratedFailurePercentagePath": "$.p"}, True),
        ({"ToleratedFailurePercentage": 1, "ToleratedFailurePercentagePath": "$.p"}, False),
        ({"ToleratedFailureCountPath": "$.p"}, True),
        ({"ItemBatcher": {"MaxItemsPerBatch": 1}}, True),
        ({"ItemBatcher": {"MaxItemsPerBatchPath": "$.n"}}, True),
        ({"ItemBatcher": {"MaxInputBytesPerBatch": 1}}, True),
        ({"ItemBatcher": {"MaxInputBytesPerBatchPath": "$.n"}}, True),
        ({"ItemBatcher": {"BatchInput": {}}}, False),
        ({"MaxConcurrency": 2**31 - 1}, True),
        ({"MaxConcurrency": 2**31}, False),
        ({"Label": "a" * 40}, True),
        ({"ItemReader": {**READER, "Parameters": {"Bucket.$": "$.b", "Key.$": "$.k"}}}, True),
    ],
)
def test_a_distributed_map_is_valid_up_to_its_limits(fields: dict[str, Any], valid: bool) -> None:
    assert is_valid(a_map(DISTRIBUTED, **fields)) is valid


@pytest.mark.parametrize(
    "name",
    ["ItemBatcher", "ResultWriter", "ToleratedFailurePercentage", "ToleratedFailureCountPath", "Label"],
)
def test_an_inline_map_rejects_the_fields_of_a_distributed_one(name: str) -> None:
    assert f"/States/M/{name}" in [found.location for found in diagnostics_of(a_map(None, **{name: "$.x"}))]


def two_maps(first: dict[str, Any], second: dict[str, Any]) -> str:
    maps = {}
    for name, label, following in (("one 1!", first, {"Next": "!"}), ("!", second, END)):
        processor = {"ProcessorConfig": DISTRIBUTED, "StartAt": "X" + name, "States": {"X" + name: PASS}}
        maps[name] = {"Type": "Map", "ItemProcessor": processor, **label, **following}
    return of(maps)


def test_labels_are_unique_or_derived_from_the_name() -> None:
    derived = parse_definition(two_maps({}, {})).program.states.values()
    assert [each.distribution.label for each in derived if isinstance(each, MapState) and each.distribution] == [
        "one1",
        "Map",
    ]
    same = only_diagnostic(two_maps({"Label": "L"}, {"Label": "L"}))
    assert (same.code, same.location) == ("DUPLICATE_LABEL_NAME", "/States/!/Label")
    assert is_valid(two_maps({"Label": "L"}, {"Label": "K"}))
    long = "a" * 50
    text = json.loads(a_map(DISTRIBUTED))
    renamed = {"StartAt": long, "States": {long: text["States"]["M"]}}
    parsed = parse_definition(json.dumps(renamed)).program.states[long]
    assert isinstance(parsed, MapState) and parsed.distribution
    assert parsed.distribution.label == "a" * 40


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({"TimeoutSeconds": 1}, True),
        ({"TimeoutSeconds": 0}, False),
        ({"TimeoutSeconds": 99_999_999}, True),
        ({"TimeoutSeconds": 100_000_000}, False),
        ({"TimeoutSeconds": True}, False),
        ({"TimeoutSeconds": 6, "HeartbeatSeconds": 5}, True),
        ({"TimeoutSeconds": 5, "HeartbeatSeconds": 6}, False),
        ({"TimeoutSeconds": 5, "HeartbeatSecondsPath": "$.h"}, True),
        ({"TimeoutSecondsPath": "$.t", "HeartbeatSeconds": 5}, True),
        ({"HeartbeatSeconds": 0}, False),
        ({"Retry": []}, True),
        ({"Catch": []}, True),
        ({"Retry": [{"ErrorEquals": ["E", 1]}]}, False),
        ({"Retry": [{"ErrorEquals": "E"}]}, False),
        ({"Retry": [{"ErrorEquals": ["States.Permissions"]}]}, True),
        ({"Retry": [{"ErrorEquals": ["E"], "MaxAttempts": 99_999_999}]}, True),
        ({"Retry": [{"ErrorEquals": ["E"], "MaxAttempts": 100_000_000}]}, False),
        ({"Retry": [{"ErrorEquals": ["E"], "IntervalSeconds": 99_999_999}]}, True),
        ({"Retry": [{"ErrorEquals": ["E"], "BackoffRate": 1}]}, True),
        ({"Retry": [{"ErrorEquals": ["E"], "BackoffRate": 1e9}]}, True),
        ({"Retry": [{"ErrorEquals": ["E"], "BackoffRate": True}]}, False),
        ({"Retry": [{"ErrorEquals": ["E"], "MaxDelaySeconds": 2}]}, True),
        ({"Retry": [{"ErrorEquals": ["E"], "MaxDelaySeconds": 1}]}, False),
        ({"Retry": [{"ErrorEquals": ["E"], "MaxDelaySeconds": 31_622_399}]}, True),
        ({"Retry": [{"ErrorEquals": ["E"], "MaxDelaySeconds": 31_622_400}]}, False),
        ({"Retry": [{"ErrorEquals": ["E"], "IntervalSeconds": 9, "MaxDelaySeconds": 10}]}, True),
        ({"Retry": [{"ErrorEquals": ["E"], "JitterStrategy": "NONE"}]}, True),
        ({"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "A"}]}, True),
        ({"Catch": [{"ErrorEquals": ["E"], "Next": "A", "Retry": 1}]}, False),
        ({"Catch": [{"ErrorEquals": ["E"], "Next": "A", "ResultPath": "$..a"}]}, False),
        ({"Parameters": {"FunctionName.$": "$.f", "Payload": 1, "Qualifier": "1", "LogType": "Tail"}}, True),
        ({"Parameters": {"FunctionName": "f", "InvocationType": "Event", "ClientContext": "c"}}, True),
        ({"Parameters": "f"}, False),
        ({"Resource": FUNCTION, "Parameters": "f"}, True),
        ({"Credentials": {"RoleArn.$": "x"}}, False),
    ],
)
def test_a_task_is_valid_up_to_its_limits(change: dict[str, Any], valid: bool) -> None:
    assert is_valid(of({"A": {**LAMBDA, **change}})) is valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (of({"A" * 80: PASS}), True),
        (of({"A": PASS}, TimeoutSeconds=1, Version="1.0", Comment="c"), True),
        (of({"A": PASS}, TimeoutSeconds=99_999_999), True),
        (of({"A": PASS}, TimeoutSeconds=100_000_000), False),
        (of({"A": PASS}, QueryLanguage="JSONPath"), True),
        (of({"A": PASS}, Comment=5), False),
        (of({"A": PASS}, Version=5), False),
        (json.dumps({"StartAt": "A", "States": {}}), False),
        (json.dumps({"StartAt": "A", "States": 5}), False),
        (json.dumps({"StartAt": "A"}), False),
        (json.dumps({"StartAt": "", "States": {"A": PASS}}), True),
        (of({"A": {"Type": "Choice", "Choices": [{"Variable": "$", "IsNull": True, "Next": "A"}]}}), False),
        (of({"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Succeed"}}), True),
        (of({"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Fail"}}), True),
        (of({"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}}), False),
        (of({"A": {**PASS, "End": False}}), False),
        (of({"A": {**PASS, "Comment": 5}}), False),
    ],
)
def test_a_state_machine_is_valid_up_to_its_limits(text: str, valid: bool) -> None:
    assert is_valid(text) is valid


def test_a_definition_has_defaults() -> None:
    parsed = parse_definition(of({"A": PASS}))
    assert isinstance(parsed, Definition)
    assert (parsed.timeout_s, parsed.comment) == (None, "")


def test_reachability_is_not_checked_while_a_state_is_invalid() -> None:
    found = diagnostics_of(of({"A": {"Type": "Work"}, "B": PASS}))
    assert [each.location for each in found] == ["/States/A/Type"]
    unreachable = only_diagnostic(of({"A": PASS, "B": PASS}))
    assert (unreachable.code, unreachable.location) == ("MISSING_TRANSITION_TARGET", "/States/B")
    endless = only_diagnostic(of({"A": {"Type": "Pass", "Next": "A"}}))
    assert (endless.code, endless.location) == ("MISSING_END_STATE", "/States")
    assert only_diagnostic(of({"A" * 81: PASS})).code == "INVALID_STATE_NAME"
    assert only_diagnostic(json.dumps({"StartAt": "B", "States": {"A": PASS}})).code == "MISSING_TRANSITION_TARGET"
    assert only_diagnostic(of({"A": {**LAMBDA, "Resource": "x"}})).code == "INVALID_RESOURCE"
    assert only_diagnostic("{").code == "INVALID_JSON_DESCRIPTION"
    assert str(Diagnostic("C", "", "m")) == "C: m at /"
    assert str(DefinitionError((Diagnostic("C", "/a", "m"), Diagnostic("D", "", "n")))) == "C: m at /a, D: n at /"


@pytest.mark.parametrize(
    ("rule", "locations"),
    [
        ({"Variable": "$.a", "IsNull": 5}, ["/IsNull"]),
        ({"Variable": "$.a", "IsNull": True, "IsString": True}, [""]),
        ({"Variable": "$.a", "IsNull": True, "Weight": 1}, ["/Weight"]),
        ({"Variable": "$.a", "Weight": 1, "Zone": 1}, [""]),
        ({"IsNull": True}, [""]),
        ({"Variable": "$.a", "NumericEqualsPath": "b"}, ["/NumericEqualsPath"]),
        ({"Variable": "$.a", "StringMatchesPath": "$.b"}, [""]),
        ({"And": []}, ["/And"]),
        ({"Or": [{"Variable": "$.a", "IsNull": True, "Zone": 1}]}, ["/Or/0/Zone"]),
        ({"Not": 5}, ["/Not", "/Not"]),
        ({"Not": {"Variable": "$.a", "IsNull": True, "Comment": 1}}, ["/Not/Comment"]),
        ({"Variable": "$.a", "IsNull": True, "Comment": 1}, ["/Comment"]),
        ({"Variable": "$.a", "IsNull": True, "Assign": {"v.$": "x"}}, ["/Assign/v.$"]),
    ],
)
def test_a_choice_rule_with_a_mistake_has_its_diagnostics(rule: dict[str, Any], locations: list[str]) -> None:
    choice = {"Type": "Choice", "Choices": [{**rule, "Next": "B"}]}
    found = diagnostics_of(of({"A": choice, "B": PASS}))
    assert [each.location for each in found] == [f"/States/A/Choices/0{location}" for location in locations]


def test_a_long_value_is_shortened_in_a_message() -> None:
    exact, longer = "x" * 78, "x" * 79  # with quotes 80 and 81 characters
    assert only_diagnostic(of({"A": {**PASS, "Assign": exact}})).message.endswith(f'got "{exact}"')
    assert only_diagnostic(of({"A": {**PASS, "Assign": longer}})).message.endswith(f'got "{longer}…')


def test_a_number_without_an_upper_limit_names_the_lower_one() -> None:
    wrong = {**LAMBDA, "Retry": [{"ErrorEquals": ["E"], "BackoffRate": 0}]}
    assert only_diagnostic(of({"A": wrong})).message == "expected a number from 1, got 0"
    assert only_diagnostic(a_map(DISTRIBUTED, ToleratedFailurePercentage=200)).message == (
        "expected a number from 0 to 100, got 200"
    )
    assert only_diagnostic(of({"A": {**LAMBDA, "TimeoutSeconds": -1}})).message == (
        "expected an integer from 1 to 99999999, got -1"
    )


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        (FUNCTION, ("", "", Pattern.REQUEST_RESPONSE, False)),
        ("arn:aws:states:::lambda:invoke", ("lambda", "invoke", Pattern.REQUEST_RESPONSE, False)),
        ("arn:aws:states:::lambda:invoke.waitForTaskToken", ("lambda", "invoke", Pattern.TASK_TOKEN, False)),
        ("arn:aws:states:::states:startExecution.sync", ("states", "startExecution", Pattern.SYNC, False)),
        ("arn:aws:states:::states:startExecution.sync:2", ("states", "startExecution", Pattern.SYNC_2, False)),
        ("arn:aws:states:::aws-sdk:s3:getObject", ("s3", "getObject", Pattern.REQUEST_RESPONSE, True)),
        ("arn:aws:states:::aws-sdk:sqs:sendMessage.waitForTaskToken", ("sqs", "sendMessage", Pattern.TASK_TOKEN, True)),
    ],
)
def test_a_resource_has_its_service_action_and_pattern(arn: str, expected: tuple[Any, ...]) -> None:
    parsed = parse_resource(arn)
    assert (parsed.service, parsed.action, parsed.pattern, parsed.sdk) == expected
    assert (parsed.arn, parsed.is_function) == (arn, not expected[0])
    assert Resource.of_function(arn).is_function


@pytest.mark.parametrize(("service", "action"), sorted(OPTIMIZED))
def test_an_integration_has_the_patterns_of_aws(service: str, action: str) -> None:
    name = f"arn:aws:states:::{service}:{action}"
    waits = service in ("lambda", "states", "sns", "sqs", "events")
    jobs = service == "states"
    assert parse_resource(name).pattern is Pattern.REQUEST_RESPONSE
    for suffix, allowed in ((".sync", jobs), (".sync:2", jobs), (".waitForTaskToken", waits)):
        if allowed:
            assert parse_resource(name + suffix).pattern == suffix[1:]
        else:
            with pytest.raises(ResourceError, match=f"expected no {suffix} after {service}:{action}"):
                parse_resource(name + suffix)


@pytest.mark.parametrize("kind", [".sync", ".sync:2", ".waitForTaskToken"])
def test_an_express_workflow_does_not_wait_for_its_tasks(kind: str) -> None:
    arn = f"arn:aws:states:::states:startExecution{kind}"
    text = of({"A": {"Type": "Task", "Resource": arn, **END}})
    assert is_valid(text)
    assert not is_valid(text, MachineType.EXPRESS)
    assert is_valid(text.replace(kind, ""), MachineType.EXPRESS)


def test_an_express_workflow_has_inline_maps() -> None:
    assert is_valid(a_map({"Mode": "INLINE"}), MachineType.EXPRESS)
    assert is_valid(a_map(None), MachineType.EXPRESS)


@pytest.mark.parametrize(
    ("error", "cause", "output"),
    [
        ("E", "c", {"Error": "E", "Cause": "c"}),
        ("E", None, {"Error": "E"}),
        (None, "", {"Cause": ""}),
        (None, None, {}),
    ],
)
def test_the_error_output_has_the_error_and_the_cause(error: str | None, cause: str | None, output: Any) -> None:
    failure = StateFailure(error, cause)
    assert (failure.error, failure.cause, failure.output()) == (error, cause, output)


def test_static_templates_are_constants() -> None:
    parsed = state({**PASS, "Parameters": {"a": [1, {"b": 2}]}})
    assert isinstance(parsed.flow.parameters, Constant)
    mixed = state({**PASS, "Parameters": {"a": [{"b.$": "$"}, 2], "c": [3]}})
    assert not isinstance(mixed.flow.parameters, Constant)
    assert value(mixed.flow.parameters, 1) == {"a": [{"b": 1}, 2], "c": [3]}
