"""The event loop stays free while executions run: a watchdog measures how long it is blocked."""

import asyncio
import gc
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from emulator.aws.account import Account
from emulator.aws.disk_reserve import DiskReserve
from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.aws.stepfunctions.core.arns import execution_arn
from emulator.aws.stepfunctions.core.engine import Engine
from emulator.aws.stepfunctions.core.execution import Execution
from emulator.aws.stepfunctions.core.machines import MachineStore
from emulator.aws.stepfunctions.core.records import Status

LOOP: dict[str, Any] = {
    "A": {"Type": "Pass", "Next": "B"},
    "B": {
        "Type": "Choice",
        "Choices": [{"Variable": "$", "IsNull": True, "Next": "C"}],
        "Default": "A",
    },
    "C": {"Type": "Succeed"},
}
PASS = {"Type": "Pass", "End": True}
MOST_BLOCKED_S = 0.1


def map_of(states: dict[str, Any], name: str = "M") -> dict[str, Any]:
    return {name: {"Type": "Map", "ItemProcessor": {"StartAt": next(iter(states)), "States": states}, "End": True}}


def branches(number: int) -> dict[str, Any]:
    each = [{"StartAt": f"P{n}", "States": {f"P{n}": PASS}} for n in range(number)]
    return {"M": {"Type": "Parallel", "Branches": each, "End": True}}


@asynccontextmanager
async def watchdog() -> AsyncIterator[list[float]]:
    """Yield the processor times, in seconds, that each iteration of the loop took. A busy machine does not count."""
    blocked: list[float] = []

    async def watch() -> None:
        while True:
            started = time.thread_time()
            await asyncio.sleep(0)
            blocked.append(time.thread_time() - started)

    watching = asyncio.create_task(watch())
    try:
        yield blocked
    finally:
        watching.cancel()


async def run(folder: Path, states: dict[str, Any], text: str, kind: MachineType, **more: Any) -> Execution:
    folder.mkdir(exist_ok=True)
    store = MachineStore(folder, DiskReserve(folder / "reserve", 0))
    definition = json.dumps({"StartAt": next(iter(states)), "States": states, **more})
    # What other tests left in this process is not collected here.
    gc.collect()
    gc.freeze()
    async with watchdog() as blocked:
        machine = await store.create(Account(), "m", definition, "role", kind, {}, {})
        engine = Engine({}, None)  # type: ignore[arg-type] # no state of these tests calls a service
        execution = engine.start(execution_arn(machine.account, machine.name, "e"), machine, "e", text)
        await engine.wait(execution)
        await engine.close()
    gc.unfreeze()
    assert max(blocked) < MOST_BLOCKED_S
    return execution


@pytest.mark.parametrize(
    ("states", "text"),
    [(LOOP, "{}"), (map_of(LOOP), json.dumps([1] * 5000)), (map_of(map_of(LOOP, "N")), json.dumps([[1] * 50] * 50))],
    ids=["loop", "map", "nested maps"],
)
def test_an_endless_loop_leaves_the_event_loop_free_and_times_out(
    tmp_path: Path, states: dict[str, Any], text: str
) -> None:
    started = time.monotonic()
    execution = asyncio.run(run(tmp_path, states, text, MachineType.EXPRESS, TimeoutSeconds=1))
    assert execution.status is Status.TIMED_OUT
    assert time.monotonic() - started < 10


def test_an_endless_loop_of_a_standard_execution_ends_with_a_full_history(tmp_path: Path) -> None:
    execution = asyncio.run(run(tmp_path, LOOP, "{}", MachineType.STANDARD))
    assert execution.status is Status.FAILED
    assert execution.failure is not None
    assert "maximum number of history events (25000)" in (execution.failure.cause or "")


def test_an_endless_loop_can_be_stopped_and_ends_at_the_limit_of_express_executions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emulator.aws.stepfunctions.core.engine.EXPRESS_TIMEOUT_S", 0.3)
    assert asyncio.run(run(tmp_path, LOOP, "{}", MachineType.EXPRESS)).status is Status.TIMED_OUT


@pytest.mark.parametrize(
    ("states", "text"),
    [(map_of({"P": PASS}), json.dumps(list(range(5000)))), (branches(1500), "{}")],
    ids=["items of a map", "branches of a parallel"],
)
def test_many_branches_leave_the_event_loop_free(tmp_path: Path, states: dict[str, Any], text: str) -> None:
    execution = asyncio.run(run(tmp_path, states, text, MachineType.EXPRESS))
    assert execution.status is Status.SUCCEEDED
    if states["M"]["Type"] == "Map":
        assert json.loads(execution.output_text or "") == list(range(5000))


def choice_on(path: str) -> dict[str, Any]:
    rule = {"Variable": path, "IsPresent": True, "Next": "B"}
    return {"A": {"Type": "Choice", "Choices": [rule], "Default": "B"}, "B": {"Type": "Succeed"}}


def nested(depth: int) -> Any:
    """Return a value in which each descent visits all values below."""
    return [*[1] * 10, nested(depth - 1)] if depth else 1


SLOW_CALLS = {f"k{n}.$": "States.ArrayLength(States.StringSplit($.text, ' '))" for n in range(2000)}


