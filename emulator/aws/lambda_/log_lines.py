"""The log of a sandbox: the lines that Lambda writes to it, how to parse them, and its CloudWatch Logs stream.

Format: https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html
"""

import math
import re
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from emulator.aws.limits import LOG_EVENT_BYTES, LOG_TAIL_BYTES

# The beginning of a frame, and its header: kind, length of the content, and time: awslambdaric, bootstrap.py.
_FRAME = b"\xa5\x5a\x00"
_FRAME_HEADER = struct.Struct(">IIQ")
_FIELD = re.compile(r"\s*([A-Za-z ]+): ([^\t]+)\t?")


@dataclass(frozen=True)
class Report:
    """The fields of a REPORT line, which reports one invocation.

    Parameters
    ----------
    request_id
        The invocation's id.
    duration_ms
        Time in the handler, ms.
    memory_mb
        Memory the function is configured with, MB.
    max_memory_mb
        Peak memory of its sandbox, MB.
    init_ms
        Time of the cold start, ms; None when the sandbox was warm.
    status
        ``error`` or ``timeout`` when the invocation failed in the platform; otherwise None.
    error_type
        The platform's name for that failure.
    read_billed_ms
        The billed time of a line that was read, ms; None for one that is written here, whose billed time follows from
        the others.
    """

    request_id: str
    duration_ms: float
    memory_mb: int
    max_memory_mb: int
    init_ms: float | None = None
    status: str | None = None
    error_type: str | None = None
    read_billed_ms: int | None = field(default=None, compare=False)

    @cached_property
    def billed_ms(self) -> int:
        """Billed time: handler and, since August 2025, cold start together, rounded up to a millisecond."""
        if self.read_billed_ms is not None:
            return self.read_billed_ms
        return math.ceil(round(self.duration_ms + (self.init_ms or 0.0), 2))

    def line(self) -> str:
        """Return the REPORT line, tab-separated as Lambda writes it."""
        parts = [
            f"REPORT RequestId: {self.request_id}",
            f"Duration: {self.duration_ms:.2f} ms",
            f"Billed Duration: {self.billed_ms} ms",
            f"Memory Size: {self.memory_mb} MB",
            f"Max Memory Used: {self.max_memory_mb} MB",
        ]
        if self.init_ms is not None:
            parts.append(f"Init Duration: {self.init_ms:.2f} ms")
        if self.status is not None:
            parts.append(f"Status: {self.status}")
        if self.error_type is not None:
            parts.append(f"Error Type: {self.error_type}")
        return "\t".join(parts) + "\t"


@dataclass(frozen=True)
class InitReport:
    """The fields of an INIT_REPORT line, which reports an init phase that has failed.

    Parameters
    ----------
    init_ms
        Duration, ms.
    phase
        ``init``, or ``invoke`` for the second try, within the time of an invocation.
    status
        ``error`` or ``timeout``.
    error_type
        The name that the platform or the runtime gives the failure; None for a timeout.
    """

    init_ms: float
    phase: str
    status: str
    error_type: str | None

    def line(self) -> str:
        """Return the line, tab-separated as Lambda writes it."""
        kind = "" if self.error_type is None else f"\tError Type: {self.error_type}"
        return f"INIT_REPORT Init Duration: {self.init_ms:.2f} ms\tPhase: {self.phase}\tStatus: {self.status}{kind}"


def parse_report(line: str) -> Report:
    """Parse a REPORT line, written here or by AWS.

    Raises
    ------
    ValueError
        When the line is not a REPORT line or lacks a field.
    """
    if not line.startswith("REPORT "):
        raise ValueError(f"invalid REPORT line {line[:60]!r}: expected it to start with REPORT")
    fields = {name.strip(): value.strip() for name, value in _FIELD.findall(line.removeprefix("REPORT "))}
    try:
        return Report(
            request_id=fields["RequestId"],
            duration_ms=_number(fields["Duration"]),
            memory_mb=int(_number(fields["Memory Size"])),
            max_memory_mb=int(_number(fields["Max Memory Used"])),
            init_ms=_number(fields["Init Duration"]) if "Init Duration" in fields else None,
            status=fields.get("Status"),
            error_type=fields.get("Error Type"),
            read_billed_ms=int(_number(fields["Billed Duration"])) if "Billed Duration" in fields else None,
        )
    except KeyError as missing:
        raise ValueError(f"invalid REPORT line {line!r}: expected a field {missing}") from None


