"""Invocations: admission, synchronous calls, queued events and their retries."""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from emulator.aws import limits
from emulator.aws.lambda_.core.execution_environments import ExecutionEnvironments, InvocationRunner, WarmPool
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.history import InvocationHistory, InvocationRecord, InvocationStatus
from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.errors import ApiError, SandboxError

# AWS's longest pause between two tries of a throttled event.
_MAX_BACKOFF_S = 300.0


class ConcurrencyAdmission:
    """Limits how many executions run at once: by the account's limit and the functions' reservations.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html

    Parameters
    ----------
    functions
        Holds the reservations.
    """

    def __init__(self, functions: FunctionRegistry) -> None:
        self._functions = functions
        self._running: Counter[str] = Counter()

    @contextmanager
    def admit(self, name: str) -> Iterator[None]:
        """Count one execution of the function while the context lasts.

        Raises
        ------
        ApiError
            When the limit is reached: status 429, as on AWS.
        """
        reserved, unreserved = self._functions.concurrency_limits(name)
        if reserved is not None:
            self._check_limit(self._running[name], reserved, "ReservedFunctionConcurrentInvocationLimitExceeded")
        else:
            shared = sum(count for other, count in self._running.items() if self._functions.reserved(other) is None)
            self._check_limit(shared, unreserved, "ConcurrentInvocationLimitExceeded")
        self._running[name] += 1
        try:
            yield
        finally:
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]

    def _check_limit(self, running: int, limit: int, reason: str) -> None:
        if running >= limit:
            raise ApiError(
                "TooManyRequestsException",
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Rate Exceeded: {running} of {limit} concurrent executions are in use ({reason})",
                {"Reason": reason},
            )


@dataclass(frozen=True)
class InvocationResult:
    """The result of Invoke.

    Parameters
    ----------
    request_id
        The invocation's id.
    payload
        The handler's result or the error, as JSON. Where the handler returns bytes or NaN, it is not valid JSON.
    is_error
        True when the function failed.
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
    """An accepted event with its function and the record of its invocation."""

    function: Function
    event: bytes
    record: InvocationRecord


class LambdaService:
    """Invokes functions.

    Parameters
    ----------
    functions
        The functions that exist.
    environments
        Creates the environments that they run in.
    settings
        How long sandboxes are kept, and when failed events are retried.
    """

    def __init__(
        self, functions: FunctionRegistry, environments: ExecutionEnvironments, settings: LambdaSettings
    ) -> None:
        self._functions = functions
        self._pool = WarmPool(environments, settings.idle_s)
        self._runner = InvocationRunner(environments, self._pool)
        self._retry_delays_s = settings.retry_delays_s
        self._annotate_event = settings.annotate_event
        self._admission = ConcurrencyAdmission(functions)
        self._history = InvocationHistory()
        self._events: set[asyncio.Task[None]] = set()
        # The tasks that wait for a function, and those of them that a reset has cancelled.
        self._waiting: set[asyncio.Task[Any]] = set()
        self._reset: set[asyncio.Task[Any]] = set()
        self._reset_done = asyncio.Event()

    async def invoke(self, reference: str, qualifier: str | None, payload: bytes) -> InvocationResult:
        """Run a function once and wait for its result. Cancelling the call ends the sandbox.

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
            When the function does not exist, the payload is too large or invalid JSON, or a limit is reached.
        """
        function = self._functions.get(reference, qualifier)
        request = self._accept(function, payload, limits.SYNC_PAYLOAD_BYTES, "RequestResponse")
        with ExitStack() as admission:
            try:
                admission.enter_context(self._admission.admit(function.spec.name))
            except ApiError as error:
                throttled = replace(request.record, status=InvocationStatus.THROTTLED, error_type=error.code)
                self._history.add(replace(throttled, ended=throttled.received))
                raise
            return await self._run(request)

    def enqueue(self, reference: str, qualifier: str | None, payload: bytes) -> str:
        """Queue an event for a function; after an error it is retried, at most twice, as on AWS.

        Returns
        -------
        str
            The request id, the same for every attempt.

        Raises
        ------
        ApiError
            When the function does not exist, or the payload is too large or invalid JSON.
        """
        function = self._functions.get(reference, qualifier)
        request = self._accept(function, payload, limits.ASYNC_PAYLOAD_BYTES, "Event")
        task = asyncio.ensure_future(self._run_event(request))
        self._events.add(task)
        task.add_done_callback(self._events.discard)
        return request.record.request_id

    def recent(self) -> list[InvocationRecord]:
        """Return the latest invocations, at most 10,000: running, ended and throttled ones, oldest first."""
        return self._history.recent()

    async def discard(self, function: Function) -> None:
        """End the warm sandboxes of a changed or deleted function."""
        await self._pool.discard(function)

    async def reset(self) -> None:
        """Delete all functions, their queued events and the history; end what is running."""
        deleted = self._functions.clear()
        for event in self._events:
            event.cancel()
        await asyncio.gather(*self._events, return_exceptions=True)
        for task in self._waiting:
            self._reset.add(task)
            task.cancel()
        if self._reset:
            self._reset_done.clear()
            await self._reset_done.wait()
        for function in deleted:
            await self.discard(function)
        self._history.clear()

    async def close(self) -> None:
        """Drop the queued events and end every warm sandbox."""
        for task in self._events:
            task.cancel()
        await asyncio.gather(*self._events, return_exceptions=True)
        await self._pool.close()

    async def _run_event(self, request: _Request) -> None:
        for delay_s in (*self._retry_delays_s, None):
            try:
                failed = (await self._run_when_admitted(request)).is_error
            except SandboxError:
                # A failure of the platform counts like one of the function.
                failed = True
            if not failed or delay_s is None:
                return
            await asyncio.sleep(delay_s)

    async def _run_when_admitted(self, request: _Request) -> InvocationResult:
        """Run a queued event; while it is throttled, retry with back-off."""
        backoff_s = 1.0
        while True:
            try:
                with self._admission.admit(request.function.spec.name):
                    return await self._run(request)
            except ApiError:
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)

    async def _run(self, request: _Request) -> InvocationResult:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for mypy
        self._waiting.add(task)
        try:
            with self._history.record(request.record) as recorder:
                response, log_tail = await self._runner.run(request.function, request.event, recorder)
        except asyncio.CancelledError:
            if task not in self._reset:
                raise
            task.uncancel()
            message = "the emulator was reset while the function ran"
            raise ApiError("ServiceException", HTTPStatus.INTERNAL_SERVER_ERROR, message) from None
        finally:
            self._waiting.discard(task)
            self._reset.discard(task)
            if not self._reset:
                self._reset_done.set()
        return InvocationResult(
            request.record.request_id, response.payload, response.is_error, log_tail, request.function.version
        )

    def _accept(self, function: Function, payload: bytes, limit: int, kind: str) -> _Request:
        """Check that a function can run, and check its event; return the request to run."""
        function.code_root  # noqa: B018 - raises for an image
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
        record = InvocationRecord(
            request_id=str(uuid.uuid4()),
            function=function.spec.name,
            version=function.version,
            memory_mb=function.spec.memory_mb,
            received=time.time(),
            annotation=None if self._annotate_event is None else self._annotate_event(event),
        )
        return _Request(function, payload or b"{}", record)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")
