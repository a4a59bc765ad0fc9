"""Compares a Map over functions, warm and cold, of all endpoints: ``python -m benchmarks.step_functions [--short]``.

Goals on 2 cores with functions that take a second: 50 in 1.3 s warm and 2.5 s cold, 200 in 3 s and 8 s,
1000 in 20 s with less than 12 GB. FMI ranks wait for each other, so the spread from
the first to the last start delays them all. The last figure is the interpreter's time per item of a Map over Pass
states.
"""

from __future__ import annotations

import json
import statistics
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from botocore.exceptions import BotoCoreError, ClientError

from benchmarks import arguments
from benchmarks.cleanup import exit_on_signals
from benchmarks.endpoints import Contender, RunningEndpoint, add_arguments, contenders, running
from benchmarks.lambda_service import deploy

# Number of items, and the goals for it, seconds.
GOALS = {50: (1.3, 2.5), 200: (3.0, 8.0), 1000: (20.0, 20.0)}
# Other endpoints use a process or a thread per item: with more items, this machine's memory would be measured.
_LARGEST_OF_OTHERS = 200
_PASS_ITEMS = 1000
_POLL_S = 0.01
_LONGEST_S = 120.0
_ROLE = "benchmark"
_SECOND = "import time\ndef handler(event, context):\n    began = time.time()\n    time.sleep(1)\n    return began\n"


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a Map: its duration, and the time from the first to the last start of a function, seconds."""

    took_s: float
    spread_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one endpoint.

    Parameters
    ----------
    cold, warm
        By number of items; for warm executions the median.
    memory_mb
        Memory of the endpoint and its sandboxes by number of items, each shared page counted once.
    item_ms
        The interpreter's time per item of a Map over Pass states, ms.
    """

    cold: dict[int, Run]
    warm: dict[int, Run]
    memory_mb: dict[int, float]
    item_ms: float


