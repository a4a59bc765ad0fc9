"""What there is to know of executions, for whoever shows them: values that do not change any more.

Times are seconds since the epoch.
"""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How an execution, an item or a map run stands."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    ABORTED = "ABORTED"


@dataclass(frozen=True)
class ItemRecord:
    """One item of a Map: an iteration of an inline one, a child execution of a distributed one.

    Parameters
    ----------
    map_state
        The Map state's name.
    index
        The item's number, from 0; of a batch, the batch's.
    name
        The child execution's name, or the Map state's for an iteration.
    started_at, stopped_at
        When it started and ended; None while it runs.
    status
        How it stands.
    """

    map_state: str
    index: int
    name: str
    started_at: float
    stopped_at: float | None = None
    status: Status = Status.RUNNING


@dataclass(frozen=True)
class LambdaCall:
    """One invocation that a Task made; a retry is another one.

    Parameters
    ----------
    state
        The Task state's name.
    index
        The item of the innermost Map that it belongs to, or None.
    function
        The function that was named.
    request_id
        The invocation's id, as in its log lines.
    started_at, stopped_at
        When it was asked for, and answered.
    failed
        Whether the function failed.
    """

    state: str
    index: int | None
    function: str
    request_id: str
    started_at: float
    stopped_at: float
    failed: bool


@dataclass(frozen=True)
class ExecutionRecord:
    """One execution as it stands.

    Parameters
    ----------
    arn, name, machine_name
        Which execution of which state machine.
    status
        How it stands.
    started_at, stopped_at
        When it started and ended; None while it runs.
    error, cause
        Why it failed, or None.
    items
        The items of its Maps, in the order in which they started.
    lambda_calls
        Its invocations that have been answered, those of its child executions included, in the order of their ends.
    transitions
        States entered and retries, those of its STANDARD child executions included: what AWS charges for.
    warnings
        What would go otherwise on AWS.
    """

    arn: str
    name: str
    machine_name: str
    status: Status
    started_at: float
    stopped_at: float | None
    error: str | None
    cause: str | None
    items: tuple[ItemRecord, ...]
    lambda_calls: tuple[LambdaCall, ...]
    transitions: int
    warnings: tuple[str, ...]
