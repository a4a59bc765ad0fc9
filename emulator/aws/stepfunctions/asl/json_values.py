"""JSON values as the language sees them: equality, text, and times."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

# What json.loads returns. Values are never changed in place, so states share what they pass on.
Json: TypeAlias = Any

# RFC 3339 with the restrictions of the language: a capital T, and a capital Z or an offset.
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


# Returns a value as compact JSON, as AWS writes it. One encoder for all calls: json.dumps would construct one a call.
dumps: Callable[[Json], str] = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def loads(text: str) -> Json:
    """Read JSON; NaN and Infinity, which Python's own reader takes, are none.

    Raises
    ------
    ValueError
        When the text is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def json_equal(one: Json, other: Json) -> bool:
    """Tell whether two values are equal JSON: 1 is 1.0, but not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(json_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(json_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def is_number(value: Json) -> bool:
    """Tell whether a value is a JSON number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_timestamp(value: Json) -> datetime | None:
    """Read a timestamp; None when the value is none."""
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None
