"""The server side of the Lambda runtime API, for one sandbox.

Each sandbox has a separate address, as on AWS, which identifies the caller. Where its client can have one, a random
path in it keeps other users of the machine out. Protocol:
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import asyncio
import hmac
import json
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.aws.limits import RESPONSE_BYTES

_API = "/2018-06-01/runtime"
_BROWSER_HEADERS = ("Origin", "Sec-Fetch-Site", "Referer")
# A sandbox has one connection at a time; asyncio tries to accept so many at once.
_BACKLOG = 4
# The sandbox has exited before; zero would wait without limit.
_SHUTDOWN_S = 0.1


@dataclass(frozen=True)
class Invocation:
    """One event for a handler.

    Parameters
    ----------
    request_id
        The invocation's id.
    payload
        The event, JSON.
    function_arn
        The ARN that was invoked, with the alias or version that the caller named.
    client_context
        JSON for the handler's context; empty if the caller sent none.
    """

    request_id: str
    payload: bytes
    function_arn: str
    client_context: str = ""


@dataclass(frozen=True)
class RuntimeResponse:
    """The result of a handler, or the error that it raised.

    Parameters
    ----------
    payload
        JSON: the result, or ``errorMessage``, ``errorType``, ``stackTrace`` and ``requestId``.
    is_error
        Whether it is an error.
    """

    payload: bytes
    is_error: bool


class RuntimeApi:
    """Sends one sandbox its invocations and receives the responses.

    First the sandbox polls for its first event (`ready` resolves with None), or reports that its handler cannot be
    loaded (`ready` resolves with the error that every invocation then returns). Then events and responses alternate.
    """

    def __init__(self) -> None:
        self.ready: asyncio.Future[RuntimeResponse | None] = asyncio.get_running_loop().create_future()
        self._events: asyncio.Queue[tuple[Invocation, int]] = asyncio.Queue()
        self._current: tuple[Invocation, asyncio.Future[RuntimeResponse]] | None = None
        self._on_idle: Callable[[], None] | None = None
        self._polling = False
        self._server: asyncio.Server | None = None
        self._http: web.Server | None = None
        self._address = ""
        self._prefix = _API

    async def start(self, host: str, *, secret_path: bool) -> str:
        """Listen on a free port of an address of this machine; return the value of ``AWS_LAMBDA_RUNTIME_API``.

        Parameters
        ----------
        host
            The address.
        secret_path
            Whether a random path follows address and port, without which requests are refused. AWS's clients expect
            address and port alone.
        """
        self._http = web.Server(self._handle, handler_cancellation=True, access_log=None)
        # Given an address, asyncio ignores that no socket can be opened and returns a server without one.
        listener = socket.create_server((host, 0))
        self._server = await asyncio.get_running_loop().create_server(self._http, sock=listener, backlog=_BACKLOG)
        host, port = listener.getsockname()
        self._address = f"{host}:{port}"
        if not secret_path:
            return self._address
        path = f"/{secrets.token_urlsafe(24)}"
        self._prefix = path + _API
        return self._address + path

    async def close(self) -> None:
        """Stop listening and close the sandbox's connection."""
        if self._server is not None and self._http is not None:
            self._server.close()
            await self._http.shutdown(_SHUTDOWN_S)

    def send(self, invocation: Invocation, deadline_ms: int) -> asyncio.Future[RuntimeResponse]:
        """Send the sandbox an event; the future resolves with the response.

        Parameters
        ----------
        invocation
            The event.
        deadline_ms
            When the invocation times out, ms since the epoch.
        """
        response: asyncio.Future[RuntimeResponse] = asyncio.get_running_loop().create_future()
        self._current = (invocation, response)
        self._events.put_nowait((invocation, deadline_ms))
        return response

    def when_idle(self, callback: Callable[[], None] | None) -> None:
        """Call back once when the sandbox polls for its next event, now if it does already; None takes that back."""
        if self._polling and callback is not None:
            callback()
        else:
            self._on_idle = callback

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        # Browsers add these headers, or send the name of a web site as Host after DNS rebinding; no runtime does.
        host = request.headers.get("Host", "")
        if (host != self._address and "." in host) or any(name in request.headers for name in _BROWSER_HEADERS):
            return _error_response(
                HTTPStatus.FORBIDDEN, "Forbidden", "request from a web page: expected a runtime client"
            )
        prefix, path = request.path[: len(self._prefix)], request.path[len(self._prefix) :]
        if not hmac.compare_digest(prefix.encode(), self._prefix.encode()):
            message = "unknown path: expected the address in AWS_LAMBDA_RUNTIME_API of this sandbox"
            return _error_response(HTTPStatus.FORBIDDEN, "Forbidden", message)
        if request.method == "GET" and path == "/invocation/next":
            return await self._next_invocation()
        if request.method != "POST":
            return _error_response(
                HTTPStatus.NOT_FOUND, "InvalidRequest", f"unknown operation: {request.method} {path}"
            )
        body = await _read_limited(request)
        if path == "/init/error":
            if not self.ready.done():
                self.ready.set_result(RuntimeResponse(body, is_error=True))
            return _accepted()
        return self._complete(path, body)

    async def _next_invocation(self) -> web.StreamResponse:
        if not self.ready.done():
            self.ready.set_result(None)
        callback, self._on_idle = self._on_idle, None
        if callback is not None:
            callback()
        self._polling = True
        try:
            invocation, deadline_ms = await self._events.get()
        finally:
            self._polling = False
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.function_arn,
            "Lambda-Runtime-Trace-Id": f"Root=1-{invocation.request_id[:8]}-{'0' * 24};Sampled=0",
        }
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context
        return web.Response(body=invocation.payload, content_type="application/json", headers=headers)

    def _complete(self, path: str, body: bytes) -> web.StreamResponse:
        _, _, tail = path.partition("/invocation/")
        request_id, _, kind = tail.partition("/")
        if kind not in ("response", "error"):
            return _error_response(HTTPStatus.NOT_FOUND, "InvalidRequest", f"unknown operation: POST {path}")
        if self._current is None or self._current[0].request_id != request_id:
            return _error_response(
                HTTPStatus.BAD_REQUEST,
                "InvalidRequestID",
                f"invalid request id {request_id}: expected that of the current invocation",
            )
        response = self._current[1]
        self._current = None
        if not response.done():
            response.set_result(_within_limit(request_id, RuntimeResponse(body, is_error=kind == "error")))
        return _accepted()


async def _read_limited(request: web.BaseRequest) -> bytes:
    """Read a body; of one above the limit, keep only enough to recognise that."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        if len(body) <= RESPONSE_BYTES:
            body += chunk
    return bytes(body)


def _within_limit(request_id: str, response: RuntimeResponse) -> RuntimeResponse:
    if len(response.payload) <= RESPONSE_BYTES:
        return response
    return RuntimeResponse(
        error_payload(
            request_id,
            "Function.ResponseSizeTooLarge",
            f"Response payload size exceeded maximum allowed payload size ({RESPONSE_BYTES} bytes).",
        ),
        is_error=True,
    )


def error_payload(request_id: str, error_type: str, message: str) -> bytes:
    """Return the JSON of an error that the platform reports to a caller."""
    body: dict[str, Any] = {"errorType": error_type, "errorMessage": message}
    if request_id:
        body["requestId"] = request_id
    return json.dumps(body).encode()


def _accepted() -> web.Response:
    return web.json_response({"status": "OK"}, status=HTTPStatus.ACCEPTED)


def _error_response(status: HTTPStatus, kind: str, message: str) -> web.Response:
    return web.json_response({"errorType": kind, "errorMessage": message}, status=status)
