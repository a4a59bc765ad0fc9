"""Invocations: admission, a warm or cold environment, the answer and the log lines."""

import asyncio
import json
import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from emulator import limits, log_lines
from emulator.errors import ApiError
from emulator.lambda_service.admission import Admission
from emulator.lambda_service.execution import execute
from emulator.lambda_service.functions import Function, FunctionRegistry
from emulator.lambda_service.warm_pool import WarmPool

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
        self._events: set[asyncio.Task[None]] = set()

    async def invoke(self, reference: str, qualifier: str | None, payload: bytes) -> InvocationResult:
        """Run a function once and wait for its end.

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
        event = _checked_event(payload, limits.SYNC_PAYLOAD_BYTES, "RequestResponse")
        with self._admission.admitted(function.spec.name):
            return await self._run(function, event, str(uuid.uuid4()))

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
        event = _checked_event(payload, limits.ASYNC_PAYLOAD_BYTES, "Event")
        request_id = str(uuid.uuid4())
        task = asyncio.ensure_future(self._run_event(function, event, request_id))
        self._events.add(task)
        task.add_done_callback(self._events.discard)
        return request_id

    async def discard(self, function: Function) -> None:
        """End the warm sandboxes of a function that has changed or is gone."""
        await self._pool.discard(function)

    async def close(self) -> None:
        """Drop the events that wait, and end every warm sandbox."""
        for task in self._events:
            task.cancel()
        await asyncio.gather(*self._events, return_exceptions=True)
        await self._pool.close()

    async def _run_event(self, function: Function, event: bytes, request_id: str) -> None:
        for delay_s in (*self._retry_delays_s, None):
            result = await self._run_when_admitted(function, event, request_id)
            if not result.is_error or delay_s is None:
                return
            await asyncio.sleep(delay_s)

    async def _run_when_admitted(self, function: Function, event: bytes, request_id: str) -> InvocationResult:
        """Run an event as soon as there is room: a throttled event waits in its queue."""
        backoff_s = 1.0
        while True:
            try:
                with self._admission.admitted(function.spec.name):
                    return await self._run(function, event, request_id)
            except ApiError:
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    async def _run(self, function: Function, event: bytes, request_id: str) -> InvocationResult:
        environment = self._pool.take(function)
        init_ms = None
        if environment is None:
            began = time.perf_counter()
            environment = await self._pool.cold_start(function)
            init_ms = (time.perf_counter() - began) * 1000
        log = environment.log
        log.start_tail()
        log.write_line(log_lines.start_line(request_id, function.version))
        began = time.perf_counter()
        outcome = await execute(environment, request_id, event)
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
            self._pool.put_back(environment)
        else:
            await self._pool.end(environment)
        return InvocationResult(
            request_id, outcome.answer.payload, outcome.answer.is_error, log.tail(), function.version
        )


def _checked_event(payload: bytes, limit: int, kind: str) -> bytes:
    if len(payload) > limit:
        raise ApiError(
            "RequestTooLargeException",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{len(payload)} byte payload is too large for the {kind} invocation type (limit {limit} bytes)",
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
