"""Execution environments: a sandbox with its runtime API and its log, and the init phase that brings it up.

The phase as AWS has it: ten seconds at most; if it fails it is tried once more within the time of the invocation that
waits for it. https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

import asyncio
import signal
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from emulator.aws import limits
from emulator.aws.lambda_.core.env_vars import function_environment
from emulator.aws.lambda_.core.history import error_type_of
from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.runtime_api import Answer, RuntimeApi, error_payload
from emulator.aws.lambda_.core.runtimes import InvalidEntrypointError, runtime_command, runtime_version
from emulator.aws.lambda_.core.sandbox_log import LogSink, SandboxLog
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.aws.lambda_.log_lines import InitReport, init_start_line
from emulator.aws.sandboxes.base import Sandbox, SandboxExit, SandboxFactory, SandboxSpec


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
