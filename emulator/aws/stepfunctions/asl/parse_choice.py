"""Choice rules from their JSON."""

from emulator.aws.stepfunctions.asl.choice_rules import (
    COMPARISONS,
    KINDS,
    WITH_PATH,
    And,
    Compare,
    Condition,
    IsKind,
    IsPresent,
    Not,
    Or,
)
from emulator.aws.stepfunctions.asl.definition import Choice
from emulator.aws.stepfunctions.asl.diagnostics import Fields, shown
from emulator.aws.stepfunctions.asl.paths import WHOLE, Path

_ALWAYS = And(())
_JOINED: dict[str, type[And] | type[Or]] = {"And": And, "Or": Or}


def parse_choices(fields: Fields) -> tuple[Choice, ...]:
    """Read Choices."""
    choices = []
    for rule in fields.objects("Choices"):
        rule.require("Next")
        rule.text("Comment")
        assign = rule.template("Assign")
        choices.append(Choice(_parse_rule(rule), rule.text("Next") or "", assign))
        rule.end("a choice rule")
    return tuple(choices)


def _parse_rule(rule: Fields) -> Condition:
    """Read one rule or, within And, Or and Not, a part of one."""
    present = [name for name in rule.names() if name in _JOINED or name == "Not" or _is_comparison(name)]
    if len(present) != 1:
        unknown = sorted(set(rule.names()) - set(present) - {"Variable", "Next", "Comment", "Assign"})
        came = f"{' and '.join(present)}" if present else f"none{f', but {unknown[0]!r}' if unknown else ''}"
        rule.wrong("", f"expected exactly one comparison, And, Or or Not; got {came}")
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
    part.text("Comment")
    if part.has("Next"):
        part.wrong("Next", "Next stands in the outermost rule only")
        part.raw("Next")
    part.end("a part of a choice rule")
    return condition


def _is_comparison(name: str) -> bool:
    return name in COMPARISONS or name.removesuffix("Path") in WITH_PATH or name in KINDS or name == "IsPresent"


def _parse_comparison(rule: Fields, name: str) -> Condition:
    rule.require("Variable")
    variable: Path = rule.path("Variable") or WHOLE
    if name == "IsPresent" or name in KINDS:
        expected = rule.flag(name) is True
        return IsPresent(variable, expected) if name == "IsPresent" else IsKind(variable, KINDS[name], expected)
    if name not in COMPARISONS:
        return Compare(variable, COMPARISONS[name.removesuffix("Path")], rule.path(name) or WHOLE)
    by = COMPARISONS[name]
    value = rule.raw(name)
    if not by.accepts(value):
        rule.wrong(name, f"expected {by.expects}, got {shown(value)}")
    return Compare(variable, by, value)
