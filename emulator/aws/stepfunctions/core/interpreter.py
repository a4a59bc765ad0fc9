"""The interpreter: runs the states of an execution, with their data flow, events, retries and catchers.

Executions take turns in the event loop, see `Turns`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
from emulator.aws.stepfunctions.asl.evaluation import Evaluation, EvaluationTooLongError
from emulator.aws.stepfunctions.asl.expressions import ROOT_PATH, Expression, NoMatchError, Path, ReferencePath, Scope
from emulator.aws.stepfunctions.asl.failures import (
    DATA_LIMIT_EXCEEDED,
    NO_CHOICE_MATCHED,
    RESULT_PATH_MATCH_FAILURE,
    RUNTIME,
    StateFailure,
)
from emulator.aws.stepfunctions.asl.json_values import Json, dumps, exceeds, is_number, parse_timestamp
from emulator.aws.stepfunctions.asl.retrying import RetryCounts, matches
from emulator.aws.stepfunctions.core.execution import COMPLETE, Branch, Execution, format_timestamp

# Time that executions may run before the loop handles other events again.
_SLICE_S = 0.005
# A Map of 1000 Pass states takes 0.8 of the time that it takes with one.
_WOKEN_AT_ONCE = 32
# For evaluations that take long; they slow the loop's thread, but do not block it.
_THREADS = 2
_Result = TypeVar("_Result")
_State = TypeVar("_State", bound=State, covariant=True)


class Turns:
    """Lets executions run in slices of the event loop's time.

    Executions run without a pause while the slice lasts. Then they wait, and in each iteration of the loop one more of
    them continues, and others as long as a new slice lasts. So the loop handles sockets and timers between them however
    many executions there are. Evaluations of expressions that take long continue in a thread.
    """

    def __init__(self) -> None:
        self._slice_end = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        # Those that were woken in a slice that had passed when they continued: the first of the next one.
        self._delayed: deque[asyncio.Future[None]] = deque()
        self._renewing = False
        self._none_continued = False
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="expressions")

    async def evaluate(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Call a function that evaluates expressions; if that takes long, once more, in a thread.

        Cancelling the wait ends the evaluation soon.
        """
        try:
            return Evaluation(inline=True).call(function, *arguments)
        except EvaluationTooLongError:
            pass
        evaluation = Evaluation(inline=False)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, evaluation.call, function, *arguments)
        finally:
            evaluation.stop()

    def close(self) -> None:
        """End the threads, when no execution runs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def wait(self) -> None:
        """Return at once while the slice lasts, otherwise wait for a turn. States that do not wait must call it."""
        if not self._renewing:
            self._start_slice()
            return
        if not self._waiting and time.monotonic() < self._slice_end:
            return
        queue = self._waiting
        while True:
            turn = asyncio.get_running_loop().create_future()
            queue.append(turn)
            await turn
            if self._none_continued or time.monotonic() < self._slice_end:
                self._none_continued = False
                return
            queue = self._delayed

    def _start_slice(self) -> None:
        self._slice_end = time.monotonic() + _SLICE_S
        self._renewing = True
        asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        """Start the next slice in the loop's next iteration, and let executions continue."""
        woken = 0
        while woken < _WOKEN_AT_ONCE and (queue := self._delayed or self._waiting):
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                woken += 1
        self._renewing = self._none_continued = woken > 0
        if woken:
            self._start_slice()


