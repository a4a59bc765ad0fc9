"""Step Functions' operations by their names in AWS's model, which reads and checks requests and writes answers.

Operations: https://docs.aws.amazon.com/step-functions/latest/apireference/API_Operations.html
"""

import asyncio
from http import HTTPStatus
from typing import Any

from emulator.aws import limits
from emulator.aws.account import Account
from emulator.aws.protocol.json_api import JsonApi, Parameters
from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.aws.stepfunctions.asl.diagnostics import DefinitionError, Diagnostic
from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.asl.json_values import loads
from emulator.aws.stepfunctions.asl.parse_machine import parse_definition
from emulator.aws.stepfunctions.core.service import StepFunctionsService
from emulator.aws.stepfunctions.http import requests, shapes
from emulator.errors import ApiError

Response = dict[str, Any]
# A definition as a JSON string, and the rest of the request.
_REQUEST_BYTES = 3 * limits.DEFINITION_BYTES
_DIAGNOSTICS = 100


class StepFunctionsApi(JsonApi):
    """The operations on state machines, executions and task tokens.

    Parameters
    ----------
    service
        The Step Functions service.
    account_number
        The number of the account.
    """

    def __init__(self, service: StepFunctionsService, account_number: str) -> None:
        self._service = service
        operations = {
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
        super().__init__(
            "stepfunctions",
            operations,
            account_number,
            request_bytes=_REQUEST_BYTES,
            disk_full="InternalFailure",
        )

    async def _create(self, request: Parameters, account: Account) -> Response:
        requests.check_unpublished(request)
        machine = await self._service.machines.create(
            account,
            request["name"],
            request["definition"],
            request["roleArn"],
            requests.machine_type(request),
            requests.tags(request),
            requests.settings(request),
        )
        return {"stateMachineArn": machine.arn, "creationDate": machine.created_at}

    async def _update(self, request: Parameters, account: Account) -> Response:
        text, role_arn, settings = request.get("definition"), request.get("roleArn"), requests.settings(request)
        if text is None and role_arn is None and not settings:
            raise ApiError(
                "MissingRequiredParameter",
                HTTPStatus.BAD_REQUEST,
                "Either the definition, the role ARN, the LoggingConfiguration, or the TracingConfiguration must be "
                "specified",
            )
        requests.check_unpublished(request)
        machine = await self._service.machines.update(request["stateMachineArn"], account, text, role_arn, settings)
        return {"updateDate": machine.updated_at, "revisionId": machine.revision_id}

    def _delete(self, request: Parameters, account: Account) -> None:
        self._service.machines.delete(request["stateMachineArn"], account)

    def _describe(self, request: Parameters, account: Account) -> Response:
        return shapes.machine_description(self._service.machines.get(request["stateMachineArn"], account))

    def _list(self, request: Parameters, account: Account) -> Response:
        return requests.page(request, "stateMachines", self._service.machines.all(account), shapes.machine_item)

    async def _validate(self, request: Parameters, _: Account) -> Response:
        diagnostics: tuple[Diagnostic, ...] = ()
        try:
            await asyncio.to_thread(parse_definition, request["definition"], requests.machine_type(request))
        except DefinitionError as error:
            diagnostics = error.diagnostics
        most = request.get("maxResults") or _DIAGNOSTICS
        return {
            "result": "FAIL" if diagnostics else "OK",
            "diagnostics": [
                {"severity": "ERROR", "code": found.code, "message": found.message, "location": found.location or "/"}
                for found in diagnostics[:most]
            ],
            "truncated": len(diagnostics) > most,
        }

    def _start(self, request: Parameters, account: Account) -> Response:
        text = requests.data(request, "input", "{}")
        execution = self._service.start_execution(request["stateMachineArn"], account, request.get("name"), text)
        return {"executionArn": execution.arn, "startDate": execution.started_at}

    async def _start_sync(self, request: Parameters, account: Account) -> Response:
        arn, text = request["stateMachineArn"], requests.data(request, "input", "{}")
        execution = await self._service.start_sync_execution(arn, account, request.get("name"), text)
        return shapes.sync_description(execution)

    async def _stop(self, request: Parameters, account: Account) -> Response:
        failure = StateFailure(request.get("error"), request.get("cause"))
        execution = await self._service.stop_execution(request["executionArn"], account, failure)
        return {"stopDate": execution.stopped_at}

    def _describe_execution(self, request: Parameters, account: Account) -> Response:
        return shapes.execution_description(self._service.execution(request["executionArn"], account))

    def _describe_machine_of_execution(self, request: Parameters, account: Account) -> Response:
        return shapes.machine_of_execution(self._service.execution(request["executionArn"], account))

    def _list_executions(self, request: Parameters, account: Account) -> Response:
        if ("stateMachineArn" in request) == ("mapRunArn" in request):
            raise requests.invalid("Must provide a StateMachine ARN or a MapRun ARN")
        if "mapRunArn" in request:
            found = self._service.map_run(request["mapRunArn"], account).children[::-1]
        else:
            found = self._service.executions_of(request["stateMachineArn"], account)
        status = request.get("statusFilter")
        kept = [execution for execution in found if status in (None, execution.status)]
        return requests.page(request, "executions", kept, shapes.execution_item)

    def _history(self, request: Parameters, account: Account) -> Response:
        execution = self._service.execution(request["executionArn"], account)
        if execution.kind is MachineType.EXPRESS:
            raise ApiError(
                "InvalidArn",
                HTTPStatus.BAD_REQUEST,
                f"Invalid Arn: expected a STANDARD execution, as EXPRESS ones have no history: {execution.arn}",
            )
        events = execution.history.events
        with_data = request.get("includeExecutionData", True)
        ordered = events[::-1] if request.get("reverseOrder") else events
        return requests.page(request, "events", ordered, lambda event: event.to_api(with_data=with_data))

    def _describe_map_run(self, request: Parameters, account: Account) -> Response:
        return shapes.map_run_description(self._service.map_run(request["mapRunArn"], account))

    def _list_map_runs(self, request: Parameters, account: Account) -> Response:
        execution = self._service.execution(request["executionArn"], account)
        return requests.page(request, "mapRuns", execution.map_runs, shapes.map_run_item)

    def _send_success(self, request: Parameters, _: Account) -> None:
        text = requests.data(request, "output")
        try:
            output = loads(text)
        except ValueError as error:
            raise ApiError("InvalidOutput", HTTPStatus.BAD_REQUEST, f"Invalid Output: expected JSON: {error}") from None
        self._service.tokens.succeed(request["taskToken"], output)

    def _send_failure(self, request: Parameters, _: Account) -> None:
        self._service.tokens.fail(request["taskToken"], StateFailure(request.get("error"), request.get("cause")))

    def _send_heartbeat(self, request: Parameters, _: Account) -> None:
        self._service.tokens.heartbeat(request["taskToken"])

    def _tags(self, request: Parameters, account: Account) -> Response:
        machine = self._service.machines.get(request["resourceArn"], account)
        return {"tags": [{"key": key, "value": value} for key, value in machine.tags.items()]}

    def _tag(self, request: Parameters, account: Account) -> None:
        machine = self._service.machines.get(request["resourceArn"], account)
        self._service.machines.tag(machine, requests.tags(request, machine.tags))

    def _untag(self, request: Parameters, account: Account) -> None:
        machine = self._service.machines.get(request["resourceArn"], account)
        gone = request["tagKeys"]
        self._service.machines.tag(machine, {key: value for key, value in machine.tags.items() if key not in gone})
