"""The history of a run in the Trace Event Format, which chrome://tracing and ui.perfetto.dev show. No I/O.

A rank is a process with a track for its calls, flow arrows lead from sends to receipts, and counters show bytes and
memory. The format: "Trace Event Format", docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU; the
part that is used is in trace.schema.json.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from emulator.fmi.telemetry.history import Call, History, messages
from fmi_shim.telemetry.events import Phase

TraceEvent = dict[str, Any]
_PHASES_TRACK = 0
_CALLS_TRACK = 1
_MOST_COUNTS = 5000
"""Points of a rank's counter of bytes: more are thinned out."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A call with its track: calls of several threads of a rank overlap, and take one track each."""

    call: Call
    track: int


def trace_events(history: History) -> list[TraceEvent]:
    """Return the events, in order of time; those that name tracks first."""
    origin = origin_of(history)
    placed = {rank: _placed(history.calls(rank)) for rank in sorted(history.ranks)}
    names: list[TraceEvent] = []
    events: list[TraceEvent] = []
    for rank, calls in placed.items():
        names += _names(rank, max((each.track for each in calls), default=_CALLS_TRACK), history)
        events += (_slice(each, history, origin) for each in calls)
        events += _phases(rank, history, origin)
        events += _counters(rank, calls, history, origin)
    for place, (source, seen) in enumerate(sorted(history.observed.items())):
        process = max(history.world_size, max(history.ranks, default=-1) + 1) + place
        names.append(_named("process_name", process, source))
        names.append(_named("thread_name", process, source))
        events += (_phase_slice(phase, process, origin) for phase in seen)
    tracks = {
        (call.rank, call.plan.plan, call.began): track for calls in placed.values() for call, track in _pairs(calls)
    }
    events += _flows(history, tracks, origin)
    # A flow begins and ends within slices that have begun.
    events.sort(key=lambda event: (event["ts"], _ORDER[event["ph"]]))
    return names + events


_ORDER = {"X": 0, "s": 1, "f": 2, "C": 3}


def origin_of(history: History) -> int:
    """Return the earliest time in the history, ns since 1970: the trace begins there."""
    ranks = history.ranks.values()
    phases = [*(phase for rank in ranks for phase in rank.phases), *itertools.chain(*history.observed.values())]
    times = [
        *(phase.began for phase in phases),
        *(time for rank in ranks for time in (rank.started, *rank.rows[2::5]) if time),
    ]
    return min(times, default=0)


def trace_lines(history: History) -> Iterator[str]:
    """Return the lines of the JSON file."""
    yield "{\n"
    yield '"displayTimeUnit": "ms",\n'
    about = {
        "job": history.job,
        "began": origin_of(history) / 1e9,
        "ranks": history.world_size,
        "calls dropped": history.dropped,
        "calls left out": history.left_out,
        "messages lost": sum(rank.missing for rank in history.ranks.values()),
    }
    yield f'"otherData": {json.dumps(about)},\n'
    yield '"traceEvents": [\n'
    events = trace_events(history)
    for at, event in enumerate(events, 1):
        yield json.dumps(event, separators=(",", ":")) + (",\n" if at < len(events) else "\n")
    yield "]\n}\n"


def _pairs(calls: Iterable[_Placed]) -> Iterator[tuple[Call, int]]:
    return ((each.call, each.track) for each in calls)


def _placed(calls: Iterable[Call]) -> list[_Placed]:
    """Give each call the first track whose last call has ended."""
    ends: list[int] = []
    placed = []
    for call in sorted(calls, key=lambda call: call.began):
        track = next((track for track, end in enumerate(ends) if end <= call.began), len(ends))
        ends[track : track + 1] = [call.ended]
        placed.append(_Placed(call, track + _CALLS_TRACK))
    return placed


def _names(rank: int, last_track: int, history: History) -> list[TraceEvent]:
    known = history.ranks[rank]
    process = {"ph": "M", "pid": rank, "tid": _PHASES_TRACK}
    names = [
        {"name": "process_name", **process, "args": {"name": f"rank {rank}"}},
        {"name": "process_labels", **process, "args": {"labels": f"process {known.pid}"}},
        {"name": "process_sort_index", **process, "args": {"sort_index": rank}},
        {"name": "thread_name", **process, "args": {"name": "program"}},
    ]
    for track in range(_CALLS_TRACK, last_track + 1):
        name = "calls" if track == _CALLS_TRACK else f"calls beside them ({track - _CALLS_TRACK})"
        names.append({"name": "thread_name", "ph": "M", "pid": rank, "tid": track, "args": {"name": name}})
    return names


