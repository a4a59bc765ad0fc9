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

from emulator.aws import limits
from emulator.aws.lambda_.core.execution_environments import Environments, Execution, WarmPool
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.history import InvocationHistory, InvocationRecord, InvocationStatus
from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.errors import ApiError, SandboxError

# AWS's longest wait between two tries of a throttled event.
_LONGEST_BACKOFF_S = 300.0


class Admission:
    """Counts running executions and turns away what is too much.

    Parameters
    ----------
    functions
        Knows the reservations.
    """

    def __init__(self, functions: FunctionRegistry) -> None:
        self._functions = functions
        self._running: Counter[str] = Counter()

    @contextmanager
    def admitted(self, name: str) -> Iterator[None]:
        """Hold one of the function's executions.

        Raises
        ------
        ApiError
            When all of them are taken: 429, as AWS answers.
        """
        reserved = self._functions.reserved(name)
        if reserved is not None:
            self._refuse_from(self._running[name], reserved, "ReservedFunctionConcurrentInvocationLimitExceeded")
        else:
            shared = sum(count for other, count in self._running.items() if self._functions.reserved(other) is None)
            self._refuse_from(shared, self._functions.unreserved(), "ConcurrentInvocationLimitExceeded")
        self._running[name] += 1
        try:
            yield
        finally:
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]

    def _refuse_from(self, running: int, limit: int, reason: str) -> None:
        if running >= limit:
            raise ApiError(
                "TooManyRequestsException",
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Rate Exceeded: {running} executions are running of {limit} ({reason})",
                {"Reason": reason},
            )


@dataclass(frozen=True)
class InvocationResult:
    """What the caller of Invoke gets.

    Parameters
    ----------
    request_id
        The invocation's id.
    payload
        JSON: what the handler returned, or the error. A handler that returns bytes, or NaN, returns no JSON.
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
    environments
        Where they run.
    settings
        How long sandboxes are kept, and when failed events are tried again.
    """

    def __init__(self, functions: FunctionRegistry, environments: Environments, settings: LambdaSettings) -> None:
        self._functions = functions
        self._pool = WarmPool(environments, settings.idle_s)
        self._execution = Execution(environments, self._pool)
        self._retry_delays_s = settings.retry_delays_s
        self._annotate_event = settings.annotate_event
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
        request = self._accept(function, payload, limits.SYNC_PAYLOAD_BYTES, "RequestResponse")
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
        request = self._accept(function, payload, limits.ASYNC_PAYLOAD_BYTES, "Event")
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
            try:
                failed = (await self._run_when_admitted(request)).is_error
            except SandboxError:
                # A failure of the platform's counts like one of the function's.
                failed = True
            if not failed or delay_s is None:
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
            ended = await self._execution.run(request.function, request.event, recording)
        answer, request_id = ended.answer, request.record.request_id
        return InvocationResult(request_id, answer.payload, answer.is_error, ended.log_tail, request.function.version)

    def _accept(self, function: Function, payload: bytes, limit: int, kind: str) -> _Request:
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
    raise ValueError(f"{name} is no JSON")
