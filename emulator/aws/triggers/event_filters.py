"""The filters of event source mappings.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html
"""

import json
from collections.abc import Mapping
from typing import Any

_OPERATORS = frozenset(
    [
        "anything-but",
        "cidr",
        "equals-ignore-case",
        "exists",
        "numeric",
        "prefix",
        "suffix",
        "wildcard",
    ]
)


def is_pattern(text: str) -> bool:
    """Return whether a text is a pattern: JSON objects down to lists of values and comparisons."""
    try:
        pattern = json.loads(text)
    except ValueError:
        return False
    return isinstance(pattern, dict) and _is_branch(pattern)


def _is_branch(pattern: Mapping[str, Any]) -> bool:
    return all(
        (isinstance(value, dict) and bool(value) and _is_branch(value))
        or (isinstance(value, list) and bool(value) and (name == "$or" or all(_is_choice(item) for item in value)))
        for name, value in pattern.items()
    )


def _is_choice(item: object) -> bool:
    return len(item) == 1 and item.keys() <= _OPERATORS if isinstance(item, dict) else not isinstance(item, list)


def passes(record: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether one of a mapping's filters, if there are any, matches a record.

    Parameters
    ----------
    record
        The record that the function receives, with its body or data as JSON where it is.
    settings
        The settings of the mapping.
    """
    filters = settings.get("FilterCriteria", {}).get("Filters") or []
    if not filters:
        return True
    from moto.events.models import EventPattern

    event: Any = record
    return any(EventPattern.load(item.get("Pattern")).matches_event(event) for item in filters)
