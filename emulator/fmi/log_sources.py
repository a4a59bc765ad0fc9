"""Whose log is meant by a name: a function's, a log group, or those of all functions of an execution."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import EndpointConnectionError

from emulator.errors import EmulatorError
from emulator.fmi.connection import Connection, NoEndpointError
from emulator.fmi.log_events import LogEvents
from emulator.fmi.rank_lines import LogLine, RankLines

_EXECUTION = re.compile(r"arn:aws[\w-]*:states:[^:]*:[^:]*:(execution|express):.+")
_FUNCTION_PREFIX = "/aws/lambda/"
_MOST_NAMED = 20


class NoLogError(EmulatorError):
    """There is nothing of that name that could have a log."""


class LogSource:
    """The lines of one or more log groups, in the order of time.

    Parameters
    ----------
    connection
        The endpoint.
    groups
        The groups' names.
    since_ms
        Time of the first lines that matter, ms since 1970.
    execution
        ARN of the execution whose end is the end of the log, or None.
    """

    def __init__(
        self, connection: Connection, groups: Sequence[str], since_ms: int, execution: str | None = None
    ) -> None:
        logs = connection.client("logs")
        self._groups = [(LogEvents(logs, group, since_ms), RankLines()) for group in groups]
        self._states = connection.client("stepfunctions") if execution else None
        self._execution = execution
        self._until_ms = float("inf")

    def fetch(self) -> list[LogLine]:
        """Return the lines that are new."""
        return _by_time(
            line
            for events, lines in self._groups
            for event in events.fetch()
            if event.timestamp_ms <= self._until_ms
            for line in lines.take(event.stream, event.timestamp_ms, event.message)
        )

    def overdue(self, before_ms: float = float("inf")) -> list[LogLine]:
        """Return lines from before a time that were held back for what comes next; see `RankLines`."""
        return _by_time(line for _, lines in self._groups for line in lines.overdue(before_ms))

    def is_over(self) -> bool:
        """Return whether nothing more will be written: the execution has ended. A function's log is never over."""
        if self._states is None:
            return False
        stopped = self._states.describe_execution(executionArn=self._execution).get("stopDate")
        if stopped is not None:
            # The same functions may have run for others since.
            self._until_ms = math.ceil(stopped.timestamp() * 1000)
        return stopped is not None


def find_source(connection: Connection, name: str, since_ms: int = 0) -> LogSource:
    """Return the log that a name means.

    Parameters
    ----------
    connection
        The endpoint.
    name
        A function, a log group, which begins with ``/``, or the ARN of a state machine's execution.
    since_ms
        Time of the first lines that matter, ms since 1970.

    Raises
    ------
    NoEndpointError
        When nothing answers.
    NoLogError
        When there is no function, group or execution of that name.
    """
    try:
        if _EXECUTION.fullmatch(name):
            return _execution_source(connection, name, since_ms)
        group = name if name.startswith("/") else _FUNCTION_PREFIX + name
        _require(connection, name, group)
        return LogSource(connection, [group], since_ms)
    except EndpointConnectionError:
        raise NoEndpointError(connection.url or "AWS") from None


def functions_of(definition: Mapping[str, Any]) -> list[str]:
    """Return the names of the functions that a state machine's tasks invoke, in the order of the definition.

    Parameters
    ----------
    definition
        Amazon States Language, as JSON has it.
    """
    return list(dict.fromkeys(_functions(definition)))


def _execution_source(connection: Connection, arn: str, since_ms: int) -> LogSource:
    states = connection.client("stepfunctions")
    try:
        execution = states.describe_execution(executionArn=arn)
    except (states.exceptions.ExecutionDoesNotExist, states.exceptions.InvalidArn):
        raise NoLogError(f"there is no execution {arn!r} at {connection.url or 'AWS'}") from None
    machine = states.describe_state_machine_for_execution(executionArn=arn)
    groups = [_FUNCTION_PREFIX + name for name in functions_of(json.loads(machine["definition"]))]
    began_ms = int(execution["startDate"].timestamp() * 1000)
    source = LogSource(connection, groups, max(since_ms, began_ms), arn)
    source.is_over()
    return source


def _require(connection: Connection, name: str, group: str) -> None:
    logs = connection.client("logs")
    found = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    if any(entry["logGroupName"] == group for entry in found):
        return
    functions = connection.client("lambda")
    names = [
        function["FunctionName"]
        for page in functions.get_paginator("list_functions").paginate()
        for function in page["Functions"]
    ]
    # A function that has not run yet has no log group.
    if group.removeprefix(_FUNCTION_PREFIX) in names:
        return
    listed = ", ".join(sorted(names)[:_MOST_NAMED]) or "none"
    raise NoLogError(f"there is no function or log group {name!r} at {connection.url or 'AWS'}; functions: {listed}")


def _functions(value: Any) -> Iterator[str]:
    """Find the functions' names wherever they are: in Parameters, in Arguments, or the task's own resource."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key in ("FunctionName", "Resource") and isinstance(entry, str):
                if key == "FunctionName" or ":function:" in entry:
                    yield function_name(entry)
            else:
                yield from _functions(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _functions(entry)


def function_name(reference: str) -> str:
    """Return the plain name in a function's name or ARN, without version or alias."""
    return reference.rpartition(":function:")[2].partition(":")[0]


def _by_time(lines: Iterator[LogLine]) -> list[LogLine]:
    # Sorting is stable: lines of one stream and one millisecond stay in order.
    return sorted(lines, key=lambda line: line.timestamp_ms)
