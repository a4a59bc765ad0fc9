"""The rank and the world size that a Lambda event names, kept with the record of its invocation."""

import re
from dataclasses import dataclass
from typing import Any

from emulator.aws.lambda_.core.history import InvocationRecord

_DIGITS = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class EventRank:
    """An event's ``RANK`` and ``WORLD_SIZE``, None for each that it lacks."""

    rank: int | None = None
    world_size: int | None = None


_NO_RANK = EventRank()


def event_rank(event: Any) -> EventRank:
    """Return an event's RANK and WORLD_SIZE, given as numbers or as digits.

    Parameters
    ----------
    event
        The event, parsed. Ranks' events are JSON objects.
    """
    if not isinstance(event, dict):
        return _NO_RANK
    return EventRank(_number(event.get("RANK")), _number(event.get("WORLD_SIZE")))


def rank_of(record: InvocationRecord) -> EventRank:
    """Return the rank of an invocation whose record was annotated by `event_rank`."""
    return record.annotation if isinstance(record.annotation, EventRank) else _NO_RANK


def _number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return None
