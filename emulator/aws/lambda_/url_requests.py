"""Requests to function URLs: an HTTP request becomes an event, and the function's result becomes the response.

Format: https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
"""

import base64
import contextlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from emulator.aws.json_requests import read_body
from emulator.aws.lambda_.core.function_urls import URL_PREFIX, FunctionUrls
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.references import Reference
from emulator.aws.limits import SYNC_PAYLOAD_BYTES
from emulator.errors import ApiError, SandboxError

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_TEXT_TYPES = ("application/json", "application/javascript", "application/xml")
_TEXT_SUFFIXES = ("+json", "+xml")
# The sub-domain of AWS's URLs, whose requests come here if their host's name resolves to this machine.
_DOMAIN = ".lambda-url."
# The part of the route with the URL's id.
_ID = "url_id"
# https://docs.aws.amazon.com/lambda/latest/dg/response-streaming-tutorial.html
_PRELUDE_END = bytes(8)


class FunctionUrlRequests:
    """Serves function URLs: below a path of the endpoint, and for hosts named ``ID.lambda-url.REGION…``.

    Parameters
    ----------
    urls
        The functions by the ids in the URLs.
    service
        Invokes functions.
    """

    def __init__(self, urls: FunctionUrls, service: LambdaService) -> None:
        self._urls = urls
        self._service = service

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the route of all function URLs."""
        return [web.route("*", f"/{URL_PREFIX}/{{{_ID}}}{{rest:(?s:(/.*)?)}}", self.handle)]

    def is_function_url(self, request: web.BaseRequest) -> bool:
        """Return whether a request's host is that of a function URL."""
        return _DOMAIN in request.headers.get("Host", "")

    def is_open(self, request: web.Request) -> bool:
        """Return whether a request is for a function URL that needs no signature, or that does not exist."""
        if not self._is_for_url(request):
            return False
        found = self._urls.find(_url_id(request))
        return found is None or found[1]["AuthType"] == "NONE"

    def allows_origin(self, request: web.Request, origin: str) -> bool:
        """Return whether a request is for a function URL whose CORS settings allow the web page."""
        found = self._urls.find(_url_id(request)) if self._is_for_url(request) else None
        return found is not None and bool(_cors_headers(found[1].get("Cors"), origin))

    @web.middleware
    async def serve_hosts(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Respond to a request for a function URL's host, whatever its path."""
        return await (self.handle if self.is_function_url(request) else handler)(request)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Respond to a request."""
        url_id = _url_id(request)
        found = self._urls.find(url_id)
        if found is None:
            return web.json_response({"Message": None}, status=HTTPStatus.NOT_FOUND)
        reference, settings = found
        cors = _cors_headers(settings.get("Cors"), request.headers.get("Origin", ""))
        if request.method == "OPTIONS" and cors:
            return web.Response(status=HTTPStatus.OK, headers=cors)
        if settings["AuthType"] == "AWS_IAM" and "Authorization" not in request.headers:
            return web.json_response({"Message": "Forbidden"}, status=HTTPStatus.FORBIDDEN)
        body = await read_body(request, SYNC_PAYLOAD_BYTES)
        event = json.dumps(_event(request, url_id, reference, body)).encode()
        try:
            result = await self._service.invoke(reference.arn, reference.qualifier, event, account=reference.account)
        except ApiError as error:
            return web.json_response({"Message": error.message}, status=error.status)
        except SandboxError as error:
            return web.json_response({"Message": str(error)}, status=HTTPStatus.INTERNAL_SERVER_ERROR)
        if result.is_error:
            return web.Response(status=HTTPStatus.BAD_GATEWAY, text="Internal Server Error", headers=cors)
        if settings.get("InvokeMode") == "RESPONSE_STREAM":
            response = _streamed_response(result.payload)
        else:
            response = _response(result.payload)
        response.headers.update(cors)
        return response

    def _is_for_url(self, request: web.Request) -> bool:
        return _ID in request.match_info or self.is_function_url(request)


def _url_id(request: web.Request) -> str:
    host = request.headers.get("Host", "")
    return host.partition(".")[0] if _DOMAIN in host else request.match_info[_ID]


def _event(request: web.BaseRequest, url_id: str, reference: Reference, body: bytes) -> dict[str, Any]:
    raw_path, _, query = request.raw_path.partition("?")
    host = request.headers.get("Host", "")
    path = unquote(raw_path if _DOMAIN in host else "/" + raw_path.split("/", 3)[3] if raw_path.count("/") > 2 else "/")
    domain = host if _DOMAIN in host else f"{url_id}{_DOMAIN}{reference.account.region}.on.aws"
    now = time.time()
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name.lower()] = f"{headers[name.lower()]},{value}" if name.lower() in headers else value
    source = request.remote or "127.0.0.1"
    headers |= {
        "host": domain,
        "x-amzn-trace-id": f"Root=1-{int(now):08x}-{uuid.uuid4().hex[:24]}",
        "x-forwarded-for": source,
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
        "x-amzn-tls-version": "TLSv1.3",
        "x-amzn-tls-cipher-suite": "TLS_AES_128_GCM_SHA256",
    }
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": url_id,
            "domainName": domain,
            "domainPrefix": url_id,
            "http": {
                "method": request.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": source,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": f"{datetime.now(UTC):%d/%b/%Y:%H:%M:%S +0000}",
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if "cookie" in headers:
        event["cookies"] = [part.strip() for part in headers["cookie"].split(";")]
    if query:
        parameters: dict[str, str] = {}
        for name, value in request.query.items():
            parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
        event["queryStringParameters"] = parameters
    if body:
        is_text = _is_text(request.content_type)
        event["body"] = body.decode(errors="replace") if is_text else base64.b64encode(body).decode()
        event["isBase64Encoded"] = not is_text
    return event


def _is_text(content_type: str) -> bool:
    return content_type.startswith("text/") or content_type in _TEXT_TYPES or content_type.endswith(_TEXT_SUFFIXES)


def _streamed_response(payload: bytes) -> web.Response:
    """Return what a streaming handler has written: a body, or JSON with status and headers, eight zeros, a body."""
    head, separator, body = payload.partition(_PRELUDE_END)
    with contextlib.suppress(ValueError):
        if separator and isinstance(prelude := json.loads(head), dict):
            prelude |= {"statusCode": prelude.get("statusCode", HTTPStatus.OK), "isBase64Encoded": False}
            response = _response(json.dumps({**prelude, "body": ""}).encode())
            response.body = body
            return response
    return web.Response(body=payload, content_type="application/octet-stream")


def _response(payload: bytes) -> web.Response:
    """Return the response that a function's result describes; another result is the body itself."""
    try:
        result = json.loads(payload)
    except ValueError:
        return web.Response(body=payload, content_type="application/json")
    if not isinstance(result, dict) or "statusCode" not in result:
        text = result if isinstance(result, str) else json.dumps(result, separators=(",", ":"), ensure_ascii=False)
        return web.Response(body=text.encode(), content_type="application/json")
    body = result.get("body", "")
    text = body if isinstance(body, str) else json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    try:
        content = base64.b64decode(text) if result.get("isBase64Encoded") else text.encode()
        response = web.Response(status=int(result["statusCode"]), body=content)
        response.headers["Content-Type"] = "application/json"
        for name, value in (result.get("headers") or {}).items():
            response.headers[str(name)] = value if isinstance(value, str) else json.dumps(value)
        for cookie in result.get("cookies") or ():
            response.headers.add("Set-Cookie", str(cookie))
    except (TypeError, ValueError, AttributeError):
        return web.Response(status=HTTPStatus.BAD_GATEWAY, text="Internal Server Error")
    # The length is that of the body that is sent.
    response.headers.popall("Content-Length", None)
    return response


def _cors_headers(cors: Mapping[str, Any] | None, origin: str) -> dict[str, str]:
    """Return the headers that allow a web page the response; none if the settings do not allow it."""
    if not cors or not origin:
        return {}
    allowed = cors.get("AllowOrigins") or []
    if "*" not in allowed and origin not in allowed:
        return {}
    headers = {"Access-Control-Allow-Origin": "*" if "*" in allowed else origin}
    for name, header in (
        ("AllowMethods", "Access-Control-Allow-Methods"),
        ("AllowHeaders", "Access-Control-Allow-Headers"),
        ("ExposeHeaders", "Access-Control-Expose-Headers"),
    ):
        if cors.get(name):
            headers[header] = ",".join(cors[name])
    if cors.get("AllowCredentials"):
        headers["Access-Control-Allow-Credentials"] = "true"
    if "MaxAge" in cors:
        headers["Access-Control-Max-Age"] = str(cors["MaxAge"])
    return headers
