"""The events of a CloudWatch Logs group, each once, as they come."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types_boto3_logs.client import CloudWatchLogsClient


@dataclass(frozen=True)
class LogEvent:
    """One event of a group.

    Parameters
    ----------
    stream
        The stream that it is in.
    timestamp_ms
        When it was written, ms since 1970.
    message
        Its text.
    """

    stream: str
    timestamp_ms: int
    message: str


class LogEvents:
    """Follows a log group.

    Parameters
    ----------
    logs
        boto3 client of CloudWatch Logs.
    group
        The group's name; it may come to be later.
    since_ms
        Time of the first events that matter, ms since 1970.
    """

    def __init__(self, logs: "CloudWatchLogsClient", group: str, since_ms: int = 0) -> None:
        self._logs = logs
        self._group = group
        self._since_ms = since_ms
        self._seen: set[str] = set()

    def fetch(self) -> list[LogEvent]:
        """Return what is new, in the order of time; nothing as long as there is no such group."""
        try:
            pages = self._logs.get_paginator("filter_log_events").paginate(
                logGroupName=self._group, startTime=self._since_ms
            )
            events = [event for page in pages for event in page["events"]]
        except self._logs.exceptions.ResourceNotFoundException:
            return []
        fresh = [event for event in events if event["eventId"] not in self._seen]
        newest = max((event["timestamp"] for event in events), default=self._since_ms)
        # Only events of the newest millisecond can come again.
        if newest > self._since_ms:
            self._since_ms = newest
            self._seen.clear()
        self._seen.update(event["eventId"] for event in events if event["timestamp"] == newest)
        return [LogEvent(event["logStreamName"], event["timestamp"], event["message"]) for event in fresh]
