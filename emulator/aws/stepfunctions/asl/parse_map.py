"""Map states from their JSON: what both modes have, and what only a distributed one has."""

import re

from emulator.aws.stepfunctions.asl.definition import (
    Distribution,
    ItemBatcher,
    ItemReader,
    MachineType,
    MapState,
    Program,
    ResultWriter,
    State,
    Transformation,
)
from emulator.aws.stepfunctions.asl.diagnostics import INVALID_RESOURCE, Fields, shown
from emulator.aws.stepfunctions.asl.expressions import Constant, Expression
from emulator.aws.stepfunctions.asl.parse_fields import Nested, parse_catchers, parse_flow, parse_next, parse_retriers
from emulator.aws.stepfunctions.asl.paths import WHOLE

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


def parse_map(name: str, fields: Fields, nested: Nested) -> State:
    """Read a Map state."""
    fields.at_most_one("ItemProcessor", "Iterator")
    processor_name = "Iterator" if fields.has("Iterator") else "ItemProcessor"
    fields.require(processor_name)
    processor = fields.object(processor_name)
    program, child_type = Program("", {}), None
    if processor is not None:
        processor.text("Comment")
        child_type = _parse_processor_config(processor, nested)
        program = nested.program(processor)
        processor.end("an item processor")
    # Parameters is what ItemSelector was called first; it makes the items, and not the state's own input.
    fields.at_most_one("ItemSelector", "Parameters")
    selector = fields.template("ItemSelector") or fields.template("Parameters")
    distribution = None
    if child_type is not None:
        distribution = _parse_distribution(name, fields, nested, child_type)
    else:
        for only in _DISTRIBUTED_ONLY:
            if fields.has(only):
                fields.wrong(only, 'only a Map with "ProcessorConfig": {"Mode": "DISTRIBUTED"} has this field')
                fields.raw(only)
    return MapState(
        name,
        parse_next(fields),
        parse_flow(fields, "ResultSelector", "ResultPath", "Assign"),
        parse_retriers(fields),
        parse_catchers(fields),
        processor=program,
        items_path=fields.path("ItemsPath") or WHOLE,
        item_selector=selector,
        max_concurrency=fields.whole_or_path("MaxConcurrency", _COUNT) or 0,
        distribution=distribution,
    )


def _parse_processor_config(processor: Fields, nested: Nested) -> MachineType | None:
    """Return the type of the child executions of a distributed Map, None for an inline one."""
    config = processor.object("ProcessorConfig")
    if config is None:
        return None
    mode = config.one_of("Mode", ("INLINE", "DISTRIBUTED"))
    kind = config.one_of("ExecutionType", tuple(MachineType))
    if mode == "DISTRIBUTED" and kind is None and not config.has("ExecutionType"):
        config.require("ExecutionType")
    if mode != "DISTRIBUTED" and config.has("ExecutionType"):
        config.wrong("ExecutionType", "only Mode DISTRIBUTED has child executions")
    if mode == "DISTRIBUTED" and nested.machine_type is MachineType.EXPRESS:
        config.wrong("Mode", "an EXPRESS workflow cannot have a distributed Map")
    config.end("a processor config")
    return MachineType(kind or "STANDARD") if mode == "DISTRIBUTED" else None


def _parse_distribution(name: str, fields: Fields, nested: Nested, child_type: MachineType) -> Distribution:
    label = nested.label(name, fields)
    if not _LABEL.fullmatch(label):
        fields.wrong("Label", f"expected 1 to 40 characters without spaces, brackets and wildcards, got {label!r}")
    percentage = fields.number("ToleratedFailurePercentage", 0, 100)
    fields.at_most_one("ToleratedFailurePercentage", "ToleratedFailurePercentagePath")
    return Distribution(
        child_type,
        label,
        _parse_reader(fields.object("ItemReader")),
        _parse_batcher(fields.object("ItemBatcher")),
        _parse_writer(fields.object("ResultWriter")),
        fields.whole_or_path("ToleratedFailureCount", _COUNT),
        fields.path("ToleratedFailurePercentagePath") if percentage is None else percentage,
    )


