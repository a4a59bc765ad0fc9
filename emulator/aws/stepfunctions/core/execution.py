"""Executions and the map runs they start: input and output, event history, items, child executions."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from emulator.aws.limits import HISTORY_EVENTS
from emulator.aws.stepfunctions.asl.definition import MachineType, MapState
from emulator.aws.stepfunctions.asl.failures import RUNTIME, StateFailure
from emulator.aws.stepfunctions.asl.items import Tolerance
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.core.arns import map_run_arn
from emulator.aws.stepfunctions.core.machines import Machine
from emulator.aws.stepfunctions.core.records import ExecutionRecord, ItemRecord, LambdaCall, Status

_DATA = {"input", "output", "parameters"}
COMPLETE = {"truncated": False}
_END_EVENTS = {
    Status.SUCCEEDED: "ExecutionSucceeded",
    Status.FAILED: "ExecutionFailed",
    Status.TIMED_OUT: "ExecutionTimedOut",
    Status.ABORTED: "ExecutionAborted",
}


@dataclass(frozen=True)
class HistoryEvent:
    """One event of an execution's history.

    Parameters
    ----------
    event_id, previous_id
        The event's number, from 1, and the number of the event that led to it.
    timestamp
        Seconds since the epoch.
    kind
        AWS's name of the event type, such as ``TaskScheduled``.
    details
        The event's details, under the API's names.
    """

    event_id: int
    previous_id: int
    timestamp: float
    kind: str
    details: Mapping[str, Json] | None

    def to_api(self, *, with_data: bool) -> dict[str, Any]:
        """Return the API's HistoryEvent. Without data, inputs and outputs are omitted."""
        event: dict[str, Any] = {
            "timestamp": self.timestamp,
            "type": self.kind,
            "id": self.event_id,
            "previousEventId": self.previous_id,
        }
        if self.details is not None:
            kept = self.details.items()
            event[self._details_name()] = {
                name: value for name, value in kept if with_data or name.removesuffix("Details") not in _DATA
            }
        return event

    def _details_name(self) -> str:
        for ending in ("StateEntered", "StateExited"):
            if self.kind.endswith(ending):
                return f"{ending[0].lower()}{ending[1:]}EventDetails"
        return f"{self.kind[0].lower()}{self.kind[1:]}EventDetails"


class History:
    """The event history of one execution.

    Parameters
    ----------
    kept
        Whether events are stored. Those of EXPRESS executions are only counted.
    """

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept
        self._full = False
        self._count = 0
        self.events: list[HistoryEvent] = []

    def add(self, kind: str, previous_id: int, details: Mapping[str, Json] | None = None) -> int:
        """Add an event; return its number.

        Raises
        ------
        StateFailure
            Once, when the history has room for the final event only.
        """
        if self._kept and self._count >= HISTORY_EVENTS - 1:
            if not self._full:
                self._full = True
                raise StateFailure(
                    RUNTIME, f"The execution reached the maximum number of history events ({HISTORY_EVENTS})."
                )
            return self._count
        return self._append(kind, previous_id, details)

    def end(self, kind: str, previous_id: int, details: Mapping[str, Json] | None = None) -> int:
        """Add a final event, of the execution or of an aborted state. It is stored even if the history is full."""
        return self._append(kind, previous_id, details)

    def _append(self, kind: str, previous_id: int, details: Mapping[str, Json] | None) -> int:
        self._count += 1
        if self._kept:
            self.events.append(HistoryEvent(self._count, previous_id, time.time(), kind, details))
        return self._count


@dataclass
class Branch:
    """A sequence of states: the execution's own, a branch of a Parallel state or an iteration of a Map.

    Parameters
    ----------
    previous_id
        The number of the branch's latest event.
    context
        The fields of the context object that are the same in all states of the branch.
    variables
        The variables set by Assign.
    index
        The item index in the innermost Map, or None.
    """

    previous_id: int
    context: Mapping[str, Json]
    variables: Mapping[str, Json] = field(default_factory=dict)
    index: int | None = None

    def fork(self, context: Mapping[str, Json] | None = None, index: int | None = None) -> "Branch":
        """Return a new branch that starts at this one's latest event."""
        return Branch(
            self.previous_id,
            self.context if context is None else context,
            self.variables,
            self.index if index is None else index,
        )


