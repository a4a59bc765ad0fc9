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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from emulator.aws import limits
from emulator.aws.lambda_ import log_lines
from emulator.aws.lambda_.core.function_registry import Target
from emulator.aws.lambda_.core.history import InvocationRecorder, InvocationStatus, error_type_of
from emulator.aws.lambda_.core.interpreters import find_interpreter
from emulator.aws.lambda_.core.layers import merged_layers
from emulator.aws.lambda_.core.models import Function, runtime_version_arn
from emulator.aws.lambda_.core.runtime_api import Invocation, RuntimeApi, RuntimeResponse, error_payload
from emulator.aws.lambda_.core.runtimes import (
    container_image,
    function_environment,
    runtime_command,
    runtime_version,
    uses_own_client,
)
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.aws.lambda_.log_lines import InitReport, LogSink, SandboxLog, init_start_line
from emulator.aws.sandboxes.base import (
    InvalidEntrypointError,
    Sandbox,
    SandboxExit,
    SandboxFactory,
    SandboxSpec,
)
from emulator.errors import TooManyOpenFilesError, is_too_many_open_files, require_free_files

# How long a cancelled invocation may still write to its log. A process may report a failure to its peers before it logs
# it: the invocation that failed first may be cancelled before its log has the reason.
_CANCEL_GRACE_S = 0.25
# Until its runtime client has connected: the runtime API, both ends of a pipe, the connection. A sandbox that started
# without room for the last would wait for it in vain.
_FILES_TO_START = 4


@dataclass(frozen=True)
class ExecutionEnvironment:
    """A sandbox with its function, runtime API and log.

    Parameters
    ----------
    provisioned
        Whether it belongs to a function's provisioned concurrency: such a one is kept while it is idle.
    """

    function: Function
    sandbox: Sandbox
    runtime: RuntimeApi
    log: SandboxLog
    provisioned: bool = False


@dataclass(frozen=True)
class EnvironmentFailure:
    """Why an environment cannot be used.

    Parameters
    ----------
    status
        For the REPORT line: ``error`` or ``timeout``.
    error_type
        For the REPORT line; None for a timeout.
    response
        The response to the caller of the invocation.
    peak_memory_bytes
        Peak resident memory of the sandbox, bytes.
    log_line
        A line for the log; None when the runtime has logged the reason itself.
    """

    status: str
    error_type: str | None
    response: RuntimeResponse
    peak_memory_bytes: int = 0
    log_line: str | None = None


