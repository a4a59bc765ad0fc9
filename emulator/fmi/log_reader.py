"""Reading CloudWatch Logs: the new events of a log group, the output of ranks, and the log that a name refers to."""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import EndpointConnectionError

from emulator.errors import EmulatorError
from emulator.fmi.aws_session import AwsSession, EndpointUnreachableError
from emulator.fmi.rank_log import LineKind, LogLine, RankLineParser
from emulator.fmi.state_machine import invoked_functions

if TYPE_CHECKING:
    from types_boto3_logs.client import CloudWatchLogsClient

_EXECUTION = re.compile(r"arn:aws[\w-]*:states:[^:]*:[^:]*:(execution|express):.+")
_FUNCTION_PREFIX = "/aws/lambda/"
_MOST_NAMED = 20
# The lines that tell what a rank did, besides its output.
_RECORDS = (LineKind.EVENTS, LineKind.TRACE, LineKind.REPORT)


class NoLogError(EmulatorError):
    """No function, log group or execution has this name."""


@dataclass(frozen=True)
class GroupEvent:
    """One event of a group.

    Parameters
    ----------
    stream
        Its log stream.
    timestamp_ms
        Time of the event, ms since 1970.
    message
        Its text.
    """

    stream: str
    timestamp_ms: int
    message: str


class LogGroupReader:
    """Fetches each event of a log group once.

    Parameters
    ----------
    logs
        boto3 client of CloudWatch Logs.
    group
        The group's name. The group may be created later.
    since_ms
        Start time: earlier events are ignored; ms since 1970.
    """

    def __init__(self, logs: "CloudWatchLogsClient", group: str, since_ms: int = 0) -> None:
        self._logs = logs
        self._group = group
        self._since_ms = since_ms
        self._seen: set[str] = set()

    def fetch(self) -> list[GroupEvent]:
        """Return the new events in order of time; none while the group does not exist."""
        try:
            pages = self._logs.get_paginator("filter_log_events").paginate(
                logGroupName=self._group, startTime=self._since_ms
            )
            events = [event for page in pages for event in page["events"]]
        except self._logs.exceptions.ResourceNotFoundException:
            return []
        fresh = [event for event in events if event["eventId"] not in self._seen]
        newest = max((event["timestamp"] for event in events), default=self._since_ms)
        # Only events of the newest millisecond can be returned again.
        if newest > self._since_ms:
            self._since_ms = newest
            self._seen.clear()
        self._seen.update(event["eventId"] for event in events if event["timestamp"] == newest)
        return [GroupEvent(event["logStreamName"], event["timestamp"], event["message"]) for event in fresh]


@dataclass(frozen=True)
class RankLine:
    """One line of a rank's output."""

    rank: int
    text: str


class RankOutputReader:
    """Follows the log group of *execute* and passes on the output of each rank.

    Parameters
    ----------
    logs
        boto3 client of CloudWatch Logs.
    group
        The log group.
    on_line
        Called with every line of a rank's own output; the lines of a rank are in order.
    on_record
        Called with the lines that tell what a rank did, besides its output: events, phases and reports.
    """

    def __init__(
        self,
        logs: "CloudWatchLogsClient",
        group: str,
        on_line: Callable[[RankLine], None],
        on_record: Callable[[LogLine], None] | None = None,
    ) -> None:
        self._events = LogGroupReader(logs, group)
        self._lines = RankLineParser()
        self._on_line = on_line
        self._on_record = on_record

    def poll(self) -> int:
        """Process the new events; return the number of invocations that ended."""
        ended = 0
        for event in self._events.fetch():
            for line in self._lines.feed(event.stream, event.timestamp_ms, event.message):
                ended += line.kind is LineKind.END
                if line.kind is LineKind.OUTPUT and line.rank is not None:
                    self._on_line(RankLine(line.rank, line.text))
                elif line.kind in _RECORDS and self._on_record is not None:
                    self._on_record(line)
        return ended