class StateExecution(Generic[_State]):
    """One execution of one state.

    Parameters
    ----------
    state
        The state.
    value, text
        The state's input, and the same input serialized as JSON.
    execution
        The execution.
    branch
        The branch that executes the state.
    """

    def __init__(self, state: _State, value: Json, text: str, execution: Execution, branch: Branch) -> None:
        self.state: _State = state
        self.value = value
        self.text = text
        self.execution = execution
        self.branch = branch
        self._entered_at = time.time()
        self._retries = 0
        self._scope: Scope | None = None
        # Only these results can contain the same value many times, so that their text is much larger than they are.
        self._may_repeat = (
            state.flow.parameters is not None
            or state.flow.result_selector is not None
            or isinstance(state, ParallelState | MapState)
        )
        self.entered_id = self.add_event(
            f"{state.kind}StateEntered", {"name": state.name, "input": text, "inputDetails": COMPLETE}
        )

    def add_event(self, kind: str, details: Mapping[str, Json] | None = None) -> int:
        """Add an event to the history; return its number."""
        self.branch.previous_id = self.execution.history.add(kind, self.branch.previous_id, details)
        return self.branch.previous_id

    def add_abort_event(self, kind: str) -> None:
        """Add the event of an aborted state. It is stored even if the history is full."""
        self.branch.previous_id = self.execution.history.end(kind, self.branch.previous_id)

    def add_exit_event(self, output: Json) -> str:
        """Add the StateExited event; return the output serialized as JSON."""
        text = self.text if output is self.value else self.serialize(output)
        self.add_event(
            f"{self.state.kind}StateExited", {"name": self.state.name, "output": text, "outputDetails": COMPLETE}
        )
        return text

    def serialize(self, value: Json) -> str:
        """Serialize a value as JSON.

        Raises
        ------
        StateFailure
            States.DataLimitExceeded, if the text is larger than the limit for data between states.
        """
        if self._may_repeat and exceeds(value, STATE_DATA_BYTES):
            raise self._too_large(f"more than {STATE_DATA_BYTES}")
        text = dumps(value)
        # A character has at most four bytes in UTF-8.
        if len(text) * 4 > STATE_DATA_BYTES:
            size = len(text.encode(errors="surrogatepass"))
            if size > STATE_DATA_BYTES:
                raise self._too_large(str(size))
        return text

    def _too_large(self, size: str) -> StateFailure:
        return StateFailure(
            DATA_LIMIT_EXCEEDED,
            f"The state/task '{self.state.name}' returned a result with a size exceeding the maximum number of bytes "
            f"service limit ({size} of {STATE_DATA_BYTES} bytes).",
        )

    def count_retry(self) -> None:
        """Count a retry. The context object's RetryCount changes with it."""
        self._retries += 1
        self._scope = None

    def scope(self) -> Scope:
        """Return the context object and the variables, for the evaluation of expressions."""
        if self._scope is None:
            state: dict[str, Json] = {"EnteredTime": format_timestamp(self._entered_at), "Name": self.state.name}
            if isinstance(self.state, WorkState):
                state["RetryCount"] = self._retries
            self._scope = Scope({**self.branch.context, "State": state}, self.branch.variables)
        return self._scope

    def scope_with(self, **more: Json) -> Scope:
        """Return the scope with additional fields in the context object."""
        scope = self.scope()
        return Scope({**scope.context, **more}, scope.variables)

    def input_data(self, scope: Scope) -> Json:
        """Apply InputPath to the state's input."""
        path = self.state.flow.input_path
        if path is None:
            return {}
        return self.value if path is ROOT_PATH else self.value_at(path, "InputPath", self.value, scope)

    def effective_input(self, scope: Scope) -> Json:
        """Apply InputPath, then Parameters, to the state's input."""
        data = self.input_data(scope)
        parameters = self.state.flow.parameters
        return data if parameters is None else self.evaluate(parameters, data, scope)

    def output_of(self, result: Json, scope: Scope) -> Json:
        """Return the state's output: ResultSelector, Assign, ResultPath and OutputPath, applied to a result."""
        flow = self.state.flow
        if flow.result_selector is not None:
            result = self.evaluate(flow.result_selector, result, scope)
        assigned = None if flow.assign is None else self._variables(flow.assign, result, scope)
        output = result
        if flow.result_path is None:
            output = self.value
        elif flow.result_path.steps:
            output = self.put(flow.result_path, result)
        if flow.output_path is None:
            output = {}
        elif flow.output_path is not ROOT_PATH:
            output = self.value_at(flow.output_path, "OutputPath", output, scope)
        if assigned is not None:
            self.branch.variables = {**self.branch.variables, **assigned}
        return output

    def assign(self, template: Expression | None, data: Json, scope: Scope) -> None:
        """Set the variables that an Assign template defines."""
        if template is not None:
            self.branch.variables = {**self.branch.variables, **self._variables(template, data, scope)}

    def _variables(self, template: Expression, data: Json, scope: Scope) -> dict[str, Json]:
        """Evaluate an Assign template; AWS limits its variables to the size of data between states."""
        variables: dict[str, Json] = self.evaluate(template, data, scope)
        if exceeds(variables, STATE_DATA_BYTES):
            raise self._too_large(f"more than {STATE_DATA_BYTES}")
        return variables

    def put(self, path: ReferencePath, result: Json) -> Json:
        """Return a copy of the state's input with a result at a path."""
        try:
            return path.put(self.value, result)
        except NoMatchError:
            raise self.state_failure(
                RESULT_PATH_MATCH_FAILURE,
                f"Unable to apply ReferencePath {path.text} to input {_abbreviated(self.text)}",
            ) from None

    def value_at(self, path: Path, field: str, data: Json, scope: Scope) -> Json:
        """Evaluate the path that a field of the state contains."""
        try:
            return path.evaluate(data, scope)
        except NoMatchError:
            raise self.state_failure(
                RUNTIME, f"Invalid path '{path.text}' in {field}: not found in {_abbreviated(dumps(data))}"
            ) from None

    def items(self, path: Path, data: Json) -> list[Json]:
        """Return the items of a Map, an array in its input."""
        found = self.value_at(path, "ItemsPath", data, self.scope())
        if not isinstance(found, list):
            raise self.state_failure(
                RUNTIME, f"Reference path '{path.text}' must point to array, got {_abbreviated(dumps(found))}"
            )
        return found

    def number(self, value: float | Path | None, field: str, data: Json, scope: Scope) -> Any:
        """Return a number given as a literal or by a path. None is returned unchanged."""
        if not isinstance(value, Path):
            return value
        found = self.value_at(value, field + "Path", data, scope)
        if not is_number(found) or found < 0:
            raise self.state_failure(
                RUNTIME, f"{field}Path: expected a non-negative number at '{value.text}', got {dumps(found)}"
            )
        return found

    def evaluate(self, expression: Expression, data: Json, scope: Scope) -> Json:
        """Evaluate an expression. The cause of a failure names the state."""
        try:
            return expression.evaluate(data, scope)
        except StateFailure as failure:
            raise self.state_failure(failure.error, failure.cause) from None

    def state_failure(self, error: str | None, message: str | None) -> StateFailure:
        """Return a failure whose cause names this state."""
        return StateFailure(
            error,
            f"An error occurred while executing the state '{self.state.name}' (entered at the event id "
            f"#{self.entered_id}). {message}",
        )


