"""One invocation: an environment, warm or cold, gets an event and gives an answer, with Lambda's lines around it."""

import asyncio
import json
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from emulator.aws import limits
from emulator.aws.lambda_ import log_lines
from emulator.aws.lambda_.core.execution_environments import (
    Environments,
    ExecutionEnvironment,
    Failure,
    exit_failure,
    first_of,
    timeout_failure,
)
from emulator.aws.lambda_.core.history import InvocationStatus, Recording, error_type_of
from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.runtime_api import Answer, Invocation
from emulator.aws.lambda_.core.sandbox_log import SandboxLog
from emulator.aws.lambda_.core.warm_pool import WarmPool

# A rank tells the others of its failure before it logs it; one of them may be heard of first.
_LAST_WORD_S = 0.25


@dataclass(frozen=True)
class Ended:
    """An invocation that is over.

    Parameters
    ----------
    answer
        For its caller.
    log_tail
        The last 4 KB of its log.
    """

    answer: Answer
    log_tail: bytes


class Execution:
    """Runs one event after the other.

    Parameters
    ----------
    environments
        Brings environments up.
    pool
        Keeps them between invocations.
    """

    def __init__(self, environments: Environments, pool: WarmPool) -> None:
        self._environments = environments
        self._pool = pool

    async def run(self, function: Function, event: bytes, recording: Recording) -> Ended:
        """Run a function once; when this is cancelled, its sandbox is ended.

        Parameters
        ----------
        function
            What to run.
        event
            JSON.
        recording
            Takes note of the beginning and the end.
        """
        ready: ExecutionEnvironment | Failure | None = self._pool.take(function)
        init_ms = None
        if isinstance(ready, ExecutionEnvironment):
            log = ready.log
        else:
            ready, log, init_ms = await self._environments.cold_start(function)
        log.start_tail()
        recording.began(log.group, log.stream, init_ms)
        request_id = recording.record.request_id
        began = time.perf_counter()
        timeout_s = float(function.spec.timeout_s)
        if isinstance(ready, Failure):
            # As on AWS, the invocation's own time is spent on a second try, and its REPORT tells no Init Duration.
            init_ms = None
            ready = await self._environments.initialize(function, log, "invoke", timeout_s)
        log.write_line(log_lines.start_line(request_id, function.version))
        if isinstance(ready, ExecutionEnvironment):
            outcome = await self._answer(ready, request_id, event, began + timeout_s)
        else:
            outcome = ready
        report = _report(function, request_id, ready, outcome, (time.perf_counter() - began) * 1000, init_ms)
        _log_end(log, outcome, report)
        if isinstance(ready, ExecutionEnvironment):
            await self._keep_or_end(ready, outcome)
        answer = outcome if isinstance(outcome, Answer) else _for_request(outcome.answer, request_id)
        recording.ended(_status_of(outcome), report, error_type_of(answer.payload) if answer.is_error else None)
        return Ended(answer, log.tail())

    async def _answer(
        self, environment: ExecutionEnvironment, request_id: str, event: bytes, deadline: float
    ) -> Answer | Failure:
        """Give the sandbox an event and wait for its answer, its end or the deadline (of the performance counter)."""
        sandbox, timeout_s = environment.sandbox, environment.function.spec.timeout_s
        left_s = max(0.0, deadline - time.perf_counter())
        deadline_ms = int((time.time() + left_s) * 1000)
        answer = environment.runtime.send(Invocation(request_id, event, environment.function.arn, deadline_ms))
        try:
            await first_of(answer, sandbox.exited, left_s)
        except asyncio.CancelledError:
            # Whoever waited has given the invocation up: nothing of it runs on. What it has written stays: where one
            # rank's failure ends all, this may be the rank that failed first, and is about to say why.
            await asyncio.shield(first_of(answer, sandbox.exited, _LAST_WORD_S))
            sandbox.drain_output()
            await asyncio.shield(self._environments.end(environment))
            raise
        sandbox.drain_output()
        if answer.done():
            return answer.result()
        if sandbox.exited.done():
            return exit_failure(sandbox.exited.result())
        sandbox.kill()
        end = await sandbox.exited
        return timeout_failure(timeout_s, end.peak_memory_bytes)

    async def _keep_or_end(self, environment: ExecutionEnvironment, outcome: Answer | Failure) -> None:
        if isinstance(outcome, Answer) and not environment.sandbox.exited.done():
            self._pool.put_back(environment)
        else:
            await self._environments.end(environment)


def _report(
    function: Function,
    request_id: str,
    ready: ExecutionEnvironment | Failure,
    outcome: Answer | Failure,
    duration_ms: float,
    init_ms: float | None,
) -> log_lines.Report:
    peak_bytes = ready.sandbox.peak_memory() if isinstance(ready, ExecutionEnvironment) else ready.peak_memory_bytes
    failure = outcome if isinstance(outcome, Failure) else None
    return log_lines.Report(
        request_id,
        duration_ms,
        function.spec.memory_mb,
        min(function.spec.memory_mb, math.ceil(peak_bytes / limits.MIB)),
        init_ms,
        failure.status if failure else None,
        failure.error_type if failure else None,
    )


def _log_end(log: SandboxLog, outcome: Answer | Failure, report: log_lines.Report) -> None:
    if isinstance(outcome, Failure) and outcome.log_line is not None:
        if outcome.status == "timeout":
            stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3]
            log.write_line(f"{stamp}Z {report.request_id} {outcome.log_line}")
        else:
            log.write_line(f"RequestId: {report.request_id} {outcome.log_line}")
    log.write_line(log_lines.end_line(report.request_id))
    log.write_line(report.line())


def _status_of(outcome: Answer | Failure) -> InvocationStatus:
    if isinstance(outcome, Answer):
        return InvocationStatus.FAILED if outcome.is_error else InvocationStatus.SUCCEEDED
    return InvocationStatus.TIMED_OUT if outcome.status == "timeout" else InvocationStatus.FAILED


def _for_request(answer: Answer, request_id: str) -> Answer:
    """Name the request in an error that came about without knowing it."""
    try:
        body = json.loads(answer.payload)
    except ValueError:
        return answer
    if not isinstance(body, dict):
        return answer
    if str(body.get("errorMessage", "")).startswith("Error: "):
        body["errorMessage"] = f"RequestId: {request_id} {body['errorMessage']}"
        return Answer(json.dumps(body).encode(), answer.is_error)
    return Answer(json.dumps({**body, "requestId": request_id}).encode(), answer.is_error)
