"""The parser of definitions. It reports all mistakes, each with its location."""

from dataclasses import dataclass, field

from emulator.aws.stepfunctions.asl import diagnostics as codes
from emulator.aws.stepfunctions.asl.definition import (
    ChoiceState,
    Definition,
    FailState,
    MachineType,
    Program,
    State,
    SucceedState,
    WorkState,
)
from emulator.aws.stepfunctions.asl.diagnostics import DefinitionError, Diagnostics, Fields
from emulator.aws.stepfunctions.asl.json_values import loads
from emulator.aws.stepfunctions.asl.parse_states import ProgramParser, check_query_language, parse_state

_TIMEOUT_S = range(1, 100_000_000)
_STATE_NAME_CHARACTERS = 80


def parse_definition(text: str, machine_type: MachineType = MachineType.STANDARD) -> Definition:
    """Parse a definition.

    Parameters
    ----------
    text
        JSON in Amazon States Language.
    machine_type
        STANDARD or EXPRESS.

    Raises
    ------
    DefinitionError
        If the definition is invalid, with all its mistakes.
    """
    found = Diagnostics()
    try:
        content = loads(text)
    except ValueError as error:
        found.add("", f"invalid JSON: {error}", codes.INVALID_JSON)
        raise DefinitionError(found.all()) from None
    try:
        definition = _read(Fields(content, "", found), machine_type)
    except RecursionError:
        found.add("", "the states are nested too deeply", codes.TOO_DEEPLY_NESTED)
        raise DefinitionError(found.all()) from None
    if found.all():
        raise DefinitionError(found.all())
    return definition


def _read(fields: Fields, machine_type: MachineType) -> Definition:
    fields.string("Version")
    comment = fields.string("Comment")
    program = _MachineParser(machine_type).program(fields)
    timeout_s = fields.integer("TimeoutSeconds", _TIMEOUT_S)
    fields.reject_unknown("a state machine")
    return Definition(program, timeout_s, comment or "")


@dataclass
class _MachineParser(ProgramParser):
    """Parses a state machine and the nested ones. Names and labels are unique across all of them."""

    machine_type: MachineType
    _names: dict[str, str] = field(default_factory=dict)
    _labels: set[str] = field(default_factory=set)

    def program(self, fields: Fields) -> Program:
        """Parse StartAt and States; check that transition targets exist and that all states are reachable."""
        check_query_language(fields)
        fields.require("StartAt")
        fields.require("States")
        start_at = fields.string("StartAt") or ""
        described = fields.object("States")
        states: dict[str, State] = {}
        names = list(described.names()) if described else []
        if described is not None and not names:
            described.report("", "expected at least one state")
        for name in names:
            inner = described.object(name) if described else None
            if inner is not None:
                self._check_name(name, inner)
                state = parse_state(name, inner, self)
                if state is not None:
                    states[name] = state
        if start_at and start_at not in names:
            fields.report("StartAt", f"no state is named {start_at!r}", codes.MISSING_TRANSITION_TARGET)
        elif start_at and described is not None:
            self._check_transitions(start_at, states, names, described)
        return Program(start_at, states)

    def label(self, name: str, fields: Fields) -> str:
        """Return a distributed Map's label: its Label, or one derived from the state's name."""
        label = fields.string("Label")
        if label is not None:
            if label in self._labels:
                fields.report(
                    "Label",
                    f"duplicate label {label!r}: expected a label that no other Map has",
                    codes.DUPLICATE_LABEL_NAME,
                )
            self._labels.add(label)
            return label
        return "".join(character for character in name if character.isalnum())[:40] or "Map"

    def _check_name(self, name: str, fields: Fields) -> None:
        if len(name) > _STATE_NAME_CHARACTERS:
            fields.report(
                "",
                f"expected a state name of at most {_STATE_NAME_CHARACTERS} characters, got {len(name)}",
                codes.INVALID_STATE_NAME,
            )
        if name in self._names:
            fields.report(
                "",
                f"duplicate state name {name!r}: a state at {self._names[name]} has the same name",
                codes.DUPLICATE_STATE_NAME,
            )
        self._names.setdefault(name, fields.location)

    def _check_transitions(self, start_at: str, states: dict[str, State], names: list[str], described: Fields) -> None:
        location, found = described.location, described.diagnostics
        for state in states.values():
            for field_name, target in targets(state):
                if target and target not in names:
                    found.add(
                        f"{location}/{state.name}/{field_name}",
                        f"no state is named {target!r}",
                        codes.MISSING_TRANSITION_TARGET,
                    )
        reached, waiting = {start_at}, [start_at]
        while waiting:
            state_now = states.get(waiting.pop())
            for _, target in targets(state_now) if state_now else ():
                if target not in reached:
                    reached.add(target)
                    waiting.append(target)
        if len(states) < len(names):
            return  # The targets of states with mistakes are unknown.
        for name in names:
            if name not in reached:
                found.add(
                    f"{location}/{name}",
                    f"state {name!r} is not reachable from {start_at!r}",
                    codes.MISSING_TRANSITION_TARGET,
                )
        if not any(_is_terminal(states[name]) for name in reached if name in states):
            found.add(
                location,
                "no reachable state is terminal: expected one with End, a Succeed or a Fail",
                codes.MISSING_END_STATE,
            )


def _is_terminal(state: State) -> bool:
    return isinstance(state, SucceedState | FailState) or (state.next is None and not isinstance(state, ChoiceState))


def targets(state: State) -> list[tuple[str, str]]:
    """Return the transition targets of a state, each with the field that names it."""
    found: list[tuple[str, str]] = []
    if state.next is not None:
        found.append(("Next", state.next))
    if isinstance(state, ChoiceState):
        found += [(f"Choices/{index}/Next", choice.next) for index, choice in enumerate(state.choices)]
        if state.default is not None:
            found.append(("Default", state.default))
    if isinstance(state, WorkState):
        found += [(f"Catch/{index}/Next", catcher.next) for index, catcher in enumerate(state.catchers)]
    return found
