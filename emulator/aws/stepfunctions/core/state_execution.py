"""One visit of one state: its data on their way in and out, its events, its failures."""

import time
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from emulator.aws.limits import STATE_DATA_BYTES
from emulator.aws.stepfunctions.asl.definition import State, WorkState
from emulator.aws.stepfunctions.asl.expressions import Expression
from emulator.aws.stepfunctions.asl.failures import (
    DATA_LIMIT_EXCEEDED,
    RESULT_PATH_MATCH_FAILURE,
    RUNTIME,
    StateFailure,
    matches,
)
from emulator.aws.stepfunctions.asl.json_values import Json, dumps, is_number
from emulator.aws.stepfunctions.asl.paths import NoMatchError, Path, ReferencePath, Scope
from emulator.aws.stepfunctions.core.execution import Execution, Strand, iso
from emulator.aws.stepfunctions.core.history import COMPLETE

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
        return {} if path is None else self.at(path, "InputPath", self.value, scope)

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
        output = self.value if flow.result_path is None else self.put(flow.result_path, result)
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
