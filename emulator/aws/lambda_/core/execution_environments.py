"""Execution environments: a sandbox with its runtime API and its log, from the init phase to the end.

The init phase has the limits that AWS sets: ten seconds at most; after a failure the phase runs once more within the
time of the invocation that waits for it. https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

import asyncio
import json
import math
import signal
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from emulator.aws import limits
from emulator.aws.lambda_ import log_lines
from emulator.aws.lambda_.core.history import InvocationStatus, Recording, error_type_of
from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.runtime_api import Answer, Invocation, RuntimeApi, error_payload
from emulator.aws.lambda_.core.runtimes import (
    InvalidEntrypointError,
    function_environment,
    runtime_command,
    runtime_version,
)
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.aws.lambda_.log_lines import InitReport, LogSink, SandboxLog, init_start_line
from emulator.aws.sandboxes.base import Sandbox, SandboxExit, SandboxFactory, SandboxSpec

# A rank tells the others of its failure before it logs it; one of them may be heard of first.
_LAST_WORD_S = 0.25


@dataclass(frozen=True)
class ExecutionEnvironment:
    """A sandbox with what belongs to it."""

    function: Function
    sandbox: Sandbox
    runtime: RuntimeApi
    log: SandboxLog


@dataclass(frozen=True)
class Failure:
    """Why an environment cannot be used (any more).

    Parameters
    ----------
    status
        For the REPORT line: ``error`` or ``timeout``.
    error_type
        For that line, too; None for a timeout.
    answer
        What the invocation's caller gets.
    peak_memory_bytes
        The most memory the sandbox has had, bytes.
    log_line
        For the log, when the runtime did not say the reason itself.
    """

    status: str
    error_type: str | None
    answer: Answer
    peak_memory_bytes: int = 0
    log_line: str | None = None


async def first_of(one: "asyncio.Future[Any]", other: "asyncio.Future[Any]", timeout_s: float) -> None:
    """Wait until one of two futures is done, or for the time given."""
    await asyncio.wait({one, other}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


class Environments:
    """Makes environments and ends them.

    Parameters
    ----------
    sandboxes
        Where functions run.
    sink
        Where their logs go.
    endpoint_url
        The AWS endpoint that functions see.
    settings
        The runtime client, the longest init phase and the times of cold starts.
    """

    def __init__(self, sandboxes: SandboxFactory, sink: LogSink, endpoint_url: str, settings: LambdaSettings) -> None:
        self._sandboxes = sandboxes
        self._sink = sink
        self._endpoint_url = endpoint_url
        self._settings = settings

    async def cold_start(self, function: Function) -> tuple[ExecutionEnvironment | Failure, SandboxLog, float]:
        """Bring up an environment, and take as long as a cold start is to take.

        Returns
        -------
        environment
            Ready for its first event; or why it could not be brought up, which the log says, too.
        log
            Its log stream.
        init_ms
            How long it took, ms.
        """
        began = time.perf_counter()
        log = self._open_log(function)
        ready = await self.initialize(function, log, "init", self._settings.init_s)
        if isinstance(ready, ExecutionEnvironment) and self._settings.cold_starts is not None:
            wanted_s = self._settings.cold_starts.draw_s(function.spec.memory_mb)
            try:
                await asyncio.sleep(max(0.0, wanted_s - (time.perf_counter() - began)))
            except asyncio.CancelledError:
                await asyncio.shield(self.end(ready))
                raise
        return ready, log, (time.perf_counter() - began) * 1000

    async def initialize(
        self, function: Function, log: SandboxLog, phase: str, longest_s: float
    ) -> ExecutionEnvironment | Failure:
        """Start a sandbox and wait until it asks for its first event; a failure is logged.

        Parameters
        ----------
        function
            What runs in it.
        log
            Gets its output.
        phase
            For the log: ``init``, or ``invoke`` when an invocation's time is running.
        longest_s
            When to give up, seconds.
        """
        began = time.perf_counter()
        failure: Failure | None = None
        try:
            environment = await self._start(function, log)
            try:
                await first_of(environment.runtime.ready, environment.sandbox.exited, longest_s)
            except asyncio.CancelledError:
                await asyncio.shield(self.end(environment))
                raise
            failure = await self._failure(environment, longest_s)
        except InvalidEntrypointError as error:
            payload = error_payload("", "Runtime.InvalidEntrypoint", f"Error: {error}")
            failure = Failure("error", "Runtime.InvalidEntrypoint", Answer(payload, is_error=True))
        if failure is None:
            environment.sandbox.init_done()
            return environment
        init_ms = (time.perf_counter() - began) * 1000
        log.write_line(InitReport(init_ms, phase, failure.status, failure.error_type).line())
        return failure

    async def end(self, environment: ExecutionEnvironment) -> None:
        """End an environment and wait until it is gone."""
        environment.sandbox.kill()
        await environment.sandbox.exited
        await environment.runtime.close()

    def _open_log(self, function: Function) -> SandboxLog:
        stream = f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{uuid.uuid4().hex}"
        log = SandboxLog(self._sink, f"/aws/lambda/{function.spec.name}", stream)
        log.write_line(init_start_line(runtime_version(function)))
        return log

    async def _start(self, function: Function, log: SandboxLog) -> ExecutionEnvironment:
        command = runtime_command(function, self._settings.runtime_client)
        runtime = RuntimeApi()
        address = await runtime.start()
        spec = SandboxSpec(
            sandbox_id=uuid.uuid4().hex,
            environment=function_environment(function, log.group, log.stream, address, self._endpoint_url),
            task_root=function.code_root,
            memory_bytes=function.spec.memory_mb * limits.MIB,
            ephemeral_storage_bytes=function.spec.ephemeral_storage_mb * limits.MIB,
            vcpus=function.spec.memory_mb / limits.MB_PER_VCPU,
            command=command,
        )
        try:
            sandbox = await self._sandboxes.create(spec, log.write)
        except BaseException:
            await runtime.close()
            raise
        return ExecutionEnvironment(function, sandbox, runtime, log)

    async def _failure(self, environment: ExecutionEnvironment, longest_s: float) -> Failure | None:
        """Tell why an environment that was waited for is not ready, and end it; None when it is ready."""
        ready, exited = environment.runtime.ready, environment.sandbox.exited
        if ready.done() and ready.result() is None:
            return None
        timed_out = not ready.done() and not exited.done()
        await self.end(environment)
        if timed_out:
            return timeout_failure(longest_s, exited.result().peak_memory_bytes)
        if ready.done() and (reported := ready.result()) is not None:
            kind = error_type_of(reported.payload) or "Runtime.Unknown"
            return Failure("error", kind, reported, exited.result().peak_memory_bytes)
        return exit_failure(exited.result())


def timeout_failure(timeout_s: float, peak_memory_bytes: int) -> Failure:
    """Return what it means that a function did not end in time."""
    message = f"Task timed out after {timeout_s:.2f} seconds"
    answer = Answer(error_payload("", "Sandbox.Timedout", f"Error: {message}"), is_error=True)
    return Failure("timeout", None, answer, peak_memory_bytes, message)


def exit_failure(end: SandboxExit) -> Failure:
    """Return what it means that a function's process has ended."""
    if end.signal is not None:
        reason = f"signal: {(signal.strsignal(end.signal) or str(end.signal)).lower()}"
    else:
        reason = f"exit status {end.exit_status}"
    kind = "Runtime.OutOfMemory" if end.out_of_memory else "Runtime.ExitError"
    message = f"Error: Runtime exited with error: {reason}"
    answer = Answer(error_payload("", "Runtime.ExitError", message), is_error=True)
    return Failure("error", kind, answer, end.peak_memory_bytes, f"{message}\nRuntime.ExitError")


