"""Task states: the call, its events, its timeouts and its task token."""

import asyncio
import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from emulator.aws.stepfunctions.asl.definition import TaskState
from emulator.aws.stepfunctions.asl.expressions import Scope
from emulator.aws.stepfunctions.asl.failures import HEARTBEAT_TIMEOUT, TIMEOUT, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.asl.resources import Pattern, Resource
from emulator.aws.stepfunctions.core.execution import COMPLETE, Execution, error_details
from emulator.aws.stepfunctions.core.interpreter import Interpreter, StateExecution
from emulator.aws.stepfunctions.core.records import LambdaCall
from emulator.errors import ApiError

# Completed tokens are kept, so that a late sender gets TaskTimedOut instead of InvalidToken.
_COMPLETED_KEPT = 10_000


class TaskToken:
    """A task token and the result sent with it.

    Attributes
    ----------
    text
        The token.
    result
        The result, or the failure sent instead.
    heartbeat
        Set by a heartbeat.
    """

    def __init__(self) -> None:
        self.text = base64.urlsafe_b64encode(uuid.uuid4().bytes + uuid.uuid4().bytes).decode()
        self.result: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self.heartbeat = asyncio.Event()

    async def wait(self, heartbeat_s: float | None) -> Json:
        """Wait for the result.

        Raises
        ------
        StateFailure
            The failure that was sent, or States.HeartbeatTimeout if no heartbeat arrived in time.
        """
        while True:
            heartbeat = asyncio.ensure_future(self.heartbeat.wait())
            try:
                await asyncio.wait({self.result, heartbeat}, timeout=heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                heartbeat.cancel()
            if self.result.done():
                return self.result.result()
            if not self.heartbeat.is_set():
                raise StateFailure(HEARTBEAT_TIMEOUT)
            self.heartbeat.clear()


class TaskTokens:
    """The task tokens that Tasks wait for."""

    def __init__(self) -> None:
        self._pending: dict[str, TaskToken] = {}
        self._completed: dict[str, None] = {}

    def issue(self) -> TaskToken:
        """Create a token."""
        token = TaskToken()
        self._pending[token.text] = token
        return token

    def revoke(self, token: TaskToken) -> None:
        """Mark a token as completed: its Task has ended."""
        if self._pending.pop(token.text, None) is not None:
            self._completed[token.text] = None
            if len(self._completed) > _COMPLETED_KEPT:
                del self._completed[next(iter(self._completed))]

    def succeed(self, text: str, output: Json) -> None:
        """Send a Task its result.

        Raises
        ------
        ApiError
            TaskTimedOut if the token's Task has ended, InvalidToken if the token is unknown.
        """
        token = self._get_pending(text)
        if not token.result.done():
            token.result.set_result(output)

    def fail(self, text: str, failure: StateFailure) -> None:
        """Send a Task a failure. Raises the same errors as `succeed`."""
        token = self._get_pending(text)
        if not token.result.done():
            token.result.set_exception(failure)

    def heartbeat(self, text: str) -> None:
        """Send a Task a heartbeat. Raises the same errors as `succeed`."""
        self._get_pending(text).heartbeat.set()

    def _get_pending(self, text: str) -> TaskToken:
        if text in self._pending:
            return self._pending[text]
        if text in self._completed:
            raise ApiError(
                "TaskTimedOut",
                HTTPStatus.BAD_REQUEST,
                "Task Timed Out: 'Provided task does not exist anymore'",
            )
        raise ApiError("InvalidToken", HTTPStatus.BAD_REQUEST, f"Invalid Token: 'Invalid token': {text[:80]!r}")


@dataclass(frozen=True)
class TaskCall:
    """One call of a Task.

    Parameters
    ----------
    resource
        The resource to call.
    parameters
        The call's parameters.
    state
        The Task state's name.
    index
        The item index in the innermost Map, or None.
    execution
        The execution that makes the call.
    """

    resource: Resource
    parameters: Json
    state: str
    index: int | None
    execution: Execution

    def record_invocation(self, function: str, request_id: str, started: float, *, failed: bool) -> None:
        """Record a Lambda invocation in the execution."""
        self.execution.add_lambda_call(
            LambdaCall(self.state, self.index, function, request_id, started, time.time(), failed)
        )


class Integration(Protocol):
    """Calls the resources of one service."""

    async def call(self, call: TaskCall) -> Json:
        """Make a call and return its response. Cancelling it stops what the call has started.

        Raises
        ------
        StateFailure
            If the response is an error.
        """


class TaskRunner:
    """Runs Task states.

    Parameters
    ----------
    integrations
        By service: ``""`` for functions called by their own ARN, ``"aws-sdk"`` for all calls through the SDK.
    tokens
        Issues task tokens.
    """

    def __init__(self, integrations: Mapping[str, Integration], tokens: TaskTokens) -> None:
        self._integrations = integrations
        self._tokens = tokens

    async def run(self, interpreter: Interpreter, step: StateExecution[TaskState]) -> Json:
        """Make the state's call once, without retries; return the response."""
        resource = step.state.resource
        if resource.pattern is not Pattern.TASK_TOKEN:
            return await self._run_with_timeouts(interpreter, step, None)
        token = self._tokens.issue()
        try:
            return await self._run_with_timeouts(interpreter, step, token)
        finally:
            self._tokens.revoke(token)

    async def _run_with_timeouts(
        self, interpreter: Interpreter, step: StateExecution[TaskState], token: TaskToken | None
    ) -> Json:
        state = step.state
        scope = step.scope() if token is None else step.scope_with(Task={"Token": token.text})
        evaluated = await interpreter.turns.evaluate(_parameters_and_times, step, scope)
        parameters, timeout_s, heartbeat_s = evaluated
        events = _TaskEvents(step, interpreter.execution.machine.account.region)
        events.scheduled(parameters, timeout_s, heartbeat_s)
        call = TaskCall(state.resource, parameters, state.name, step.branch.index, interpreter.execution)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._integration(state.resource).call(call)
                if token is not None:
                    events.submitted(response)
                    response = await token.wait(heartbeat_s)
        except TimeoutError:
            events.timed_out(TIMEOUT)
            raise StateFailure(TIMEOUT) from None
        except StateFailure as failure:
            if failure.error == HEARTBEAT_TIMEOUT:
                events.timed_out(HEARTBEAT_TIMEOUT)
            else:
                events.failed(failure)
            raise
        events.succeeded(response)
        return response

    def _integration(self, resource: Resource) -> Integration:
        if resource.sdk:
            return self._integrations["aws-sdk"]
        return self._integrations.get(resource.service) or self._integrations["aws-sdk"]


def _parameters_and_times(step: StateExecution[TaskState], scope: Scope) -> tuple[Json, float | None, float | None]:
    state = step.state
    return (
        step.effective_input(scope),
        step.number(state.timeout_s, "TimeoutSeconds", step.value, scope),
        step.number(state.heartbeat_s, "HeartbeatSeconds", step.value, scope),
    )


class _TaskEvents:
    """Adds the events of one call. A function called by its own ARN has other event names."""

    def __init__(self, step: StateExecution[TaskState], region: str) -> None:
        self._step = step
        self._region = region
        resource = step.state.resource
        self._function_arn = resource.arn if resource.is_function else None
        self._names: dict[str, Json] = {}
        self._prefix = "LambdaFunction"
        if self._function_arn is None:
            self._prefix = "Task"
            self._names = {
                "resourceType": f"aws-sdk:{resource.service}" if resource.sdk else resource.service,
                "resource": f"{resource.action}.{resource.pattern}" if resource.pattern else resource.action,
            }

    def scheduled(self, parameters: Json, timeout_s: float | None, heartbeat_s: float | None) -> None:
        text = self._step.serialize(parameters)
        if self._function_arn is not None:
            details: dict[str, Json] = {"resource": self._function_arn, "input": text, "inputDetails": COMPLETE}
        else:
            details = {**self._names, "region": self._region, "parameters": text}
        times = {"timeoutInSeconds": timeout_s, "heartbeatInSeconds": heartbeat_s}
        details |= {name: int(value) for name, value in times.items() if value is not None}
        self._step.add_event(f"{self._prefix}Scheduled", details)
        self._step.add_event(f"{self._prefix}Started", self._names or None)

    def submitted(self, response: Json) -> None:
        output = {"output": self._step.serialize(response), "outputDetails": COMPLETE}
        self._step.add_event("TaskSubmitted", {**self._names, **output})

    def succeeded(self, response: Json) -> None:
        output = {"output": self._step.serialize(response), "outputDetails": COMPLETE}
        self._step.add_event(f"{self._prefix}Succeeded", {**self._names, **output})

    def failed(self, failure: StateFailure) -> None:
        self._step.add_event(f"{self._prefix}Failed", {**self._names, **error_details(failure)})

    def timed_out(self, error: str) -> None:
        self._step.add_event(f"{self._prefix}TimedOut", {**self._names, "error": error})
