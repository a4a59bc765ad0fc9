"""A distributed Map: its map run and the child executions."""

import time
from dataclasses import dataclass

from emulator.aws.stepfunctions.asl.definition import MapState
from emulator.aws.stepfunctions.asl.tolerance import Tolerance
from emulator.aws.stepfunctions.core.arns import map_run_arn
from emulator.aws.stepfunctions.core.execution import Execution
from emulator.aws.stepfunctions.core.records import Status


@dataclass(frozen=True)
class Counts:
    """How many items, or child executions, stand how."""

    pending: int
    running: int
    succeeded: int
    failed: int
    timed_out: int
    aborted: int
    results_written: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.pending + self.running + self.succeeded + self.failed + self.timed_out + self.aborted


class MapRun:
    """One run of a distributed Map.

    Parameters
    ----------
    execution
        Whose Map it is.
    state
        The Map.
    max_concurrency
        How many child executions run at once; 0 for AWS's limit.
    tolerance
        How many items may fail.
    """

    def __init__(self, execution: Execution, state: MapState, max_concurrency: int, tolerance: Tolerance) -> None:
        if state.distribution is None:
            raise ValueError(f"{state.name} is no distributed Map")
        self.execution = execution
        self.state = state
        self.distribution = state.distribution
        self.arn = map_run_arn(execution.machine.name, state.distribution.label)
        self.max_concurrency = max_concurrency
        self.tolerance = tolerance
        self.status = Status.RUNNING
        self.started_at = time.time()
        self.stopped_at: float | None = None
        self.children: list[Execution] = []
        self._sizes: list[int] = []
        self._children_index: dict[str, int] = {}
        self._results_written = False

    def plan(self, sizes: list[int]) -> None:
        """Take note of how many items each child execution will have."""
        self._sizes = sizes

    def add(self, child: Execution, index: int) -> None:
        """Take note of a child execution that begins."""
        self.children.append(child)
        self._children_index[child.arn] = index

    def index_of(self, child: Execution) -> int:
        """Return a child execution's number."""
        return self._children_index[child.arn]

    def size_of(self, child: Execution) -> int:
        """Return how many items a child execution has."""
        return self._sizes[self.index_of(child)]

    def end(self, status: Status, *, results_written: bool = False) -> None:
        """Take note of how it ended."""
        self.status = status
        self.stopped_at = time.time()
        self._results_written = results_written

    def failed_too_often(self) -> bool:
        """Tell whether more items have failed than is tolerated."""
        counts = self.item_counts()
        return self.tolerance.exceeded(counts.failed + counts.timed_out, sum(self._sizes))

    def item_counts(self) -> Counts:
        """Return how many items stand how."""
        return self._counts(self._sizes)

    def execution_counts(self) -> Counts:
        """Return how many child executions stand how."""
        return self._counts([1] * len(self._sizes))

    def _counts(self, weights: list[int]) -> Counts:
        by_status = dict.fromkeys(Status, 0)
        for child in self.children:
            by_status[child.status] += weights[self.index_of(child)]
        waiting = sum(weights) - sum(by_status.values())
        over = self.status is not Status.RUNNING
        done = by_status[Status.SUCCEEDED] + by_status[Status.FAILED] + by_status[Status.TIMED_OUT]
        return Counts(
            pending=0 if over else waiting,
            running=by_status[Status.RUNNING],
            succeeded=by_status[Status.SUCCEEDED],
            failed=by_status[Status.FAILED],
            timed_out=by_status[Status.TIMED_OUT],
            # What was never begun has been aborted with the rest.
            aborted=by_status[Status.ABORTED] + (waiting if over else 0),
            results_written=done if self._results_written else 0,
        )