class Execution:
    """One execution of a state machine.

    Parameters
    ----------
    arn, name
        The execution's ARN and name.
    machine
        The state machine as it was when the execution started.
    kind
        STANDARD or EXPRESS.
    input_text
        The input, JSON.
    parent
        The map run that started it, or None.
    """

    def __init__(
        self,
        arn: str,
        name: str,
        machine: Machine,
        kind: MachineType,
        input_text: str,
        parent: "MapRun | None" = None,
    ) -> None:
        self.arn = arn
        self.name = name
        self.machine = machine
        self.kind = kind
        self.input_text = input_text
        self.parent = parent
        self.status = Status.RUNNING
        self.started_at = time.time()
        self.stopped_at: float | None = None
        self.output_text: str | None = None
        self.failure: StateFailure | None = None
        self.history = History(kept=kind is MachineType.STANDARD)
        self.map_runs: list[MapRun] = []
        self.transitions = 0
        self.warnings: list[str] = []
        self._items: list[ItemRecord] = []
        self._lambda_calls: list[LambdaCall] = []

    def start(self) -> Branch:
        """Add the first event; return the branch that runs the states."""
        self.history.add(
            "ExecutionStarted",
            0,
            {"input": self.input_text, "inputDetails": COMPLETE, "roleArn": self.machine.role_arn},
        )
        context = {
            "Execution": {
                "Id": self.arn,
                "Input": json.loads(self.input_text),
                "Name": self.name,
                "RoleArn": self.machine.role_arn,
                "StartTime": format_timestamp(self.started_at),
                "RedriveCount": 0,
            },
            "StateMachine": {"Id": self.machine.arn, "Name": self.machine.name},
        }
        # On AWS, too, the previous event of the first StateEntered is 0, as that of ExecutionStarted.
        return Branch(0, context)

    def end(
        self, status: Status, previous_id: int, output_text: str | None = None, failure: StateFailure | None = None
    ) -> None:
        """Record the end of the execution and add its final event."""
        self.status, self.output_text, self.failure = status, output_text, failure
        self.stopped_at = time.time()
        details: dict[str, Any]
        if output_text is not None:
            details = {"output": output_text, "outputDetails": COMPLETE}
        else:
            details = error_details(failure) if failure else {}
        self.history.end(_END_EVENTS[status], previous_id, details)

    def start_item(self, map_state: str, index: int, name: str) -> int:
        """Record the start of a Map's item; return the number to pass to `end_item`."""
        self._items.append(ItemRecord(map_state, index, name, time.time()))
        return len(self._items) - 1

    def end_item(self, item: int, status: Status) -> None:
        """Record the end of an item."""
        self._items[item] = replace(self._items[item], stopped_at=time.time(), status=status)

    def add_lambda_call(self, call: LambdaCall) -> None:
        """Record a Lambda invocation, also in the parent executions."""
        self._lambda_calls.append(call)
        if self.parent is not None:
            self.parent.execution.add_lambda_call(replace(call, index=self.parent.index_of(self)))

    def add_transition(self) -> None:
        """Count a transition, a state entered or retried. AWS charges no transitions of EXPRESS executions."""
        if self.kind is MachineType.STANDARD:
            self.transitions += 1
            if self.parent is not None:
                self.parent.execution.add_transition()

    def warn(self, text: str) -> None:
        """Record a difference from AWS; a repeated text is recorded once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def record(self) -> ExecutionRecord:
        """Return a snapshot of the execution."""
        return ExecutionRecord(
            self.arn,
            self.name,
            self.machine.name,
            self.status,
            self.started_at,
            self.stopped_at,
            self.failure.error if self.failure else None,
            self.failure.cause if self.failure else None,
            tuple(self._items),
            tuple(self._lambda_calls),
            self.transitions,
            tuple(self.warnings),
        )


def error_details(failure: StateFailure) -> dict[str, str]:
    """Return a failure's error and cause under the names that events use; None is omitted."""
    named = {"error": failure.error, "cause": failure.cause}
    return {key: text for key, text in named.items() if text is not None}