@pytest.mark.parametrize(
    "states",
    [
        {"A": {**PASS, "Parameters": SLOW_CALLS}},
        {
            "A": {
                **PASS,
                "ResultSelector": SLOW_CALLS,
                "Type": "Parallel",
                "Branches": [{"StartAt": "P", "States": {"P": PASS}}],
                "ResultPath": None,
            }
        },
    ],
    ids=["parameters", "selector"],
)
def test_long_evaluations_leave_the_event_loop_free_and_time_out(tmp_path: Path, states: dict[str, Any]) -> None:
    text = json.dumps({"text": "ab " * 40_000})
    started = time.monotonic()
    execution = asyncio.run(run(tmp_path, states, text, MachineType.EXPRESS, TimeoutSeconds=1))
    assert execution.status in (Status.TIMED_OUT, Status.FAILED)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("$..*..*..*", "matches more than 131072 values"),
        ("$..*[?(@..*..*..zzz)]..zzz", "visits more than 5000000 values"),
        ("$..zzz..*", ""),
        ("$..[200]", "nested too deeply"),
    ],
    ids=["wildcards", "filter", "descent", "depth"],
)
def test_queries_leave_the_event_loop_free_and_are_limited_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    # The limits take tens of seconds to reach.
    monkeypatch.setattr("emulator.aws.stepfunctions.asl.evaluation.MOST_VISITED", 100_000)
    monkeypatch.setattr("emulator.aws.stepfunctions.asl.queries.MOST_MATCHES", 10_000)
    text = json.dumps(nested(200 if "deeply" in words else 80))
    # One is evaluated by a Pass state, one by a rule of a Choice state.
    states = choice_on(path) if words.startswith("visits") else {"A": {**PASS, "OutputPath": path}}
    execution = asyncio.run(run(tmp_path, states, text, MachineType.EXPRESS))
    if words:
        assert execution.failure is not None
        assert execution.failure.error == "States.Runtime"
        assert words in (execution.failure.cause or "")
    else:
        assert execution.output_text == "[]"


def test_a_query_in_a_thread_ends_with_its_execution(tmp_path: Path) -> None:
    states = {"A": {**PASS, "OutputPath": "$..*[?(@..*..*..*..zzz)]..zzz"}}
    text = json.dumps(nested(80))
    execution = asyncio.run(run(tmp_path, states, text, MachineType.EXPRESS, TimeoutSeconds=1))
    assert execution.status is Status.TIMED_OUT
    ended_by = time.monotonic() + 10
    while any(thread.name.startswith("expressions") for thread in threading.enumerate()):
        assert time.monotonic() < ended_by
        time.sleep(0.01)


def test_a_map_of_many_items_leaves_the_event_loop_free(tmp_path: Path) -> None:
    execution = asyncio.run(run(tmp_path, map_of({"P": PASS}), json.dumps([1] * 20_000), MachineType.EXPRESS))
    assert execution.status is Status.SUCCEEDED
    assert json.loads(execution.output_text or "") == [1] * 20_000


@pytest.mark.parametrize(
    ("states", "text"),
    [
        (map_of({"W": {"Type": "Wait", "Seconds": 300, "End": True}}), json.dumps([1] * 2500)),
        (map_of(map_of({"W": {"Type": "Wait", "Seconds": 300, "End": True}}, "N")), json.dumps([[1] * 50] * 50)),
    ],
    ids=["map", "nested maps"],
)
def test_the_end_of_many_branches_leaves_the_event_loop_free(tmp_path: Path, states: dict[str, Any], text: str) -> None:
    execution = asyncio.run(run(tmp_path, states, text, MachineType.EXPRESS, TimeoutSeconds=3))
    assert execution.status is Status.TIMED_OUT


def test_a_pattern_with_many_stars_takes_little_time(tmp_path: Path) -> None:
    states = {
        "A": {
            "Type": "Choice",
            "Choices": [{"Variable": "$", "StringMatches": "*a" * 40 + "*b", "Next": "B"}],
            "Default": "C",
        },
        "B": {"Type": "Succeed"},
        "C": {"Type": "Fail", "Error": "NoMatch"},
    }
    execution = asyncio.run(run(tmp_path, states, json.dumps("a" * 200_000), MachineType.EXPRESS))
    assert execution.failure is not None
    assert execution.failure.error == "NoMatch"


def repeated(depth: int) -> str:
    return "$" if depth == 0 else f"States.Array({', '.join([repeated(depth - 1)] * 8)})"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"Parameters": {f"k{n}.$": "$" for n in range(20_000)}}, "States.DataLimitExceeded"),
        ({"Assign": {f"k{n}.$": "$" for n in range(20_000)}}, "States.DataLimitExceeded"),
        ({"Parameters": {"x.$": repeated(4)}}, "States.IntrinsicFailure"),
        ({"Parameters": {"x.$": f"States.Format('{'{}' * 5000}'{', $' * 5000})"}}, "States.IntrinsicFailure"),
    ],
    ids=["fields", "variables", "nested arrays", "format"],
)
def test_repeated_values_reach_the_size_limit_without_being_written_out(
    tmp_path: Path, fields: dict[str, Any], error: str
) -> None:
    text = json.dumps("x" * 200_000)
    execution = asyncio.run(run(tmp_path, {"A": {**PASS, **fields}}, text, MachineType.EXPRESS))
    assert execution.failure is not None
    assert execution.failure.error == error


def test_branches_with_large_results_reach_the_size_limit_without_being_written_out(tmp_path: Path) -> None:
    text = json.dumps("x" * 200_000)
    execution = asyncio.run(run(tmp_path, branches(200), text, MachineType.EXPRESS))
    assert execution.failure is not None
    assert execution.failure.error == "States.DataLimitExceeded"