def _slice(placed: _Placed, history: History, origin: int) -> TraceEvent:
    call = placed.call
    plan = call.plan
    arguments: dict[str, Any] = {
        "call": plan.call,
        "number": call.number,
        "communicator": call.communicator[0],
        "algorithm": plan.algorithm,
        "channel": plan.channel,
        "bytes": call.size,
    }
    for name, own in (("peer", plan.peer), ("root", plan.root)):
        other = history.peer(call.rank, plan, own)
        if other is not None:
            arguments[name] = other
    return {
        "name": plan.operation,
        "cat": "fmi",
        "ph": "X",
        "ts": _microseconds(call.began - origin),
        "dur": _microseconds(call.ended - call.began),
        "pid": call.rank,
        "tid": placed.track,
        "args": arguments,
    }


def _phases(rank: int, history: History, origin: int) -> Iterator[TraceEvent]:
    return (_phase_slice(phase, rank, origin) for phase in history.ranks[rank].phases)


def _phase_slice(phase: Phase, process: int, origin: int) -> TraceEvent:
    return {
        "name": phase.name,
        "cat": "phase",
        "ph": "X",
        "ts": _microseconds(phase.began - origin),
        "dur": _microseconds(max(0, phase.ended - phase.began)),
        "pid": process,
        "tid": _PHASES_TRACK,
        "args": {},
    }


def _named(kind: str, process: int, name: str) -> TraceEvent:
    return {"name": kind, "ph": "M", "pid": process, "tid": _PHASES_TRACK, "args": {"name": name}}


def _counters(rank: int, calls: list[_Placed], history: History, origin: int) -> Iterator[TraceEvent]:
    """Return the bytes of the rank's calls so far, by channel, its memory, and the calls that it has dropped."""
    pause = (calls[-1].call.ended - calls[0].call.began) // _MOST_COUNTS if len(calls) > _MOST_COUNTS else 0
    totals: defaultdict[str, int] = defaultdict(int)
    due = 0
    ordered = sorted((each.call for each in calls), key=lambda call: call.ended)
    for at, call in enumerate(ordered, 1):
        if call.size:
            totals[call.plan.channel] += call.size
        if totals and (call.ended >= due or at == len(ordered)):
            due = call.ended + pause
            yield _count("bytes", call.ended - origin, rank, totals)
    for time, memory in history.ranks[rank].memory:
        yield _count("resident memory", time - origin, rank, {"bytes": memory})
    for time, dropped in history.ranks[rank].drops:
        yield _count("dropped calls", time - origin, rank, {"calls": dropped})


def _count(name: str, time: int, rank: int, values: dict[str, int]) -> TraceEvent:
    return {"name": name, "cat": "count", "ph": "C", "ts": _microseconds(time), "pid": rank, "args": dict(values)}


def _flows(history: History, tracks: dict[tuple[int, int, int], int], origin: int) -> Iterator[TraceEvent]:
    """Return an arrow for each message: from the beginning of its send to the end of the call that received it.

    Messages between machines whose clocks differ by more than their time have none.
    """
    numbers = itertools.count(1)
    for send, receipt in messages(history):
        # An arrow ends within its slice, which does not contain its end.
        end = max(receipt.began, receipt.ended - 1)
        source = tracks.get((send.rank, send.plan.plan, send.began))
        target = _track_of(receipt, tracks, history)
        if end < send.began or source is None or target is None:
            continue
        common = {"name": "message", "cat": "flow", "id": next(numbers)}
        yield {**common, "ph": "s", "ts": _microseconds(send.began - origin), "pid": send.rank, "tid": source}
        yield {**common, "ph": "f", "bp": "e", "ts": _microseconds(end - origin), "pid": receipt.rank, "tid": target}


def _track_of(receipt: Call, tracks: dict[tuple[int, int, int], int], history: History) -> int | None:
    if receipt.plan.operation != "arrived":
        return tracks.get((receipt.rank, receipt.plan.plan, receipt.began))
    # The arrival has the times of the wait that it was in.
    waits = (plan.plan for plan in history.ranks[receipt.rank].plans.values() if plan.operation == "wait")
    found = (tracks.get((receipt.rank, wait, receipt.began)) for wait in waits)
    return next((track for track in found if track is not None), None)


def _microseconds(nanoseconds: int) -> float:
    return nanoseconds / 1000
