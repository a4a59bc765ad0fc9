"""What the service remembers of its invocations, for pages and tables: a bounded record of each."""

import itertools
import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum

from emulator.aws.lambda_.log_lines import Report
from emulator.errors import SandboxError

# A record takes about half a kilobyte.
_CAPACITY = 10_000


class InvocationStatus(Enum):
    """How far an invocation has come, or how it ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    STOPPED = "stopped"
    THROTTLED = "throttled"


@dataclass(frozen=True)
class InvocationRecord:
    """One invocation, or one attempt of an asynchronous one. All times are seconds since the epoch.

    Parameters
    ----------
    request_id
        The invocation's id; the attempts of an event share it.
    function, version
        The function's name and the version that runs.
    memory_mb
        Memory the function is configured with, MB.
    received
        When the service accepted it.
    status
        RUNNING until it has ended; STOPPED when whoever waited for it gave it up.
    log_group, log_stream
        Where its log lines are; empty until a sandbox is chosen.
    init_ms
        Time of its cold start, ms; None when the sandbox was warm, or is not ready yet.
    started
        When the sandbox got the event; None before. The cold start lies between `received` and this.
    ended
        When it ended; None before.
    billed_ms, peak_memory_mb
        As its REPORT line says; None before the end.
    error_type
        The ``errorType`` of the answer, None unless there was an error.
    annotation
        What `LambdaSettings.annotate_event` returned for the event.
    """

    request_id: str
    function: str
    version: str
    memory_mb: int
    received: float
    status: InvocationStatus = InvocationStatus.RUNNING
    log_group: str = ""
    log_stream: str = ""
    init_ms: float | None = None
    started: float | None = None
    ended: float | None = None
    billed_ms: int | None = None
    peak_memory_mb: int | None = None
    error_type: str | None = None
    annotation: object = None

    @property
    def cold(self) -> bool:
        """Whether a sandbox had to be started for it."""
        return self.init_ms is not None


class InvocationHistory:
    """The latest invocations, oldest first; the oldest are forgotten.

    Parameters
    ----------
    capacity
        How many are kept.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._records: OrderedDict[int, InvocationRecord] = OrderedDict()
        self._keys = itertools.count()

    def add(self, record: InvocationRecord) -> int:
        """Remember an invocation; return the key under which `replace` finds it."""
        key = next(self._keys)
        self._records[key] = record
        if len(self._records) > self._capacity:
            self._records.popitem(last=False)
        return key

    def replace(self, key: int, record: InvocationRecord) -> None:
        """Put a later state of an invocation in the earlier one's place, unless it is forgotten already."""
        if key in self._records:
            self._records[key] = record

    @contextmanager
    def recorded(self, record: InvocationRecord) -> Iterator["Recording"]:
        """Remember an invocation while it runs; one that is left before its end was stopped, or the platform failed."""
        recording = Recording(self, record)
        try:
            yield recording
        except SandboxError:
            recording.ended(InvocationStatus.FAILED, error_type="ServiceException")
            raise
        finally:
            if recording.record.ended is None:
                recording.ended(InvocationStatus.STOPPED)

    def recent(self) -> list[InvocationRecord]:
        """Return what is remembered, oldest first."""
        return list(self._records.values())


class Recording:
    """One invocation's record on its way through its states."""

    def __init__(self, history: InvocationHistory, record: InvocationRecord) -> None:
        self._history = history
        self._key = history.add(record)
        self.record = record

    def began(self, log_group: str, log_stream: str, init_ms: float | None) -> None:
        """Take note that a sandbox gets the event now."""
        self._to(replace(self.record, log_group=log_group, log_stream=log_stream, init_ms=init_ms, started=time.time()))

    def ended(self, status: InvocationStatus, report: Report | None = None, error_type: str | None = None) -> None:
        """Take note of the end, with the REPORT line's figures where there is one."""
        self._to(
            replace(
                self.record,
                status=status,
                ended=time.time(),
                billed_ms=report.billed_ms if report else None,
                peak_memory_mb=report.max_memory_mb if report else None,
                error_type=error_type,
            )
        )

    def _to(self, record: InvocationRecord) -> None:
        self.record = record
        self._history.replace(self._key, record)


def error_type_of(payload: bytes) -> str | None:
    """Return the ``errorType`` of an error's JSON, None when it has none."""
    try:
        answer = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    kind = answer.get("errorType") if isinstance(answer, dict) else None
    return kind if isinstance(kind, str) else None
