"""How an asynchronous invocation ended, for destinations and dead-letter queues."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class EventCondition(StrEnum):
    """Why an event is not tried any more."""

    SUCCESS = "Success"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    EVENT_AGE_EXCEEDED = "EventAgeExceeded"


@dataclass(frozen=True)
class EventOutcome:
    """The end of an asynchronous invocation.

    Parameters
    ----------
    request_id
        Of the event, the same for all attempts.
    function_arn
        With version or alias.
    region
        The function's.
    condition
        Why it ended.
    attempts
        How often the function ran.
    event
        The event, JSON.
    response
        The last response, JSON, or None if the function never ran.
    version
        The version that ran.
    destinations
        ``OnSuccess`` and ``OnFailure``, as in the function's settings.
    dead_letters
        The ARN of the queue or topic of the function's DeadLetterConfig.
    """

    request_id: str
    function_arn: str
    region: str
    condition: EventCondition
    attempts: int
    event: bytes
    response: bytes | None
    version: str
    destinations: Mapping[str, Any]
    dead_letters: str | None


EventObserver = Callable[[EventOutcome], None]
