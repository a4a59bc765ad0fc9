"""The parser of states, one function for each type of state."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from emulator.aws.stepfunctions.asl import diagnostics as codes
from emulator.aws.stepfunctions.asl.choices import parse_choices
from emulator.aws.stepfunctions.asl.definition import (
    MISSING,
    ChoiceState,
    DataFlow,
    Distribution,
    FailState,
    ItemBatcher,
    ItemReader,
    MachineType,
    MapState,
    ParallelState,
    PassState,
    Program,
    ResultWriter,
    State,
    SucceedState,
    TaskState,
    Transformation,
    WaitState,
)
from emulator.aws.stepfunctions.asl.diagnostics import INVALID_RESOURCE, Fields, abbreviated
from emulator.aws.stepfunctions.asl.expressions import ROOT_PATH, ROOT_REFERENCE, Constant, Expression, ReferencePath
from emulator.aws.stepfunctions.asl.failures import ALL, NAMES
from emulator.aws.stepfunctions.asl.json_values import parse_timestamp
from emulator.aws.stepfunctions.asl.resources import Pattern, Resource, ResourceError, parse_resource
from emulator.aws.stepfunctions.asl.retrying import (
    DEFAULT_BACKOFF_RATE,
    DEFAULT_INTERVAL_S,
    DEFAULT_MAX_ATTEMPTS,
    Catcher,
    Retrier,
)

_SECONDS = range(100_000_000)
_POSITIVE_SECONDS = range(1, 100_000_000)
_MAX_DELAY_S = range(1, 31_622_400)
_COUNT = range(2**31)
_POSITIVE = range(1, 2**31)
_BATCH_BYTES = range(1, 256 * 1024 + 1)
_LABEL = re.compile(r"[^\s?*<>{}\[\]:;,\\|^~$#%&`\"\x00-\x1f\x7f-\x9f/]{1,40}")
_DISTRIBUTED_ONLY = (
    "ItemReader",
    "ItemBatcher",
    "ResultWriter",
    "ToleratedFailureCount",
    "ToleratedFailureCountPath",
    "ToleratedFailurePercentage",
    "ToleratedFailurePercentagePath",
    "Label",
)
_READERS = {"arn:aws:states:::s3:getObject": "getObject", "arn:aws:states:::s3:listObjectsV2": "listObjectsV2"}
_WRITER = "arn:aws:states:::s3:putObject"
_DELIMITERS = {"COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "SPACE": " ", "TAB": "\t"}
# The parameters of Lambda's Invoke that Step Functions supports.
_LAMBDA_PARAMETERS = {"FunctionName", "Payload", "Qualifier", "InvocationType", "ClientContext", "LogType"}


class ProgramParser(ABC):
    """Parses the programs nested in a state. Names and labels are unique across all of them."""

    machine_type: MachineType

    @abstractmethod
    def program(self, fields: Fields) -> Program:
        """Parse StartAt and States."""

    @abstractmethod
    def label(self, name: str, fields: Fields) -> str:
        """Return a distributed Map's label."""


def check_query_language(fields: Fields) -> bool:
    """Parse QueryLanguage. Return whether it is JSONPath, the only one that is emulated."""
    language = fields.raw("QueryLanguage")
    if language in (None, "JSONPath"):
        return True
    fields.report("QueryLanguage", f"expected JSONPath, the only query language emulated, got {abbreviated(language)}")
    return False


def parse_flow(fields: Fields, *names: str) -> DataFlow:
    """Parse the fields of a state's data flow: InputPath, OutputPath and the named ones."""
    found: dict[str, Any] = {}
    if "Parameters" in names:
        found["parameters"] = fields.template("Parameters")
    if "ResultSelector" in names:
        found["result_selector"] = fields.template("ResultSelector")
    if "Assign" in names:
        found["assign"] = parse_assign(fields)
    if "ResultPath" in names:
        found["result_path"] = parse_result_path(fields)
    for name, key in (("InputPath", "input_path"), ("OutputPath", "output_path")):
        if fields.has(name):
            found[key] = None if fields.raw(name) is None else fields.path(name)
    return DataFlow(**found)


def parse_result_path(fields: Fields) -> ReferencePath | None:
    """Parse ResultPath. None means that the result is discarded."""
    if not fields.has("ResultPath"):
        return ROOT_REFERENCE
    return None if fields.raw("ResultPath") is None else fields.reference_path("ResultPath")


