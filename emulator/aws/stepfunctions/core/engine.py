"""The engine: starts, stops and stores executions."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping

from emulator.aws.limits import EXECUTIONS_KEPT, EXPRESS_TIMEOUT_S
from emulator.aws.sdk_client import AwsClient
from emulator.aws.stepfunctions.asl.definition import MachineType, MapState, ParallelState, Program, State, TaskState
from emulator.aws.stepfunctions.asl.failures import RUNTIME, TIMEOUT, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json, dumps
from emulator.aws.stepfunctions.core.arns import execution_arn
from emulator.aws.stepfunctions.core.concurrency import run_inline_map, run_parallel
from emulator.aws.stepfunctions.core.distributed_map import DistributedMaps
from emulator.aws.stepfunctions.core.execution import Execution, MapRun, new_execution_name
from emulator.aws.stepfunctions.core.interpreter import Interpreter, StateExecution, Turns, Work
from emulator.aws.stepfunctions.core.machines import Machine
from emulator.aws.stepfunctions.core.records import Status
from emulator.aws.stepfunctions.core.tasks import Integration, TaskRunner, TaskTokens

_log = logging.getLogger(__name__)


class Engine:
    """Runs executions, each as a task of the event loop.

    Parameters
    ----------
    integrations
        The services that Tasks can call, see `TaskRunner`.
    aws
        Reads the items of distributed Maps and writes their results.

    Attributes
    ----------
    tokens
        The task tokens.
    executions
        The running executions and the latest ended ones, by ARN.
    """

    def __init__(self, integrations: Mapping[str, Integration], aws: AwsClient) -> None:
        self.tokens = TaskTokens()
        self.executions: dict[str, Execution] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: deque[Execution] = deque()
        self._distributed = DistributedMaps(aws, self._run_child)
        self._turns = Turns()
        self._work: dict[type[State], Work] = {
            TaskState: TaskRunner(integrations, self.tokens).run,
            ParallelState: run_parallel,
            MapState: self._run_map,
        }

    def start(self, arn: str, machine: Machine, name: str, input_text: str) -> Execution:
        """Start an execution. It runs from the next iteration of the event loop."""
        express = machine.kind is MachineType.EXPRESS
        execution = Execution(arn, name, machine, machine.kind, input_text)
        timeout_s = machine.definition.timeout_s
        if express:
            timeout_s = min(timeout_s or EXPRESS_TIMEOUT_S, EXPRESS_TIMEOUT_S)
        self._launch(execution, machine.definition.program, timeout_s)
        return execution

    async def stop(self, execution: Execution, failure: StateFailure) -> None:
        """Stop an execution and the calls and child executions it has started; wait for their end."""
        task = self._tasks.get(execution.arn)
        if task is not None and execution.status is Status.RUNNING:
            execution.failure = failure
            task.cancel()
            await asyncio.wait({task})
            if execution.status is Status.RUNNING:
                # Cancelled before its first state.
                execution.end(Status.ABORTED, 0, failure=failure)

    async def wait(self, execution: Execution) -> None:
        """Wait for the end of an execution. Cancelling the wait stops the execution."""
        task = self._tasks.get(execution.arn)
        if task is None:
            return
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            await self.stop(execution, StateFailure(None))
            raise

    async def close(self) -> None:
        """Stop all executions, and the threads that evaluate expressions."""
        await self._stop_all()
        self._turns.close()

    async def _stop_all(self) -> None:
        running = [execution for execution in self.executions.values() if execution.status is Status.RUNNING]
        await asyncio.gather(*(self.stop(execution, StateFailure(None)) for execution in running))

    async def reset(self) -> None:
        """Stop all executions and drop their records."""
        await self._stop_all()
        # Let the callbacks of the ended tasks run.
        await asyncio.sleep(0)
        self.executions.clear()
        self._ended.clear()

    def _launch(self, execution: Execution, program: Program, timeout_s: float | None) -> None:
        self.executions[execution.arn] = execution
        task = asyncio.get_running_loop().create_task(
            self._run_execution(execution, program, timeout_s), name=execution.arn
        )
        self._tasks[execution.arn] = task
        task.add_done_callback(lambda _: self._on_ended(execution))

    def _on_ended(self, execution: Execution) -> None:
        """Keep an ended execution; drop the oldest one, with its children, if there are more than the limit."""
        del self._tasks[execution.arn]
        if execution.parent is not None:
            return
        self._ended.append(execution)
        if len(self._ended) > EXECUTIONS_KEPT:
            oldest = self._ended.popleft()
            children = [child for map_run in oldest.map_runs for child in map_run.children]
            for dropped in (oldest, *children):
                self.executions.pop(dropped.arn, None)

    async def _run_execution(self, execution: Execution, program: Program, timeout_s: float | None) -> None:
        """Run an execution and record its end."""
        branch = execution.start()
        try:
            value: Json = json.loads(execution.input_text)
            async with asyncio.timeout(timeout_s):
                output = await Interpreter(execution, self._work, self._turns).run(program, value, branch)
            execution.end(Status.SUCCEEDED, branch.previous_id, output_text=dumps(output))
        except TimeoutError:
            execution.end(Status.TIMED_OUT, branch.previous_id, failure=StateFailure(TIMEOUT))
        except StateFailure as failure:
            execution.end(Status.FAILED, branch.previous_id, failure=failure)
        except asyncio.CancelledError:
            execution.end(Status.ABORTED, branch.previous_id, failure=execution.failure)
        except Exception as error:  # noqa: BLE001 - an error in the emulator must end the execution
            _log.exception("the engine failed in %s", execution.arn)
            internal = StateFailure(RUNTIME, f"internal error of the emulator: {error!r}")
            execution.end(Status.FAILED, branch.previous_id, failure=internal)

    async def _run_map(self, interpreter: Interpreter, step: StateExecution[MapState]) -> Json:
        distribution = step.state.distribution
        if distribution is None:
            return await run_inline_map(interpreter, step)
        return await self._distributed.run(interpreter, step, distribution)

    async def _run_child(self, map_run: MapRun, index: int, input_text: str) -> Execution:
        """Run one child execution of a distributed Map to its end."""
        name, parent = new_execution_name(), map_run.execution
        child_type = map_run.distribution.child_type
        arn = execution_arn(parent.machine.account, parent.machine.name, name, map_run.distribution.label)
        child = Execution(arn, name, parent.machine, child_type, input_text, map_run)
        map_run.add(child, index)
        item = parent.start_item(map_run.state.name, index, name)
        try:
            timeout_s = EXPRESS_TIMEOUT_S if child_type is MachineType.EXPRESS else None
            self._launch(child, map_run.state.processor, timeout_s)
            await self.wait(child)
        finally:
            parent.end_item(item, child.status)
        return child
