"""Task states: the call, its events, its times."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from emulator.aws.limits import REGION
from emulator.aws.stepfunctions.asl.definition import TaskState
from emulator.aws.stepfunctions.asl.failures import HEARTBEAT_TIMEOUT, TIMEOUT, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.asl.resources import Pattern, Resource
from emulator.aws.stepfunctions.core.execution import Execution, error_details
from emulator.aws.stepfunctions.core.history import COMPLETE
from emulator.aws.stepfunctions.core.interpreter import Interpreter
from emulator.aws.stepfunctions.core.records import LambdaCall
from emulator.aws.stepfunctions.core.state_execution import Visit
from emulator.aws.stepfunctions.core.task_tokens import TaskToken, TaskTokens


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
        self._resource = visit.state.resource
        self._names: dict[str, Json] = {}
        self._prefix = "LambdaFunction"
        if not self._resource.is_function:
            self._prefix = "Task"
            self._names = {"resourceType": self._resource.event_type, "resource": self._resource.event_resource}

    def scheduled(self, parameters: Json, timeout_s: float | None, heartbeat_s: float | None) -> None:
        text = self._visit.limited(parameters)
        if self._resource.is_function:
            details: dict[str, Json] = {"resource": self._resource.arn, "input": text, "inputDetails": COMPLETE}
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
