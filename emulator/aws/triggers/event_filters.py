"""The filters of event source mappings.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html
"""

from collections.abc import Mapping
from typing import Any


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