def measure(endpoint: RunningEndpoint, sizes: Sequence[int], repeats: int) -> Figures:
    """Measure one endpoint."""
    machines, functions = endpoint.client("stepfunctions"), endpoint.client("lambda")
    role = endpoint.client("iam").create_role(RoleName=_ROLE, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    if endpoint.name == "moto_server":
        _let_moto_execute(endpoint.url)
    figures = Figures({}, {}, {}, _time_an_item(machines, role))
    invoke = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": "second", "Payload.$": "$"},
        "OutputPath": "$.Payload",
        "End": True,
    }
    arn = _create(machines, "seconds", invoke, role)
    for size in sizes:
        try:
            deploy(functions, "second", _SECOND, role)
            figures.cold[size] = _run(machines, arn, size)
            runs = [_run(machines, arn, size) for _ in range(repeats)]
        except (RuntimeError, ClientError, BotoCoreError) as error:
            print(f"{endpoint.name}: a Map of {size} functions: not measured: {str(error)[:200]}", flush=True)
            break
        middle = sorted(runs, key=lambda run: run.took_s)[len(runs) // 2]
        figures.warm[size], figures.memory_mb[size] = middle, _held_mb(endpoint.process)
        # If the measurement is interrupted, these figures have been printed.
        print(f"{endpoint.name}: {size} functions: cold {figures.cold[size]}, warm {middle}", flush=True)
        functions.delete_function(FunctionName="second")
    return figures


def _let_moto_execute(url: str) -> None:
    config = json.dumps({"stepfunctions": {"execute_state_machine": True}}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/config", config)) as answer:  # noqa: S310
        answer.read()


def _create(machines: Any, name: str, state: dict[str, Any], role: str) -> str:
    processor = {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "Item", "States": {"Item": state}}
    definition = {"StartAt": "Map", "States": {"Map": {"Type": "Map", "ItemProcessor": processor, "End": True}}}
    created = machines.create_state_machine(name=name, definition=json.dumps(definition), roleArn=role)
    return str(created["stateMachineArn"])


def _time_an_item(machines: Any, role: str) -> float:
    arn = _create(machines, "passes", {"Type": "Pass", "End": True}, role)
    empty = statistics.median(_execute(machines, arn, 1)[0] for _ in range(3))
    full = statistics.median(_execute(machines, arn, _PASS_ITEMS)[0] for _ in range(3))
    return (full - empty) / _PASS_ITEMS * 1000


def _run(machines: Any, arn: str, size: int) -> Run:
    took_s, starts = _execute(machines, arn, size)
    if len(starts) != size or not all(isinstance(start, float) for start in starts):
        raise RuntimeError(f"the functions did not run: {str(starts)[:100]}")
    return Run(took_s, max(starts) - min(starts))


def _execute(machines: Any, arn: str, size: int) -> tuple[float, list[Any]]:
    """Run an execution; return its duration as seen by the client, seconds, and its output."""
    began = time.perf_counter()
    name = f"run-{time.time_ns()}"
    started = machines.start_execution(stateMachineArn=arn, name=name, input=json.dumps(list(range(size))))
    while time.perf_counter() - began < _LONGEST_S:
        described = machines.describe_execution(executionArn=started["executionArn"])
        if described["status"] == "SUCCEEDED":
            return time.perf_counter() - began, json.loads(described["output"])
        if described["status"] != "RUNNING":
            raise RuntimeError(f"{described['status']}: {described.get('error')}: {described.get('cause')}")
        time.sleep(_POLL_S)
    raise RuntimeError(f"the execution did not end within {_LONGEST_S:.0f} s")


def _held_mb(process: psutil.Process) -> float:
    """Return the memory of a process and its descendants, each shared page counted once (PSS; Linux only)."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        rollup = Path(f"/proc/{one.pid}/smaps_rollup")
        try:
            total += next(int(line.split()[1]) for line in rollup.read_text().splitlines() if line.startswith("Pss:"))
        except (OSError, StopIteration):
            # The process has ended, or this is not Linux.
            continue
    return total / 1000


def report(results: Sequence[tuple[str, Figures]], sizes: Sequence[int]) -> str:
    """Return a table with one row per figure and one column per endpoint, with ratios to the emulator."""
    rows: list[tuple[str, str, list[float | None]]] = []
    for size in sizes:
        for kind, goal in zip(("warm", "cold"), GOALS[size], strict=True):
            runs = [getattr(figures, kind).get(size) for _, figures in results]
            rows.append((f"{size} functions, {kind} (goal < {goal:g} s)", "s", [run and run.took_s for run in runs]))
            rows.append(("  first to last start", "s", [run and run.spread_s for run in runs]))
        rows.append((f"{size} functions, memory", "MB", [figures.memory_mb.get(size) for _, figures in results]))
    rows.append(
        (f"per item of a Map over {_PASS_ITEMS} Pass states", "ms", [figures.item_ms for _, figures in results])
    )
    lines = [f"{'':<42}" + "".join(f"{name:>24}" for name, _ in results)]
    for label, unit, values in rows:
        lines.append(f"{label:<42}" + "".join(f"{_cell(value, values[0], unit):>24}" for value in values))
    return "\n".join(lines)


def _cell(value: float | None, ours: float | None, unit: str) -> str:
    if value is None:
        return "-"
    ratio = f" ({value / ours:.1f}x)" if ours and value is not ours else ""
    return f"{value:.0f} {unit}{ratio}" if unit == "MB" else f"{value:.2f} {unit}{ratio}"


def main() -> None:
    """Measure every installed endpoint and print the table."""
    parser = arguments.parser("benchmarks.step_functions", __doc__)
    parser.add_argument("--short", action="store_true", help="only 50 functions, one warm run")
    parser.add_argument("--sizes", type=int, nargs="+", choices=GOALS, default=list(GOALS), help="numbers of items")
    add_arguments(parser)
    options = parser.parse_args()
    exit_on_signals()
    sizes, repeats = ([50], 1) if options.short else (options.sizes, 3)
    results = [
        (contender.name, figures) for contender in contenders(options) if (figures := _try(contender, sizes, repeats))
    ]
    print(report(results, sizes))


def _try(contender: Contender, sizes: Sequence[int], repeats: int) -> Figures | None:
    own = contender.name == "fmi-emulator"
    try:
        with running(contender) as endpoint:
            return measure(endpoint, [size for size in sizes if own or size <= _LARGEST_OF_OTHERS], repeats)
    except (RuntimeError, BotoCoreError, ClientError) as error:
        print(f"{contender.name}: not measured: {str(error)[:300]}")
        return None


if __name__ == "__main__":
    main()
