"""The API of Step Functions in AWS JSON 1.0: one method for each operation.

Operations: https://docs.aws.amazon.com/step-functions/latest/apireference/API_Operations.html
"""

import asyncio
import inspect
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.aws.disk_reserve import DiskFullError
from emulator.aws.json_requests import read_json
from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.aws.stepfunctions.asl.diagnostics import DefinitionError, Diagnostic
from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.asl.json_values import loads
from emulator.aws.stepfunctions.asl.parse_machine import parse_definition
from emulator.aws.stepfunctions.core.records import Status
from emulator.aws.stepfunctions.core.service import StepFunctionsService
from emulator.aws.stepfunctions.http import requests, shapes
from emulator.aws.stepfunctions.http.requests import Request, Response
from emulator.errors import ApiError

TARGET = "AWSStepFunctions."


class StepFunctionsApi:
    """The operations, over HTTP.

    Parameters
    ----------
    service
        The Step Functions service.
    """

    def __init__(self, service: StepFunctionsService) -> None:
        self._service = service
        self._operations: dict[str, Callable[[Request], Any]] = {
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
        """Handle one request."""
        name = request.headers.get("X-Amz-Target", "").removeprefix(TARGET)
        try:
            response = self._operation(name)(await read_json(request, requests.REQUEST_BYTES, requests.too_large))
            if inspect.isawaitable(response):
                response = await response
        except DiskFullError as error:
            return _json({"__type": "InternalFailure", "message": error.message}, error.status)
        except ApiError as error:
            return _json({"__type": error.code, "message": error.message, **error.details}, error.status)
        return _json(response, HTTPStatus.OK)

    def _operation(self, name: str) -> Callable[[Request], Any]:
        if name not in self._operations:
            raise ApiError(
                "UnknownOperationException",
                HTTPStatus.BAD_REQUEST,
                f"unknown operation {name!r} of Step Functions: expected one of {', '.join(self._operations)}",
            )
        return self._operations[name]

    async def _create(self, request: Request) -> Response:
        kind = requests.machine_type(request)
        if request.get("publish"):
            raise requests.invalid("publish: versions of state machines are not emulated; omit it")
        machine = await self._service.machines.create(
            request.get("name", ""),
            requests.string(request, "definition"),
            requests.string(request, "roleArn"),
            kind,
            requests.tags(request),
            requests.settings(request),
        )
        return {"stateMachineArn": machine.arn, "creationDate": machine.created_at}

    async def _update(self, request: Request) -> Response:
        text, role_arn = requests.optional_string(request, "definition"), requests.optional_string(request, "roleArn")
        settings = requests.settings(request)
        if text is None and role_arn is None and not settings:
            raise ApiError(
                "MissingRequiredParameter",
                HTTPStatus.BAD_REQUEST,
                "Either the definition, the role ARN, the LoggingConfiguration, or the TracingConfiguration must be "
                "specified",
            )
        machine = await self._service.machines.update(request.get("stateMachineArn", ""), text, role_arn, settings)
        return {"updateDate": machine.updated_at, "revisionId": machine.revision_id}

    def _delete(self, request: Request) -> Response:
        self._service.machines.delete(request.get("stateMachineArn"))
        return {}

    def _describe(self, request: Request) -> Response:
        return shapes.machine_description(self._service.machines.get(request.get("stateMachineArn")))

    def _list(self, request: Request) -> Response:
        return requests.page(request, "stateMachines", self._service.machines.all(), shapes.machine_item)

    async def _validate(self, request: Request) -> Response:
        diagnostics: tuple[Diagnostic, ...] = ()
        try:
            await asyncio.to_thread(
                parse_definition, requests.string(request, "definition"), requests.machine_type(request)
            )
        except DefinitionError as error:
            diagnostics = error.diagnostics
        max_results = requests.integer(request, "maxResults", requests.PAGE) or requests.PAGE
        return {
            "result": "FAIL" if diagnostics else "OK",
            "diagnostics": [
                {"severity": "ERROR", "code": found.code, "message": found.message, "location": found.location or "/"}
                for found in diagnostics[:max_results]
            ],
            "truncated": len(diagnostics) > max_results,
        }

    def _start(self, request: Request) -> Response:
        execution = self._service.start_execution(
            request.get("stateMachineArn"), requests.optional_string(request, "name"), requests.execution_input(request)
        )
        return {"executionArn": execution.arn, "startDate": execution.started_at}

    async def _start_sync(self, request: Request) -> Response:
        execution = await self._service.start_sync_execution(
            request.get("stateMachineArn"), requests.optional_string(request, "name"), requests.execution_input(request)
        )
        return shapes.sync_description(execution)

    async def _stop(self, request: Request) -> Response:
        failure = StateFailure(requests.optional_string(request, "error"), requests.optional_string(request, "cause"))
        execution = await self._service.stop_execution(request.get("executionArn"), failure)
        return {"stopDate": execution.stopped_at}

    def _describe_execution(self, request: Request) -> Response:
        return shapes.execution_description(self._service.execution(request.get("executionArn")))

    def _describe_machine_of_execution(self, request: Request) -> Response:
        return shapes.machine_of_execution(self._service.execution(request.get("executionArn")))

    def _list_executions(self, request: Request) -> Response:
        if ("stateMachineArn" in request) == ("mapRunArn" in request):
            raise requests.invalid("expected either stateMachineArn or mapRunArn")
        if "mapRunArn" in request:
            found = self._service.map_run(request["mapRunArn"]).children[::-1]
        else:
            found = self._service.executions_of(request["stateMachineArn"])
        status = requests.optional_string(request, "statusFilter")
        if status is not None and status not in {*Status, "PENDING_REDRIVE"}:
            raise requests.invalid(f"statusFilter: expected one of {', '.join(Status)}, got {status!r}")
        kept = [execution for execution in found if status in (None, execution.status)]
        return requests.page(request, "executions", kept, shapes.execution_item)

    def _history(self, request: Request) -> Response:
        execution = self._service.execution(request.get("executionArn"))
        if execution.kind is MachineType.EXPRESS:
            raise ApiError(
                "InvalidArn",
                HTTPStatus.BAD_REQUEST,
                f"Invalid Arn: expected a STANDARD execution, as EXPRESS ones have no history: {execution.arn}",
            )
        events = execution.history.events
        with_data = request.get("includeExecutionData") is not False
        ordered = events[::-1] if request.get("reverseOrder") else events
        return requests.page(request, "events", ordered, lambda event: event.to_api(with_data=with_data))

    def _describe_map_run(self, request: Request) -> Response:
        return shapes.map_run_description(self._service.map_run(request.get("mapRunArn")))

    def _list_map_runs(self, request: Request) -> Response:
        execution = self._service.execution(request.get("executionArn"))
        return requests.page(request, "mapRuns", execution.map_runs, shapes.map_run_item)

    def _send_success(self, request: Request) -> Response:
        text = requests.data(request, "output")
        try:
            output = loads(text)
        except ValueError as error:
            raise ApiError("InvalidOutput", HTTPStatus.BAD_REQUEST, f"Invalid Output: expected JSON: {error}") from None
        self._service.tokens.succeed(requests.string(request, "taskToken"), output)
        return {}

    def _send_failure(self, request: Request) -> Response:
        failure = StateFailure(requests.optional_string(request, "error"), requests.optional_string(request, "cause"))
        self._service.tokens.fail(requests.string(request, "taskToken"), failure)
        return {}

    def _send_heartbeat(self, request: Request) -> Response:
        self._service.tokens.heartbeat(requests.string(request, "taskToken"))
        return {}

    def _tags(self, request: Request) -> Response:
        machine = self._service.machines.get(request.get("resourceArn"))
        return {"tags": [{"key": key, "value": value} for key, value in machine.tags.items()]}

    def _tag(self, request: Request) -> Response:
        machine = self._service.machines.get(request.get("resourceArn"))
        self._service.machines.tag(machine.arn, requests.tags(request, machine.tags))
        return {}

    def _untag(self, request: Request) -> Response:
        machine = self._service.machines.get(request.get("resourceArn"))
        gone = requests.tag_keys(request)
        self._service.machines.tag(machine.arn, {key: value for key, value in machine.tags.items() if key not in gone})
        return {}


def _json(body: Response, status: HTTPStatus) -> web.Response:
    return web.json_response(
        body,
        status=status,
        content_type="application/x-amz-json-1.0",
        headers={"x-amzn-RequestId": str(uuid.uuid4())},
    )