def parse_assign(fields: Fields) -> Expression | None:
    """Parse Assign."""
    if fields.has("Assign") and not isinstance(fields.raw("Assign"), dict):
        fields.report("Assign", f"expected an object, got {abbreviated(fields.raw('Assign'))}")
    return fields.template("Assign")


def parse_next(fields: Fields) -> str | None:
    """Parse Next and End, of which a state has exactly one."""
    following = fields.string("Next")
    end = fields.boolean("End")
    if fields.has("Next") == (end is True):
        fields.report("", "expected either Next, or End with true" + (", not both" if end else ""))
    return following


def parse_retriers(fields: Fields) -> tuple[Retrier, ...]:
    """Parse Retry."""
    entries = fields.objects("Retry", least=0)
    return tuple(_parse_retrier(entry, last=entry is entries[-1]) for entry in entries)


def _parse_retrier(entry: Fields, *, last: bool) -> Retrier:
    entry.string("Comment")
    errors = _parse_errors(entry, last=last)
    interval_s = entry.integer("IntervalSeconds", _POSITIVE_SECONDS) or DEFAULT_INTERVAL_S
    attempts = entry.integer("MaxAttempts", _SECONDS)
    rate = entry.number("BackoffRate", 1.0, float("inf"))
    max_delay_s = entry.integer("MaxDelaySeconds", _MAX_DELAY_S)
    if max_delay_s is not None and max_delay_s <= interval_s:
        entry.report("MaxDelaySeconds", f"expected more than IntervalSeconds ({interval_s}), got {max_delay_s}")
    jitter = entry.one_of("JitterStrategy", ("FULL", "NONE"))
    entry.reject_unknown("a retrier")
    return Retrier(
        errors,
        interval_s,
        DEFAULT_MAX_ATTEMPTS if attempts is None else attempts,
        DEFAULT_BACKOFF_RATE if rate is None else rate,
        max_delay_s,
        jitter == "FULL",
    )


def parse_catchers(fields: Fields) -> tuple[Catcher, ...]:
    """Parse Catch."""
    entries = fields.objects("Catch", least=0)
    return tuple(_parse_catcher(entry, last=entry is entries[-1]) for entry in entries)


def _parse_catcher(entry: Fields, *, last: bool) -> Catcher:
    entry.string("Comment")
    errors = _parse_errors(entry, last=last)
    entry.require("Next")
    following = entry.string("Next") or ""
    result_path, assign = parse_result_path(entry), parse_assign(entry)
    entry.reject_unknown("a catcher")
    return Catcher(errors, following, result_path, assign)


def _parse_errors(entry: Fields, *, last: bool) -> tuple[str, ...]:
    entry.require("ErrorEquals")
    names = entry.raw("ErrorEquals")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        if entry.has("ErrorEquals"):
            entry.report("ErrorEquals", f"expected an array of error names, got {abbreviated(names)}")
        return ()
    if ALL in names and (len(names) > 1 or not last):
        entry.report("ErrorEquals", f"expected {ALL} alone and in the last entry only")
    for name in names:
        if name.startswith("States.") and name not in NAMES:
            entry.report("ErrorEquals", f"unknown error {name!r}: expected one of {', '.join(sorted(NAMES))}")
    return tuple(names)


def parse_state(name: str, fields: Fields, parser: ProgramParser) -> State | None:
    """Parse a state. Return None if its Type is invalid."""
    parsers: Mapping[str, Callable[[str, Fields, ProgramParser], State]] = {
        "Task": _parse_task,
        "Pass": _parse_pass,
        "Choice": _parse_choice,
        "Wait": _parse_wait,
        "Succeed": _parse_succeed,
        "Fail": _parse_fail,
        "Parallel": _parse_parallel,
        "Map": parse_map,
    }
    fields.require("Type")
    kind = fields.one_of("Type", parsers.keys())
    if kind is None:
        return None
    fields.string("Comment")
    if not check_query_language(fields):
        return None
    state = parsers[kind](name, fields, parser)
    fields.reject_unknown(f"a {kind} state")
    return state


