"""Which variables the states of a definition refer to, as DescribeStateMachine shows them."""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

# Texts in intrinsic functions, such as '$name', refer to nothing.
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'")
# $name, but neither $.name nor $$.name.
_VARIABLE = re.compile(r"(?<!\$)\$([A-Za-z_]\w*)")


@functools.lru_cache(maxsize=64)
def variable_references(text: str) -> Mapping[str, tuple[str, ...]]:
    """Return the sorted names of the variables in a definition's expressions by state; states without any are left out.

    Parameters
    ----------
    text
        A definition, valid JSON.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, state in _states(json.loads(text)):
        names = sorted(set(_names("", state)))
        if names:
            found[name] = tuple(names)
    return MappingProxyType(found)


def _states(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the states of a program and of all programs in it."""
    if isinstance(value, list):
        for item in value:
            yield from _states(item)
    elif isinstance(value, dict):
        states = value.get("States")
        if isinstance(states, dict):
            yield from states.items()
        for inner in value.values():
            yield from _states(inner)


def _names(key: str, value: Any) -> Iterator[str]:
    """Yield the variables in the expressions of a value, without the states in it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name != "States":
                yield from _names(name, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _names(key, item)
    elif isinstance(value, str) and (key.endswith((".$", "Path")) or key == "Variable"):
        yield from _VARIABLE.findall(_QUOTED.sub("", value))
