"""Filter patterns, from the examples in AWS's documentation."""

import pytest

from emulator.aws.logs.core import compile_filter_pattern
from emulator.errors import ApiError

LINES = ["[ERROR 400] BAD REQUEST", "[ERROR 401] UNAUTHORIZED REQUEST", "[ERROR 419] MISSING ARGUMENTS", "[WARN] fine"]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("", [0, 1, 2, 3]),
        ("ERROR", [0, 1, 2]),
        ("ERROR ARGUMENTS", [2]),
        ("?ERROR ?WARN", [0, 1, 2, 3]),
        ("?400 ?419", [0, 2]),
        ("ERROR -400", [1, 2]),
        ('"BAD REQUEST"', [0]),
        ('-"BAD REQUEST" REQUEST', [1]),
        ("error", []),
    ],
)
def test_a_pattern_of_terms_selects_the_matching_lines(pattern: str, matching: list[int]) -> None:
    matches = compile_filter_pattern(pattern)
    assert [number for number, line in enumerate(LINES) if matches(line)] == matching


@pytest.mark.parametrize("pattern", ["{ $.level = 2 }", "[ip, user]", "%AUTH%"])
def test_unsupported_patterns_are_rejected(pattern: str) -> None:
    with pytest.raises(ApiError, match=r"unsupported filterPattern .*: expected terms"):
        compile_filter_pattern(pattern)
