"""Records of executions for other packages: immutable snapshots. Times are seconds since the epoch."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The status of an execution, an item or a map run."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    ABORTED = "ABORTED"


@dataclass(frozen=True)
class ItemRecord:
    """One item of a Map: an iteration of an inline Map, or a child execution of a distributed Map.

    Parameters
    ----------
    map_state
        The Map state's name.
    index
        The index of the item or batch, from 0.
    name
        The child execution's name; for an iteration, the Map state's name.
    started_at, stopped_at
        Start and end; the end is None while it runs.
    status
        The status.
    """

    map_state: str
    index: int
    name: str
    started_at: float
    stopped_at: float | None = None
    status: Status = Status.RUNNING


@dataclass(frozen=True)
class LambdaCall:
    """One Lambda invocation of a Task. A retry is another invocation.

    Parameters
    ----------
    state
        The Task state's name.
    index
        The item index in the innermost Map, or None.
    function
        The function's name or ARN, as in the Task.
    request_id
        The request id of the invocation, as in its log lines.
    started_at, stopped_at
        When it was requested, and when it returned.
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
    """A snapshot of one execution.

    Parameters
    ----------
    arn, name, machine_name
        The execution's ARN and name, and its state machine's name.
    status
        The status.
    started_at, stopped_at
        Start and end; the end is None while it runs.
    error, cause
        The error and cause of a failed execution, or None.
    items
        The items of its Maps, in the order of their starts.
    lambda_calls
        The finished invocations of it and of its child executions, in the order of their ends.
    transitions
        Number of states entered and of retries, which AWS charges, including those of STANDARD child executions.
    warnings
        Differences from AWS.
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