def catch_failure(step: StateExecution[WorkState], failure: StateFailure) -> tuple[str | None, Json]:
    """Return the state to which a catcher passes a failure, and that state's input.

    Raises
    ------
    StateFailure
        The failure itself, if no catcher matches.
    """
    for catcher in step.state.catchers:
        if matches(catcher.errors, failure.error):
            output = failure.output()
            step.assign(catcher.assign, output, step.scope())
            return catcher.next, step.value if catcher.result_path is None else step.put(catcher.result_path, output)
    raise failure


def _abbreviated(text: str, longest: int = 500) -> str:
    return text if len(text) <= longest else text[:longest] + "…"


# The next state's name, None after the last one, and its input.
Outcome: TypeAlias = tuple[str | None, Json]
Work: TypeAlias = Callable[["Interpreter", StateExecution[Any]], Awaitable[Json]]


class Interpreter:
    """Runs the states of one execution.

    Parameters
    ----------
    execution
        The execution, which stores the events.
    work
        Functions that compute the results of Task, Parallel and Map states.
    turns
        Divide the event loop's time between executions.
    """

    def __init__(self, execution: Execution, work: dict[type[State], Work], turns: Turns) -> None:
        self.execution = execution
        self.turns = turns
        self._work = work

    async def run(self, program: Program, value: Json, branch: Branch) -> Json:
        """Run states from StartAt to a terminal state; return its output.

        Raises
        ------
        StateFailure
            If a state fails and no catcher matches.
        """
        name: str | None = program.start_at
        text = dumps(value)
        while name is not None:
            await self.turns.wait()
            name, value, text = await self._run_state(program.states[name], value, text, branch)
        return value

    async def _run_state(self, state: State, value: Json, text: str, branch: Branch) -> tuple[str | None, Json, str]:
        step = StateExecution(state, value, text, self.execution, branch)
        self.execution.add_transition()
        try:
            following, output = await self._outcome(step)
            return following, output, step.add_exit_event(output)
        except asyncio.CancelledError:
            if isinstance(state, WorkState | WaitState):
                step.add_abort_event(f"{state.kind}StateAborted")
            raise

    async def _outcome(self, step: StateExecution[Any]) -> Outcome:
        match step.state:
            case PassState():
                return await self.turns.evaluate(_pass, step)
            case ChoiceState():
                return await self.turns.evaluate(_choose, step)
            case WaitState():
                data, seconds = await self.turns.evaluate(_waiting_time, step)
                await asyncio.sleep(seconds)
                return step.state.next, await self.turns.evaluate(step.output_of, data, step.scope())
            case SucceedState():
                return None, await self.turns.evaluate(_succeed, step)
            case FailState():
                raise await self.turns.evaluate(_failure, step)
            case _:
                return await self._run_with_retries(step)

    async def _run_with_retries(self, step: StateExecution[TaskState | ParallelState | MapState]) -> Outcome:
        """Run a state, retry it as its retriers say, then pass the failure to its catchers."""
        work, counts = self._work[type(step.state)], None
        while True:
            try:
                result = await work(self, step)
                return step.state.next, await self.turns.evaluate(step.output_of, result, step.scope())
            except StateFailure as failure:
                counts = counts or RetryCounts(step.state.retriers)
                delay_s = counts.next_delay_s(failure.error)
                if delay_s is None:
                    return await self.turns.evaluate(catch_failure, step, failure)
            await asyncio.sleep(delay_s)
            step.count_retry()
            self.execution.add_transition()