class WarmPool:
    """The execution environments that wait for an invocation.

    Parameters
    ----------
    environments
        Ends them.
    idle_s
        How long an environment is kept without an invocation, seconds.
    """

    def __init__(self, environments: Environments, idle_s: float) -> None:
        self._environments = environments
        self._idle_s = idle_s
        self._idle: defaultdict[str, list[tuple[ExecutionEnvironment, asyncio.TimerHandle]]] = defaultdict(list)
        self._ending: set[asyncio.Task[None]] = set()
        self._discarded: set[str] = set()

    def take(self, function: Function) -> ExecutionEnvironment | None:
        """Return the function's environment that was used last, or None when there is none."""
        warm = self._idle[function.revision_id]
        while warm:
            environment, expiry = warm.pop()
            expiry.cancel()
            if not environment.sandbox.exited.done():
                return environment
            self._end_soon(environment)
        return None

    def put_back(self, environment: ExecutionEnvironment) -> None:
        """Keep an environment for the function's next invocation, unless the function has changed meanwhile."""
        if environment.function.revision_id in self._discarded:
            self._end_soon(environment)
            return
        expiry = asyncio.get_running_loop().call_later(self._idle_s, self._expire, environment)
        self._idle[environment.function.revision_id].append((environment, expiry))

    async def discard(self, function: Function) -> None:
        """End the environments of a function that has changed or is gone, once they wait."""
        self._discarded.add(function.revision_id)
        waiting = self._idle.pop(function.revision_id, [])
        for _, expiry in waiting:
            expiry.cancel()
        await asyncio.gather(*(self._environments.end(environment) for environment, _ in waiting))

    async def close(self) -> None:
        """End every waiting environment."""
        waiting = [entry for entries in self._idle.values() for entry in entries]
        self._idle.clear()
        for _, expiry in waiting:
            expiry.cancel()
        await asyncio.gather(*self._ending, *(self._environments.end(environment) for environment, _ in waiting))

    def _expire(self, environment: ExecutionEnvironment) -> None:
        waiting = self._idle[environment.function.revision_id]
        waiting[:] = [entry for entry in waiting if entry[0] is not environment]
        self._end_soon(environment)

    def _end_soon(self, environment: ExecutionEnvironment) -> None:
        task = asyncio.ensure_future(self._environments.end(environment))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


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