class LogSource:
    """The lines of one or more log groups, in order of time.

    Parameters
    ----------
    connection
        The endpoint.
    groups
        The groups' names.
    since_ms
        Start time: earlier lines are ignored; ms since 1970.
    execution
        ARN of the execution whose end ends the log, or None.
    """

    def __init__(
        self, connection: AwsSession, groups: Sequence[str], since_ms: int, execution: str | None = None
    ) -> None:
        logs = connection.client("logs")
        self._groups = [(LogGroupReader(logs, group, since_ms), RankLineParser()) for group in groups]
        self._states = connection.client("stepfunctions") if execution else None
        self._execution = execution
        self._until_ms = float("inf")

    def fetch(self) -> list[LogLine]:
        """Return the new lines."""
        return _by_time(
            line
            for events, lines in self._groups
            for event in events.fetch()
            if event.timestamp_ms <= self._until_ms
            for line in lines.feed(event.stream, event.timestamp_ms, event.message)
        )

    def flush(self, before_ms: float = float("inf")) -> list[LogLine]:
        """Return the lines before a time that were held back until the next line; see `RankLineParser`."""
        return _by_time(line for _, lines in self._groups for line in lines.flush(before_ms))

    def has_ended(self) -> bool:
        """Return whether the log is complete: the execution has ended. A function's log never ends."""
        if self._states is None:
            return False
        stopped = self._states.describe_execution(executionArn=self._execution).get("stopDate")
        if stopped is not None:
            # Other executions may have used the same functions since.
            self._until_ms = math.ceil(stopped.timestamp() * 1000)
        return stopped is not None


def find_source(connection: AwsSession, name: str, since_ms: int = 0) -> LogSource:
    """Return the log that a name refers to.

    Parameters
    ----------
    connection
        The endpoint.
    name
        A function, a log group (begins with ``/``), or the ARN of a state machine's execution.
    since_ms
        Start time: earlier lines are ignored; ms since 1970.

    Raises
    ------
    EndpointUnreachableError
        If the endpoint does not answer.
    NoLogError
        If no function, log group or execution has this name.
    """
    try:
        if _EXECUTION.fullmatch(name):
            return _execution_source(connection, name, since_ms)
        group = name if name.startswith("/") else _FUNCTION_PREFIX + name
        _require(connection, name, group)
        return LogSource(connection, [group], since_ms)
    except EndpointConnectionError:
        raise EndpointUnreachableError(connection.url or "AWS") from None


def _execution_source(connection: AwsSession, arn: str, since_ms: int) -> LogSource:
    states = connection.client("stepfunctions")
    try:
        execution = states.describe_execution(executionArn=arn)
    except (states.exceptions.ExecutionDoesNotExist, states.exceptions.InvalidArn):
        raise NoLogError(f"unknown execution {arn!r} at {connection.url or 'AWS'}") from None
    machine = states.describe_state_machine_for_execution(executionArn=arn)
    groups = [_FUNCTION_PREFIX + name for name in invoked_functions(json.loads(machine["definition"]))]
    began_ms = int(execution["startDate"].timestamp() * 1000)
    source = LogSource(connection, groups, max(since_ms, began_ms), arn)
    source.has_ended()
    return source


def _require(connection: AwsSession, name: str, group: str) -> None:
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
    # A function that has never run has no log group.
    if group.removeprefix(_FUNCTION_PREFIX) in names:
        return
    listed = ", ".join(sorted(names)[:_MOST_NAMED]) or "none"
    raise NoLogError(f"unknown function or log group {name!r} at {connection.url or 'AWS'}: functions there: {listed}")


def _by_time(lines: Iterator[LogLine]) -> list[LogLine]:
    # Sorting is stable: lines of one stream and one millisecond keep their order.
    return sorted(lines, key=lambda line: line.timestamp_ms)
