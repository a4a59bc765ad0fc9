"""States that run several branches concurrently: Parallel, and Map in inline mode."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from emulator.aws.limits import INLINE_MAP_CONCURRENCY
from emulator.aws.stepfunctions.asl.definition import MapState, ParallelState
from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.core.interpreter import Interpreter, StateExecution
from emulator.aws.stepfunctions.core.records import Status

_Item = TypeVar("_Item")


async def run_concurrently(items: Iterable[_Item], limit: int, work: Callable[[_Item], Awaitable[None]]) -> None:
    """Do work for every item, for at most `limit` of them at once, each begun as soon as there is room.

    The first failure stops the rest: they are cancelled and waited for, then it is raised.
    """
    remaining = iter(items)

    async def worker() -> None:
        for item in remaining:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


class Iteration:
    """One iteration: a branch of its own, with the item in its context object.

    Parameters
    ----------
    interpreter
        Runs the states.
    step
        The Map state's step.
    index, item
        Which item.
    """

    def __init__(self, interpreter: Interpreter, step: StateExecution[MapState], index: int, item: Json) -> None:
        self._interpreter = interpreter
        self._step = step
        self._item = item
        self._index = index
        context = {**step.branch.context, "Map": {"Item": {"Index": index, "Value": item}}}
        self.branch = step.branch.fork(context, index)

    async def run(self, data: Json) -> Json:
        """Run the Map's states; return their output.

        Parameters
        ----------
        data
            What ItemSelector sees: the Map state's input.
        """
        state, execution = self._step.state, self._interpreter.execution
        key = execution.start_item(state.name, self._index, state.name)
        self._event("Started")
        try:
            value = self._item
            if state.item_selector is not None:
                scope = self._step.scope_with(Map=self.branch.context["Map"])
                value = self._step.evaluate(state.item_selector, data, scope)
            output = await self._interpreter.run(state.processor, value, self.branch)
        except StateFailure:
            execution.end_item(key, Status.FAILED)
            self._event("Failed")
            raise
        except asyncio.CancelledError:
            execution.end_item(key, Status.ABORTED)
            execution.history.end("MapIterationAborted", self.branch.previous_id, self._details())
            raise
        execution.end_item(key, Status.SUCCEEDED)
        self._event("Succeeded")
        return output

    def _event(self, what: str) -> None:
        history = self._interpreter.execution.history
        self.branch.previous_id = history.add(f"MapIteration{what}", self.branch.previous_id, self._details())

    def _details(self) -> dict[str, Json]:
        return {"name": self._step.state.name, "index": self._index}


async def run_parallel(interpreter: Interpreter, step: StateExecution[ParallelState]) -> Json:
    """Run all branches at once; return their outputs in the branches' order."""
    branches = step.state.branches
    value = step.effective_input(step.scope())
    step.add_event("ParallelStateStarted")
    outputs: list[Json] = [None] * len(branches)
    last_ids = [step.branch.previous_id]

    async def run_branch(index: int) -> None:
        branch = step.branch.fork()
        outputs[index] = await interpreter.run(branches[index], value, branch)
        last_ids.append(branch.previous_id)

    try:
        await run_concurrently(range(len(branches)), len(branches), run_branch)
    except StateFailure:
        step.add_event("ParallelStateFailed")
        raise
    step.branch.previous_id = max(last_ids)
    step.add_event("ParallelStateSucceeded")
    return outputs


async def run_inline_map(interpreter: Interpreter, step: StateExecution[MapState]) -> Json:
    """Run the states once an item; return the outputs in the items' order. The first failure fails the whole."""
    state, scope = step.state, step.scope()
    data = step.input_data(scope)
    items = step.items(state.items_path, data)
    limit = int(step.number(state.max_concurrency, "MaxConcurrency", data, scope)) or len(items)
    at_once = min(limit, len(items))
    if at_once > INLINE_MAP_CONCURRENCY:
        interpreter.execution.warn(
            f"{state.name}: {at_once} iterations at once; AWS runs at most {INLINE_MAP_CONCURRENCY} of an inline Map, "
            "so that ranks which wait for each other would never all run there: use a distributed Map"
        )
    step.add_event("MapStateStarted", {"length": len(items)})
    outputs: list[Json] = [None] * len(items)
    last_ids = [step.branch.previous_id]

    async def run_iteration(index: int) -> None:
        iteration = Iteration(interpreter, step, index, items[index])
        outputs[index] = await iteration.run(data)
        last_ids.append(iteration.branch.previous_id)

    try:
        await run_concurrently(range(len(items)), at_once, run_iteration)
    except StateFailure:
        step.add_event("MapStateFailed")
        raise
    step.branch.previous_id = max(last_ids)
    step.add_event("MapStateSucceeded")
    return outputs
