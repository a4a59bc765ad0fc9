"""The ranks' output as it appears in CloudWatch Logs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.fmi.log_events import LogEvents
from emulator.fmi.rank_lines import Kind, RankLines

if TYPE_CHECKING:
    from types_boto3_logs.client import CloudWatchLogsClient


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
        self._events = LogEvents(logs, group)
        self._lines = RankLines()
        self._on_line = on_line

    def poll(self) -> int:
        """Fetch what is new; return the number of invocations that were seen to end."""
        ended = 0
        for event in self._events.fetch():
            for line in self._lines.take(event.stream, event.timestamp_ms, event.message):
                ended += line.kind is Kind.END
                if line.kind is Kind.OUTPUT and line.rank is not None:
                    self._on_line(RankLine(line.rank, line.text))
        return ended
