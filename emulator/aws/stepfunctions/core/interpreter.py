"""Runs states one after the other: the engine's loop, and the states that need nothing outside of it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

from emulator.aws.stepfunctions.asl.definition import (
    MISSING,
    ChoiceState,
    FailState,
    MapState,
    ParallelState,
    PassState,
    Program,
    State,
    SucceedState,
    TaskState,
    WaitState,
    WorkState,
)
from emulator.aws.stepfunctions.asl.failures import NO_CHOICE_MATCHED, RUNTIME, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json, dumps, timestamp
from emulator.aws.stepfunctions.asl.paths import Path
from emulator.aws.stepfunctions.asl.retrying import RetryCounts
from emulator.aws.stepfunctions.core.execution import Execution, Strand
from emulator.aws.stepfunctions.core.state_execution import Visit, caught

# The state to go on with, None at the end, and its input.
Outcome: TypeAlias = tuple[str | None, Json]
Work: TypeAlias = Callable[["Interpreter", Visit[Any]], Awaitable[Json]]


class Interpreter:
    """Runs the states of one execution.

    Parameters
    ----------
    execution
        Gets the events.
    work
        How Task, Parallel and Map states come to their result.
    """

    def __init__(self, execution: Execution, work: dict[type[State], Work]) -> None:
        self.execution = execution
        self._work = work

    async def run(self, program: Program, value: Json, strand: Strand) -> Json:
        """Run states from the first to an end; return the last one's output.

        Raises
        ------
        StateFailure
            When a state fails and nobody takes it.
        """
        name: str | None = program.start_at
        text = dumps(value)
        while name is not None:
            name, value, text = await self._visit(program.states[name], value, text, strand)
        return value

    async def _visit(self, state: State, value: Json, text: str, strand: Strand) -> tuple[str | None, Json, str]:
        self.execution.add_transition()
        visit = Visit(state, value, text, self.execution, strand)
        try:
            following, output = await self._outcome(visit)
            return following, output, visit.exited(output)
        except asyncio.CancelledError:
            if isinstance(state, WorkState | WaitState):
                visit.aborted(f"{state.kind}StateAborted")
            raise

    async def _outcome(self, visit: Visit[Any]) -> Outcome:
        match visit.state:
            case PassState():
                return _pass(visit)
            case ChoiceState():
                return _choose(visit)
            case WaitState():
                return await _wait(visit)
            case SucceedState():
                return None, visit.output_of(visit.seen(visit.scope()), visit.scope())
            case FailState():
                raise _failure(visit)
            case _:
                return await self._attempt(visit)

    async def _attempt(self, visit: Visit[TaskState | ParallelState | MapState]) -> Outcome:
        """Let a state come to its result, again as long as a retrier wants; then give the failure to a catcher."""
        work, counts = self._work[type(visit.state)], RetryCounts(visit.state.retriers)
        while True:
            try:
                return visit.state.next, visit.output_of(await work(self, visit), visit.scope())
            except StateFailure as failure:
                delay_s = counts.next_delay_s(failure.error)
                if delay_s is None:
                    return caught(visit, failure)
            await asyncio.sleep(delay_s)
            visit.tried_again()
            self.execution.add_transition()


def _pass(visit: Visit[PassState]) -> Outcome:
    scope = visit.scope()
    result = visit.effective_input(scope) if visit.state.result is MISSING else visit.state.result
    return visit.state.next, visit.output_of(result, scope)


def _choose(visit: Visit[ChoiceState]) -> Outcome:
    scope = visit.scope()
    data = visit.seen(scope)
    try:
        chosen = next((choice for choice in visit.state.choices if choice.condition.holds(data, scope)), None)
    except StateFailure as failure:
        raise visit.failing(failure.error, failure.cause) from None
    output = visit.output_of(data, scope)
    if chosen is not None:
        visit.assign(chosen.assign, data, scope)
        return chosen.next, output
    if visit.state.default is None:
        raise visit.failing(
            NO_CHOICE_MATCHED, "Failed to transition out of the state. The state does not point to a next state."
        )
    return visit.state.default, output


async def _wait(visit: Visit[WaitState]) -> Outcome:
    scope = visit.scope()
    data = visit.seen(scope)
    if visit.state.until is not None:
        until = visit.state.until
        text = visit.at(until, "TimestampPath", data, scope) if isinstance(until, Path) else until
        moment = timestamp(text)
        if moment is None:
            raise visit.failing(RUNTIME, f"The TimestampPath parameter does not reference a valid timestamp: {text!r}")
        seconds = (moment - datetime.now(UTC)).total_seconds()
    else:
        seconds = visit.number(visit.state.seconds, "Seconds", data, scope)
    await asyncio.sleep(max(0.0, seconds))
    return visit.state.next, visit.output_of(data, scope)


def _failure(visit: Visit[FailState]) -> StateFailure:
    scope = visit.scope()
    texts = []
    for name, expression in (("Error", visit.state.error), ("Cause", visit.state.cause)):
        text = None if expression is None else visit.evaluated(expression, visit.value, scope)
        if text is not None and not isinstance(text, str):
            return visit.failing(RUNTIME, f"{name}Path: expected a text, got {dumps(text)}")
        texts.append(text)
    return StateFailure(*texts)
