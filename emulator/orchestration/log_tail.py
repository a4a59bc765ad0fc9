"""The ranks' output as it appears in CloudWatch Logs."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.functions.execute import MARKER

if TYPE_CHECKING:
    from types_boto3_logs.client import CloudWatchLogsClient

_MARKED = re.compile(rf"{re.escape(MARKER)} (\d+) of \d+ RequestId: \S*")
_PLATFORM = re.compile(r"(START|END|REPORT) RequestId: ")


@dataclass(frozen=True)
class RankLine:
    """One line of a rank's output."""

    rank: int
    text: str


class LogTail:
    """Follows the log group of *execute* and tells which rank wrote what.

    Parameters
    ----------
    logs
        boto3 client of CloudWatch Logs.
    group
        The log group.
    on_line
        Gets every line of a rank's own output, in order for a rank.
    """

    def __init__(self, logs: "CloudWatchLogsClient", group: str, on_line: Callable[[RankLine], None]) -> None:
        self._logs = logs
        self._group = group
        self._on_line = on_line
        self._since_ms = 0
        self._seen: set[str] = set()
        self._rank_of_stream: dict[str, int] = {}
        # What a sandbox says before its first event, by stream.
        self._early: dict[str, list[str]] = {}

    def poll(self) -> int:
        """Fetch what is new; return the number of invocations that were seen to end."""
        ended = 0
        newest = self._since_ms
        try:
            pages = self._logs.get_paginator("filter_log_events").paginate(
                logGroupName=self._group, startTime=self._since_ms
            )
            events = [event for page in pages for event in page["events"]]
        except self._logs.exceptions.ResourceNotFoundException:
            # The group is made with the first line.
            return 0
        for event in events:
            newest = max(newest, event["timestamp"])
            if event["eventId"] in self._seen:
                continue
            self._seen.add(event["eventId"])
            ended += self._take(event["logStreamName"], event["message"].rstrip("\n"))
        # Only events of the newest millisecond can come again.
        if newest > self._since_ms:
            self._since_ms = newest
            self._seen = {event["eventId"] for event in events if event["timestamp"] == newest}
        return ended

    def _take(self, stream: str, message: str) -> bool:
        if marked := _MARKED.fullmatch(message):
            rank = self._rank_of_stream[stream] = int(marked[1])
            for text in self._early.pop(stream, []):
                self._on_line(RankLine(rank, text))
        elif _PLATFORM.match(message):
            return message.startswith("END")
        elif stream in self._rank_of_stream:
            self._on_line(RankLine(self._rank_of_stream[stream], message))
        else:
            self._early.setdefault(stream, []).append(message)
        return False
