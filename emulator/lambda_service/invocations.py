"""Invocations: admission, a warm or cold sandbox, the handler's time, the answer and the log lines."""

import asyncio
import json
import math
import signal
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from emulator import limits, log_lines
from emulator.errors import ApiError
from emulator.lambda_service.environment import function_environment
from emulator.lambda_service.functions import Function, FunctionRegistry
from emulator.lambda_service.runtime_api import Answer, Invocation, RuntimeApi, error_payload
from emulator.lambda_service.sandbox_log import LogSink, SandboxLog
from emulator.sandboxes.base import Sandbox, SandboxExit, SandboxFactory, SandboxSpec


@dataclass(frozen=True)
class InvocationResult:
    """What the caller of Invoke gets.

    Parameters
    ----------
    request_id
        The invocation's id.
    payload
        JSON: what the handler returned, or the error.
    is_error
        True when the function did not succeed.
    log_tail
        The last 4 KB of its log.
    """

    request_id: str
    payload: bytes
    is_error: bool
    log_tail: bytes


@dataclass(frozen=True)
class _Outcome:
    answer: Answer
    status: str | None = None
    error_type: str | None = None
    log_line: str | None = None


@dataclass(frozen=True)
class _Environment:
    """A sandbox with what belongs to it."""

    function: Function
    sandbox: Sandbox
    runtime: RuntimeApi
    log: SandboxLog


class LambdaService:
    """Runs functions.

    Parameters
    ----------
    functions
        The functions that exist.
    sandboxes
        Where they run.
    sink
        Where their logs go.
    endpoint_url
        The AWS endpoint that functions see.
    """

    def __init__(
        self, functions: FunctionRegistry, sandboxes: SandboxFactory, sink: LogSink, endpoint_url: str
    ) -> None:
        self._functions = functions
        self._sandboxes = sandboxes
        self._sink = sink
        self._endpoint_url = endpoint_url
        self._idle: dict[str, list[_Environment]] = {}
        self._running = 0

    async def invoke(self, reference: str, payload: bytes) -> InvocationResult:
        """Run a function once and wait for its end.

        Parameters
        ----------
        reference
            The function's name or ARN.
        payload
            The event, JSON; empty for ``{}``.

        Raises
        ------
        ApiError
            When the call is refused: no such function, payload too large or no JSON, too many at once.
        """
        function = self._functions.get(reference)
        event = _checked_event(payload)
        if self._running >= limits.CONCURRENT_EXECUTIONS:
            raise ApiError(
                "TooManyRequestsException",
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Rate Exceeded: {limits.CONCURRENT_EXECUTIONS} executions are running, the account's limit",
            )
        self._running += 1
        try:
            return await self._run(function, event)
        finally:
            self._running -= 1

    async def discard(self, function: Function) -> None:
        """End the warm sandboxes of a function that is gone."""
        for environment in self._idle.pop(function.revision_id, []):
            await self._end(environment)

    async def close(self) -> None:
        """End every warm sandbox."""
        for environments in self._idle.values():
            for environment in environments:
                await self._end(environment)
        self._idle.clear()

    async def _run(self, function: Function, event: bytes) -> InvocationResult:
        request_id = str(uuid.uuid4())
        environment = self._take_warm(function)
        init_ms = None
        if environment is None:
            began = time.perf_counter()
            environment = await self._cold_start(function)
            init_ms = (time.perf_counter() - began) * 1000
        log = environment.log
        log.start_tail()
        log.write_line(log_lines.start_line(request_id))
        began = time.perf_counter()
        outcome = await _handle(environment, request_id, event)
        duration_ms = (time.perf_counter() - began) * 1000
        environment.sandbox.drain_output()
        peak_bytes = environment.sandbox.peak_memory()
        if outcome.log_line is not None:
            log.write_line(outcome.log_line)
        log.write_line(log_lines.end_line(request_id))
        report = log_lines.Report(
            request_id,
            duration_ms,
            function.spec.memory_mb,
            min(function.spec.memory_mb, math.ceil(peak_bytes / limits.MIB)),
            init_ms,
            outcome.status,
            outcome.error_type,
        )
        log.write_line(report.line())
        if outcome.status is None and not environment.sandbox.exited.done():
            self._idle.setdefault(function.revision_id, []).append(environment)
        else:
            await self._end(environment)
        return InvocationResult(request_id, outcome.answer.payload, outcome.answer.is_error, log.tail())

    def _take_warm(self, function: Function) -> _Environment | None:
        warm = self._idle.get(function.revision_id, [])
        while warm:
            environment = warm.pop()
            if not environment.sandbox.exited.done():
                return environment
        return None

    async def _cold_start(self, function: Function) -> _Environment:
        runtime = RuntimeApi()
        address = await runtime.start()
        stream = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}"
        group = f"/aws/lambda/{function.spec.name}"
        log = SandboxLog(self._sink, group, stream)
        spec = SandboxSpec(
            sandbox_id=uuid.uuid4().hex,
            environment=function_environment(function, group, stream, address, self._endpoint_url),
            task_root=function.code_root,
            memory_bytes=function.spec.memory_mb * limits.MIB,
            ephemeral_storage_bytes=function.spec.ephemeral_storage_mb * limits.MIB,
        )
        sandbox = await self._sandboxes.create(spec, log.write)
        # An init that takes longer goes on within the invocation's time, as on AWS.
        await _first(runtime.ready, sandbox.exited, limits.INIT_S)
        return _Environment(function, sandbox, runtime, log)

    async def _end(self, environment: _Environment) -> None:
        environment.sandbox.kill()
        await environment.sandbox.exited
        await environment.runtime.close()


