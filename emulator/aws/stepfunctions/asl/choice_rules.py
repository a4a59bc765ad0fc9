"""The rules of Choice states."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from emulator.aws.stepfunctions.asl.failures import RUNTIME, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json, is_number, timestamp
from emulator.aws.stepfunctions.asl.paths import NoMatchError, Path, Scope

_STAR = re.compile(r"\\(.)|(\*)")


class Condition(Protocol):
    """Something that holds or does not."""

    def holds(self, data: Json, scope: Scope) -> bool:
        """Tell whether it holds.

        Raises
        ------
        StateFailure
            When a path leads nowhere.
        """


@dataclass(frozen=True)
class Operator:
    """A way to compare a variable with a value.

    Parameters
    ----------
    name
        Such as ``NumericLessThan``.
    accepts
        Tells whether a value is of the kind it compares; a variable of another kind does not compare.
    expects
        That kind, in words.
    compare
        Variable and value to the outcome.
    """

    name: str
    accepts: Callable[[Json], bool]
    expects: str
    compare: Callable[[Json, Json], bool]


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _is_boolean(value: Json) -> bool:
    return isinstance(value, bool)


def _is_timestamp(value: Json) -> bool:
    return timestamp(value) is not None


def _by_time(compare: Callable[[Json, Json], bool]) -> Callable[[Json, Json], bool]:
    return lambda one, other: compare(timestamp(one), timestamp(other))


def _matches(text: str, pattern: str) -> bool:
    r"""Tell whether a text matches a pattern, in which ``*`` is any text and ``\*`` the star itself."""
    parts = [".*" if star[2] else re.escape(star[1]) for star in _STAR.finditer(pattern)]
    literals = [re.escape(part) for part in re.split(r"\\.|\*", pattern)]
    regex = literals[0] + "".join(part + literal for part, literal in zip(parts, literals[1:], strict=True))
    return re.fullmatch(regex, text, re.DOTALL) is not None


_ORDER: dict[str, Callable[[Json, Json], bool]] = {
    "Equals": operator.eq,
    "LessThan": operator.lt,
    "GreaterThan": operator.gt,
    "LessThanEquals": operator.le,
    "GreaterThanEquals": operator.ge,
}
COMPARISONS = {
    compared.name: compared
    for compared in (
        *(Operator("String" + name, _is_text, "a text", compare) for name, compare in _ORDER.items()),
        *(Operator("Numeric" + name, is_number, "a number", compare) for name, compare in _ORDER.items()),
        *(
            Operator("Timestamp" + name, _is_timestamp, "a timestamp such as 2026-01-31T12:00:00Z", _by_time(compare))
            for name, compare in _ORDER.items()
        ),
        Operator("BooleanEquals", _is_boolean, "true or false", operator.is_),
        Operator("StringMatches", _is_text, "a text", _matches),
    )
}
# The operators that have a twin with a path in place of the value.
WITH_PATH = frozenset(COMPARISONS) - {"StringMatches"}
KINDS: dict[str, Callable[[Json], bool]] = {
    "IsNull": lambda value: value is None,
    "IsNumeric": is_number,
    "IsString": _is_text,
    "IsBoolean": _is_boolean,
    "IsTimestamp": _is_timestamp,
}


def _at(path: Path, data: Json, scope: Scope) -> Json:
    try:
        return path.evaluate(data, scope)
    except NoMatchError:
        raise StateFailure(
            RUNTIME, f"Invalid path '{path.text}': The choice state's condition path references an invalid value."
        ) from None


@dataclass(frozen=True)
class Compare:
    """A variable compared with a value that is written out, or lies at a path."""

    variable: Path
    by: Operator
    value: Json | Path

    def holds(self, data: Json, scope: Scope) -> bool:
        """Tell whether it holds."""
        variable = _at(self.variable, data, scope)
        value = _at(self.value, data, scope) if isinstance(self.value, Path) else self.value
        return self.by.accepts(variable) and self.by.accepts(value) and self.by.compare(variable, value)


@dataclass(frozen=True)
class IsKind:
    """Whether a variable is of some kind."""

    variable: Path
    of_kind: Callable[[Json], bool]
    expected: bool

    def holds(self, data: Json, scope: Scope) -> bool:
        """Tell whether it holds."""
        return self.of_kind(_at(self.variable, data, scope)) is self.expected


@dataclass(frozen=True)
class IsPresent:
    """Whether there is a variable at all."""

    variable: Path
    expected: bool

    def holds(self, data: Json, scope: Scope) -> bool:
        """Tell whether it holds."""
        try:
            found = self.variable.evaluate(data, scope)
        except NoMatchError:
            return not self.expected
        return (self.variable.query is None or bool(found)) is self.expected


@dataclass(frozen=True)
class And:
    """All of several conditions."""

    conditions: tuple[Condition, ...]

    def holds(self, data: Json, scope: Scope) -> bool:
        """Tell whether it holds."""
        return all(condition.holds(data, scope) for condition in self.conditions)


@dataclass(frozen=True)
class Or:
    """At least one of several conditions."""

    conditions: tuple[Condition, ...]

    def holds(self, data: Json, scope: Scope) -> bool:
        """Tell whether it holds."""
        return any(condition.holds(data, scope) for condition in self.conditions)


@dataclass(frozen=True)
class Not:
    """The opposite of a condition."""

    condition: Condition

    def holds(self, data: Json, scope: Scope) -> bool:
        """Tell whether it holds."""
        return not self.condition.holds(data, scope)
