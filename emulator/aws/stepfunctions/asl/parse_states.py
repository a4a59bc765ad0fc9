"""States from their JSON, each type by a function of its own."""

from collections.abc import Callable, Mapping

from emulator.aws.stepfunctions.asl import diagnostics as codes
from emulator.aws.stepfunctions.asl.definition import (
    MISSING,
    ChoiceState,
    DataFlow,
    FailState,
    MachineType,
    ParallelState,
    PassState,
    State,
    SucceedState,
    TaskState,
    WaitState,
)
from emulator.aws.stepfunctions.asl.diagnostics import Fields, shown
from emulator.aws.stepfunctions.asl.expressions import Constant, Expression
from emulator.aws.stepfunctions.asl.json_values import timestamp
from emulator.aws.stepfunctions.asl.parse_choice import parse_choices
from emulator.aws.stepfunctions.asl.parse_fields import (
    Nested,
    parse_catchers,
    parse_flow,
    parse_next,
    parse_retriers,
    refuse_jsonata,
)
from emulator.aws.stepfunctions.asl.parse_map import parse_map
from emulator.aws.stepfunctions.asl.resources import Pattern, Resource, ResourceError, parse_resource

_SECONDS = range(100_000_000)
_POSITIVE_SECONDS = range(1, 100_000_000)
# What Lambda's Invoke takes through Step Functions.
_LAMBDA_PARAMETERS = {"FunctionName", "Payload", "Qualifier", "InvocationType", "ClientContext", "LogType"}


def parse_state(name: str, fields: Fields, nested: Nested) -> State | None:
    """Read a state; None when it has no valid Type."""
    parsers: Mapping[str, Callable[[str, Fields, Nested], State]] = {
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
    fields.text("Comment")
    if not refuse_jsonata(fields):
        return None
    state = parsers[kind](name, fields, nested)
    fields.end(f"a {kind} state")
    return state


def _parse_pass(name: str, fields: Fields, _: Nested) -> State:
    flow = parse_flow(fields, "Parameters", "ResultPath", "Assign")
    result = fields.raw("Result") if fields.has("Result") else MISSING
    return PassState(name, parse_next(fields), flow, result)


def _parse_succeed(name: str, fields: Fields, _: Nested) -> State:
    return SucceedState(name, None, parse_flow(fields))


def _parse_fail(name: str, fields: Fields, _: Nested) -> State:
    fields.at_most_one("Error", "ErrorPath")
    fields.at_most_one("Cause", "CausePath")
    error, cause = (_written(fields.text(field), fields.expression(field + "Path")) for field in ("Error", "Cause"))
    return FailState(name, None, DataFlow(), error, cause)


def _written(text: str | None, expression: Expression | None) -> Expression | None:
    return expression if text is None else Constant(text)


def _parse_choice(name: str, fields: Fields, _: Nested) -> State:
    fields.require("Choices")
    flow = parse_flow(fields, "Assign")
    return ChoiceState(name, None, flow, choices=parse_choices(fields), default=fields.text("Default"))


def _parse_wait(name: str, fields: Fields, _: Nested) -> State:
    kinds = ("Seconds", "SecondsPath", "Timestamp", "TimestampPath")
    if sum(map(fields.has, kinds)) != 1:
        fields.wrong("", f"expected exactly one of {', '.join(kinds)}")
    seconds, seconds_path = fields.whole("Seconds", _SECONDS), fields.path("SecondsPath")
    until, until_path = fields.text("Timestamp"), fields.path("TimestampPath")
    if until is not None and timestamp(until) is None:
        fields.wrong("Timestamp", f"expected a timestamp such as 2026-01-31T12:00:00Z, got {until!r}")
    return WaitState(
        name,
        parse_next(fields),
        parse_flow(fields, "Assign"),
        seconds_path if seconds is None else seconds,
        until_path if until is None else until,
    )


def _parse_parallel(name: str, fields: Fields, nested: Nested) -> State:
    fields.require("Branches")
    branches = []
    for branch in fields.objects("Branches"):
        branch.text("Comment")
        branches.append(nested.program(branch))
        branch.end("a branch")
    flow = parse_flow(fields, "Parameters", "ResultSelector", "ResultPath", "Assign")
    return ParallelState(
        name, parse_next(fields), flow, parse_retriers(fields), parse_catchers(fields), branches=tuple(branches)
    )


def _parse_task(name: str, fields: Fields, nested: Nested) -> State:
    fields.require("Resource")
    resource = _parse_resource(fields, nested.machine_type)
    timeout_s = fields.whole_or_path("TimeoutSeconds", _POSITIVE_SECONDS)
    heartbeat_s = fields.whole_or_path("HeartbeatSeconds", _POSITIVE_SECONDS)
    if isinstance(timeout_s, int) and isinstance(heartbeat_s, int) and heartbeat_s >= timeout_s:
        fields.wrong("HeartbeatSeconds", f"expected less than TimeoutSeconds ({timeout_s}), got {heartbeat_s}")
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
        resource = parse_resource(fields.text("Resource") or "")
    except ResourceError as error:
        if isinstance(fields.raw("Resource"), str):
            fields.wrong("Resource", str(error), codes.INVALID_RESOURCE)
        return Resource.of_function("")
    if machine_type is MachineType.EXPRESS and resource.pattern is not Pattern.ANSWER:
        fields.wrong("Resource", f"an EXPRESS workflow cannot wait: no .{resource.pattern}", codes.INVALID_RESOURCE)
    return resource


def _check_parameters(fields: Fields, resource: Resource) -> None:
    """See that a Lambda integration is told the function, and nothing that it does not take."""
    if (resource.service, resource.action, resource.sdk) != ("lambda", "invoke", False):
        return
    parameters = fields.raw("Parameters")
    if not isinstance(parameters, dict):
        fields.wrong("Parameters", f"expected an object with FunctionName, got {shown(parameters)}")
        return
    names = {name.removesuffix(".$"): name for name in parameters}
    if "FunctionName" not in names:
        fields.wrong("Parameters", "the field 'FunctionName' is required")
    for plain in sorted(names.keys() - _LAMBDA_PARAMETERS):
        fields.wrong(f"Parameters/{names[plain]}", f"the field {plain!r} is not supported by lambda:invoke")
