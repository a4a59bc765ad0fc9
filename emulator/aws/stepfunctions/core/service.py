"""The Step Functions service: state machines and executions, with AWS's rules and errors."""

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from emulator.aws.account import Account
from emulator.aws.disk_reserve import DiskReserve
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.sdk_client import AwsClient
from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.asl.json_values import loads
from emulator.aws.stepfunctions.core.arns import execution_arn, express_arn, validate_arn, validate_name
from emulator.aws.stepfunctions.core.aws_sdk import SdkTasks
from emulator.aws.stepfunctions.core.engine import Engine
from emulator.aws.stepfunctions.core.execution import Execution, MapRun, new_execution_name
from emulator.aws.stepfunctions.core.lambda_tasks import LambdaTasks
from emulator.aws.stepfunctions.core.machines import MachineStore
from emulator.aws.stepfunctions.core.nested import NestedExecutions
from emulator.aws.stepfunctions.core.records import ExecutionRecord, Status
from emulator.aws.stepfunctions.core.tasks import Integration
from emulator.errors import ApiError


class StepFunctionsService:
    """State machines and their executions.

    Parameters
    ----------
    folder
        The folder that stores the state machines.
    reserve
        Space for small writes on a full disk.
    functions
        The Lambda service, which runs the functions that Tasks invoke.
    aws
        Calls the other AWS services for Tasks.

    Attributes
    ----------
    machines
        The state machines.
    tokens
        The task tokens that Tasks wait for.
    """

    def __init__(
        self,
        folder: Path,
        reserve: DiskReserve,
        functions: LambdaService,
        aws: AwsClient,
    ) -> None:
        lambda_tasks = LambdaTasks(functions)
        integrations: dict[str, Integration] = {
            "": lambda_tasks,
            "lambda": lambda_tasks,
            "states": NestedExecutions(lambda: self),
            "aws-sdk": SdkTasks(aws),
        }
        self.machines = MachineStore(folder, reserve)
        self._engine = Engine(integrations, aws)
        self.tokens = self._engine.tokens

    def executions(self) -> Sequence[ExecutionRecord]:
        """Return records of all executions, the latest first. Child executions are items of their parent's record."""
        own = [execution for execution in self._engine.executions.values() if execution.parent is None]
        return [execution.record() for execution in reversed(own)]

    def start_execution(self, arn: str, account: Account, name: str | None, input_text: str) -> Execution:
        """Start an execution.

        Parameters
        ----------
        arn
            The state machine's ARN.
        account
            Where the caller is.
        name
            The execution's name, or None for a random one.
        input_text
            The input, JSON.

        Raises
        ------
        ApiError
            If there is no such state machine, the name or the input is invalid, or another execution has the name.
        """
        machine = self.machines.get(arn, account)
        checked = validate_name(new_execution_name() if name is None else name)
        _check_input(input_text)
        express = machine.kind is MachineType.EXPRESS
        new_arn = express_arn if express else execution_arn
        started = new_arn(machine.account, machine.name, checked)
        existing = self._engine.executions.get(started)
        if existing is None:
            return self._engine.start(started, machine, checked, input_text)
        if existing.status is Status.RUNNING and existing.input_text == input_text:
            return existing
        raise ApiError("ExecutionAlreadyExists", HTTPStatus.BAD_REQUEST, f"Execution Already Exists: '{existing.arn}'")

    async def start_sync_execution(self, arn: str, account: Account, name: str | None, input_text: str) -> Execution:
        """Run an execution of an EXPRESS state machine to its end.

        Raises
        ------
        ApiError
            The same errors as `start_execution`, and an error if the state machine's type is STANDARD.
        """
        machine = self.machines.get(arn, account)
        if machine.kind is not MachineType.EXPRESS:
            raise ApiError(
                "StateMachineTypeNotSupported",
                HTTPStatus.BAD_REQUEST,
                "This operation is not supported by this type of state machine: expected EXPRESS, got STANDARD",
            )
        execution = self.start_execution(arn, account, name, input_text)
        await self.wait(execution)
        return execution

    async def wait(self, execution: Execution) -> None:
        """Wait for the end of an execution. Cancelling the wait stops the execution."""
        await self._engine.wait(execution)

    async def stop_execution(self, arn: str, account: Account, failure: StateFailure) -> Execution:
        """Stop an execution and the functions it runs. An ended execution is returned unchanged.

        Raises
        ------
        ApiError
            If there is no such execution.
        """
        execution = self.execution(arn, account)
        await self._engine.stop(execution, failure)
        return execution

    def execution(self, arn: str, account: Account) -> Execution:
        """Return an execution. As on AWS, EXPRESS executions can be described only if they belong to a map run.

        Raises
        ------
        ApiError
            If there is no such execution.
        """
        checked = validate_arn(arn, "execution")
        execution = self._engine.executions.get(checked)
        if execution is None or execution.machine.account != account:
            raise ApiError("ExecutionDoesNotExist", HTTPStatus.BAD_REQUEST, f"Execution Does Not Exist: '{checked}'")
        return execution

    def executions_of(self, machine_arn: str, account: Account) -> list[Execution]:
        """Return a state machine's executions, the latest first.

        Raises
        ------
        ApiError
            If there is no such state machine, or its type is EXPRESS.
        """
        machine = self.machines.get(machine_arn, account)
        if machine.kind is MachineType.EXPRESS:
            raise ApiError(
                "StateMachineTypeNotSupported",
                HTTPStatus.BAD_REQUEST,
                "This operation is not supported by this type of state machine: expected STANDARD, got EXPRESS",
            )
        found = [
            execution
            for execution in self._engine.executions.values()
            if execution.parent is None and execution.machine.arn == machine.arn
        ]
        return found[::-1]

    def map_run(self, arn: str, account: Account) -> MapRun:
        """Return a map run.

        Raises
        ------
        ApiError
            If there is no such map run.
        """
        checked = validate_arn(arn, "mapRun")
        for execution in self._engine.executions.values():
            for map_run in execution.map_runs:
                if map_run.arn == checked and execution.machine.account == account:
                    return map_run
        raise ApiError("ResourceNotFound", HTTPStatus.BAD_REQUEST, f"Resource not found: '{checked}'")

    async def reset(self) -> None:
        """Delete all state machines; stop all executions and drop their records."""
        self.machines.clear()
        await self._engine.reset()

    async def close(self) -> None:
        """Stop all executions."""
        await self._engine.close()


def _check_input(text: str) -> None:
    """Raise an error unless an execution's input is valid JSON."""
    try:
        loads(text)
    except ValueError as error:
        raise ApiError(
            "InvalidExecutionInput", HTTPStatus.BAD_REQUEST, f"Invalid State Machine Execution Input: '{error}'"
        ) from None
