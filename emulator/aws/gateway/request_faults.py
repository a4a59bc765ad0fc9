"""Faults of requests that a user asked for: errors of S3, late and torn responses, refused and doubled invocations."""

import asyncio
import logging
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from aiohttp import web

from fmi_shim.faults import Action, Fault

_INVOCATIONS = re.compile(r"/2015-03-31/functions/[^/]+/invocations")
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
_RATE_EXCEEDED = '{"Type":"User","Reason":"ConcurrentInvocationLimitExceeded","message":"Rate Exceeded."}'
_TORN_BYTES = 1 << 16
_log = logging.getLogger(__name__)

IS_DUPLICATED = "is_duplicated"
"""Key in a request that is to be handled twice."""


class RequestFaults:
    """The faults of an endpoint.

    Parameters
    ----------
    is_s3
        Whether a request is for S3.

    Attributes
    ----------
    planned
        The faults.
    """

    def __init__(self, is_s3: Callable[[web.Request], bool]) -> None:
        self._is_s3 = is_s3
        self.planned: Sequence[Fault] = ()
        self._counts: Counter[str] = Counter()
        self._chance = random.Random()  # noqa: S311 - no secret
        self._repeated: set[asyncio.Future[web.StreamResponse]] = set()

    def plan(self, faults: Sequence[Fault], seed: int) -> None:
        """Have requests fail from now on; without faults, none does. Requests are counted from here."""
        self.planned = [fault for fault in faults if fault.of_endpoint]
        self._counts.clear()
        self._chance = random.Random(f"{seed}/endpoint")  # noqa: S311 - to replay a run, not a secret

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        """Return the failure of a request; None for one that a service is to answer, after a delay where one is due."""
        if _INVOCATIONS.fullmatch(request.path):
            kinds, actions = ["invoke"], [Action.THROTTLE, Action.DUPLICATE]
        elif self._is_s3(request):
            kinds = ["request", request.method.lower()]
            actions = [Action.SLOW_S3, Action.FAIL_S3, Action.TEAR_S3]
        else:
            return None
        self._counts.update(kinds)
        for fault in self.planned:
            if fault.action in actions and self._happens(fault, kinds):
                if fault.action is Action.SLOW_S3:
                    await asyncio.sleep(fault.amount)
                elif fault.action is Action.DUPLICATE:
                    request[IS_DUPLICATED] = True
                else:
                    return await _failed(request, fault.action)
        return None

    def missed(self) -> list[str]:
        """Return a line for each fault at a request that has not been received."""
        return [
            f"fault {str(fault)!r} did not happen: the endpoint received {self._counts[moment.operation]} requests of "
            "this kind: choose an earlier one"
            for fault in self.planned
            if (moment := fault.moment) is not None and self._counts[moment.operation] < moment.number
        ]

    def repeat(self, handled: Awaitable[web.StreamResponse]) -> None:
        """Handle a request once more; its response is dropped."""
        task = asyncio.ensure_future(handled)
        self._repeated.add(task)
        task.add_done_callback(self._end_repeated)

    def _end_repeated(self, task: asyncio.Future[web.StreamResponse]) -> None:
        self._repeated.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("the duplicate of an invocation failed: %s", error)

    def _happens(self, fault: Fault, kinds: Sequence[str]) -> bool:
        if fault.moment is not None:
            operation = fault.moment.operation
            return operation in kinds and self._counts[operation] == fault.moment.number
        if fault.action is Action.SLOW_S3 or not fault.amount:
            return True
        return self._chance.random() < fault.amount


async def _failed(request: web.Request, action: Action) -> web.StreamResponse:
    if action is Action.FAIL_S3:
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, body=_SLOW_DOWN, content_type="application/xml")
    if action is Action.THROTTLE:
        return web.Response(
            status=HTTPStatus.TOO_MANY_REQUESTS,
            text=_RATE_EXCEEDED,
            content_type="application/json",
            headers={"x-amzn-ErrorType": "TooManyRequestsException"},
        )
    torn = web.StreamResponse(headers={"Content-Length": str(_TORN_BYTES)})
    await torn.prepare(request)
    await torn.write(b"\0")
    if request.transport is not None:
        request.transport.abort()
    return torn
