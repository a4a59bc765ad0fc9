"""Parallel states, and Map states that are run inline."""

from emulator.aws.limits import INLINE_MAP_CONCURRENCY
from emulator.aws.stepfunctions.asl.definition import MapState, ParallelState
from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.core.concurrency import for_each
from emulator.aws.stepfunctions.core.interpreter import Interpreter
from emulator.aws.stepfunctions.core.iteration import Iteration
from emulator.aws.stepfunctions.core.state_execution import Visit


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
