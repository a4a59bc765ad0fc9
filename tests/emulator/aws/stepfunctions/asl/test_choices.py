"""The rules of Choice states."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.aws.stepfunctions.asl.choices import COMPARISONS, parse_choices
from emulator.aws.stepfunctions.asl.diagnostics import Diagnostics, Fields
from emulator.aws.stepfunctions.asl.expressions import Scope
from emulator.aws.stepfunctions.asl.failures import StateFailure

few = settings(max_examples=50)

NOON, ONE = "2026-01-31T12:00:00Z", "2026-01-31T13:00:00+00:00"
DATA = {
    "n": 5,
    "s": "beta",
    "t": NOON,
    "b": True,
    "null": None,
    "same": {"n": 5.0, "s": "beta", "t": "2026-01-31T14:00:00+02:00", "b": True},
    "star": "a*b",
}


def holds(rule: dict[str, Any], data: Any = None) -> bool:
    diagnostics = Diagnostics()
    (choice,) = parse_choices(Fields({"Choices": [{**rule, "Next": "X"}]}, "", diagnostics))
    assert diagnostics.all() == ()
    return choice.condition.holds(DATA if data is None else data, Scope({}, {}))


@pytest.mark.parametrize(
    ("prefix", "variable", "less", "equal", "more"),
    [
        ("Numeric", "$.n", 4.5, 5, 6),
        ("String", "$.s", "alpha", "beta", "betb"),
        ("Timestamp", "$.t", "2026-01-31T11:59:59.999Z", NOON, ONE),
    ],
)
def test_values_are_ordered_by_their_type(prefix: str, variable: str, less: Any, equal: Any, more: Any) -> None:
    for name, expected in {
        "Equals": (False, True, False),
        "LessThan": (False, False, True),
        "LessThanEquals": (False, True, True),
        "GreaterThan": (True, False, False),
        "GreaterThanEquals": (True, True, False),
    }.items():
        outcome = tuple(holds({"Variable": variable, prefix + name: value}) for value in (less, equal, more))
        assert outcome == expected, prefix + name
        path = {"Variable": variable, f"{prefix}{name}Path": f"$.same.{variable[2:]}"}
        assert holds(path) is expected[1], "the operator with a path"


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_a_comparison_with_another_type_is_false(name: str) -> None:
    operand = {"S": "x", "N": 1, "B": True, "T": NOON}[name[0]]
    others = {"S": [1, True, None], "N": ["1", True, None], "B": [1, "true"], "T": ["noon", 1]}[name[0]]
    assert not any(holds({"Variable": "$.v", name: operand}, {"v": value}) for value in others)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"Variable": "$.b", "BooleanEquals": True}, True),
        ({"Variable": "$.b", "BooleanEqualsPath": "$.same.b"}, True),
        ({"Variable": "$.s", "StringMatches": "b*a"}, True),
        ({"Variable": "$.s", "StringMatches": "*"}, True),
        ({"Variable": "$.s", "StringMatches": "b"}, False),
        ({"Variable": "$.star", "StringMatches": r"a\*b"}, True),
        ({"Variable": "$.s", "StringMatches": r"b\*"}, False),
        ({"Variable": "$.null", "IsNull": True}, True),
        ({"Variable": "$.n", "IsNull": False}, True),
        ({"Variable": "$.n", "IsNumeric": True}, True),
        ({"Variable": "$.b", "IsNumeric": True}, False),
        ({"Variable": "$.s", "IsString": True}, True),
        ({"Variable": "$.b", "IsBoolean": True}, True),
        ({"Variable": "$.t", "IsTimestamp": True}, True),
        ({"Variable": "$.s", "IsTimestamp": True}, False),
        ({"Variable": "$.null", "IsPresent": True}, True),
        ({"Variable": "$.absent", "IsPresent": True}, False),
        ({"Variable": "$.absent", "IsPresent": False}, True),
        ({"Variable": "$..absent", "IsPresent": True}, False),
        ({"Not": {"Variable": "$.n", "NumericEquals": 5}}, False),
        ({"And": [{"Variable": "$.n", "NumericEquals": 5}, {"Variable": "$.s", "StringEquals": "x"}]}, False),
        ({"Or": [{"Variable": "$.n", "NumericEquals": 5}, {"Variable": "$.s", "StringEquals": "x"}]}, True),
        ({"And": [{"Variable": "$.absent", "IsPresent": True}, {"Variable": "$.absent", "IsNull": True}]}, False),
    ],
)
def test_rules_evaluate_to_true_or_false(rule: dict[str, Any], expected: bool) -> None:
    assert holds(rule) is expected


def test_an_absent_variable_fails_except_in_is_present() -> None:
    with pytest.raises(StateFailure, match="references an invalid value"):
        holds({"Variable": "$.absent", "IsNull": True})


@few
@given(st.text(st.sampled_from("ab*\\"), max_size=6))
def test_an_escaped_pattern_matches_only_the_string_itself(text: str) -> None:
    pattern = text.replace("\\", "\\\\").replace("*", "\\*")
    assert holds({"Variable": "$", "StringMatches": pattern}, text)
    assert not holds({"Variable": "$", "StringMatches": pattern}, text + "x")
