"""Invocations: admission, a warm or cold environment, the answer and the log lines."""

import asyncio
import json
import math
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http import HTTPStatus

from emulator import limits, log_lines
from emulator.errors import ApiError
from emulator.lambda_service.admission import Admission
from emulator.lambda_service.execution import Outcome, execute
from emulator.lambda_service.function import Function
from emulator.lambda_service.functions import FunctionRegistry
from emulator.lambda_service.history import (
    InvocationHistory,
    InvocationRecord,
    InvocationStatus,
    error_type_of,
    rank_of,
)
from emulator.lambda_service.warm_pool import ExecutionEnvironment, WarmPool

# AWS's longest wait between two tries of a throttled event.
_LONGEST_BACKOFF_S = 300.0


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
    version
        The version that ran.
    """

    request_id: str
    payload: bytes
    is_error: bool
    log_tail: bytes
    version: str


@dataclass(frozen=True)
class _Request:
    """An event that was accepted for a function, and what is remembered of it."""

    function: Function
    event: bytes
    record: InvocationRecord


class LambdaService:
    """Runs functions.

    Parameters
    ----------
    functions
        The functions that exist.
    pool
        Where they run.
    retry_delays_s
        Waits before an event is tried again, seconds; AWS waits one minute and then two.
    """

    def __init__(self, functions: FunctionRegistry, pool: WarmPool, retry_delays_s: Sequence[float]) -> None:
        self._functions = functions
        self._pool = pool
        self._retry_delays_s = retry_delays_s
        self._admission = Admission(functions)
        self._history = InvocationHistory()
        self._events: set[asyncio.Task[None]] = set()

    async def invoke(self, reference: str, qualifier: str | None, payload: bytes) -> InvocationResult:
        """Run a function once and wait for its end; cancelling the call ends the sandbox.

        Parameters
        ----------
        reference
            The function's name or ARN.
        qualifier
            A version or alias, or None.
        payload
            The event, JSON; empty for ``{}``.

        Raises
        ------
        ApiError
            When the call is refused: no such function, payload too large or no JSON, too many at once.
        """
        function = self._functions.get(reference, qualifier)
        request = _request(function, payload, limits.SYNC_PAYLOAD_BYTES, "RequestResponse")
        with ExitStack() as held:
            try:
                held.enter_context(self._admission.admitted(function.spec.name))
            except ApiError as refused:
                throttled = replace(request.record, status=InvocationStatus.THROTTLED, error_type=refused.code)
                self._history.add(replace(throttled, ended=throttled.received))
                raise
            return await self._run(request)

    def enqueue(self, reference: str, qualifier: str | None, payload: bytes) -> str:
        """Accept an event and run the function with it later: again after an error, twice at most, as AWS does.

        Returns
        -------
        str
            The request id, the same for every attempt.

        Raises
        ------
        ApiError
            When the call is refused: no such function, payload too large or no JSON.
        """
        function = self._functions.get(reference, qualifier)
        request = _request(function, payload, limits.ASYNC_PAYLOAD_BYTES, "Event")
        task = asyncio.ensure_future(self._run_event(request))
        self._events.add(task)
        task.add_done_callback(self._events.discard)
        return request.record.request_id

    def recent(self) -> list[InvocationRecord]:
        """Return the latest invocations, running, ended and throttled, oldest first; 10,000 at most."""
        return self._history.recent()

    async def discard(self, function: Function) -> None:
        """End the warm sandboxes of a function that has changed or is gone."""
        await self._pool.discard(function)

    async def close(self) -> None:
        """Drop the events that wait, and end every warm sandbox."""
        for task in self._events:
            task.cancel()
        await asyncio.gather(*self._events, return_exceptions=True)
        await self._pool.close()

    async def _run_event(self, request: _Request) -> None:
        for delay_s in (*self._retry_delays_s, None):
            result = await self._run_when_admitted(request)
            if not result.is_error or delay_s is None:
                return
            await asyncio.sleep(delay_s)

    async def _run_when_admitted(self, request: _Request) -> InvocationResult:
        """Run an event as soon as there is room: a throttled event waits in its queue."""
        backoff_s = 1.0
        while True:
            try:
                with self._admission.admitted(request.function.spec.name):
                    return await self._run(request)
            except ApiError:
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    async def _run(self, request: _Request) -> InvocationResult:
        with self._history.recorded(request.record) as recording:
            environment = self._pool.take(request.function)
            init_ms = None
            if environment is None:
                began = time.perf_counter()
                environment = await self._pool.cold_start(request.function)
                init_ms = (time.perf_counter() - began) * 1000
            recording.began(environment.log.group, environment.log.stream, init_ms)
            outcome, report = await self._run_in(environment, request, init_ms)
            answer = outcome.answer
            recording.ended(_status_of(outcome), report, error_type_of(answer.payload) if answer.is_error else None)
            return InvocationResult(
                report.request_id, answer.payload, answer.is_error, environment.log.tail(), request.function.version
            )

    async def _run_in(
        self, environment: ExecutionEnvironment, request: _Request, init_ms: float | None
    ) -> tuple[Outcome, log_lines.Report]:
        """Let an environment answer an event; write the log lines around it, then keep the environment or end it."""
        request_id, spec, log = request.record.request_id, request.function.spec, environment.log
        log.start_tail()
        log.write_line(log_lines.start_line(request_id, request.function.version))
        began = time.perf_counter()
        try:
            outcome = await execute(environment, request_id, request.event)
        except asyncio.CancelledError:
            # Whoever waited has given the invocation up: nothing of it runs on. What it has written stays: where one
            # rank's failure ends all, this may be the rank that failed first.
            environment.sandbox.drain_output()
            await asyncio.shield(self._pool.end(environment))
            raise
        duration_ms = (time.perf_counter() - began) * 1000
        environment.sandbox.drain_output()
        peak_mb = math.ceil(environment.sandbox.peak_memory() / limits.MIB)
        report = log_lines.Report(
            request_id,
            duration_ms,
            spec.memory_mb,
            min(spec.memory_mb, peak_mb),
            init_ms,
            outcome.status,
            outcome.error_type,
        )
        if outcome.log_line is not None:
            log.write_line(outcome.log_line)
        log.write_line(log_lines.end_line(request_id))
        log.write_line(report.line())
        if outcome.status is None and not environment.sandbox.exited.done():
            self._pool.put_back(environment)
        else:
            await self._pool.end(environment)
        return outcome, report


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _status_of(outcome: Outcome) -> InvocationStatus:
    if outcome.status == "timeout":
        return InvocationStatus.TIMED_OUT
    return InvocationStatus.FAILED if outcome.answer.is_error else InvocationStatus.SUCCEEDED


def _request(function: Function, payload: bytes, limit: int, kind: str) -> _Request:
    """Check that a function can be run, and its event; return what is to be run."""
    function.code_root  # noqa: B018 - an image has none, and says so
    if len(payload) > limit:
        raise ApiError(
            "RequestTooLargeException",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{len(payload)} byte payload is too large for the {kind} invocation type (limit {limit} bytes)",
        )
    try:
        event = json.loads(payload or b"{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(
            "InvalidRequestContentException",
            HTTPStatus.BAD_REQUEST,
            f"Could not parse request body into json: {error}",
        ) from None
    rank, world_size = rank_of(event)
    record = InvocationRecord(
        request_id=str(uuid.uuid4()),
        function=function.spec.name,
        version=function.version,
        memory_mb=function.spec.memory_mb,
        received=time.time(),
        rank=rank,
        world_size=world_size,
    )
    return _Request(function, payload or b"{}", record)
