"""The history of invocations: a bounded number of records, for pages and tables."""

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
    """The state of an invocation."""

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
        The invocation's id; all attempts of an event have the same.
    function, version
        The function's name and the version that runs.
    memory_mb
        Memory the function is configured with, MB.
    received
        When the service accepted it.
    status
        RUNNING until it has ended; STOPPED when its caller cancelled it.
    log_group, log_stream
        The names of its log; empty until a sandbox is chosen.
    init_ms
        Duration of its cold start, ms; None when the sandbox was warm, or is not ready yet.
    started
        When the sandbox received the event; None before. The cold start lies between `received` and `started`.
    ended
        When it ended; None before.
    billed_ms, peak_memory_mb
        From its REPORT line; None before the end.
    error_type
        The ``errorType`` of the response; None without an error.
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
        """Whether a sandbox was started for it."""
        return self.init_ms is not None


class InvocationHistory:
    """The latest invocations, oldest first; the oldest are dropped.

    Parameters
    ----------
    capacity
        How many records are kept.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._records: OrderedDict[int, InvocationRecord] = OrderedDict()
        self._keys = itertools.count()

    def add(self, record: InvocationRecord) -> int:
        """Add a record; return its key for `replace`."""
        key = next(self._keys)
        self._records[key] = record
        if len(self._records) > self._capacity:
            self._records.popitem(last=False)
        return key

    def replace(self, key: int, record: InvocationRecord) -> None:
        """Replace a record by a later state of it, unless it was dropped."""
        if key in self._records:
            self._records[key] = record

    @contextmanager
    def record(self, record: InvocationRecord) -> Iterator["InvocationRecorder"]:
        """Record an invocation while it runs: a `SandboxError` is a failure, any other exception a stop."""
        recorder = InvocationRecorder(self, record)
        try:
            yield recorder
        except SandboxError:
            recorder.mark_ended(InvocationStatus.FAILED, error_type="ServiceException")
            raise
        finally:
            if recorder.record.ended is None:
                recorder.mark_ended(InvocationStatus.STOPPED)

    def clear(self) -> None:
        """Drop all records."""
        self._records.clear()

    def recent(self) -> list[InvocationRecord]:
        """Return the records, oldest first."""
        return list(self._records.values())


class InvocationRecorder:
    """Updates the record of one invocation."""

    def __init__(self, history: InvocationHistory, record: InvocationRecord) -> None:
        self._history = history
        self._key = history.add(record)
        self.record = record

    def mark_started(self, log_group: str, log_stream: str, init_ms: float | None) -> None:
        """Record that a sandbox receives the event now."""
        self._update(
            replace(self.record, log_group=log_group, log_stream=log_stream, init_ms=init_ms, started=time.time())
        )

    def mark_ended(self, status: InvocationStatus, report: Report | None = None, error_type: str | None = None) -> None:
        """Record the end, with the figures of the REPORT line where there is one."""
        self._update(
            replace(
                self.record,
                status=status,
                ended=time.time(),
                billed_ms=report.billed_ms if report else None,
                peak_memory_mb=report.max_memory_mb if report else None,
                error_type=error_type,
            )
        )

    def _update(self, record: InvocationRecord) -> None:
        self.record = record
        self._history.replace(self._key, record)


def error_type_of(payload: bytes) -> str | None:
    """Return the ``errorType`` of an error in JSON; None when it has none."""
    try:
        error = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    kind = error.get("errorType") if isinstance(error, dict) else None
    return kind if isinstance(kind, str) else None
