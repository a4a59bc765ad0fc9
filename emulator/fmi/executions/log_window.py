"""Reads a log group again and again within CloudWatch's quotas, and returns late events, each once."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from emulator.fmi.log_reader import GroupEvent

# FilterLogEvents: 5 requests a second for an account and region, of which others need some.
_REQUESTS_A_SECOND = 2
# An event is expected to be readable this long after it was written.
_LATE_MS = 30_000


class LogWindow:
    """Fetches the events of a log group since a time; each fetch reads the last seconds again.

    Parameters
    ----------
    logs
        boto3 client of CloudWatch Logs.
    group
        The group's name.
    since_ms
        Earlier events are ignored; ms since 1970.
    clock, sleep
        The monotonic clock, seconds, and the pause between requests.
    """

    def __init__(
        self,
        logs: Any,
        group: str,
        since_ms: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._logs = logs
        self._group = group
        self._since_ms = since_ms
        self._newest_ms = since_ms
        self._seen: set[str] = set()
        self._clock = clock
        self._sleep = sleep
        self._requests: deque[float] = deque(maxlen=_REQUESTS_A_SECOND)

    def fetch(self) -> list[GroupEvent]:
        """Return the events that were not returned before; none while the group does not exist."""
        fresh: list[GroupEvent] = []
        token: dict[str, str] = {}
        start = max(self._since_ms, self._newest_ms - _LATE_MS)
        while True:
            self._pace()
            try:
                page = self._logs.filter_log_events(logGroupName=self._group, startTime=start, **token)
            except self._logs.exceptions.ResourceNotFoundException:
                return []
            for event in page["events"]:
                if event["eventId"] not in self._seen:
                    self._seen.add(event["eventId"])
                    fresh.append(GroupEvent(event["logStreamName"], event["timestamp"], event["message"]))
            if not page.get("nextToken"):
                break
            token = {"nextToken": page["nextToken"]}
        self._newest_ms = max([self._newest_ms, *(event.timestamp_ms for event in fresh)])
        return fresh

    def use(self, logs: Any) -> None:
        """Read with another client from now on, which has renewed credentials."""
        self._logs = logs

    def read_again(self) -> None:
        """Let the next fetch read everything since the start: events may have been later than expected."""
        self._newest_ms = self._since_ms

    def _pace(self) -> None:
        if len(self._requests) == _REQUESTS_A_SECOND:
            wait = self._requests[0] + 1 - self._clock()
            if wait > 0:
                self._sleep(wait)
        self._requests.append(self._clock())