def _pass(step: StateExecution[PassState]) -> Outcome:
    scope = step.scope()
    result = step.effective_input(scope) if step.state.result is MISSING else step.state.result
    return step.state.next, step.output_of(result, scope)


def _choose(step: StateExecution[ChoiceState]) -> Outcome:
    scope = step.scope()
    data = step.input_data(scope)
    try:
        chosen = next((choice for choice in step.state.choices if choice.condition.holds(data, scope)), None)
    except StateFailure as failure:
        raise step.state_failure(failure.error, failure.cause) from None
    output = step.output_of(data, scope)
    if chosen is not None:
        step.assign(chosen.assign, data, scope)
        return chosen.next, output
    if step.state.default is None:
        raise step.state_failure(
            NO_CHOICE_MATCHED, "Failed to transition out of the state. The state does not point to a next state."
        )
    return step.state.default, output


def _waiting_time(step: StateExecution[WaitState]) -> tuple[Json, float]:
    """Return the data of a Wait state, and how long it waits, seconds."""
    scope = step.scope()
    data = step.input_data(scope)
    if step.state.until is not None:
        until = step.state.until
        text = step.value_at(until, "TimestampPath", data, scope) if isinstance(until, Path) else until
        moment = parse_timestamp(text)
        if moment is None:
            raise step.state_failure(
                RUNTIME, f"The TimestampPath parameter does not reference a valid timestamp: {text!r}"
            )
        seconds = (moment - datetime.now(UTC)).total_seconds()
    else:
        seconds = step.number(step.state.seconds, "Seconds", data, scope)
    return data, max(0.0, seconds)


def _succeed(step: StateExecution[SucceedState]) -> Json:
    return step.output_of(step.input_data(step.scope()), step.scope())


def _failure(step: StateExecution[FailState]) -> StateFailure:
    scope = step.scope()
    texts = []
    for name, expression in (("Error", step.state.error), ("Cause", step.state.cause)):
        text = None if expression is None else step.evaluate(expression, step.value, scope)
        if text is not None and not isinstance(text, str):
            return step.state_failure(RUNTIME, f"{name}Path: expected a string, got {dumps(text)}")
        texts.append(text)
    return StateFailure(*texts)