def _parse_pass(name: str, fields: Fields, _: ProgramParser) -> State:
    flow = parse_flow(fields, "Parameters", "ResultPath", "Assign")
    result = fields.raw("Result") if fields.has("Result") else MISSING
    return PassState(name, parse_next(fields), flow, result)


def _parse_succeed(name: str, fields: Fields, _: ProgramParser) -> State:
    return SucceedState(name, None, parse_flow(fields))


def _parse_fail(name: str, fields: Fields, _: ProgramParser) -> State:
    fields.at_most_one("Error", "ErrorPath")
    fields.at_most_one("Cause", "CausePath")
    error, cause = (_written(fields.string(field), fields.expression(field + "Path")) for field in ("Error", "Cause"))
    return FailState(name, None, DataFlow(), error, cause)


def _written(text: str | None, expression: Expression | None) -> Expression | None:
    return expression if text is None else Constant(text)


def _parse_choice(name: str, fields: Fields, _: ProgramParser) -> State:
    fields.require("Choices")
    flow = parse_flow(fields, "Assign")
    return ChoiceState(name, None, flow, choices=parse_choices(fields), default=fields.string("Default"))


def _parse_wait(name: str, fields: Fields, _: ProgramParser) -> State:
    kinds = ("Seconds", "SecondsPath", "Timestamp", "TimestampPath")
    if sum(map(fields.has, kinds)) != 1:
        fields.report("", f"expected exactly one of {', '.join(kinds)}")
    seconds, seconds_path = fields.integer("Seconds", _SECONDS), fields.path("SecondsPath")
    until, until_path = fields.string("Timestamp"), fields.path("TimestampPath")
    if until is not None and parse_timestamp(until) is None:
        fields.report("Timestamp", f"expected a timestamp such as 2026-01-31T12:00:00Z, got {until!r}")
    return WaitState(
        name,
        parse_next(fields),
        parse_flow(fields, "Assign"),
        seconds_path if seconds is None else seconds,
        until_path if until is None else until,
    )


def _parse_parallel(name: str, fields: Fields, parser: ProgramParser) -> State:
    fields.require("Branches")
    branches = []
    for branch in fields.objects("Branches"):
        branch.string("Comment")
        branches.append(parser.program(branch))
        branch.reject_unknown("a branch")
    flow = parse_flow(fields, "Parameters", "ResultSelector", "ResultPath", "Assign")
    return ParallelState(
        name, parse_next(fields), flow, parse_retriers(fields), parse_catchers(fields), branches=tuple(branches)
    )


def _parse_task(name: str, fields: Fields, parser: ProgramParser) -> State:
    fields.require("Resource")
    resource = _parse_resource(fields, parser.machine_type)
    timeout_s = fields.integer_or_path("TimeoutSeconds", _POSITIVE_SECONDS)
    heartbeat_s = fields.integer_or_path("HeartbeatSeconds", _POSITIVE_SECONDS)
    if isinstance(timeout_s, int) and isinstance(heartbeat_s, int) and heartbeat_s >= timeout_s:
        fields.report("HeartbeatSeconds", f"expected less than TimeoutSeconds ({timeout_s}), got {heartbeat_s}")
    if fields.has("Credentials"):
        fields.template("Credentials")
    _check_parameters(fields, resource)
    flow = parse_flow(fields, "Parameters", "ResultSelector", "ResultPath", "Assign")
    return TaskState(
        name,
        parse_next(fields),
        flow,
        parse_retriers(fields),
        parse_catchers(fields),
        resource=resource,
        timeout_s=timeout_s,
        heartbeat_s=heartbeat_s,
    )


def _parse_resource(fields: Fields, machine_type: MachineType) -> Resource:
    try:
        resource = parse_resource(fields.string("Resource") or "")
    except ResourceError as error:
        if isinstance(fields.raw("Resource"), str):
            fields.report("Resource", str(error), codes.INVALID_RESOURCE)
        return Resource.of_function("")
    if machine_type is MachineType.EXPRESS and resource.pattern is not Pattern.REQUEST_RESPONSE:
        fields.report("Resource", f"expected no .{resource.pattern}: an EXPRESS workflow cannot wait")
    return resource


