"""The calls of a communicator whose operations are recorded, see `fmi_shim.telemetry`."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any

import numpy as np

from fmi_shim.calls import Calls
from fmi_shim.channel import Channel
from fmi_shim.errors import FmiError, PeerTimeoutError
from fmi_shim.frames import BY_ROWS, ROOTED, Call
from fmi_shim.selection.selector import ChannelSelector
from fmi_shim.telemetry.recording import Recorder

_MOST_AWAITED = 1000
"""Posted receipts that are remembered until a wait completes them. Beyond it, those that are done are forgotten."""


_MOST_KNOWN = 4096
"""Calls whose plan is found by their identity. Beyond it all are forgotten: what a rank does is then shown later."""


@dataclass(slots=True, eq=False)
class Numbering:
    """Counts the calls of one kind, as `fmi_shim.calls` does: collectives, or messages to or from one rank."""

    next: int = 0


class TracedCalls(Calls):
    """`Calls` whose operations are recorded.

    Attributes
    ----------
    recorder
        Records them.
    awaited
        Posted receipts, by the identity of the channel's record of them, with their arrival's plan, number and size.
    """

    def __init__(self, rank: int, size: int, channels: ChannelSelector, recorder: Recorder) -> None:
        super().__init__(rank, size, channels)
        self.recorder = recorder
        self.awaited: dict[int, tuple[Any, int, int, int]] = {}
        self._numberings: defaultdict[object, Numbering] = defaultdict(Numbering)
        self._waits: dict[str, int] = {}
        self._known: dict[int, tuple[Call, int, Numbering, Channel]] = {}
        self.number = recorder.opened(self, channels.comm_name, rank, size)

    def wrap_schedule(
        self, schedule: Callable[..., Any], call: Call, channel: Channel, performed: str, peer: int | None
    ) -> Callable[..., Any]:
        """Return `schedule` with a record of each run."""
        plan = functools.partial(
            self.recorder.planned,
            self.number,
            peer=peer,
            root=call.root if call.operation in ROOTED else None,
            algorithm=algorithm_of(schedule) if peer is None else "message",
            channel=self._channels.name_of(channel),
            call=_in_words(call, performed),
        )
        direction = None if peer is None else (peer, performed in ("recv", "irecv"))
        size = -1 if call.dtype is None or call.operation in BY_ROWS else call.count * call.dtype.itemsize
        arrival = plan("arrived") if performed == "irecv" else None
        numbering, number = self._numberings[direction], plan(performed)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[id(call)] = call, number, numbering, channel
        return recorded(self, schedule, number, numbering, size, arrival)

    def wrap_wait(self, schedule: Callable[..., Any], channel: Channel) -> Callable[..., Any]:
        """Return what moves posted messages, with a record of each run."""
        name = self._channels.name_of(channel)
        if name not in self._waits:
            self._waits[name] = self.recorder.planned(
                self.number, "wait", None, None, "posted messages", name, "wait for posted messages"
            )
        return RecordedWait(self, schedule, self._waits[name])

    def state(self) -> tuple[int, int, int | None] | None:
        """Return plan, number and awaited rank of the running call; None between calls."""
        running = self.running
        known = self._known.get(id(running)) if isinstance(running, Call) else None
        if known is None:
            return None
        _, plan, numbering, channel = known
        return plan, numbering.next, channel.awaited

    def expect(self, pending: Any, arrival: int, number: int, size: int) -> None:
        """Remember a posted receipt until a wait completes it."""
        if pending.done:
            return
        if len(self.awaited) >= _MOST_AWAITED:
            for key in [key for key, (other, *_) in self.awaited.items() if other.done]:
                del self.awaited[key]
        self.awaited[id(pending)] = pending, arrival, number, max(0, size)

    def fail(self, error: BaseException) -> None:
        """Report `error`, see `Calls`, and record it."""
        self._record_failure(error)
        super().fail(error)
        self.recorder.closed(self)

    def abandon(self, error: BaseException) -> None:
        """Abort because of `error`, see `Calls`, and record it."""
        self._record_failure(error)
        super().abandon(error)
        self.recorder.closed(self)

    def close(self) -> None:
        """Close without an error, see `Calls`."""
        super().close()
        self.recorder.closed(self)

    def _record_failure(self, error: BaseException) -> None:
        if self._failure is None:
            self.recorder.failed(self.number, error, error.origin if isinstance(error, FmiError) else None)


def recorded(
    calls: TracedCalls, schedule: Callable[..., Any], plan: int, numbering: Numbering, size: int, arrival: int | None
) -> Callable[..., Any]:
    """Return `schedule` with a record of each run, whether it succeeds or fails.

    A closure, since it runs in every call: an object with `__call__` takes longer by half.

    Parameters
    ----------
    calls
        The calls of the communicator.
    schedule
        The schedule.
    plan
        The number of the plan.
    numbering
        The calls of its kind so far.
    size
        Bytes of this rank's part; negative if they are those of the largest buffer of each run.
    arrival
        The plan of the arrival, if it posts receipts.
    """
    recorder, extend = calls.recorder, calls.recorder.rows.extend

    def run_recorded(*buffers: Any) -> Any:
        began = monotonic_ns()
        try:
            result = schedule(*buffers)
        except BaseException as error:
            if not (isinstance(error, PeerTimeoutError) and error.repeatable):
                extend((plan, numbering.next, began, monotonic_ns() - began, 0))
                numbering.next += 1
            raise
        ended = monotonic_ns()
        number = numbering.next
        extend((plan, number, began, ended - began, size if size >= 0 else max(map(_bytes_of, (*buffers, result)))))
        if arrival is not None:
            calls.expect(result, arrival, number, size)
        numbering.next = number + 1
        if ended > recorder.due:
            recorder.flush()
        return result

    return run_recorded


@dataclass(slots=True, eq=False)
class RecordedWait:
    """Moves posted messages; each run, and each arrival in it, is recorded."""

    calls: TracedCalls
    schedule: Callable[..., Any]
    plan: int

    def __call__(self, pending: Sequence[Any], wait: bool) -> Any:
        """Move the messages."""
        calls, rows = self.calls, self.calls.recorder.rows
        began = monotonic_ns()
        result = self.schedule(pending, wait)
        ended = monotonic_ns()
        if wait:
            rows.extend((self.plan, 0, began, ended - began, 0))
        for message in pending:
            known = calls.awaited.get(id(message)) if message.done else None
            if known is not None:
                del calls.awaited[id(message)]
                _, arrival, number, size = known
                rows.extend((arrival, number, began, ended - began, size or _bytes_of(message.array)))
        if ended > calls.recorder.due:
            calls.recorder.flush()
        return result


def _bytes_of(value: Any) -> int:
    """Return the size of an array, or of all arrays in a sequence; 0 for anything else."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(_bytes_of, value)) if isinstance(value, list | tuple) else 0


def algorithm_of(schedule: Callable[..., Any]) -> str:
    """Return the name of the algorithm that a schedule executes, in words."""
    found: Any = schedule
    while True:
        if isinstance(found, functools.partial):
            found = found.func
        elif (inner := getattr(found, "algorithm", None) or getattr(found, "schedule", None)) is not None:
            found = inner
        else:
            break
    name = getattr(found, "__name__", None) or _words(type(found).__name__)
    return str(name).strip("_").removeprefix("run_").replace("_", " ")


def _words(name: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _in_words(call: Call, performed: str) -> str:
    """Return the call in words, with what this rank does in it, and without its number."""
    number = f"call {call.sequence}"
    text = str(call).replace(f" ({number})", "", 1).replace(f"({number}, ", "(", 1)
    return text.replace(call.operation.name, performed, 1)
