"""Tasks that start another state machine, ``states:startExecution``, and those that wait for its end."""

import json
import uuid
from collections.abc import Callable
from typing import Protocol

from emulator.aws.account import Account
from emulator.aws.stepfunctions.asl.failures import RUNTIME, TASK_FAILED, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json, dumps
from emulator.aws.stepfunctions.asl.resources import Pattern
from emulator.aws.stepfunctions.core.execution import Execution, format_timestamp
from emulator.aws.stepfunctions.core.records import Status
from emulator.aws.stepfunctions.core.sdk_names import ServiceError, optimized_failure
from emulator.aws.stepfunctions.core.tasks import TaskCall
from emulator.errors import ApiError


class Starter(Protocol):
    """Starts executions and waits for them."""

    def start_execution(self, arn: str, account: Account, name: str | None, input_text: str) -> Execution:
        """Start an execution."""

    async def wait(self, execution: Execution) -> None:
        """Wait for the end of an execution. Cancelling the wait stops the execution."""


class NestedExecutions:
    """Starts executions for Tasks.

    Parameters
    ----------
    starter
        Returns the service that starts executions.
    """

    def __init__(self, starter: Callable[[], Starter]) -> None:
        self._starter = starter

    async def call(self, call: TaskCall) -> Json:
        """Start an execution; with .sync, wait for its end and return its description.

        Raises
        ------
        StateFailure
            If the execution cannot be started, or with .sync if it did not succeed.
        """
        parameters = call.parameters if isinstance(call.parameters, dict) else {}
        # As on AWS, null is no input.
        payload = {} if parameters.get("Input") is None else parameters["Input"]
        starter = self._starter()
        try:
            execution = starter.start_execution(
                str(parameters.get("StateMachineArn")),
                call.execution.machine.account,
                parameters.get("Name"),
                payload if isinstance(payload, str) else dumps(payload),
            )
        except ApiError as error:
            failed = ServiceError("StartExecution", (error.code,), error.message, error.status.value, str(uuid.uuid4()))
            raise StateFailure(*optimized_failure("states", None, failed)) from None
        if call.resource.pattern not in (Pattern.SYNC, Pattern.SYNC_2):
            return {"ExecutionArn": execution.arn, "StartDate": format_timestamp(execution.started_at)}
        await starter.wait(execution)
        described = _description(execution, parsed=call.resource.pattern is Pattern.SYNC_2)
        if execution.status is not Status.SUCCEEDED:
            raise StateFailure(TASK_FAILED, dumps(described))
        return described


def _description(execution: Execution, *, parsed: bool) -> dict[str, Json]:
    if execution.stopped_at is None:
        raise StateFailure(RUNTIME, f"{execution.arn}: expected an execution that has ended")
    output = execution.output_text
    described: dict[str, Json] = {
        "ExecutionArn": execution.arn,
        "Input": json.loads(execution.input_text) if parsed else execution.input_text,
        "InputDetails": {"Included": True},
        "Name": execution.name,
        "StartDate": int(execution.started_at * 1000),
        "StateMachineArn": execution.machine.arn,
        "Status": execution.status,
        "StopDate": int(execution.stopped_at * 1000),
    }
    if output is not None:
        described |= {"Output": json.loads(output) if parsed else output, "OutputDetails": {"Included": True}}
    if execution.failure is not None:
        described |= execution.failure.output()
    return described