def format_timestamp(timestamp: float) -> str:
    """Format a time as in the context object, such as 2026-01-31T12:00:00.000Z."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_execution_name() -> str:
    """Return a random name for an execution."""
    return str(uuid.uuid4())


@dataclass(frozen=True)
class Counts:
    """The numbers of items, or of child executions, by status."""

    pending: int
    running: int
    succeeded: int
    failed: int
    timed_out: int
    aborted: int
    results_written: int

    @property
    def total(self) -> int:
        """The sum of all statuses."""
        return self.pending + self.running + self.succeeded + self.failed + self.timed_out + self.aborted


class MapRun:
    """One run of a distributed Map.

    Parameters
    ----------
    execution
        The execution that contains the Map.
    state
        The Map state.
    max_concurrency
        Maximum number of concurrent child executions; 0 for AWS's limit.
    tolerance
        The number of items that may fail.
    """

    def __init__(self, execution: Execution, state: MapState, max_concurrency: int, tolerance: Tolerance) -> None:
        if state.distribution is None:
            raise ValueError(f"state {state.name!r}: expected a distributed Map, got an inline one")
        self.execution = execution
        self.state = state
        self.distribution = state.distribution
        self.arn = map_run_arn(execution.machine.account, execution.machine.name, state.distribution.label)
        self.max_concurrency = max_concurrency
        self.tolerance = tolerance
        self.status = Status.RUNNING
        self.started_at = time.time()
        self.stopped_at: float | None = None
        self.children: list[Execution] = []
        self._sizes: list[int] = []
        self._children_index: dict[str, int] = {}
        self._results_written = False

    def set_sizes(self, sizes: list[int]) -> None:
        """Set the number of items of each child execution."""
        self._sizes = sizes

    def add(self, child: Execution, index: int) -> None:
        """Add a child execution that starts."""
        self.children.append(child)
        self._children_index[child.arn] = index

    def index_of(self, child: Execution) -> int:
        """Return a child execution's index."""
        return self._children_index[child.arn]

    def size_of(self, child: Execution) -> int:
        """Return the number of items of a child execution."""
        return self._sizes[self.index_of(child)]

    def end(self, status: Status, *, results_written: bool = False) -> None:
        """Record the end of the map run."""
        self.status = status
        self.stopped_at = time.time()
        self._results_written = results_written

    def tolerance_exceeded(self) -> bool:
        """Return whether more items have failed than the Map tolerates."""
        counts = self.item_counts()
        return self.tolerance.exceeded(counts.failed + counts.timed_out, sum(self._sizes))

    def item_counts(self) -> Counts:
        """Return the numbers of items by status."""
        return self._counts(self._sizes)

    def execution_counts(self) -> Counts:
        """Return the numbers of child executions by status."""
        return self._counts([1] * len(self._sizes))

    def _counts(self, weights: list[int]) -> Counts:
        by_status = dict.fromkeys(Status, 0)
        for child in self.children:
            by_status[child.status] += weights[self.index_of(child)]
        pending = sum(weights) - sum(by_status.values())
        ended = self.status is not Status.RUNNING
        done = by_status[Status.SUCCEEDED] + by_status[Status.FAILED] + by_status[Status.TIMED_OUT]
        return Counts(
            pending=0 if ended else pending,
            running=by_status[Status.RUNNING],
            succeeded=by_status[Status.SUCCEEDED],
            failed=by_status[Status.FAILED],
            timed_out=by_status[Status.TIMED_OUT],
            # Children that never started count as aborted.
            aborted=by_status[Status.ABORTED] + (pending if ended else 0),
            results_written=done if self._results_written else 0,
        )
