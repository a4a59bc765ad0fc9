"""Step Functions' API, AWS JSON 1.0: requests taken apart, answers put together.

Operations: https://docs.aws.amazon.com/step-functions/latest/apireference/API_Operations.html
"""

import base64
import binascii
import inspect
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar

from aiohttp import web

from emulator import limits
from emulator.endpoint import step_functions_shapes as shapes
from emulator.errors import ApiError
from emulator.step_functions.asl.definition import MachineType
from emulator.step_functions.asl.failures import StateFailure
from emulator.step_functions.asl.findings import DefinitionError, Finding
from emulator.step_functions.asl.parse_machine import parse_definition
from emulator.step_functions.records import Status
from emulator.step_functions.service import StepFunctionsService

TARGET = "AWSStepFunctions."
# A definition as a JSON text, and the rest of the request around it.
_REQUEST_BYTES = 3 * limits.DEFINITION_BYTES
_PAGE = 100
_LARGEST_PAGE = 1000
_MOST_TAGS = 50
_Request: TypeAlias = Mapping[str, Any]
_Answer: TypeAlias = dict[str, Any]
_Entry = TypeVar("_Entry")


class StepFunctionsApi:
    """The operations, over HTTP.

    Parameters
    ----------
    service
        The state machines and executions.
    """

    def __init__(self, service: StepFunctionsService) -> None:
        self._service = service
        self._operations: dict[str, Callable[[_Request], Any]] = {
            "CreateStateMachine": self._create,
            "UpdateStateMachine": self._update,
            "DeleteStateMachine": self._delete,
            "DescribeStateMachine": self._describe,
            "ListStateMachines": self._list,
            "ValidateStateMachineDefinition": self._validate,
            "StartExecution": self._start,
            "StartSyncExecution": self._start_sync,
            "StopExecution": self._stop,
            "DescribeExecution": self._describe_execution,
            "DescribeStateMachineForExecution": self._describe_machine_of_execution,
            "ListExecutions": self._list_executions,
            "GetExecutionHistory": self._history,
            "DescribeMapRun": self._describe_map_run,
            "ListMapRuns": self._list_map_runs,
            "SendTaskSuccess": self._send_success,
            "SendTaskFailure": self._send_failure,
            "SendTaskHeartbeat": self._send_heartbeat,
            "ListTagsForResource": self._tags,
            "TagResource": self._tag,
            "UntagResource": self._untag,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        name = request.headers.get("X-Amz-Target", "").removeprefix(TARGET)
        try:
            answer = self._operation(name)(await _read(request))
            if inspect.isawaitable(answer):
                answer = await answer
        except ApiError as error:
            return _json({"__type": error.code, "message": error.message, **error.details}, error.status)
        return _json(answer, HTTPStatus.OK)

    def _operation(self, name: str) -> Callable[[_Request], Any]:
        if name not in self._operations:
            raise ApiError(
                "UnknownOperationException",
                HTTPStatus.BAD_REQUEST,
                f"Step Functions' {name} is not emulated; there are {', '.join(self._operations)}",
            )
        return self._operations[name]

    def _create(self, request: _Request) -> _Answer:
        kind = _kind(request)
        if request.get("publish"):
            raise _invalid("publish: versions of state machines are not emulated; leave it out")
        machine = self._service.machines.create(
            request.get("name", ""),
            _text(request, "definition"),
            _text(request, "roleArn"),
            kind,
            _tag_map(request.get("tags", [])),
            _settings(request),
        )
        return {"stateMachineArn": machine.arn, "creationDate": machine.created_at}

    def _update(self, request: _Request) -> _Answer:
        text, role_arn = request.get("definition"), request.get("roleArn")
        settings = _settings(request)
        if text is None and role_arn is None and not settings:
            raise ApiError(
                "MissingRequiredParameter",
                HTTPStatus.BAD_REQUEST,
                "Either the definition, the role ARN, the LoggingConfiguration, or the TracingConfiguration must be "
                "specified",
            )
        machine = self._service.machines.update(request.get("stateMachineArn", ""), text, role_arn, settings)
        return {"updateDate": machine.updated_at, "revisionId": machine.revision_id}

    def _delete(self, request: _Request) -> _Answer:
        self._service.machines.delete(request.get("stateMachineArn"))
        return {}

    def _describe(self, request: _Request) -> _Answer:
        return shapes.machine_description(self._service.machines.get(request.get("stateMachineArn")))

    def _list(self, request: _Request) -> _Answer:
        page = _paged(request, self._service.machines.all())
        return page.answer("stateMachines", shapes.machine_item)

    def _validate(self, request: _Request) -> _Answer:
        findings: tuple[Finding, ...] = ()
        try:
            parse_definition(_text(request, "definition"), _kind(request))
        except DefinitionError as error:
            findings = error.findings
        most = _whole(request, "maxResults", _PAGE) or _PAGE
        return {
            "result": "FAIL" if findings else "OK",
            "diagnostics": [
                {"severity": "ERROR", "code": found.code, "message": found.message, "location": found.place or "/"}
                for found in findings[:most]
            ],
            "truncated": len(findings) > most,
        }

    def _start(self, request: _Request) -> _Answer:
        execution = self._service.start_execution(request.get("stateMachineArn"), request.get("name"), _input(request))
        return {"executionArn": execution.arn, "startDate": execution.started_at}

    async def _start_sync(self, request: _Request) -> _Answer:
        execution = await self._service.start_sync_execution(
            request.get("stateMachineArn"), request.get("name"), _input(request)
        )
        return shapes.sync_description(execution)

    async def _stop(self, request: _Request) -> _Answer:
        failure = StateFailure(request.get("error"), request.get("cause"))
        execution = await self._service.stop_execution(request.get("executionArn"), failure)
        return {"stopDate": execution.stopped_at}

    def _describe_execution(self, request: _Request) -> _Answer:
        return shapes.execution_description(self._service.execution(request.get("executionArn")))

    def _describe_machine_of_execution(self, request: _Request) -> _Answer:
        return shapes.machine_of_execution(self._service.execution(request.get("executionArn")))

    def _list_executions(self, request: _Request) -> _Answer:
        if ("stateMachineArn" in request) == ("mapRunArn" in request):
            raise _invalid("expected either stateMachineArn or mapRunArn")
        if "mapRunArn" in request:
            found = self._service.map_run(request["mapRunArn"]).children[::-1]
        else:
            found = self._service.executions_of(request["stateMachineArn"])
        status = request.get("statusFilter")
        if status is not None and status not in {*Status, "PENDING_REDRIVE"}:
            raise _invalid(f"statusFilter: expected one of {', '.join(Status)}, got {status!r}")
        kept = [execution for execution in found if status in (None, execution.status)]
        return _paged(request, kept).answer("executions", shapes.execution_item)

    def _history(self, request: _Request) -> _Answer:
        execution = self._service.execution(request.get("executionArn"))
        if execution.kind is MachineType.EXPRESS:
            raise ApiError(
                "InvalidArn",
                HTTPStatus.BAD_REQUEST,
                f"Invalid Arn: an EXPRESS execution has no history: {execution.arn}",
            )
        events = execution.history.events
        with_data = request.get("includeExecutionData") is not False
        page = _paged(request, events[::-1] if request.get("reverseOrder") else events)
        return page.answer("events", lambda event: event.to_api(with_data=with_data))

    def _describe_map_run(self, request: _Request) -> _Answer:
        return shapes.map_run_description(self._service.map_run(request.get("mapRunArn")))

    def _list_map_runs(self, request: _Request) -> _Answer:
        execution = self._service.execution(request.get("executionArn"))
        return _paged(request, execution.map_runs).answer("mapRuns", shapes.map_run_item)

    def _send_success(self, request: _Request) -> _Answer:
        text = _text(request, "output")
        if len(text.encode(errors="surrogatepass")) > limits.STATE_DATA_BYTES:
            raise _invalid(f"Value at 'output': expected at most {limits.STATE_DATA_BYTES} bytes")
        try:
            output = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ApiError("InvalidOutput", HTTPStatus.BAD_REQUEST, f"Invalid Output: expected JSON: {error}") from None
        self._service.tokens.succeed(_text(request, "taskToken"), output)
        return {}

    def _send_failure(self, request: _Request) -> _Answer:
        failure = StateFailure(request.get("error"), request.get("cause"))
        self._service.tokens.fail(_text(request, "taskToken"), failure)
        return {}

    def _send_heartbeat(self, request: _Request) -> _Answer:
        self._service.tokens.beat(_text(request, "taskToken"))
        return {}

    def _tags(self, request: _Request) -> _Answer:
        machine = self._service.machines.get(request.get("resourceArn"))
        return {"tags": [{"key": key, "value": value} for key, value in machine.tags.items()]}

    def _tag(self, request: _Request) -> _Answer:
        machine = self._service.machines.get(request.get("resourceArn"))
        self._service.machines.tag(machine.arn, _checked_tags({**machine.tags, **_tag_map(request.get("tags", []))}))
        return {}

    def _untag(self, request: _Request) -> _Answer:
        machine = self._service.machines.get(request.get("resourceArn"))
        gone = request.get("tagKeys", [])
        self._service.machines.tag(machine.arn, {key: value for key, value in machine.tags.items() if key not in gone})
        return {}


class _Page:
    """Some of a list's entries, and where the rest begins."""

    def __init__(self, entries: Sequence[Any], following: str | None) -> None:
        self._entries = entries
        self._following = following

    def answer(self, name: str, shape: Callable[[Any], _Answer]) -> _Answer:
        """Return the entries, each in its shape."""
        listed: _Answer = {name: [shape(entry) for entry in self._entries]}
        return listed if self._following is None else {**listed, "nextToken": self._following}


def _paged(request: _Request, entries: Sequence[_Entry]) -> _Page:
    """Return the page that a request asks for."""
    size = _whole(request, "maxResults", _LARGEST_PAGE) or _PAGE
    start = 0
    if "nextToken" in request:
        try:
            start = int(base64.urlsafe_b64decode(str(request["nextToken"])))
        except (binascii.Error, ValueError):
            raise ApiError("InvalidToken", HTTPStatus.BAD_REQUEST, "Invalid Token: 'Invalid token'") from None
    end = start + size
    following = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(entries) else None
    return _Page(entries[start:end], following)


def _invalid(message: str) -> ApiError:
    return ApiError("ValidationException", HTTPStatus.BAD_REQUEST, message)


def _text(request: _Request, name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str):
        raise _invalid(f"1 validation error detected: Value at '{name}': expected a text, got {value!r}")
    return value


def _input(request: _Request) -> str:
    return _text(request, "input") if "input" in request else "{}"


def _whole(request: _Request, name: str, most: int) -> int:
    value = request.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise _invalid(f"1 validation error detected: Value at '{name}': expected 0 to {most}, got {value!r}")
    return value


def _kind(request: _Request) -> MachineType:
    kind = request.get("type", "STANDARD")
    if kind not in tuple(MachineType):
        raise _invalid(f"1 validation error detected: Value at 'type': expected STANDARD or EXPRESS, got {kind!r}")
    return MachineType(kind)


def _settings(request: _Request) -> _Answer:
    names = ("loggingConfiguration", "tracingConfiguration")
    return {name: request[name] for name in names if isinstance(request.get(name), dict)}


def _tag_map(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return _checked_tags({tag["key"]: tag.get("value", "") for tag in tags})


def _checked_tags(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > _MOST_TAGS:
        raise ApiError("TooManyTags", HTTPStatus.BAD_REQUEST, f"expected at most {_MOST_TAGS} tags, got {len(tags)}")
    return tags


async def _read(request: web.Request) -> _Request:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _REQUEST_BYTES:
            raise _invalid(f"the request is larger than {_REQUEST_BYTES} bytes")
    try:
        content = json.loads(body or b"{}")
    except ValueError as error:
        raise ApiError("SerializationException", HTTPStatus.BAD_REQUEST, f"expected JSON: {error}") from None
    if not isinstance(content, dict):
        raise ApiError("SerializationException", HTTPStatus.BAD_REQUEST, f"expected an object, got {content!r:.80}")
    return content


def _json(body: _Answer, status: HTTPStatus) -> web.Response:
    return web.json_response(
        body,
        status=status,
        content_type="application/x-amz-json-1.0",
        headers={"x-amzn-RequestId": str(uuid.uuid4())},
    )