async def _first_of(one: "asyncio.Future[Any]", other: "asyncio.Future[Any]", timeout_s: float) -> None:
    """Wait until one of two futures is done or the time is up; `timeout_s` is in seconds."""
    await asyncio.wait({one, other}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


class ExecutionEnvironments:
    """Creates and ends execution environments.

    Parameters
    ----------
    sandboxes
        Creates the sandboxes of archives.
    containers
        Creates the sandboxes of images.
    sink
        Receives the log lines.
    endpoint_url_at
        Returns the functions' ``AWS_ENDPOINT_URL``, given the address under which they reach this machine.
    settings
        The runtime client, the limit of the init phase and the durations of cold starts.
    """

    def __init__(
        self,
        sandboxes: SandboxFactory,
        containers: SandboxFactory,
        sink: LogSink,
        endpoint_url_at: Callable[[str], Awaitable[str]],
        settings: LambdaSettings,
    ) -> None:
        self._sandboxes = sandboxes
        self._containers = containers
        self._sink = sink
        self._endpoint_url_at = endpoint_url_at
        self._settings = settings
        self._starting = 0

    async def cold_start(
        self, function: Function
    ) -> tuple[ExecutionEnvironment | EnvironmentFailure, SandboxLog, float]:
        """Create an environment; the call lasts as long as the configured duration of a cold start.

        Returns
        -------
        environment
            Ready for its first event, or the reason of the failure, which is logged, too.
        log
            Its log stream.
        init_ms
            Duration of the cold start, ms.
        """
        began = time.perf_counter()
        log = await self._open_log(function)
        ready = await self.initialize(function, log, "init", self._settings.init_s)
        if isinstance(ready, ExecutionEnvironment) and self._settings.cold_starts is not None:
            wanted_s = self._settings.cold_starts.draw_s(function.spec.memory_mb)
            try:
                await asyncio.sleep(max(0.0, wanted_s - (time.perf_counter() - began)))
            except asyncio.CancelledError:
                await asyncio.shield(self.end(ready))
                raise
        return ready, log, (time.perf_counter() - began) * 1000

    async def provision(self, function: Function) -> ExecutionEnvironment | EnvironmentFailure:
        """Create an environment of a function's provisioned concurrency."""
        log = await self._open_log(function)
        return await self.initialize(function, log, "init", self._settings.init_s, provisioned=True)

    async def initialize(
        self, function: Function, log: SandboxLog, phase: str, timeout_s: float, *, provisioned: bool = False
    ) -> ExecutionEnvironment | EnvironmentFailure:
        """Start a sandbox and wait until it polls for its first event; a failure is logged.

        Parameters
        ----------
        function
            The function that runs in it.
        log
            Receives its output.
        phase
            For the log: ``init``, or ``invoke`` within the time of an invocation.
        timeout_s
            Limit of the init phase, seconds.
        provisioned
            Whether it belongs to the function's provisioned concurrency.
        """
        began = time.perf_counter()
        failure: EnvironmentFailure | None = None
        self._starting += 1
        try:
            environment = await self._start(function, log, provisioned=provisioned)
            try:
                await _first_of(environment.runtime.ready, environment.sandbox.exited, timeout_s)
            except asyncio.CancelledError:
                await asyncio.shield(self.end(environment))
                raise
            failure = await self._failure(environment, timeout_s)
        except InvalidEntrypointError as error:
            payload = error_payload("", "Runtime.InvalidEntrypoint", f"Error: {error}")
            failure = EnvironmentFailure("error", "Runtime.InvalidEntrypoint", RuntimeResponse(payload, is_error=True))
        finally:
            self._starting -= 1
        if failure is None:
            environment.sandbox.init_done()
            return environment
        init_ms = (time.perf_counter() - began) * 1000
        log.write_lines(InitReport(init_ms, phase, failure.status, failure.error_type).line())
        return failure

    async def end(self, environment: ExecutionEnvironment) -> None:
        """End an environment and wait until its process has ended."""
        # A frozen sandbox would not end.
        environment.runtime.when_idle(None)
        environment.sandbox.kill()
        await environment.sandbox.exited
        await environment.runtime.close()

    async def _open_log(self, function: Function) -> SandboxLog:
        stream = f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{uuid.uuid4().hex}"
        log = SandboxLog(self._sink, function.spec.account.region, function.spec.log_group, stream)
        interpreter = await find_interpreter(function.spec.runtime)
        if (version := runtime_version(function, interpreter)) is not None:
            log.write_lines(init_start_line(version, runtime_version_arn(function.spec)))
        return log

    async def _start(self, function: Function, log: SandboxLog, *, provisioned: bool) -> ExecutionEnvironment:
        """Start a sandbox; raise `SandboxError` when it cannot be started."""
        try:
            require_free_files(_FILES_TO_START * self._starting)
            return await self._start_with_files(function, log, provisioned=provisioned)
        except OSError as error:
            if is_too_many_open_files(error):
                raise TooManyOpenFilesError from error
            raise

    async def _start_with_files(
        self, function: Function, log: SandboxLog, *, provisioned: bool
    ) -> ExecutionEnvironment:
        image = container_image(function)
        factory = self._sandboxes if image is None else self._containers
        place = await factory.place()
        opt_root = merged_layers(function.spec.layers)
        interpreter = await find_interpreter(function.spec.runtime)
        command = () if image else runtime_command(function, self._settings, opt_root, place, interpreter)
        endpoint_url = await self._endpoint_url_at(place.address)
        runtime = RuntimeApi()
        has_own_client = uses_own_client(function, self._settings.runtime_client, place)
        address = await runtime.start(place.address, secret_path=has_own_client)
        spec = SandboxSpec(
            sandbox_id=uuid.uuid4().hex,
            environment=function_environment(
                function, log, address, endpoint_url, self._settings, place, provisioned=provisioned
            ),
            task_root=function.package.root,
            memory_bytes=function.spec.memory_mb * limits.MIB,
            ephemeral_storage_bytes=function.spec.ephemeral_storage_mb * limits.MIB,
            vcpus=function.spec.memory_mb / limits.MB_PER_VCPU,
            command=command,
            opt_root=opt_root,
            language_root=None if interpreter is None or interpreter.is_own else interpreter.root,
            image=image,
        )
        try:
            sandbox = await factory.create(spec, log.write)
        except BaseException:
            await runtime.close()
            raise
        return ExecutionEnvironment(function, sandbox, runtime, log, provisioned)

    async def _failure(self, environment: ExecutionEnvironment, timeout_s: float) -> EnvironmentFailure | None:
        """Return why an environment is not ready, and end it; None when it is ready."""
        ready, exited = environment.runtime.ready, environment.sandbox.exited
        if ready.done() and ready.result() is None:
            return None
        timed_out = not ready.done() and not exited.done()
        await self.end(environment)
        if timed_out:
            return _timeout_failure(timeout_s, exited.result().peak_memory_bytes)
        if ready.done() and (reported := ready.result()) is not None:
            kind = error_type_of(reported.payload) or "Runtime.Unknown"
            return EnvironmentFailure("error", kind, reported, exited.result().peak_memory_bytes)
        return _exit_failure(exited.result())


def _timeout_failure(timeout_s: float, peak_memory_bytes: int) -> EnvironmentFailure:
    """Return the failure of a function that has timed out."""
    message = f"Task timed out after {timeout_s:.2f} seconds"
    response = RuntimeResponse(error_payload("", "Sandbox.Timedout", f"Error: {message}"), is_error=True)
    return EnvironmentFailure("timeout", None, response, peak_memory_bytes, message)


def _exit_failure(end: SandboxExit) -> EnvironmentFailure:
    """Return the failure of a function whose process has ended."""
    if end.reason is not None:
        reason = end.reason
    elif end.signal is not None:
        reason = f"signal: {(signal.strsignal(end.signal) or str(end.signal)).lower()}"
    else:
        reason = f"exit status {end.exit_status}"
    kind = "Runtime.OutOfMemory" if end.out_of_memory else "Runtime.ExitError"
    message = f"Error: Runtime exited with error: {reason}"
    response = RuntimeResponse(error_payload("", "Runtime.ExitError", message), is_error=True)
    return EnvironmentFailure("error", kind, response, end.peak_memory_bytes, f"{message}\nRuntime.ExitError")


class WarmPool:
    """The idle execution environments, by function.

    Parameters
    ----------
    environments
        Ends the environments.
    idle_s
        How long an idle environment is kept, seconds.
    """

    def __init__(self, environments: ExecutionEnvironments, idle_s: float) -> None:
        self._environments = environments
        self._idle_s = idle_s
        self._idle: defaultdict[str, list[tuple[ExecutionEnvironment, asyncio.TimerHandle | None]]] = defaultdict(list)
        self._ending: set[asyncio.Task[None]] = set()
        self._discarded: set[str] = set()

    def take(self, function: Function) -> ExecutionEnvironment | None:
        """Return the most recently used environment of the function, or None."""
        warm = self._idle[function.state_id]
        while warm:
            environment, expiry = warm.pop()
            if expiry is not None:
                expiry.cancel()
            if not environment.sandbox.exited.done():
                environment.runtime.when_idle(None)
                return environment
            self._end_soon(environment)
        return None

    def put_back(self, environment: ExecutionEnvironment) -> None:
        """Keep an environment for the function's next invocation, unless the function has changed since."""
        if environment.function.state_id in self._discarded:
            self._end_soon(environment)
            return
        environment.runtime.when_idle(environment.sandbox.suspend)
        expiry = None
        if not environment.provisioned:
            expiry = asyncio.get_running_loop().call_later(self._idle_s, self._expire, environment)
        self._idle[environment.function.state_id].append((environment, expiry))

    async def discard(self, function: Function) -> None:
        """End the environments of a changed or deleted function: idle ones now, the others when they become idle."""
        self._discarded.add(function.state_id)
        await self._end_all(self._idle.pop(function.state_id, []))

    async def end_provisioned(self, function: Function) -> None:
        """End the idle environments of a function's provisioned concurrency."""
        idle = self._idle[function.state_id]
        provisioned = [entry for entry in idle if entry[0].provisioned]
        idle[:] = [entry for entry in idle if not entry[0].provisioned]
        await self._end_all(provisioned)

    async def end_longest_idle(self) -> bool:
        """End the environment that has been idle for the longest time; return False if none is idle.

        Provisioned ones are kept.
        """
        expiries = [
            (expiry.when(), kept, entry) for kept in self._idle.values() for entry in kept if (expiry := entry[1])
        ]
        if not expiries:
            return False
        _, kept, longest = min(expiries, key=lambda found: found[0])
        kept.remove(longest)
        await self._end_all([longest])
        return True

    async def close(self) -> None:
        """End every idle environment."""
        waiting = [entry for entries in self._idle.values() for entry in entries]
        self._idle.clear()
        await asyncio.gather(*self._ending, self._end_all(waiting))

    async def _end_all(self, waiting: list[tuple[ExecutionEnvironment, asyncio.TimerHandle | None]]) -> None:
        for _, expiry in waiting:
            if expiry is not None:
                expiry.cancel()
        await asyncio.gather(*(self._environments.end(environment) for environment, _ in waiting))

    def _expire(self, environment: ExecutionEnvironment) -> None:
        waiting = self._idle[environment.function.state_id]
        waiting[:] = [entry for entry in waiting if entry[0] is not environment]
        self._end_soon(environment)

    def _end_soon(self, environment: ExecutionEnvironment) -> None:
        task = asyncio.ensure_future(self._environments.end(environment))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class InvocationRunner:
    """Runs invocations in execution environments and writes Lambda's log lines.

    Parameters
    ----------
    environments
        Creates environments.
    pool
        Keeps them between invocations.
    """

    def __init__(self, environments: ExecutionEnvironments, pool: WarmPool) -> None:
        self._environments = environments
        self._pool = pool

    async def run(
        self, target: Target, event: bytes, client_context: str, recorder: InvocationRecorder
    ) -> tuple[RuntimeResponse, bytes]:
        """Run a function once. Cancelling this call ends the sandbox.

        Parameters
        ----------
        target
            The function to run, and the ARN that was invoked.
        event
            JSON.
        client_context
            JSON for the context of the handler; empty if there is none.
        recorder
            Records the start and the end.

        Returns
        -------
        response
            For the caller of the invocation.
        log_tail
            The last 4 KB of its log.
        """
        function = target.function
        ready: ExecutionEnvironment | EnvironmentFailure | None = self._pool.take(function)
        init_ms = None
        if isinstance(ready, ExecutionEnvironment):
            log = ready.log
            await ready.sandbox.resume()
        else:
            ready, log, init_ms = await self._cold_start(function)
        recorder.mark_started(log.group, log.stream, init_ms)
        log.start_tail()
        request_id = recorder.record.request_id
        began = time.perf_counter()
        timeout_s = float(function.spec.timeout_s)
        if isinstance(ready, EnvironmentFailure):
            # As on AWS, the second try counts into the invocation's time, and REPORT has no Init Duration.
            init_ms = None
            ready = await self._environments.initialize(function, log, "invoke", timeout_s)
        log.write_lines(log_lines.start_line(request_id, function.version))
        if isinstance(ready, ExecutionEnvironment):
            invocation = Invocation(request_id, event, target.arn, client_context)
            outcome = await self._run_event(ready, invocation, began + timeout_s)
        else:
            outcome = ready
        duration_ms = (time.perf_counter() - began) * 1000
        peak_bytes = ready.sandbox.peak_memory() if isinstance(ready, ExecutionEnvironment) else ready.peak_memory_bytes
        report = _report(function, request_id, peak_bytes, outcome, duration_ms, init_ms)
        _log_end(log, outcome, report)
        if isinstance(ready, ExecutionEnvironment):
            await self._keep_or_end(ready, outcome)
        response = outcome if isinstance(outcome, RuntimeResponse) else _with_request_id(outcome.response, request_id)
        error_type = error_type_of(response.payload) if response.is_error else None
        recorder.mark_ended(_status_of(outcome), report, error_type)
        return response, log.tail()

    async def _cold_start(
        self, function: Function
    ) -> tuple[ExecutionEnvironment | EnvironmentFailure, SandboxLog, float]:
        """Create an environment; idle ones, which keep files open, give way to it."""
        while True:
            try:
                return await self._environments.cold_start(function)
            except TooManyOpenFilesError:
                if not await self._pool.end_longest_idle():
                    raise

    async def _run_event(
        self, environment: ExecutionEnvironment, invocation: Invocation, deadline: float
    ) -> RuntimeResponse | EnvironmentFailure:
        """Send the sandbox an event; wait for its response, its exit or the deadline (of `time.perf_counter`)."""
        sandbox, timeout_s = environment.sandbox, environment.function.spec.timeout_s
        left_s = max(0.0, deadline - time.perf_counter())
        deadline_ms = int((time.time() + left_s) * 1000)
        response = environment.runtime.send(invocation, deadline_ms)
        try:
            await _first_of(response, sandbox.exited, left_s)
        except asyncio.CancelledError:
            # The caller has cancelled the invocation: end its processes, but keep what they have written.
            await asyncio.shield(_first_of(response, sandbox.exited, _CANCEL_GRACE_S))
            await asyncio.shield(sandbox.drain_output())
            await asyncio.shield(self._environments.end(environment))
            raise
        await sandbox.drain_output()
        if response.done():
            return response.result()
        if sandbox.exited.done():
            return _exit_failure(sandbox.exited.result())
        sandbox.kill()
        end = await sandbox.exited
        return _timeout_failure(timeout_s, end.peak_memory_bytes)

    async def _keep_or_end(
        self, environment: ExecutionEnvironment, outcome: RuntimeResponse | EnvironmentFailure
    ) -> None:
        if isinstance(outcome, RuntimeResponse) and not environment.sandbox.exited.done():
            self._pool.put_back(environment)
        else:
            await self._environments.end(environment)


def _report(
    function: Function,
    request_id: str,
    peak_bytes: int,
    outcome: RuntimeResponse | EnvironmentFailure,
    duration_ms: float,
    init_ms: float | None,
) -> log_lines.Report:
    failure = outcome if isinstance(outcome, EnvironmentFailure) else None
    return log_lines.Report(
        request_id,
        duration_ms,
        function.spec.memory_mb,
        min(function.spec.memory_mb, math.ceil(peak_bytes / limits.MIB)),
        init_ms,
        failure.status if failure else None,
        failure.error_type if failure else None,
    )


def _log_end(log: SandboxLog, outcome: RuntimeResponse | EnvironmentFailure, report: log_lines.Report) -> None:
    lines = [log_lines.end_line(report.request_id), report.line()]
    if isinstance(outcome, EnvironmentFailure) and outcome.log_line is not None:
        if outcome.status == "timeout":
            stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3]
            lines.insert(0, f"{stamp}Z {report.request_id} {outcome.log_line}")
        else:
            lines.insert(0, f"RequestId: {report.request_id} {outcome.log_line}")
    log.write_lines(*lines)


def _status_of(outcome: RuntimeResponse | EnvironmentFailure) -> InvocationStatus:
    if isinstance(outcome, RuntimeResponse):
        return InvocationStatus.FAILED if outcome.is_error else InvocationStatus.SUCCEEDED
    return InvocationStatus.TIMED_OUT if outcome.status == "timeout" else InvocationStatus.FAILED


def _with_request_id(response: RuntimeResponse, request_id: str) -> RuntimeResponse:
    """Add the request id to an error that the platform has created without one; a runtime's own stays as it is."""
    try:
        body = json.loads(response.payload)
    except ValueError:
        return response
    if not isinstance(body, dict) or body.keys() != {"errorType", "errorMessage"}:
        return response
    body["errorMessage"] = f"RequestId: {request_id} {body['errorMessage']}"
    return RuntimeResponse(json.dumps(body).encode(), response.is_error)
