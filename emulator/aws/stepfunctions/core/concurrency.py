"""States that run several branches concurrently: Parallel, and Map in inline mode."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from emulator.aws.limits import INLINE_MAP_CONCURRENCY, INLINE_MAP_TASKS
from emulator.aws.stepfunctions.asl.definition import MapState, ParallelState
from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.core.interpreter import Interpreter, StateExecution, Turns
from emulator.aws.stepfunctions.core.records import Status

# Of each state: the ends of nested Maps multiply.
_CANCELLED_AT_ONCE = 8
_Item = TypeVar("_Item")


async def run_concurrently(
    items: Iterable[_Item], limit: int, work: Callable[[_Item], Awaitable[None]], turns: Turns
) -> None:
    """Await `work` for every item, with at most `limit` of them running concurrently.

    After the first failure, the running ones are cancelled and awaited, no other starts, and the failure is raised.
    asyncio's groups cancel all tasks in one iteration of the event loop, which thousands of tasks block.
    """
    remaining = iter(items)
    failures: list[BaseException] = []
    ended = asyncio.Event()

    async def worker() -> None:
        for item in remaining:
            await turns.wait()
            if failures:
                return
            await work(item)

    def on_end(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            failures.append(failure)
        if failures or not tasks:
            ended.set()

    tasks: set[asyncio.Task[None]] = set()
    try:
        for _ in range(limit):
            await turns.wait()
            if failures:
                break
            task = asyncio.get_running_loop().create_task(worker())
            tasks.add(task)
            task.add_done_callback(on_end)
        while tasks and not failures:
            ended.clear()
            await ended.wait()
    finally:
        await _cancel(tasks)
    if failures:
        raise failures[0]


async def _cancel(tasks: set["asyncio.Task[None]"]) -> None:
    """Cancel tasks, a few in each iteration of the event loop, and wait for their end, even if cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    remaining = list(tasks)
    while tasks:
        for task in remaining[:_CANCELLED_AT_ONCE]:
            task.cancel()
        del remaining[:_CANCELLED_AT_ONCE]
        try:
            await (asyncio.sleep(0) if remaining else asyncio.wait(tasks))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class Iteration:
    """One iteration of an inline Map: a branch with the item in its context object.

    Parameters
    ----------
    interpreter
        Runs the states.
    step
        The execution of the Map state.
    index, item
        The item and its index.
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
            The Map state's input, on which ItemSelector is evaluated.
        """
        state, execution = self._step.state, self._interpreter.execution
        key = execution.start_item(state.name, self._index, state.name)
        self._add_event("Started")
        try:
            value = self._item
            if state.item_selector is not None:
                scope = self._step.scope_with(Map=self.branch.context["Map"])
                value = await self._interpreter.turns.evaluate(self._step.evaluate, state.item_selector, data, scope)
            output = await self._interpreter.run(state.processor, value, self.branch)
        except StateFailure:
            execution.end_item(key, Status.FAILED)
            self._add_event("Failed")
            raise
        except asyncio.CancelledError:
            execution.end_item(key, Status.ABORTED)
            execution.history.end("MapIterationAborted", self.branch.previous_id, self._details())
            raise
        execution.end_item(key, Status.SUCCEEDED)
        self._add_event("Succeeded")
        return output

    def _add_event(self, suffix: str) -> None:
        history = self._interpreter.execution.history
        self.branch.previous_id = history.add(f"MapIteration{suffix}", self.branch.previous_id, self._details())

    def _details(self) -> dict[str, Json]:
        return {"name": self._step.state.name, "index": self._index}


async def run_parallel(interpreter: Interpreter, step: StateExecution[ParallelState]) -> Json:
    """Run all branches concurrently; return their outputs in the order of the branches."""
    branches = step.state.branches
    value = await interpreter.turns.evaluate(step.effective_input, step.scope())
    step.add_event("ParallelStateStarted")
    outputs: list[Json] = [None] * len(branches)
    last_ids = [step.branch.previous_id]

    async def run_branch(index: int) -> None:
        branch = step.branch.fork()
        outputs[index] = await interpreter.run(branches[index], value, branch)
        last_ids.append(branch.previous_id)

    try:
        await run_concurrently(range(len(branches)), len(branches), run_branch, interpreter.turns)
    except StateFailure:
        step.add_event("ParallelStateFailed")
        raise
    step.branch.previous_id = max(last_ids)
    step.add_event("ParallelStateSucceeded")
    return outputs


def _map_input(step: StateExecution[MapState]) -> tuple[Json, list[Json], int]:
    """Return the data of a Map, its items, and how many of them may run at once."""
    scope = step.scope()
    data = step.input_data(scope)
    items = step.items(step.state.items_path, data)
    return data, items, int(step.number(step.state.max_concurrency, "MaxConcurrency", data, scope)) or len(items)


async def run_inline_map(interpreter: Interpreter, step: StateExecution[MapState]) -> Json:
    """Run the states for every item; return the outputs in the order of the items. The first failure fails the Map."""
    state = step.state
    data, items, limit = await interpreter.turns.evaluate(_map_input, step)
    concurrency = min(limit, len(items), INLINE_MAP_TASKS)
    if concurrency > INLINE_MAP_CONCURRENCY:
        interpreter.execution.warn(
            f"{state.name}: {concurrency} concurrent iterations: AWS runs at most {INLINE_MAP_CONCURRENCY} of an "
            "inline Map, so ranks that wait for each other would block there forever; use a distributed Map"
        )
    step.add_event("MapStateStarted", {"length": len(items)})
    outputs: list[Json] = [None] * len(items)
    last_ids = [step.branch.previous_id]

    async def run_iteration(index: int) -> None:
        iteration = Iteration(interpreter, step, index, items[index])
        outputs[index] = await iteration.run(data)
        last_ids.append(iteration.branch.previous_id)

    try:
        await run_concurrently(range(len(items)), concurrency, run_iteration, interpreter.turns)
    except StateFailure:
        step.add_event("MapStateFailed")
        raise
    step.branch.previous_id = max(last_ids)
    step.add_event("MapStateSucceeded")
    return outputs
