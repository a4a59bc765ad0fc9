"""The state machine of a pipeline: its definition, and the role of each function that it invokes."""

import importlib.resources
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.errors import EmulatorError


class StateMachineError(EmulatorError):
    """The definition is not that of a pipeline."""


@dataclass(frozen=True)
class StateMachine:
    """A definition with a Map state that runs the ranks.

    Parameters
    ----------
    definition
        Amazon States Language, JSON.
    initialize, execute, summarize
        The functions invoked before, in and after the Map; `summarize` is empty if no function follows the Map.
    is_express
        Whether the Map's items are EXPRESS executions, which AWS charges differently.
    reads_ranks
        Whether the Map reads the ranks' payloads from S3, where *initialize*'s answer points, not from the answer.
    """

    definition: str
    initialize: str
    execute: str
    summarize: str
    is_express: bool
    reads_ranks: bool


# The payloads of more ranks, 350 bytes each, may be more than the 256 KiB that states pass to each other.
_INLINE_RANKS = 500


def published_state_machine(ranks: int = 1) -> StateMachine:
    """Return the published state machine with an inline Map or, for many ranks, a distributed one.

    Parameters
    ----------
    ranks
        Number of ranks.
    """
    name = "inline.asl.json" if ranks <= _INLINE_RANKS else "distributed.asl.json"
    text = (importlib.resources.files("emulator.fmi.functions") / name).read_text(encoding="utf-8")
    return parse_state_machine(text)


def read_state_machine(path: Path) -> StateMachine:
    """Read a definition.

    Raises
    ------
    StateMachineError
        If it cannot be read, or does not have the form Task, Map, Task.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StateMachineError(f"cannot read state machine {str(path)!r}: {error}") from None
    try:
        return parse_state_machine(text)
    except StateMachineError as error:
        raise StateMachineError(f"{path}: {error}") from None


def parse_state_machine(text: str) -> StateMachine:
    """Parse a definition and assign each function its role by the position of its Task.

    Parameters
    ----------
    text
        The definition.

    Raises
    ------
    StateMachineError
        If it is not valid JSON, or does not have the form Task, Map, Task.
    """
    try:
        definition = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StateMachineError(f"not valid JSON: {error}") from None
    states = list(_in_order(definition))
    maps = [index for index, state in enumerate(states) if state.get("Type") == "Map"]
    if len(maps) != 1:
        raise StateMachineError(f"expected one Map state, whose items are the ranks; got {len(maps)}")
    before, inside, after = states[: maps[0]], states[maps[0]], states[maps[0] + 1 :]
    named = [invoked_functions({"States": before}), invoked_functions(inside), invoked_functions({"States": after})]
    if not named[0] or len(named[1]) != 1:
        raise StateMachineError(
            "expected a Task that invokes the initialize function, then a Map with a Task that invokes the execute "
            f"function; got the functions {named[0] or 'none'} before the Map and {named[1] or 'none'} in it"
        )
    processor = inside.get("ItemProcessor", inside.get("Iterator"))
    return StateMachine(
        text,
        named[0][0],
        named[1][0],
        named[2][0] if named[2] else "",
        _member(processor, "ProcessorConfig", "ExecutionType") == "EXPRESS",
        str(_member(inside, "ItemReader", "Parameters", "Key.$")).startswith("$.body."),
    )


def invoked_functions(definition: Mapping[str, Any]) -> list[str]:
    """Return the names of the functions that a state machine's tasks invoke, in order of the definition.

    Parameters
    ----------
    definition
        Amazon States Language, parsed from JSON.
    """
    return list(dict.fromkeys(_functions(definition)))


def function_name(reference: str) -> str:
    """Return the plain name in a function's name or ARN, without version or alias."""
    return reference.rpartition(":function:")[2].partition(":")[0]


def _functions(value: Any) -> Iterator[str]:
    """Yield the functions' names from Parameters, Arguments, or a task's own resource."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key in ("FunctionName", "Resource") and isinstance(entry, str):
                if key == "FunctionName" or ":function:" in entry:
                    yield function_name(entry)
            else:
                yield from _functions(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _functions(entry)


def _member(value: Any, *names: str) -> Any:
    """Return the value below these names in nested objects, None if there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _in_order(definition: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the states in order: StartAt, then along the Next fields."""
    try:
        name, states = definition["StartAt"], dict(definition["States"])
        while name is not None:
            state = states.pop(name)
            yield state
            name = state.get("Next")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StateMachineError(f"not a chain of states: {type(error).__name__} {error} in StartAt or Next") from None