def _check_parameters(fields: Fields, resource: Resource) -> None:
    """Report a missing FunctionName and unsupported parameters of a Lambda integration."""
    if (resource.service, resource.action, resource.sdk) != ("lambda", "invoke", False):
        return
    parameters = fields.raw("Parameters")
    if not isinstance(parameters, dict):
        fields.report("Parameters", f"expected an object with FunctionName, got {abbreviated(parameters)}")
        return
    names = {name.removesuffix(".$"): name for name in parameters}
    if "FunctionName" not in names:
        fields.report("Parameters", "the field 'FunctionName' is required")
    for plain in sorted(names.keys() - _LAMBDA_PARAMETERS):
        fields.report(f"Parameters/{names[plain]}", f"unknown field {plain!r} of lambda:invoke")


def parse_map(name: str, fields: Fields, parser: ProgramParser) -> State:
    """Parse a Map state."""
    fields.at_most_one("ItemProcessor", "Iterator")
    processor_name = "Iterator" if fields.has("Iterator") else "ItemProcessor"
    fields.require(processor_name)
    processor = fields.object(processor_name)
    program, child_type = Program("", {}), None
    if processor is not None:
        processor.string("Comment")
        child_type = _parse_processor_config(processor, parser)
        program = parser.program(processor)
        processor.reject_unknown("an item processor")
    # Parameters is the former name of ItemSelector: in a Map it does not apply to the state's own input.
    fields.at_most_one("ItemSelector", "Parameters")
    selector = fields.template("ItemSelector") or fields.template("Parameters")
    distribution = None
    if child_type is not None:
        distribution = _parse_distribution(name, fields, parser, child_type)
    else:
        for only in _DISTRIBUTED_ONLY:
            if fields.has(only):
                fields.report(only, 'expected only in a Map with "ProcessorConfig": {"Mode": "DISTRIBUTED"}')
                fields.raw(only)
    return MapState(
        name,
        parse_next(fields),
        parse_flow(fields, "ResultSelector", "ResultPath", "Assign"),
        parse_retriers(fields),
        parse_catchers(fields),
        processor=program,
        items_path=fields.path("ItemsPath") or ROOT_PATH,
        item_selector=selector,
        max_concurrency=fields.integer_or_path("MaxConcurrency", _COUNT) or 0,
        distribution=distribution,
    )


def _parse_processor_config(processor: Fields, parser: ProgramParser) -> MachineType | None:
    """Return the type of the child executions of a distributed Map, or None for an inline Map."""
    config = processor.object("ProcessorConfig")
    if config is None:
        return None
    mode = config.one_of("Mode", ("INLINE", "DISTRIBUTED"))
    kind = config.one_of("ExecutionType", tuple(MachineType))
    if mode == "DISTRIBUTED" and kind is None and not config.has("ExecutionType"):
        config.require("ExecutionType")
    if mode != "DISTRIBUTED" and config.has("ExecutionType"):
        config.report("ExecutionType", "expected only with Mode DISTRIBUTED, which has child executions")
    if mode == "DISTRIBUTED" and parser.machine_type is MachineType.EXPRESS:
        config.report("Mode", "expected INLINE: an EXPRESS workflow cannot have a distributed Map")
    config.reject_unknown("a processor config")
    return MachineType(kind or "STANDARD") if mode == "DISTRIBUTED" else None


def _parse_distribution(name: str, fields: Fields, parser: ProgramParser, child_type: MachineType) -> Distribution:
    label = parser.label(name, fields)
    if not _LABEL.fullmatch(label):
        fields.report("Label", f"expected 1 to 40 characters without spaces, brackets or wildcards, got {label!r}")
    percentage = fields.number("ToleratedFailurePercentage", 0, 100)
    fields.at_most_one("ToleratedFailurePercentage", "ToleratedFailurePercentagePath")
    return Distribution(
        child_type,
        label,
        _parse_reader(fields.object("ItemReader")),
        _parse_batcher(fields.object("ItemBatcher")),
        _parse_writer(fields.object("ResultWriter")),
        fields.integer_or_path("ToleratedFailureCount", _COUNT),
        fields.path("ToleratedFailurePercentagePath") if percentage is None else percentage,
    )