def _parse_reader(fields: Fields | None) -> ItemReader | None:
    if fields is None:
        return None
    fields.require("Resource")
    resource = fields.text("Resource")
    if resource is not None and resource not in _READERS:
        fields.wrong("Resource", f"expected {' or '.join(_READERS)}, got {resource!r}", INVALID_RESOURCE)
    action = _READERS.get(resource or "", "getObject")
    parameters = _bucket_parameters(fields, "Bucket", "Key" if action == "getObject" else None)
    config = fields.object("ReaderConfig")
    fields.end("an item reader")
    if config is None:
        if action == "getObject":
            fields.wrong("", "the field 'ReaderConfig' with an InputType is required for getObject")
        return ItemReader(action, parameters)
    if action == "getObject":
        config.require("InputType")
    input_type = config.one_of("InputType", ("JSON", "JSONL", "CSV"))
    headers = _parse_headers(config) if input_type == "CSV" else None
    delimiter = config.one_of("CSVDelimiter", _DELIMITERS.keys()) if input_type == "CSV" else None
    pointer = config.text("ItemsPointer") if input_type == "JSON" else None
    if pointer and not pointer.startswith("/"):
        config.wrong("ItemsPointer", f"expected a JSON pointer that starts with /, got {pointer!r}")
    max_items = config.whole_or_path("MaxItems", _COUNT)
    config.end(f"a reader config for {input_type or 'no InputType'}")
    return ItemReader(
        action, parameters, input_type or "JSON", headers, _DELIMITERS[delimiter or "COMMA"], pointer or "", max_items
    )


def _parse_headers(config: Fields) -> tuple[str, ...] | None:
    config.require("CSVHeaderLocation")
    location = config.one_of("CSVHeaderLocation", ("FIRST_ROW", "GIVEN"))
    headers = config.raw("CSVHeaders")
    if location != "GIVEN":
        if config.has("CSVHeaders"):
            config.wrong("CSVHeaders", "only CSVHeaderLocation GIVEN has headers")
        return None
    if not isinstance(headers, list) or not headers or not all(isinstance(header, str) for header in headers):
        config.wrong("CSVHeaders", f"expected an array of column names, got {shown(headers)}")
        return None
    return tuple(headers)


def _parse_batcher(fields: Fields | None) -> ItemBatcher | None:
    if fields is None:
        return None
    items = fields.whole_or_path("MaxItemsPerBatch", _POSITIVE)
    size = fields.whole_or_path("MaxInputBytesPerBatch", _BATCH_BYTES)
    names = ("MaxItemsPerBatch", "MaxItemsPerBatchPath", "MaxInputBytesPerBatch", "MaxInputBytesPerBatchPath")
    if not any(map(fields.has, names)):
        fields.wrong("", "expected MaxItemsPerBatch, MaxInputBytesPerBatch or both")
    batch_input = fields.template("BatchInput")
    fields.end("an item batcher")
    return ItemBatcher(items, size, batch_input)


def _parse_writer(fields: Fields | None) -> ResultWriter | None:
    if fields is None:
        return None
    resource = fields.text("Resource")
    if resource is not None and resource != _WRITER:
        fields.wrong("Resource", f"expected {_WRITER}, got {resource!r}", INVALID_RESOURCE)
    if fields.has("Resource") != fields.has("Parameters"):
        fields.wrong("", "expected Resource and Parameters together")
    parameters = _bucket_parameters(fields, "Bucket", None) if fields.has("Parameters") else None
    config = fields.object("WriterConfig")
    transformation, output = None, None
    if config is not None:
        transformation = config.one_of("Transformation", tuple(Transformation))
        output = config.one_of("OutputType", ("JSON", "JSONL"))
        config.end("a writer config")
    elif parameters is None:
        fields.wrong("", "expected WriterConfig, or Resource and Parameters")
    fields.end("a result writer")
    default = Transformation.NONE if parameters is not None else Transformation.COMPACT
    return ResultWriter(parameters, Transformation(transformation or default), output == "JSONL")


def _bucket_parameters(fields: Fields, *required: str | None) -> Expression:
    fields.require("Parameters")
    parameters = fields.raw("Parameters")
    if isinstance(parameters, dict):
        present = {name.removesuffix(".$") for name in parameters}
        for name in required:
            if name is not None and name not in present:
                fields.wrong("Parameters", f"the field {name!r} is required")
    elif fields.has("Parameters"):
        fields.wrong("Parameters", f"expected an object, got {shown(parameters)}")
    return fields.template("Parameters") or Constant({})
