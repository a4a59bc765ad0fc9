"""States that run several branches concurrently: Parallel, and Map in inline mode."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from emulator.aws.limits import INLINE_MAP_CONCURRENCY
from emulator.aws.stepfunctions.asl.definition import MapState, ParallelState
from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.core.interpreter import Interpreter, Visit
from emulator.aws.stepfunctions.core.records import Status

_Item = TypeVar("_Item")


async def for_each(items: Iterable[_Item], limit: int, work: Callable[[_Item], Awaitable[None]]) -> None:
    """Do work for every item, for at most `limit` of them at once, each begun as soon as there is room.

    The first failure stops the rest: they are cancelled and waited for, then it is raised.
    """
    remaining = iter(items)

    async def take() -> None:
        for item in remaining:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(take())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


class Iteration:
    """One iteration: a strand of its own, with the item in its context object.

    Parameters
    ----------
    interpreter
        Runs the states.
    visit
        The Map state's visit.
    index, item
        Which item.
    """

    def __init__(self, interpreter: Interpreter, visit: Visit[MapState], index: int, item: Json) -> None:
        self._interpreter = interpreter
        self._visit = visit
        self._item = item
        self._index = index
        context = {**visit.strand.context, "Map": {"Item": {"Index": index, "Value": item}}}
        self.strand = visit.strand.branch(context, index)

    async def run(self, data: Json) -> Json:
        """Run the Map's states; return their output.

        Parameters
        ----------
        data
            What ItemSelector sees: the Map state's input.
        """
        state, execution = self._visit.state, self._interpreter.execution
        key = execution.begin_item(state.name, self._index, state.name)
        self._event("Started")
        try:
            value = self._item
            if state.item_selector is not None:
                scope = self._visit.scope_with(Map=self.strand.context["Map"])
                value = self._visit.evaluated(state.item_selector, data, scope)
            output = await self._interpreter.run(state.processor, value, self.strand)
        except StateFailure:
            execution.end_item(key, Status.FAILED)
            self._event("Failed")
            raise
        except asyncio.CancelledError:
            execution.end_item(key, Status.ABORTED)
            execution.history.end("MapIterationAborted", self.strand.previous_id, self._details())
            raise
        execution.end_item(key, Status.SUCCEEDED)
        self._event("Succeeded")
        return output

    def _event(self, what: str) -> None:
        history = self._interpreter.execution.history
        self.strand.previous_id = history.add(f"MapIteration{what}", self.strand.previous_id, self._details())

    def _details(self) -> dict[str, Json]:
        return {"name": self._visit.state.name, "index": self._index}


async def run_parallel(interpreter: Interpreter, visit: Visit[ParallelState]) -> Json:
    """Run all branches at once; return their outputs in the branches' order."""
    branches = visit.state.branches
    value = visit.effective_input(visit.scope())
    visit.event("ParallelStateStarted")
    outputs: list[Json] = [None] * len(branches)
    last_ids = [visit.strand.previous_id]

    async def run_branch(index: int) -> None:
        strand = visit.strand.branch()
        outputs[index] = await interpreter.run(branches[index], value, strand)
        last_ids.append(strand.previous_id)

    try:
        await for_each(range(len(branches)), len(branches), run_branch)
    except StateFailure:
        visit.event("ParallelStateFailed")
        raise
    visit.strand.previous_id = max(last_ids)
    visit.event("ParallelStateSucceeded")
    return outputs


async def run_inline_map(interpreter: Interpreter, visit: Visit[MapState]) -> Json:
    """Run the states once an item; return the outputs in the items' order. The first failure fails the whole."""
    state, scope = visit.state, visit.scope()
    data = visit.seen(scope)
    items = visit.items(state.items_path, data)
    limit = int(visit.number(state.max_concurrency, "MaxConcurrency", data, scope)) or len(items)
    at_once = min(limit, len(items))
    if at_once > INLINE_MAP_CONCURRENCY:
        interpreter.execution.warn(
            f"{state.name}: {at_once} iterations at once; AWS runs at most {INLINE_MAP_CONCURRENCY} of an inline Map, "
            "so that ranks which wait for each other would never all run there: use a distributed Map"
        )
    visit.event("MapStateStarted", {"length": len(items)})
    outputs: list[Json] = [None] * len(items)
    last_ids = [visit.strand.previous_id]

    async def run_iteration(index: int) -> None:
        iteration = Iteration(interpreter, visit, index, items[index])
        outputs[index] = await iteration.run(data)
        last_ids.append(iteration.strand.previous_id)

    try:
        await for_each(range(len(items)), at_once, run_iteration)
    except StateFailure:
        visit.event("MapStateFailed")
        raise
    visit.strand.previous_id = max(last_ids)
    visit.event("MapStateSucceeded")
    return outputs
