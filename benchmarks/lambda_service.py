"""Compares warm and cold invocations of several endpoints: ``python -m benchmarks.lambda_service [--short]``.

Goals on 2 cores: a warm invocation in 5 ms (median) and 300/s with 16 clients; a cold start of a zip
function without torch in 60 ms. All figures include the clients' own CPU time.
"""

from __future__ import annotations

import io
import json
import statistics
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from benchmarks import arguments
from benchmarks.cleanup import exit_on_signals
from benchmarks.endpoints import RunningEndpoint, add_arguments, contenders, running
from emulator.aws.lambda_.core.interpreters import OWN_RUNTIME

GOAL_WARM_MS = 5.0
GOAL_RATE = 300.0
GOAL_COLD_MS = 60.0
_CLIENTS = 16
_ROLE = "benchmark"
_ECHO = "def handler(event, context):\n    return event\n"
_SECOND = "import time\ndef handler(event, context):\n    began = time.time()\n    time.sleep(1)\n    return began\n"


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one endpoint; times in ms unless noted.

    Parameters
    ----------
    warm_ms
        Median of a warm invocation.
    rate
        Invocations per second with 16 clients.
    cold_ms
        Median of an invocation directly after a change of the function.
    burst_s
        Duration of 50 concurrent cold invocations of a function that takes a second, seconds.
    spread_s
        From the first to the last start of a handler among them, seconds.
    cpu_ms
        The endpoint's CPU time per cold start of these.
    """

    warm_ms: float
    rate: float
    cold_ms: float
    burst_s: float
    spread_s: float
    cpu_ms: float


def measure(endpoint: RunningEndpoint, short: bool) -> Figures:
    """Measure one endpoint.

    Raises
    ------
    RuntimeError
        If it does not run functions.
    """
    functions = endpoint.client("lambda")
    # moto's server checks that the role exists.
    role = endpoint.client("iam").create_role(RoleName=_ROLE, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    deploy(functions, "echo", _ECHO, role)
    deploy(functions, "second", _SECOND, role)
    if invoke(functions, "echo", {"x": 1}) != {"x": 1}:
        raise RuntimeError("expected the function's own return value, got another answer")
    warm = [timed(lambda: invoke(functions, "echo", 1)) for _ in range(100 if short else 500)]
    rate = throughput(functions, seconds=1.5 if short else 5.0)
    cold = [cold_invocation(functions, number) for number in range(5 if short else 20)]
    burst_s, spread_s, cpu_ms = burst(endpoint, functions, 50)
    return Figures(statistics.median(warm) * 1000, rate, statistics.median(cold) * 1000, burst_s, spread_s, cpu_ms)


def deploy(functions: Any, name: str, source: str, role: str) -> None:
    """Create a function that has one vCPU."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("main.py", source)
    functions.create_function(
        FunctionName=name,
        Runtime=OWN_RUNTIME,
        Handler="main.handler",
        Role=role,
        Code={"ZipFile": buffer.getvalue()},
        MemorySize=1769,
        Timeout=60,
    )


def invoke(functions: Any, name: str, event: object) -> Any:
    """Return a function's answer."""
    response = functions.invoke(FunctionName=name, Payload=json.dumps(event).encode())
    payload = response["Payload"].read()
    try:
        answer = json.loads(payload)
    except ValueError:
        raise RuntimeError(f"the function did not run: {payload[:200]!r}") from None
    if "FunctionError" in response:
        raise RuntimeError(f"the function failed: {answer}")
    return answer


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def throughput(functions: Any, seconds: float) -> float:
    """Return the warm invocations per second of 16 clients together."""
    deadline = 0.0
    ready = threading.Barrier(_CLIENTS)

    def client(_: int) -> int:
        # Every client has a sandbox before the clock starts.
        invoke(functions, "echo", 1)
        ready.wait()
        count = 0
        while time.perf_counter() < deadline or not count:
            invoke(functions, "echo", 1)
            count += 1
        return count

    with ThreadPoolExecutor(_CLIENTS) as threads:
        list(threads.map(lambda _: invoke(functions, "echo", 1), range(_CLIENTS)))
        deadline = time.perf_counter() + seconds
        began = time.perf_counter()
        return sum(threads.map(client, range(_CLIENTS))) / (time.perf_counter() - began)


def cold_invocation(functions: Any, number: int) -> float:
    """Return the duration of an invocation without a sandbox, directly after a change of the function, seconds."""
    functions.update_function_configuration(FunctionName="echo", Description=str(number))
    return timed(lambda: invoke(functions, "echo", 1))


def burst(endpoint: RunningEndpoint, functions: Any, count: int) -> tuple[float, float, float]:
    """Invoke cold sandboxes at once; return the total time, the spread of their starts, and CPU ms for each."""
    before = endpoint.cpu_seconds()
    began = time.perf_counter()
    with ThreadPoolExecutor(count) as threads:
        starts = list(threads.map(lambda _: invoke(functions, "second", 1), range(count)))
    took = time.perf_counter() - began
    functions.delete_function(FunctionName="second")
    # The CPU time of sandboxes is counted after they have been waited for.
    time.sleep(0.5)
    return took, max(starts) - min(starts), (endpoint.cpu_seconds() - before) / count * 1000


def report(results: Sequence[tuple[str, Figures]]) -> str:
    """Return a table with one row per figure and one column per endpoint."""
    rows = [
        (f"warm invocation, median (goal < {GOAL_WARM_MS:.0f} ms)", "{:.1f} ms", [f.warm_ms for _, f in results]),
        (f"{_CLIENTS} clients (goal >= {GOAL_RATE:.0f}/s)", "{:.0f}/s", [f.rate for _, f in results]),
        (f"cold invocation, median (goal < {GOAL_COLD_MS:.0f} ms)", "{:.1f} ms", [f.cold_ms for _, f in results]),
        ("50 one-second functions at once, cold", "{:.2f} s", [f.burst_s for _, f in results]),
        ("  first to last start", "{:.2f} s", [f.spread_s for _, f in results]),
        ("  CPU time per cold start", "{:.1f} ms", [f.cpu_ms for _, f in results]),
    ]
    lines = ["".join(f"{cell:>16}" for cell in ("", *(name for name, _ in results))).replace(" " * 16, " " * 48, 1)]
    lines += [f"{label:<48}" + "".join(f"{form.format(value):>16}" for value in values) for label, form, values in rows]
    return "\n".join(lines)


def main() -> None:
    """Measure every installed endpoint and print the table."""
    parser = arguments.parser("benchmarks.lambda_service", __doc__)
    parser.add_argument("--short", action="store_true", help="a few seconds for each endpoint")
    add_arguments(parser)
    options = parser.parse_args()
    exit_on_signals()
    results = []
    for contender in contenders(options):
        try:
            with running(contender) as endpoint:
                results.append((contender.name, measure(endpoint, options.short)))
        except (RuntimeError, BotoCoreError, ClientError) as error:
            print(f"{contender.name}: not measured: {error}")
    print(report(results))


if __name__ == "__main__":
    main()