def _number(text: str) -> float:
    return float(text.split()[0])


def init_start_line(runtime: str, arn: str) -> str:
    """Return the first line of a log stream.

    Parameters
    ----------
    runtime
        The runtime and its version, such as ``python:3.11.7``.
    arn
        The ARN of that version.
    """
    return f"INIT_START Runtime Version: {runtime}\tRuntime Version ARN: {arn}"


def start_line(request_id: str, version: str = "$LATEST") -> str:
    """Return the line before the output of an invocation."""
    return f"START RequestId: {request_id} Version: {version}"


def end_line(request_id: str) -> str:
    """Return the line after the output of an invocation."""
    return f"END RequestId: {request_id}"


class LogSink(Protocol):
    """Stores log lines."""

    def append(self, region: str, group: str, stream: str, messages: Sequence[str]) -> None:
        """Add events, in order, with the current time; create the group and the stream where they do not exist."""


class SandboxLog:
    """The log stream of one sandbox.

    Parameters
    ----------
    sink
        Receives the lines.
    region, group, stream
        The region and the names in CloudWatch Logs.
    """

    def __init__(self, sink: LogSink, region: str, group: str, stream: str) -> None:
        self._sink = sink
        self._region = region
        self.group = group
        self.stream = stream
        self._partial = b""
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    def write(self, output: bytes) -> None:
        """Take a piece of output; whole lines and frames go to the sink at once, the rest is kept until it is whole.

        A frame is one event, whatever lines it has: runtime clients frame the records of `logging` so.
        """
        self._partial += output
        while (start := self._partial.find(_FRAME)) >= 0:
            before, frame = self._partial[:start], self._partial[start:]
            self._take_lines(before, finish=True)
            self._partial = frame
            if len(self._partial) < _FRAME_HEADER.size:
                return
            _, length, _ = _FRAME_HEADER.unpack_from(self._partial)
            end = _FRAME_HEADER.size + length
            if len(self._partial) < end:
                return
            self._append([self._partial[_FRAME_HEADER.size : end]])
            self._partial = self._partial[end:]
        # The beginning of a frame may be at the end.
        kept = next((size for size in (2, 1) if self._partial.endswith(_FRAME[:size])), 0)
        held, text = self._partial[len(self._partial) - kept :], self._partial[: len(self._partial) - kept]
        self._take_lines(text, finish=False)
        self._partial += held

    def write_lines(self, *lines: str) -> None:
        """Add lines of the platform, after any unfinished line of the sandbox."""
        unfinished, self._partial = self._partial, b""
        encoded = [f"{line}\n".encode() for line in lines]
        self._append([unfinished, *encoded] if unfinished else encoded)

    def _take_lines(self, text: bytes, *, finish: bool) -> None:
        """Add the lines of a text; keep an unfinished one, unless it is finished here."""
        *lines, rest = text.split(b"\n")
        lines = [line + b"\n" for line in lines]
        while len(rest) > LOG_EVENT_BYTES:
            lines.append(rest[:LOG_EVENT_BYTES])
            rest = rest[LOG_EVENT_BYTES:]
        if finish and rest:
            lines.append(rest)
            rest = b""
        self._partial = rest
        self._append(lines)

    def start_tail(self) -> None:
        """Clear the tail, at the start of an invocation."""
        self._tail.clear()
        self._tail_bytes = 0

    def tail(self) -> bytes:
        """Return the last 4 KB of the invocation's log."""
        return b"".join(self._tail)[-LOG_TAIL_BYTES:]

    def _append(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        for line in lines:
            self._tail.append((line if line.endswith(b"\n") else line + b"\n")[-LOG_TAIL_BYTES:])
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
            self._sink.append(self._region, self.group, self.stream, messages)