async def _handle(environment: _Environment, request_id: str, event: bytes) -> _Outcome:
    """Give the sandbox the event and wait for its answer, its end or the timeout."""
    runtime, sandbox, timeout = environment.runtime, environment.sandbox, environment.function.spec.timeout_s
    if not runtime.ready.done() or runtime.ready.result() is None:
        deadline_ms = int((time.time() + timeout) * 1000)
        answer = runtime.send(Invocation(request_id, event, environment.function.arn, deadline_ms))
        await _first(answer, sandbox.exited, timeout)
        if answer.done():
            return _Outcome(answer.result())
    if runtime.ready.done() and (failed_init := runtime.ready.result()) is not None:
        await sandbox.exited
        return _Outcome(_with_request_id(failed_init, request_id), "error", "Runtime.InitError")
    if sandbox.exited.done():
        return _exit_outcome(request_id, sandbox.exited.result())
    sandbox.kill()
    await sandbox.exited
    message = f"Task timed out after {timeout:.2f} seconds"
    return _Outcome(
        Answer(error_payload("", "Sandbox.Timedout", f"RequestId: {request_id} Error: {message}"), is_error=True),
        "timeout",
        log_line=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z {request_id} {message}",
    )


async def _first(one: "asyncio.Future[Any]", other: "asyncio.Future[Any]", timeout_s: float) -> None:
    await asyncio.wait({one, other}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _exit_outcome(request_id: str, end: SandboxExit) -> _Outcome:
    if end.signal is not None:
        reason = f"signal: {(signal.strsignal(end.signal) or str(end.signal)).lower()}"
    else:
        reason = f"exit status {end.exit_status}"
    message = f"RequestId: {request_id} Error: Runtime exited with error: {reason}"
    kind = "Runtime.OutOfMemory" if end.out_of_memory else "Runtime.ExitError"
    return _Outcome(
        Answer(error_payload("", "Runtime.ExitError", message), is_error=True),
        "error",
        kind,
        f"{message}\nRuntime.ExitError",
    )


def _with_request_id(answer: Answer, request_id: str) -> Answer:
    body = json.loads(answer.payload)
    return Answer(json.dumps({**body, "requestId": request_id}).encode(), answer.is_error)


def _checked_event(payload: bytes) -> bytes:
    if len(payload) > limits.SYNC_PAYLOAD_BYTES:
        raise ApiError(
            "RequestTooLargeException",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{len(payload)} byte payload is too large for the RequestResponse invocation type "
            f"(limit {limits.SYNC_PAYLOAD_BYTES} bytes)",
        )
    try:
        json.loads(payload or b"{}")
    except ValueError as error:
        raise ApiError(
            "InvalidRequestContentException",
            HTTPStatus.BAD_REQUEST,
            f"Could not parse request body into json: {error}",
        ) from None
    return payload or b"{}"
