"""Invocations: admission, synchronous calls, queued events and their retries."""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from emulator.aws import limits
from emulator.aws.account import Account
from emulator.aws.lambda_.core.event_invoke_configs import EventInvokeConfigs
from emulator.aws.lambda_.core.event_outcomes import EventCondition, EventObserver, EventOutcome
from emulator.aws.lambda_.core.execution_environments import ExecutionEnvironments, InvocationRunner, WarmPool
from emulator.aws.lambda_.core.function_registry import ConcurrencyLimits, FunctionRegistry, Target
from emulator.aws.lambda_.core.history import InvocationHistory, InvocationRecord, InvocationStatus
from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.provisioned_concurrency import ProvisionedConcurrency
from emulator.aws.lambda_.core.references import DEFAULT_ACCOUNT, LATEST, Reference
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.errors import ApiError, SandboxError

# AWS's longest pause between two tries of a throttled event.
_MAX_BACKOFF_S = 300.0


class ConcurrencyAdmission:
    """Limits how many executions run at once.

    The limits are that of the account, the functions' reservations, and what is provisioned for a version or an alias.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html

    Parameters
    ----------
    functions
        Holds the reservations, and what is provisioned.
    """

    def __init__(self, functions: FunctionRegistry) -> None:
        self._functions = functions
        # By function; and by function and qualifier, those that use provisioned concurrency.
        self._running: Counter[str] = Counter()
        self._on_provisioned: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def admit(self, reference: Reference) -> Iterator[None]:
        """Count one execution of the function while the context lasts.

        Raises
        ------
        ApiError
            When the limit is reached: status 429, as on AWS.
        """
        here = self._functions.concurrency_limits(reference)
        slot = reference.key, str(reference.qualifier)
        if self._on_provisioned[slot] < here.provisioned_here:
            counter: Counter[Any] = self._on_provisioned
            name: Any = slot
        else:
            self._check(reference, here)
            counter, name = self._running, reference.key
        counter[name] += 1
        try:
            yield
        finally:
            counter[name] -= 1
            if not counter[name]:
                del counter[name]

    def _check(self, reference: Reference, here: ConcurrencyLimits) -> None:
        if here.reserved is not None:
            running, limit = self._running[reference.key], here.reserved - here.provisioned
            reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
        else:
            region = f"{reference.account.region}/"
            running = sum(
                count
                for key, count in self._running.items()
                if key.startswith(region) and self._functions.reserved(key) is None
            )
            limit = here.unreserved
            reason = "ConcurrentInvocationLimitExceeded"
        if running >= limit:
            raise ApiError(
                "TooManyRequestsException", HTTPStatus.TOO_MANY_REQUESTS, "Rate Exceeded.", {"Reason": reason}
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
    """An accepted event with its function, the client context and the record of its invocation."""

    reference: Reference
    target: Target
    event: bytes
    client_context: str
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

    Attributes
    ----------
    on_event_ended
        Receives the outcome of every asynchronous invocation; None if nobody wants it.
    """

    def __init__(
        self, functions: FunctionRegistry, environments: ExecutionEnvironments, settings: LambdaSettings
    ) -> None:
        self._functions = functions
        self._pool = WarmPool(environments, settings.idle_s)
        self._runner = InvocationRunner(environments, self._pool)
        self.provisioned = ProvisionedConcurrency(functions, environments, self._pool)
        self.event_configs = EventInvokeConfigs(functions)
        self._retry_delays_s = settings.retry_delays_s
        self._annotate_event = settings.annotate_event
        self._admission = ConcurrencyAdmission(functions)
        self._history = InvocationHistory()
        self.on_event_ended: EventObserver | None = None
        self._events: set[asyncio.Task[None]] = set()
        # The tasks that wait for a function, and those of them that a reset has cancelled.
        self._waiting: set[asyncio.Task[Any]] = set()
        self._reset: set[asyncio.Task[Any]] = set()
        self._reset_done = asyncio.Event()

    async def invoke(
        self,
        name: str,
        qualifier: str | None,
        payload: bytes,
        *,
        account: Account = DEFAULT_ACCOUNT,
        client_context: str = "",
    ) -> InvocationResult:
        """Run a function once and wait for its result. Cancelling the call ends the sandbox.

        Parameters
        ----------
        name
            The function's name or ARN.
        qualifier
            A version or alias, or None.
        payload
            The event, JSON; empty for ``{}``.
        account
            Where the caller is.
        client_context
            JSON for the handler's context; empty if there is none.

        Raises
        ------
        ApiError
            When the function does not exist, the payload is too large or invalid JSON, or a limit is reached.
        """
        reference = Reference.parse(name, qualifier, account)
        request = self._accept(reference, payload, client_context, limits.SYNC_PAYLOAD_BYTES, "RequestResponse")
        with ExitStack() as admission:
            try:
                admission.enter_context(self._admission.admit(reference))
            except ApiError as error:
                throttled = replace(request.record, status=InvocationStatus.THROTTLED, error_type=error.code)
                self._history.add(replace(throttled, ended=throttled.received))
                raise
            return await self._run(request)

    def enqueue(
        self,
        name: str,
        qualifier: str | None,
        payload: bytes,
        *,
        account: Account = DEFAULT_ACCOUNT,
        client_context: str = "",
    ) -> str:
        """Queue an event for a function; after an error it is retried as often as the function's settings say.

        Parameters
        ----------
        name, qualifier, payload, account, client_context
            As for `invoke`.

        Returns
        -------
        str
            The request id, the same for every attempt.

        Raises
        ------
        ApiError
            When the function does not exist, or the payload is too large or invalid JSON.
        """
        reference = Reference.parse(name, qualifier, account)
        request = self._accept(reference, payload, client_context, limits.ASYNC_PAYLOAD_BYTES, "Event")
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
        await self.provisioned.close()
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
        await self.provisioned.close()
        for task in self._events:
            task.cancel()
        await asyncio.gather(*self._events, return_exceptions=True)
        await self._pool.close()

    async def _run_event(self, request: _Request) -> None:
        config = self.event_configs.find(request.reference)
        delays = self._retry_delays_s[: config.get("MaximumRetryAttempts", len(self._retry_delays_s))]
        oldest = request.record.received + config.get("MaximumEventAgeInSeconds", limits.EVENT_AGE_S)
        result: InvocationResult | None = None
        attempts, condition = 0, EventCondition.RETRIES_EXHAUSTED
        for delay_s in (*delays, None):
            try:
                result = await self._run_when_admitted(request, oldest)
                attempts += 1
                if not result.is_error:
                    condition = EventCondition.SUCCESS
                    break
            except SandboxError:
                # A failure of the platform counts like one of the function.
                attempts += 1
            except _EventTooOldError:
                condition = EventCondition.EVENT_AGE_EXCEEDED
                break
            if delay_s is None:
                break
            if time.time() + delay_s > oldest:
                condition = EventCondition.EVENT_AGE_EXCEEDED
                break
            await asyncio.sleep(delay_s)
        if self.on_event_ended is not None:
            self.on_event_ended(_outcome(request, config, result, attempts, condition))

    async def _run_when_admitted(self, request: _Request, oldest: float) -> InvocationResult:
        """Run a queued event; while it is throttled, retry with back-off, until it is too old."""
        backoff_s = 1.0
        while True:
            try:
                with self._admission.admit(request.reference):
                    return await self._run(request)
            except ApiError:
                if time.time() + backoff_s > oldest:
                    raise _EventTooOldError from None
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)

    async def _run(self, request: _Request) -> InvocationResult:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for mypy
        self._waiting.add(task)
        try:
            with self._history.record(request.record) as recorder:
                response, log_tail = await self._runner.run(
                    request.target, request.event, request.client_context, recorder
                )
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
            request.record.request_id, response.payload, response.is_error, log_tail, request.target.function.version
        )

    def _accept(self, reference: Reference, payload: bytes, client_context: str, limit: int, kind: str) -> _Request:
        """Find the function, and check its event; return the request to run."""
        target = self._functions.target(reference)
        function = target.function
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
                f"Could not parse request body into json: Could not parse payload into json: {error}",
            ) from None
        record = InvocationRecord(
            request_id=str(uuid.uuid4()),
            function=function.spec.name,
            version=function.version,
            memory_mb=function.spec.memory_mb,
            received=time.time(),
            annotation=None if self._annotate_event is None else self._annotate_event(event),
        )
        return _Request(reference, target, payload or b"{}", client_context, record)


def _outcome(
    request: _Request,
    config: Mapping[str, Any],
    result: InvocationResult | None,
    attempts: int,
    condition: EventCondition,
) -> EventOutcome:
    reference, function = request.reference, request.target.function
    return EventOutcome(
        request.record.request_id,
        f"{reference.arn}:{reference.qualifier or LATEST}",
        reference.account.region,
        condition,
        attempts,
        request.event,
        None if result is None else result.payload,
        function.version,
        config.get("DestinationConfig") or {},
        (function.spec.kept.get("DeadLetterConfig") or {}).get("TargetArn"),
    )


class _EventTooOldError(Exception):
    """A queued event is older than its function's settings allow."""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")
