"""The trace, checked against the schema of its format and against what the ranks did."""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from emulator.fmi.telemetry import trace
from emulator.fmi.telemetry.history import History
from emulator.fmi.telemetry.trace import trace_lines
from fmi_shim.telemetry.events import Closed, Message, Observed, Opened, Operations, Planned, Started
from tests.emulator.fmi.telemetry.conftest import RANKS
from tests.emulator.fmi.telemetry.made_histories import EPOCH, MS, Made, made_history

SCHEMA = json.loads(Path(trace.__file__).with_name("trace.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def written(recorded: Callable[[str], History]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads("".join(trace_lines(recorded("calls_of_every_kind"))))
    return content


def events(content: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event for event in content["traceEvents"] if event["ph"] == kind]


def test_the_file_has_the_format(written: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(written)
    assert {event["ph"] for event in written["traceEvents"]} == {"M", "X", "C", "s", "f"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "x", "cat": "fmi", "ph": "X", "ts": 1, "pid": 0, "tid": 0, "args": {}},
        {"name": "x", "cat": "count", "ph": "C", "ts": 1, "pid": 0, "args": {"bytes": "many"}},
        {"name": "x", "cat": "flow", "ph": "f", "id": 1, "ts": 1, "pid": 0, "tid": 0},
        {"name": "x", "cat": "flow", "ph": "s", "id": 1, "ts": -1, "pid": 0, "tid": 0},
        {"name": "rank", "ph": "M", "pid": 0, "tid": 0, "args": {"name": "x"}},
        {"name": "x", "ph": "B", "ts": 1, "pid": 0, "tid": 0},
    ],
)
def test_the_schema_refuses_what_the_format_does_not_have(wrong: dict[str, Any]) -> None:
    content = {"displayTimeUnit": "ms", "otherData": {}, "traceEvents": [wrong]}
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(content)


def test_times_rise_and_slices_of_a_track_do_not_overlap(written: dict[str, Any]) -> None:
    times = [event["ts"] for event in written["traceEvents"] if "ts" in event]
    assert times == sorted(times)
    ends: defaultdict[tuple[int, int], float] = defaultdict(float)
    for event in events(written, "X"):
        track = event["pid"], event["tid"]
        assert event["ts"] >= ends[track] - 1e-3
        ends[track] = event["ts"] + event["dur"]


def test_each_rank_has_a_named_track_with_its_calls(written: dict[str, Any]) -> None:
    named = {event["pid"]: event["args"]["name"] for event in events(written, "M") if event["name"] == "process_name"}
    assert named == {rank: f"rank {rank}" for rank in range(RANKS)}
    threads = {(event["pid"], event["tid"]) for event in events(written, "M") if event["name"] == "thread_name"}
    assert {(event["pid"], event["tid"]) for event in events(written, "X")} <= threads
    for rank in range(RANKS):
        names = [event["name"] for event in events(written, "X") if event["pid"] == rank]
        for name, count in {"allreduce": 3, "send": 1, "recv": 1, "bcast": 1, "bcast_object": 1}.items():
            assert names.count(name) == count
        # of the program's own, and in sendrecv
        assert (names.count("isend"), names.count("irecv"), names.count("barrier")) == (2, 2, 2)


def test_an_arrow_binds_each_send_to_its_receipt(written: dict[str, Any]) -> None:
    starts = {event["id"]: event for event in events(written, "s")}
    ends = {event["id"]: event for event in events(written, "f")}
    # for each rank: a blocking message, a posted one, and one within its half
    assert len(starts) == len(events(written, "s")) == 3 * RANKS
    assert starts.keys() == ends.keys()
    slices = events(written, "X")

    def enclosing(event: dict[str, Any]) -> set[str]:
        return {
            found["name"]
            for found in slices
            if (found["pid"], found["tid"]) == (event["pid"], event["tid"])
            and found["ts"] <= event["ts"] <= found["ts"] + found["dur"]
        }

    for number, start in starts.items():
        end = ends[number]
        assert start["ts"] <= end["ts"]
        assert end["pid"] != start["pid"]
        assert enclosing(start) & {"send", "isend"}
        assert enclosing(end) & {"recv", "wait", "irecv"}


def test_counters_of_bytes_rise(written: dict[str, Any]) -> None:
    for rank in range(RANKS):
        values = [
            event["args"]["Direct"]
            for event in events(written, "C")
            if event["pid"] == rank and event["name"] == "bytes"
        ]
        assert values == sorted(values)
        assert values[-1] > 5 * 800


def test_an_empty_history_is_a_trace(recorded: Callable[[str], History]) -> None:
    VALIDATOR.validate(json.loads("".join(trace_lines(History()))))


def test_a_rank_that_opens_a_second_communicator_later_counts_anew() -> None:
    history = made_history([Made("barrier", 1, 2), Made("bcast", 3, 4, 1, root=0)])
    started = Started(10 * MS, 1, 7, "host", EPOCH), Opened(10 * MS, 0, "world", 0, 1)
    plan = Planned(0, 0, "scan", None, None, "chain", "Direct", "scan")
    history.apply(Message("made", 0, 0, 3, (*started, plan, Operations.of(((0, 0, 11 * MS, MS, 8),)))))
    assert [(call.plan.operation, call.communicator) for call in history.calls(0)] == [
        ("barrier", ("world", 0)),
        ("bcast", ("world", 0)),
        ("scan", ("world", 1)),
    ]
    assert history.dropped == 3
    VALIDATOR.validate(json.loads("".join(trace_lines(history))))


def test_what_the_emulator_has_seen_is_shown_beside_the_ranks() -> None:
    history = made_history([Made("barrier", 1, 2)])
    seen = (
        Observed("execute", 0, "cold start", EPOCH - 5 * MS, EPOCH),
        Observed("rendezvous server", None, "introduces ranks 0 and 1 of 'world'", EPOCH, EPOCH),
    )
    history.apply(Message("made", None, 0, 0, (*seen, Closed(1))))
    content = json.loads("".join(trace_lines(history)))
    VALIDATOR.validate(content)
    slices = {(event["pid"], event["name"]): event for event in events(content, "X")}
    assert slices[0, "cold start"]["ts"] == 0
    assert slices[1, "introduces ranks 0 and 1 of 'world'"]["ts"] == 5000
    assert {"rank 0", "rendezvous server"} == {
        event["args"]["name"] for event in events(content, "M") if event["name"] == "process_name"
    }
    # Only ranks can close communicators.
    assert history.ranks[0].closed is None
