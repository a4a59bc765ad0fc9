"""Groups invocations into runs: those of an execution, and ranks invoked together without a state machine."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from emulator.aws.lambda_.core.history import InvocationRecord, InvocationStatus
from emulator.aws.stepfunctions.core.records import ExecutionRecord, Status
from emulator.fmi.event_rank import rank_of
from emulator.fmi.outcomes import is_victim

# Ranks of one run are invoked at once; AWS starts a thousand within ten seconds.
_TOGETHER_S = 30.0


class RunState(Enum):
    """State of a run."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Run:
    """A group of invocations that belong together.

    Parameters
    ----------
    key
        Its name in the page's URLs.
    name
        The execution's name, or the function's.
    machine
        The state machine's name; empty if there is none.
    state
        Its state.
    started, ended
        Seconds since 1970; `ended` is None while it runs.
    calls
        Its invocations, sorted by the first call of their function, then by rank.
    problem
        Why it failed, or empty.
    transitions
        State transitions, what AWS charges an execution for.
    arn
        The execution's ARN, or empty.
    warnings
        Differences from AWS.
    """

    key: str
    name: str
    machine: str
    state: RunState
    started: float
    ended: float | None
    calls: tuple[InvocationRecord, ...]
    problem: str = ""
    transitions: int = 0
    arn: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def ranks(self) -> int:
        """How many ranks it has."""
        return len({rank_of(call).rank for call in self.calls} - {None})


_STATES = {
    Status.RUNNING: RunState.RUNNING,
    Status.SUCCEEDED: RunState.SUCCEEDED,
    Status.FAILED: RunState.FAILED,
    Status.TIMED_OUT: RunState.FAILED,
    Status.ABORTED: RunState.STOPPED,
}


def group_runs(executions: Sequence[ExecutionRecord], invocations: Sequence[InvocationRecord]) -> list[Run]:
    """Return all runs, the latest first.

    An answered invocation belongs to the execution that lists its request id. A running invocation is assigned to the
    latest execution that was running when it was received.

    Parameters
    ----------
    executions
        The state machines' executions.
    invocations
        All invocations, oldest first.
    """
    owner = {call.request_id: execution.arn for execution in executions for call in execution.lambda_calls}
    by_start = sorted(executions, key=lambda execution: execution.started_at, reverse=True)
    owned: dict[str, list[InvocationRecord]] = {execution.arn: [] for execution in executions}
    others: list[InvocationRecord] = []
    for call in invocations:
        arn = owner.get(call.request_id) or _calling_execution(call, by_start)
        (others if arn is None else owned[arn]).append(call)
    found = [_execution_run(execution, owned[execution.arn]) for execution in executions]
    found += [_rank_run(calls) for calls in _group_by_time(others)]
    return sorted(found, key=lambda run: run.started, reverse=True)


def _calling_execution(call: InvocationRecord, latest_first: Sequence[ExecutionRecord]) -> str | None:
    if call.ended is not None and call.status is not InvocationStatus.STOPPED:
        return None
    for execution in latest_first:
        ended = execution.stopped_at if execution.stopped_at is not None else float("inf")
        if execution.started_at <= call.received <= ended:
            return execution.arn
    return None


def _execution_run(execution: ExecutionRecord, calls: Iterable[InvocationRecord]) -> Run:
    ordered = in_display_order(calls)
    return Run(
        execution.name,
        execution.name,
        execution.machine_name,
        _STATES[execution.status],
        execution.started_at,
        execution.stopped_at,
        ordered,
        _problem(execution, ordered),
        execution.transitions,
        execution.arn,
        execution.warnings,
    )


def _problem(execution: ExecutionRecord, calls: Sequence[InvocationRecord]) -> str:
    """Return why an execution failed; if a function is the cause, its name or rank and its error."""
    try:
        said = json.loads(execution.cause or "")
        text = f"{said['errorType']}: {said['errorMessage']}"
    except (ValueError, TypeError, KeyError):
        return ": ".join(text for text in (execution.error, execution.cause) if text)
    who = next((call for call in calls if call.request_id == said.get("requestId")), None)
    if who is None:
        return text
    rank = rank_of(who).rank
    return f"{who.function}: {text}" if rank is None else f"rank {rank}: {text}"


def _group_by_time(calls: Sequence[InvocationRecord]) -> list[list[InvocationRecord]]:
    """Group invocations of one function and world size that have a rank and were received at about the same time."""
    groups: list[list[InvocationRecord]] = []
    latest: dict[tuple[str, int | None], tuple[list[InvocationRecord], set[int]]] = {}
    for call in calls:
        rank, world_size = rank_of(call).rank, rank_of(call).world_size
        if rank is None:
            continue
        group, taken = latest.get((call.function, world_size), ([], set()))
        if not group or call.received - group[0].received > _TOGETHER_S or rank in taken:
            group, taken = latest[call.function, world_size] = [], set()
            groups.append(group)
        group.append(call)
        # A throttled rank is invoked again in the same run.
        if call.status is not InvocationStatus.THROTTLED:
            taken.add(rank)
    return groups


def _rank_run(calls: Sequence[InvocationRecord]) -> Run:
    states = {call.status for call in calls}
    failed = sorted(
        (call for call in calls if call.status in _FAILED), key=lambda call: (is_victim(call.error_type), call.ended)
    )
    if InvocationStatus.RUNNING in states:
        state = RunState.RUNNING
    elif failed:
        state = RunState.FAILED
    else:
        state = RunState.STOPPED if InvocationStatus.STOPPED in states else RunState.SUCCEEDED
    ended = [call.ended for call in calls if call.ended is not None]
    problem = f"rank {rank_of(failed[0]).rank}: {failed[0].error_type or failed[0].status.value}" if failed else ""
    return Run(
        calls[0].request_id,
        calls[0].function,
        "",
        state,
        calls[0].received,
        max(ended) if state is not RunState.RUNNING and ended else None,
        in_display_order(calls),
        problem,
    )


_FAILED = {InvocationStatus.FAILED, InvocationStatus.TIMED_OUT}


def in_display_order(calls: Iterable[InvocationRecord]) -> tuple[InvocationRecord, ...]:
    """Return invocations sorted by the first call of their function, then by rank and time."""
    calls = list(calls)
    first: dict[str, float] = {}
    for call in calls:
        first[call.function] = min(first.get(call.function, call.received), call.received)

    def position(call: InvocationRecord) -> tuple[float, int, float]:
        rank = rank_of(call).rank
        return first[call.function], -1 if rank is None else rank, call.received

    return tuple(sorted(calls, key=position))
