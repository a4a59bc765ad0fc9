"""JSON values of the language: serialization, equality, numbers and timestamps."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

# The values that json.loads returns. They are never modified in place, so states share them.
Json: TypeAlias = Any

# RFC 3339 with the restrictions of the language: a capital T, and a capital Z or an offset.
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


# Serializes a value as compact JSON, as AWS does. json.dumps would construct an encoder for each call.
dumps: Callable[[Json], str] = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def loads(text: str) -> Json:
    """Parse JSON. NaN and Infinity, which Python's parser accepts, are rejected.

    Raises
    ------
    ValueError
        If the text is invalid JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=reject_constant)
    except RecursionError:
        raise ValueError("the values are nested too deeply") from None


def reject_constant(constant: str) -> None:
    """Raise ValueError for NaN and Infinity, which are not JSON."""
    raise ValueError(f"{constant} is not allowed in JSON")


def exceeds(value: Json, limit: int) -> bool:
    """Return whether a value has more than `limit` bytes as JSON, at the least. Looks at `limit` bytes at most.

    Values share their parts, so that a value of little memory can have a text of any length.
    """
    size, open_values = 0, [value]
    while open_values:
        found = open_values.pop()
        # Brackets or quotes, or a digit; and a comma.
        size += 1
        if isinstance(found, str):
            size += len(found)
        elif isinstance(found, list):
            size += len(found)
            if size <= limit:
                open_values.extend(found)
        elif isinstance(found, dict):
            size += sum(map(len, found))
            if size <= limit:
                open_values.extend(found.values())
        if size > limit:
            return True
    return False


def json_equal(one: Json, other: Json) -> bool:
    """Return whether two JSON values are equal: 1 equals 1.0, but not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(json_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(json_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def is_number(value: Json) -> bool:
    """Return whether a value is a JSON number. Booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_timestamp(value: Json) -> datetime | None:
    """Parse a timestamp. Return None if the value is not one."""
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None
