"""What an execution's history tells: its state transitions, and where it failed."""

from collections.abc import Sequence
from typing import Any

_FAILURES = {
    "TaskFailed",
    "TaskTimedOut",
    "LambdaFunctionFailed",
    "LambdaFunctionTimedOut",
    "MapRunFailed",
    "FailStateEntered",
    "EvaluationFailed",
}


def transitions(events: Sequence[dict[str, Any]]) -> int:
    """Return how many state transitions a STANDARD execution is charged for: states entered, and retries.

    Parameters
    ----------
    events
        Its history. Source: https://aws.amazon.com/step-functions/pricing/
    """
    kinds = [event["type"] for event in events]
    entered = sum(str(kind).endswith("StateEntered") for kind in kinds)
    # Each try of a task is scheduled anew, in a state that was entered once.
    tries = sum(kind in ("TaskScheduled", "LambdaFunctionScheduled") for kind in kinds)
    return int(entered + max(0, tries - kinds.count("TaskStateEntered")))


def failed_state(events: Sequence[dict[str, Any]]) -> str:
    """Return the state whose failure ended an execution, told from its history; empty when there is none.

    Parameters
    ----------
    events
        The history, in order.
    """
    by_id = {event["id"]: event for event in events}
    failed = [event for event in events if event["type"] in _FAILURES]
    event = failed[-1] if failed else None
    while event is not None:
        if event["type"].endswith("StateEntered"):
            return str(event["stateEnteredEventDetails"]["name"])
        event = by_id.get(event["previousEventId"])
    return ""
