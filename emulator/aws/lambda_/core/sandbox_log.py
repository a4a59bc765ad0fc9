"""A sandbox's log: its output cut into lines, each an event of its CloudWatch Logs stream."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from emulator.aws.limits import LOG_EVENT_BYTES, LOG_TAIL_BYTES


class LogSink(Protocol):
    """Where log lines are kept."""

    def append(self, group: str, stream: str, messages: Sequence[str]) -> None:
        """Add events, in order, with the present time; the group and the stream are made where there are none."""


class SandboxLog:
    """The log stream of one sandbox.

    Parameters
    ----------
    sink
        Where the lines go.
    group, stream
        The names in CloudWatch Logs.
    """

    def __init__(self, sink: LogSink, group: str, stream: str) -> None:
        self._sink = sink
        self.group = group
        self.stream = stream
        self._partial = b""
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    def write(self, output: bytes) -> None:
        """Take output as it came; whole lines go to the sink at once, the rest waits for its end."""
        *lines, self._partial = (self._partial + output).split(b"\n")
        while len(self._partial) > LOG_EVENT_BYTES:
            lines.append(self._partial[:LOG_EVENT_BYTES])
            self._partial = self._partial[LOG_EVENT_BYTES:]
        self._append(lines)

    def write_line(self, line: str) -> None:
        """Add a line of the platform's, after any unfinished line of the sandbox's."""
        unfinished, self._partial = self._partial, b""
        self._append([unfinished, line.encode()] if unfinished else [line.encode()])

    def start_tail(self) -> None:
        """Forget what the tail holds: an invocation begins."""
        self._tail.clear()
        self._tail_bytes = 0

    def tail(self) -> bytes:
        """Return the last 4 KB of the invocation's log."""
        return b"".join(self._tail)[-LOG_TAIL_BYTES:]

    def _append(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        for line in lines:
            self._tail.append(line[-LOG_TAIL_BYTES:] + b"\n")
            self._tail_bytes += len(self._tail[-1])
            while self._tail_bytes - len(self._tail[0]) >= LOG_TAIL_BYTES:
                self._tail_bytes -= len(self._tail.popleft())
        pieces = [
            line[start : start + LOG_EVENT_BYTES]
            for line in lines
            for start in range(0, max(1, len(line)), LOG_EVENT_BYTES)
        ]
        # CloudWatch Logs refuses empty events.
        messages = [piece.decode(errors="backslashreplace") for piece in pieces if piece.strip()]
        if messages:
            self._sink.append(self.group, self.stream, messages)
