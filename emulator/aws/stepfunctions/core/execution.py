"""One execution while it runs and after: its input and output, its history, its items."""

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.core.history import COMPLETE, History
from emulator.aws.stepfunctions.core.machines import Machine
from emulator.aws.stepfunctions.core.records import ExecutionRecord, ItemRecord, LambdaCall, Status

if TYPE_CHECKING:
    from emulator.aws.stepfunctions.core.map_run import MapRun

_ENDS = {
    Status.SUCCEEDED: "ExecutionSucceeded",
    Status.FAILED: "ExecutionFailed",
    Status.TIMED_OUT: "ExecutionTimedOut",
    Status.ABORTED: "ExecutionAborted",
}


@dataclass
class Strand:
    """One line of control: an execution begins with one, and each branch and iteration is another.

    Parameters
    ----------
    previous_id
        The event that the next one follows.
    context
        The context object as far as it does not change from state to state.
    variables
        What Assign has set.
    index
        The item of the innermost Map, or None.
    """

    previous_id: int
    context: Mapping[str, Json]
    variables: Mapping[str, Json] = field(default_factory=dict)
    index: int | None = None

    def branch(self, context: Mapping[str, Json] | None = None, index: int | None = None) -> "Strand":
        """Return a new strand that begins where this one is."""
        return Strand(
            self.previous_id,
            self.context if context is None else context,
            self.variables,
            self.index if index is None else index,
        )


class Execution:
    """One execution.

    Parameters
    ----------
    arn, name
        Its names.
    machine
        What it executes, as it was at the start.
    kind
        How it is kept.
    input_text
        Its input, JSON.
    parent
        The map run that it is a child of, or None.
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
        self.task: asyncio.Task[None] | None = None
        self.transitions = 0
        self.warnings: list[str] = []
        self._items: list[ItemRecord] = []
        self._lambda_calls: list[LambdaCall] = []

    def begin(self) -> Strand:
        """Write the first event; return the strand to run the states on."""
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
                "StartTime": iso(self.started_at),
                "RedriveCount": 0,
            },
            "StateMachine": {"Id": self.machine.arn, "Name": self.machine.name},
        }
        # The first state's entry follows event 0 as the start itself does: AWS numbers them so.
        return Strand(0, context)

    def end(
        self, status: Status, previous_id: int, output_text: str | None = None, failure: StateFailure | None = None
    ) -> None:
        """Take note of how it ended."""
        self.status, self.output_text, self.failure = status, output_text, failure
        self.stopped_at = time.time()
        details: dict[str, Any]
        if output_text is not None:
            details = {"output": output_text, "outputDetails": COMPLETE}
        else:
            details = error_details(failure) if failure else {}
        self.history.end(_ENDS[status], previous_id, details)

    def begin_item(self, map_state: str, index: int, name: str) -> int:
        """Take note that an item of a Map begins; return what to name it by to `end_item`."""
        self._items.append(ItemRecord(map_state, index, name, time.time()))
        return len(self._items) - 1

    def end_item(self, item: int, status: Status) -> None:
        """Take note that an item has ended."""
        self._items[item] = replace(self._items[item], stopped_at=time.time(), status=status)

    def add_lambda_call(self, call: LambdaCall) -> None:
        """Take note of an invocation, in all the executions that this one is a child of, too."""
        self._lambda_calls.append(call)
        if self.parent is not None:
            self.parent.execution.add_lambda_call(replace(call, index=self.parent.index_of(self)))

    def add_transition(self) -> None:
        """Count a state that is entered or tried again; EXPRESS executions are not charged by them."""
        if self.kind is MachineType.STANDARD:
            self.transitions += 1
            if self.parent is not None:
                self.parent.execution.add_transition()

    def warn(self, text: str) -> None:
        """Take note of what would go otherwise on AWS, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def record(self) -> ExecutionRecord:
        """Return the execution as it stands."""
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
    """Return an error the way events have it."""
    named = {"error": failure.error, "cause": failure.cause}
    return {key: text for key, text in named.items() if text is not None}


def iso(timestamp: float) -> str:
    """Return a time the way the context object has it, such as 2026-01-31T12:00:00.000Z."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_name() -> str:
    """Return a name for an execution that was given none."""
    return str(uuid.uuid4())
