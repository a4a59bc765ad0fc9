"""Records the events of this rank and passes them on in batches, which never blocks."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import sys
import threading
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

from fmi_shim.log_lines import EVENTS_MARKER
from fmi_shim.telemetry.events import (
    MAX_ROWS,
    ROW_FIELDS,
    Closed,
    Connected,
    Event,
    Failed,
    Message,
    Opened,
    Operations,
    Planned,
    Started,
    Status,
    encode,
)

BATCH_NS = 1_000_000_000
"""Rows are passed on by the first operation that ends this long after the last time, where no thread does it."""
HEARTBEAT_NS = 1_000_000_000
"""A rank whose state does not change repeats it after this time."""
_MOST_HELD = 10_000
"""Largest number of events, besides rows, that are kept while the sink refuses them."""
_LIBRARY = str(Path(__file__).resolve().parent.parent) + os.sep
_NEVER = 1 << 63
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Sink(Protocol):
    """Takes the messages of a recorder."""

    def take(self, message: Message) -> bool:
        """Take a message without blocking; return False if it is refused."""

    def finish(self) -> None:
        """Write what is left: the last communicator was closed. More may follow."""


class LogLines:
    """Writes each message as a line on standard output: where there is no bus. Implements `Sink`."""

    def take(self, message: Message) -> bool:
        """Write the message."""
        # If standard output is closed, the events are lost; the program must not fail because of it.
        with contextlib.suppress(OSError, ValueError):
            print(f"{EVENTS_MARKER} {encode(message).decode()}", flush=True)
        return True

    def finish(self) -> None:
        """Do nothing: every message was written."""


class Observed(Protocol):
    """The calls of one communicator, as the recorder asks for their state."""

    def state(self) -> tuple[int, int, int | None] | None:
        """Return plan, number and awaited rank of the running call; None between calls."""


class Recorder:
    """The events of one process.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    sinks
        Where messages go; more may be added.

    Attributes
    ----------
    rows
        The rows of the operations that have ended and were not passed on, one number after another; extend it. Rows as
        tuples would take three times as long to pass on.
    due
        The time, ns, at which an operation that ends passes on all rows.
    sinks
        Where messages go.
    dropped
        The number of operations that a sink has refused.
    job
        The run, which FMI_JOB names.
    has_thread
        Whether a thread passes on the rows in time.
    """

    def __init__(self, rank: int, size: int, sinks: Sequence[Sink]) -> None:
        self.rank = rank
        self.size = size
        self.sinks = list(sinks)
        self.rows: list[int] = []
        self.due = time.monotonic_ns() + BATCH_NS
        self.dropped = 0
        self.has_thread = False
        self._closers: list[Closer] = []
        self._events: list[Event] = []
        self._lock = threading.RLock()
        self._process = os.getpid()
        self.job = os.environ.get("FMI_JOB", "")
        self._numbers = itertools.count()
        self._plans = itertools.count()
        self._communicators = itertools.count()
        self._open: list[Observed] = []
        self._since = time.monotonic_ns()
        self._place: tuple[int, int] | None = None
        self._seen: object = ()
        self._said: object = ()
        self._said_at = 0

    @property
    def is_open(self) -> bool:
        """Whether a communicator is open, so that further ones belong to this record."""
        return bool(self._open)

    def opened(self, calls: Observed, name: str, rank: int, size: int) -> int:
        """Record a new communicator; return its number."""
        now = time.monotonic_ns()
        number = next(self._communicators)
        with self._lock:
            if not self._open:
                # The machine, not the container: containers of one machine have one monotonic clock.
                self._add(Started(now, self.size, os.getpid(), _machine(), time.time_ns() - now))
            self._open.append(calls)
            self._add(Opened(now, number, name, rank, size))
        return number

    def planned(
        self,
        communicator: int,
        operation: str,
        peer: int | None,
        root: int | None,
        algorithm: str,
        channel: str,
        call: str,
    ) -> int:
        """Record a plan; return its number. See `Planned`."""
        number = next(self._plans)
        self._add(Planned(number, communicator, operation, peer, root, algorithm, channel, call))
        return number

    def connected(self, communicator: str, peer: int, way: str) -> None:
        """Record a connection to another rank."""
        self._add(Connected(time.monotonic_ns(), communicator, peer, way))

    def failed(self, communicator: int, error: BaseException, origin: int | None) -> None:
        """Record that a communicator failed."""
        text = f"{type(error).__name__}: {error}"[:1000]
        self._add(Failed(time.monotonic_ns(), communicator, text, origin))

    def add(self, event: Event) -> None:
        """Record an event."""
        self._add(event)

    def closed(self, calls: Observed) -> None:
        """Record that a communicator was closed, and pass on everything. The record ends with the last one."""
        with self._lock:
            if calls not in self._open:
                return
            self._open.remove(calls)
            if not self._open:
                self._add(Closed(time.monotonic_ns()))
            is_last = not self._open
        self.flush()
        if is_last and os.getpid() == self._process:
            for sink in self.sinks:
                sink.finish()
            self.close()

    def flush(self) -> None:
        """Pass on everything; drop and count the rows that a sink refuses."""
        if os.getpid() != self._process:
            self.rows.clear()
            return
        with self._lock:
            self.due = _NEVER if self.has_thread else time.monotonic_ns() + BATCH_NS
            while True:
                rows = self.rows[: ROW_FIELDS * MAX_ROWS]
                events = self._events[:]  # after the rows, so that it has the plan of each
                if not rows and not events:
                    return
                batch = (*events, Operations(array("q", rows))) if rows else tuple(events)
                message = Message(self.job, self.rank, next(self._numbers), self.dropped, batch)
                taken = [sink.take(message) for sink in self.sinks]
                del self.rows[: len(rows)]
                if all(taken):
                    del self._events[: len(events)]
                    continue
                self.dropped += len(rows) // ROW_FIELDS
                del self._events[: max(0, len(self._events) - _MOST_HELD)]
                if len(rows) < ROW_FIELDS * MAX_ROWS:
                    return

    def tick(self) -> None:
        """Record what the rank does now, if that has changed or was not said for a while, and pass on everything."""
        now = time.monotonic_ns()
        states = (calls.state() for calls in list(self._open))
        state = next((state for state in states if state is not None), None)
        place = None if state is None else state[:2]
        if place != self._place:
            self._place, self._since = place, now
        # A rank that was in another call at the last tick makes progress: to repeat its state is enough.
        is_news = state == self._seen and state != self._said
        self._seen = state
        if self._open and (is_news or now - self._said_at > HEARTBEAT_NS):
            plan, number, awaited = state or (None, 0, None)
            self._add(Status(now, plan, number, self._since, awaited, program_line(), resident_bytes()))
            self._said, self._said_at = state, now
        self.flush()

    def on_close(self, closer: Closer) -> None:
        """Close `closer` with this record."""
        self._closers.append(closer)

    def close(self) -> None:
        """Pass on everything, and end what passes it on."""
        self.flush()
        if os.getpid() == self._process:
            for closer in self._closers:
                closer.close()
        self._closers.clear()
        self.sinks.clear()

    def _add(self, event: Event) -> None:
        self._events.append(event)


class Closer(Protocol):
    """What ends with a recorder."""

    def close(self) -> None:
        """End it."""


def program_line() -> str:
    """Return the line of the program that the main thread is in, outside of this library."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - the documented way
    inner = frame
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARY):
        frame = frame.f_back
    frame = frame or inner
    return "" if frame is None else frame_line(frame)


def frame_line(frame: FrameType) -> str:
    """Return ``file:line in function``."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def resident_bytes() -> int:
    """Return the resident memory of this process; its maximum where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _machine() -> str:
    """Return a name of the machine that is the same for all processes with its monotonic clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.uname().nodename
