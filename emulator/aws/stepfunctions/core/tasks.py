"""Task states: the call, its events, its timeouts and its task token."""

import asyncio
import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from emulator.aws.limits import REGION
from emulator.aws.stepfunctions.asl.definition import TaskState
from emulator.aws.stepfunctions.asl.failures import HEARTBEAT_TIMEOUT, TIMEOUT, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.asl.resources import Pattern, Resource
from emulator.aws.stepfunctions.core.execution import COMPLETE, Execution, error_details
from emulator.aws.stepfunctions.core.interpreter import Interpreter, Visit
from emulator.aws.stepfunctions.core.records import LambdaCall
from emulator.errors import ApiError

# The last tokens that are done are remembered, so that a late sender is told so.
_REMEMBERED = 10_000


class TaskToken:
    """A token and what was sent with it.

    Attributes
    ----------
    text
        The token itself.
    """

    def __init__(self) -> None:
        self.text = base64.urlsafe_b64encode(uuid.uuid4().bytes + uuid.uuid4().bytes).decode()
        self.result: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self.beat = asyncio.Event()

    async def wait(self, heartbeat_s: float | None) -> Json:
        """Wait for the result.

        Raises
        ------
        StateFailure
            The failure that was sent instead, or that no heartbeat came in time.
        """
        while True:
            beat = asyncio.ensure_future(self.beat.wait())
            try:
                await asyncio.wait({self.result, beat}, timeout=heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                beat.cancel()
            if self.result.done():
                return self.result.result()
            if not self.beat.is_set():
                raise StateFailure(HEARTBEAT_TIMEOUT)
            self.beat.clear()


class TaskTokens:
    """The tokens that somebody waits for."""

    def __init__(self) -> None:
        self._waiting: dict[str, TaskToken] = {}
        self._done: dict[str, None] = {}

    def issue(self) -> TaskToken:
        """Return a new token."""
        token = TaskToken()
        self._waiting[token.text] = token
        return token

    def revoke(self, token: TaskToken) -> None:
        """Take note that nobody waits for a token any more."""
        if self._waiting.pop(token.text, None) is not None:
            self._done[token.text] = None
            if len(self._done) > _REMEMBERED:
                del self._done[next(iter(self._done))]

    def succeed(self, text: str, output: Json) -> None:
        """Send a Task its result.

        Raises
        ------
        ApiError
            When nobody waits for the token.
        """
        token = self._awaited(text)
        if not token.result.done():
            token.result.set_result(output)

    def fail(self, text: str, failure: StateFailure) -> None:
        """Send a Task a failure; raises as `succeed`."""
        token = self._awaited(text)
        if not token.result.done():
            token.result.set_exception(failure)

    def beat(self, text: str) -> None:
        """Tell a Task that its work is going on; raises as `succeed`."""
        self._awaited(text).beat.set()

    def _awaited(self, text: str) -> TaskToken:
        if text in self._waiting:
            return self._waiting[text]
        if text in self._done:
            raise ApiError(
                "TaskTimedOut",
                HTTPStatus.BAD_REQUEST,
                "Task Timed Out: 'Provided task does not exist anymore: it has ended, or was stopped'",
            )
        raise ApiError("InvalidToken", HTTPStatus.BAD_REQUEST, f"Invalid Token: 'Invalid token': {text[:80]!r}")


@dataclass(frozen=True)
class TaskCall:
    """A call that a Task makes.

    Parameters
    ----------
    resource
        What is called.
    parameters
        For it.
    state
        The Task state's name.
    index
        The item of the innermost Map, or None.
    execution
        Whose call it is.
    """

    resource: Resource
    parameters: Json
    state: str
    index: int | None
    execution: Execution

    def answered(self, function: str, request_id: str, began: float, *, failed: bool) -> None:
        """Take note of an invocation."""
        self.execution.add_lambda_call(
            LambdaCall(self.state, self.index, function, request_id, began, time.time(), failed)
        )


class Integration(Protocol):
    """Calls the resources of one kind."""

    async def call(self, call: TaskCall) -> Json:
        """Make a call and return its answer; when cancelled, what was started is ended.

        Raises
        ------
        StateFailure
            When the answer is an error.
        """


class TaskRunner:
    """Runs Task states.

    Parameters
    ----------
    integrations
        By service; ``""`` for the functions called by their own ARN, ``"aws-sdk"`` for all that is called by the SDK.
    tokens
        Issues task tokens.
    """

    def __init__(self, integrations: Mapping[str, Integration], tokens: TaskTokens) -> None:
        self._integrations = integrations
        self._tokens = tokens

    async def run(self, interpreter: Interpreter, visit: Visit[TaskState]) -> Json:
        """Make the state's call once; return the answer."""
        resource = visit.state.resource
        if resource.pattern is not Pattern.TASK_TOKEN:
            return await self._timed(interpreter, visit, None)
        token = self._tokens.issue()
        try:
            return await self._timed(interpreter, visit, token)
        finally:
            self._tokens.revoke(token)

    async def _timed(self, interpreter: Interpreter, visit: Visit[TaskState], token: TaskToken | None) -> Json:
        state = visit.state
        scope = visit.scope() if token is None else visit.scope_with(Task={"Token": token.text})
        parameters = visit.effective_input(scope)
        timeout_s = visit.number(state.timeout_s, "TimeoutSeconds", visit.value, scope)
        heartbeat_s = visit.number(state.heartbeat_s, "HeartbeatSeconds", visit.value, scope)
        events = _TaskEvents(visit)
        events.scheduled(parameters, timeout_s, heartbeat_s)
        call = TaskCall(state.resource, parameters, state.name, visit.strand.index, interpreter.execution)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._integration(state.resource).call(call)
                if token is not None:
                    events.submitted(answer)
                    answer = await token.wait(heartbeat_s)
        except TimeoutError:
            events.timed_out(TIMEOUT)
            raise StateFailure(TIMEOUT) from None
        except StateFailure as failure:
            if failure.error == HEARTBEAT_TIMEOUT:
                events.timed_out(HEARTBEAT_TIMEOUT)
            else:
                events.failed(failure)
            raise
        events.succeeded(answer)
        return answer

    def _integration(self, resource: Resource) -> Integration:
        if resource.sdk:
            return self._integrations["aws-sdk"]
        return self._integrations.get(resource.service) or self._integrations["aws-sdk"]


class _TaskEvents:
    """The events of one call: those of a function called by its own ARN have names of their own."""

    def __init__(self, visit: Visit[TaskState]) -> None:
        self._visit = visit
        resource = visit.state.resource
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
        text = self._visit.limited(parameters)
        if self._function_arn is not None:
            details: dict[str, Json] = {"resource": self._function_arn, "input": text, "inputDetails": COMPLETE}
        else:
            details = {**self._names, "region": REGION, "parameters": text}
        times = {"timeoutInSeconds": timeout_s, "heartbeatInSeconds": heartbeat_s}
        details |= {name: int(value) for name, value in times.items() if value is not None}
        self._visit.event(f"{self._prefix}Scheduled", details)
        self._visit.event(f"{self._prefix}Started", self._names or None)

    def submitted(self, answer: Json) -> None:
        output = {"output": self._visit.limited(answer), "outputDetails": COMPLETE}
        self._visit.event("TaskSubmitted", {**self._names, **output})

    def succeeded(self, answer: Json) -> None:
        output = {"output": self._visit.limited(answer), "outputDetails": COMPLETE}
        self._visit.event(f"{self._prefix}Succeeded", {**self._names, **output})

    def failed(self, failure: StateFailure) -> None:
        self._visit.event(f"{self._prefix}Failed", {**self._names, **error_details(failure)})

    def timed_out(self, error: str) -> None:
        self._visit.event(f"{self._prefix}TimedOut", {**self._names, "error": error})