def _parse_reader(fields: Fields | None) -> ItemReader | None:
    if fields is None:
        return None
    fields.require("Resource")
    resource = fields.string("Resource")
    if resource is not None and resource not in _READERS:
        fields.report("Resource", f"expected one of {', '.join(_READERS)}, got {resource!r}", INVALID_RESOURCE)
    action = _READERS.get(resource or "", "getObject")
    parameters = _bucket_parameters(fields, "Bucket", "Key" if action == "getObject" else None)
    config = fields.object("ReaderConfig")
    fields.reject_unknown("an item reader")
    if config is None:
        if action == "getObject":
            fields.report("", "the field 'ReaderConfig' with an InputType is required for getObject")
        return ItemReader(action, parameters)
    if action == "getObject":
        config.require("InputType")
    input_type = config.one_of("InputType", ("JSON", "JSONL", "CSV"))
    headers = _parse_headers(config) if input_type == "CSV" else None
    delimiter = config.one_of("CSVDelimiter", _DELIMITERS.keys()) if input_type == "CSV" else None
    pointer = config.string("ItemsPointer") if input_type == "JSON" else None
    if pointer and not pointer.startswith("/"):
        config.report("ItemsPointer", f"expected a JSON pointer that starts with /, got {pointer!r}")
    max_items = config.integer_or_path("MaxItems", _COUNT)
    config.reject_unknown(f"a reader config for {input_type or 'no InputType'}")
    return ItemReader(
        action, parameters, input_type or "JSON", headers, _DELIMITERS[delimiter or "COMMA"], pointer or "", max_items
    )


def _parse_headers(config: Fields) -> tuple[str, ...] | None:
    config.require("CSVHeaderLocation")
    location = config.one_of("CSVHeaderLocation", ("FIRST_ROW", "GIVEN"))
    headers = config.raw("CSVHeaders")
    if location != "GIVEN":
        if config.has("CSVHeaders"):
            config.report("CSVHeaders", "expected only with CSVHeaderLocation GIVEN")
        return None
    if not isinstance(headers, list) or not headers or not all(isinstance(header, str) for header in headers):
        config.report("CSVHeaders", f"expected an array of column names, got {abbreviated(headers)}")
        return None
    return tuple(headers)


def _parse_batcher(fields: Fields | None) -> ItemBatcher | None:
    if fields is None:
        return None
    items = fields.integer_or_path("MaxItemsPerBatch", _POSITIVE)
    size = fields.integer_or_path("MaxInputBytesPerBatch", _BATCH_BYTES)
    names = ("MaxItemsPerBatch", "MaxItemsPerBatchPath", "MaxInputBytesPerBatch", "MaxInputBytesPerBatchPath")
    if not any(map(fields.has, names)):
        fields.report("", "expected MaxItemsPerBatch, MaxInputBytesPerBatch or both")
    batch_input = fields.template("BatchInput")
    fields.reject_unknown("an item batcher")
    return ItemBatcher(items, size, batch_input)


def _parse_writer(fields: Fields | None) -> ResultWriter | None:
    if fields is None:
        return None
    resource = fields.string("Resource")
    if resource is not None and resource != _WRITER:
        fields.report("Resource", f"expected {_WRITER}, got {resource!r}", INVALID_RESOURCE)
    if fields.has("Resource") != fields.has("Parameters"):
        fields.report("", "expected Resource and Parameters together")
    parameters = _bucket_parameters(fields, "Bucket", None) if fields.has("Parameters") else None
    config = fields.object("WriterConfig")
    transformation, output = None, None
    if config is not None:
        transformation = config.one_of("Transformation", tuple(Transformation))
        output = config.one_of("OutputType", ("JSON", "JSONL"))
        config.reject_unknown("a writer config")
    elif parameters is None:
        fields.report("", "expected WriterConfig, or Resource and Parameters")
    fields.reject_unknown("a result writer")
    default = Transformation.NONE if parameters is not None else Transformation.COMPACT
    return ResultWriter(parameters, Transformation(transformation or default), output == "JSONL")


def _bucket_parameters(fields: Fields, *required: str | None) -> Expression:
    fields.require("Parameters")
    parameters = fields.raw("Parameters")
    if isinstance(parameters, dict):
        present = {name.removesuffix(".$") for name in parameters}
        for name in required:
            if name is not None and name not in present:
                fields.report("Parameters", f"the field {name!r} is required")
    elif fields.has("Parameters"):
        fields.report("Parameters", f"expected an object, got {abbreviated(parameters)}")
    return fields.template("Parameters") or Constant({})
