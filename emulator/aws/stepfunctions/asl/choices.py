"""The rules of Choice states: their operators, their evaluation and their parser."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from emulator.aws.stepfunctions.asl.diagnostics import Fields, abbreviated
from emulator.aws.stepfunctions.asl.expressions import ROOT_PATH, Expression, NoMatchError, Path, Scope
from emulator.aws.stepfunctions.asl.failures import RUNTIME, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json, is_number, parse_timestamp

_PATTERN = re.compile(r"\\(.)|.", re.DOTALL)


class Condition(Protocol):
    """A condition of a choice rule."""

    def holds(self, data: Json, scope: Scope) -> bool:
        """Return whether the condition is true.

        Raises
        ------
        StateFailure
            If a path matches nothing.
        """


@dataclass(frozen=True)
class Comparison:
    """A comparison operator.

    Parameters
    ----------
    name
        Such as ``NumericLessThan``.
    accepts
        Whether the operator compares values of a type. With another type the condition is false.
    expects
        That type, for messages.
    compare
        Compares a variable with a value.
    """

    name: str
    accepts: Callable[[Json], bool]
    expects: str
    compare: Callable[[Json, Json], bool]


def _is_string(value: Json) -> bool:
    return isinstance(value, str)


def _is_boolean(value: Json) -> bool:
    return isinstance(value, bool)


def _is_timestamp(value: Json) -> bool:
    return parse_timestamp(value) is not None


def _by_time(compare: Callable[[Json, Json], bool]) -> Callable[[Json, Json], bool]:
    return lambda one, other: compare(parse_timestamp(one), parse_timestamp(other))


def _matches(text: str, pattern: str) -> bool:
    r"""Return whether a string matches a pattern, in which ``*`` matches any string and ``\*`` a star.

    Each part between two stars is searched from left to right once, so that no pattern takes long.
    """
    parts = [""]
    for star in _PATTERN.finditer(pattern):
        if star[0] == "*":
            parts.append("")
        else:
            parts[-1] += star[1] or star[0]
    if len(parts) == 1:
        return text == parts[0]
    first, *middle, last = parts
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


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
        *(Comparison("String" + name, _is_string, "a string", compare) for name, compare in _ORDER.items()),
        *(Comparison("Numeric" + name, is_number, "a number", compare) for name, compare in _ORDER.items()),
        *(
            Comparison("Timestamp" + name, _is_timestamp, "a timestamp such as 2026-01-31T12:00:00Z", _by_time(compare))
            for name, compare in _ORDER.items()
        ),
        Comparison("BooleanEquals", _is_boolean, "true or false", operator.is_),
        Comparison("StringMatches", _is_string, "a string", _matches),
    )
}
# The operators that also exist with the suffix Path and a path as the value.
WITH_PATH = frozenset(COMPARISONS) - {"StringMatches"}
TYPE_TESTS: dict[str, Callable[[Json], bool]] = {
    "IsNull": lambda value: value is None,
    "IsNumeric": is_number,
    "IsString": _is_string,
    "IsBoolean": _is_boolean,
    "IsTimestamp": _is_timestamp,
}


def _value_at(path: Path, data: Json, scope: Scope) -> Json:
    try:
        return path.evaluate(data, scope)
    except NoMatchError:
        raise StateFailure(
            RUNTIME, f"Invalid path '{path.text}': The choice state's condition path references an invalid value."
        ) from None


@dataclass(frozen=True)
class Compare:
    """Compares a variable with a literal value or with the value at a path."""

    variable: Path
    comparison: Comparison
    value: Json | Path

    def holds(self, data: Json, scope: Scope) -> bool:
        """Return whether the condition is true."""
        variable = _value_at(self.variable, data, scope)
        value = _value_at(self.value, data, scope) if isinstance(self.value, Path) else self.value
        return (
            self.comparison.accepts(variable)
            and self.comparison.accepts(value)
            and self.comparison.compare(variable, value)
        )


@dataclass(frozen=True)
class IsType:
    """Tests the type of a variable."""

    variable: Path
    test: Callable[[Json], bool]
    expected: bool

    def holds(self, data: Json, scope: Scope) -> bool:
        """Return whether the condition is true."""
        return self.test(_value_at(self.variable, data, scope)) is self.expected


@dataclass(frozen=True)
class IsPresent:
    """Tests whether a variable exists."""

    variable: Path
    expected: bool

    def holds(self, data: Json, scope: Scope) -> bool:
        """Return whether the condition is true."""
        try:
            found = self.variable.evaluate(data, scope)
        except NoMatchError:
            return not self.expected
        return (self.variable.query is None or bool(found)) is self.expected


@dataclass(frozen=True)
class And:
    """True if all conditions are true."""

    conditions: tuple[Condition, ...]

    def holds(self, data: Json, scope: Scope) -> bool:
        """Return whether the condition is true."""
        return all(condition.holds(data, scope) for condition in self.conditions)


@dataclass(frozen=True)
class Or:
    """True if at least one condition is true."""

    conditions: tuple[Condition, ...]

    def holds(self, data: Json, scope: Scope) -> bool:
        """Return whether the condition is true."""
        return any(condition.holds(data, scope) for condition in self.conditions)


@dataclass(frozen=True)
class Not:
    """True if the condition is false."""

    condition: Condition

    def holds(self, data: Json, scope: Scope) -> bool:
        """Return whether the condition is true."""
        return not self.condition.holds(data, scope)


@dataclass(frozen=True)
class Choice:
    """One rule of a Choice state."""

    condition: Condition
    next: str
    assign: Expression | None = None


_ALWAYS = And(())
_JOINED: dict[str, type[And] | type[Or]] = {"And": And, "Or": Or}


def parse_choices(fields: Fields) -> tuple[Choice, ...]:
    """Parse Choices."""
    choices = []
    for rule in fields.objects("Choices"):
        rule.require("Next")
        rule.string("Comment")
        assign = rule.template("Assign")
        choices.append(Choice(_parse_rule(rule), rule.string("Next") or "", assign))
        rule.reject_unknown("a choice rule")
    return tuple(choices)


def _parse_rule(rule: Fields) -> Condition:
    """Parse a rule, or a nested rule of And, Or and Not."""
    present = [name for name in rule.names() if name in _JOINED or name == "Not" or _is_comparison(name)]
    if len(present) != 1:
        unknown = sorted(set(rule.names()) - set(present) - {"Variable", "Next", "Comment", "Assign"})
        got = " and ".join(present) if present else f"none{f', but {unknown[0]!r}' if unknown else ''}"
        rule.report("", f"expected exactly one comparison, And, Or or Not, got {got}")
        for name in ("Variable", *present, *unknown):
            rule.raw(name)
        return _ALWAYS
    name = present[0]
    if name in _JOINED:
        return _JOINED[name](tuple(_parse_part(part) for part in rule.objects(name)))
    if name == "Not":
        inner = rule.object("Not")
        return Not(_parse_part(inner) if inner else _ALWAYS)
    return _parse_comparison(rule, name)


def _parse_part(part: Fields) -> Condition:
    condition = _parse_rule(part)
    part.string("Comment")
    if part.has("Next"):
        part.report("Next", "expected Next only in the outermost rule")
        part.raw("Next")
    part.reject_unknown("a nested choice rule")
    return condition


def _is_comparison(name: str) -> bool:
    return name in COMPARISONS or name.removesuffix("Path") in WITH_PATH or name in TYPE_TESTS or name == "IsPresent"


def _parse_comparison(rule: Fields, name: str) -> Condition:
    rule.require("Variable")
    variable: Path = rule.path("Variable") or ROOT_PATH
    if name == "IsPresent" or name in TYPE_TESTS:
        expected = rule.boolean(name) is True
        return IsPresent(variable, expected) if name == "IsPresent" else IsType(variable, TYPE_TESTS[name], expected)
    if name not in COMPARISONS:
        return Compare(variable, COMPARISONS[name.removesuffix("Path")], rule.path(name) or ROOT_PATH)
    comparison = COMPARISONS[name]
    value = rule.raw(name)
    if not comparison.accepts(value):
        rule.report(name, f"expected {comparison.expects}, got {abbreviated(value)}")
    return Compare(variable, comparison, value)
