"""The interpreter: runs one state after the other, and holds the data flow and the events of each."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeAlias, TypeVar

from emulator.aws.limits import STATE_DATA_BYTES
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
from emulator.aws.stepfunctions.asl.expressions import WHOLE, Expression, NoMatchError, Path, ReferencePath, Scope
from emulator.aws.stepfunctions.asl.failures import (
    DATA_LIMIT_EXCEEDED,
    NO_CHOICE_MATCHED,
    RESULT_PATH_MATCH_FAILURE,
    RUNTIME,
    StateFailure,
)
from emulator.aws.stepfunctions.asl.json_values import Json, dumps, is_number, timestamp
from emulator.aws.stepfunctions.asl.retrying import RetryCounts, matches
from emulator.aws.stepfunctions.core.execution import COMPLETE, Execution, Strand, iso

_State = TypeVar("_State", bound=State, covariant=True)


class Visit(Generic[_State]):
    """One visit of one state.

    Parameters
    ----------
    state
        The state.
    value, text
        Its input, and the same as JSON.
    execution
        The execution.
    strand
        The line of control that has come there.
    """

    def __init__(self, state: _State, value: Json, text: str, execution: Execution, strand: Strand) -> None:
        self.state: _State = state
        self.value = value
        self.text = text
        self.execution = execution
        self.strand = strand
        self._entered_at = time.time()
        self._retries = 0
        self._scope: Scope | None = None
        self.entered_id = self.event(
            f"{state.kind}StateEntered", {"name": state.name, "input": text, "inputDetails": COMPLETE}
        )

    def event(self, kind: str, details: Mapping[str, Json] | None = None) -> int:
        """Add an event to the history; return its number."""
        self.strand.previous_id = self.execution.history.add(kind, self.strand.previous_id, details)
        return self.strand.previous_id

    def aborted(self, kind: str) -> None:
        """Add an event of the end, for which there is always room."""
        self.strand.previous_id = self.execution.history.end(kind, self.strand.previous_id)

    def exited(self, output: Json) -> str:
        """Add the event that the state was left; return its output as JSON."""
        text = self.text if output is self.value else self.limited(output)
        self.event(
            f"{self.state.kind}StateExited", {"name": self.state.name, "output": text, "outputDetails": COMPLETE}
        )
        return text

    def limited(self, value: Json) -> str:
        """Return a value as JSON.

        Raises
        ------
        StateFailure
            When it is larger than what may pass from state to state.
        """
        text = dumps(value)
        # A character is four bytes at most.
        if len(text) * 4 > STATE_DATA_BYTES:
            size = len(text.encode(errors="surrogatepass"))
            if size > STATE_DATA_BYTES:
                raise StateFailure(
                    DATA_LIMIT_EXCEEDED,
                    f"The state/task '{self.state.name}' returned a result with a size exceeding the maximum number of "
                    f"bytes service limit ({size} of {STATE_DATA_BYTES} bytes).",
                )
        return text

    def tried_again(self) -> None:
        """Take note of a retry."""
        self._retries += 1
        self._scope = None

    def scope(self) -> Scope:
        """Return what expressions see."""
        if self._scope is None:
            state = {"EnteredTime": iso(self._entered_at), "Name": self.state.name, "RetryCount": self._retries}
            self._scope = Scope({**self.strand.context, "State": state}, self.strand.variables)
        return self._scope

    def scope_with(self, **more: Json) -> Scope:
        """Return what expressions see, with what else belongs into the context object."""
        scope = self.scope()
        return Scope({**scope.context, **more}, scope.variables)

    def seen(self, scope: Scope) -> Json:
        """Return the part of the input that InputPath leaves."""
        path = self.state.flow.input_path
        if path is None:
            return {}
        return self.value if path is WHOLE else self.at(path, "InputPath", self.value, scope)

    def effective_input(self, scope: Scope) -> Json:
        """Return what the state works with: InputPath, then Parameters."""
        data = self.seen(scope)
        parameters = self.state.flow.parameters
        return data if parameters is None else self.evaluated(parameters, data, scope)

    def output_of(self, result: Json, scope: Scope) -> Json:
        """Return what the next state gets of a result: ResultSelector, Assign, ResultPath, OutputPath."""
        flow = self.state.flow
        if flow.result_selector is not None:
            result = self.evaluated(flow.result_selector, result, scope)
        assigned = None if flow.assign is None else self.evaluated(flow.assign, result, scope)
        output = result
        if flow.result_path is None:
            output = self.value
        elif flow.result_path.steps:
            output = self.put(flow.result_path, result)
        if flow.output_path is None:
            output = {}
        elif flow.output_path.steps != ():
            output = self.at(flow.output_path, "OutputPath", output, scope)
        if assigned is not None:
            self.strand.variables = {**self.strand.variables, **assigned}
        return output

    def assign(self, template: Expression | None, data: Json, scope: Scope) -> None:
        """Set variables."""
        if template is not None:
            self.strand.variables = {**self.strand.variables, **self.evaluated(template, data, scope)}

    def put(self, path: ReferencePath, result: Json) -> Json:
        """Return the state's input with a result in it."""
        try:
            return path.put(self.value, result)
        except NoMatchError:
            raise self.failing(
                RESULT_PATH_MATCH_FAILURE, f"Unable to apply ReferencePath {path.text} to input {_short(self.text)}"
            ) from None

    def at(self, path: Path, field: str, data: Json, scope: Scope) -> Json:
        """Return what lies at a path that a field names."""
        try:
            return path.evaluate(data, scope)
        except NoMatchError:
            raise self.failing(
                RUNTIME, f"Invalid path '{path.text}' in {field}: nothing lies there in {_short(dumps(data))}"
            ) from None

    def items(self, path: Path, data: Json) -> list[Json]:
        """Return the items of a Map that lie in its input."""
        found = self.at(path, "ItemsPath", data, self.scope())
        if not isinstance(found, list):
            raise self.failing(RUNTIME, f"Reference path '{path.text}' must point to array, got {_short(dumps(found))}")
        return found

    def number(self, value: float | Path | None, field: str, data: Json, scope: Scope) -> Any:
        """Return a number that is written out or lies at a path; None stays None."""
        if not isinstance(value, Path):
            return value
        found = self.at(value, field + "Path", data, scope)
        if not is_number(found) or found < 0:
            raise self.failing(RUNTIME, f"{field}Path: expected a number from 0 at '{value.text}', got {dumps(found)}")
        return found

    def evaluated(self, expression: Expression, data: Json, scope: Scope) -> Json:
        """Return an expression's value; a failure tells in which state it was."""
        try:
            return expression.evaluate(data, scope)
        except StateFailure as failure:
            raise self.failing(failure.error, failure.cause) from None

    def failing(self, error: str | None, message: str | None) -> StateFailure:
        """Return a failure of the state's own that tells where it was."""
        return StateFailure(
            error,
            f"An error occurred while executing the state '{self.state.name}' (entered at the event id "
            f"#{self.entered_id}). {message}",
        )


def caught(visit: Visit[WorkState], failure: StateFailure) -> tuple[str | None, Json]:
    """Return the state that takes a failure, with its input.

    Raises
    ------
    StateFailure
        The failure itself, when there is none.
    """
    for catcher in visit.state.catchers:
        if matches(catcher.errors, failure.error):
            output = failure.output()
            visit.assign(catcher.assign, output, visit.scope())
            return catcher.next, visit.value if catcher.result_path is None else visit.put(catcher.result_path, output)
    raise failure


def _short(text: str, longest: int = 500) -> str:
    return text if len(text) <= longest else text[:longest] + "…"


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
        visit = Visit(state, value, text, self.execution, strand)
        self.execution.add_transition()
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
        work, counts = self._work[type(visit.state)], None
        while True:
            try:
                return visit.state.next, visit.output_of(await work(self, visit), visit.scope())
            except StateFailure as failure:
                counts = counts or RetryCounts(visit.state.retriers)
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
