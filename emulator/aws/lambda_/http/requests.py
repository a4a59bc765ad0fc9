"""What Lambda's operations have in common over HTTP: bodies, pages, refusals."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.aws.json_requests import json_object, read, whole_number
from emulator.aws.lambda_.core.constraints import Constraints, invalid
from emulator.aws.limits import ZIPPED_CODE_BYTES
from emulator.errors import ApiError, SandboxError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# An archive in base64, and the rest of the request around it; AWS tells this very number.
_REQUEST_BYTES = 70_167_211
_PAGE = 50
_MAX_ITEMS = range(1, 10_001)


def answered(handler: Handler) -> Handler:
    """Let a refusal become AWS's error response."""

    async def call(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            return _refusal(error, "User")
        except SandboxError as error:
            return _refusal(ApiError("ServiceException", HTTPStatus.INTERNAL_SERVER_ERROR, str(error)), "Service")

    return call


def _refusal(error: ApiError, side: str) -> web.StreamResponse:
    body = {"Type": side, "message": error.message, "Message": error.message, **error.details}
    response = answer(body, error.status)
    response.headers["x-amzn-ErrorType"] = error.code
    response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
    return response


def answer(body: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Return a JSON response."""
    return web.json_response(body, status=status)


def nothing() -> web.Response:
    """Return the response of an operation that has none."""
    return web.Response(status=HTTPStatus.NO_CONTENT)


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the JSON object that a request has, an empty one for an empty body.

    Raises
    ------
    ApiError
        When it has something else, or too much.
    """
    content = await read(request, _REQUEST_BYTES)
    if len(content) > _REQUEST_BYTES:
        raise ApiError(
            "RequestEntityTooLargeException",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"Request must be smaller than {_REQUEST_BYTES} bytes for this operation",
        )
    return json_object(content)


def tags_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that a request names.

    Raises
    ------
    ApiError
        When they are no texts by name.
    """
    tags = body.get("Tags") or {}
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise invalid(f"Tags: expected texts by name, got {tags!r:.80}")
    return tags


def page(request: web.Request, name: str, items: Sequence[Mapping[str, Any]]) -> web.Response:
    """Return the page of a listing that MaxItems and Marker ask for, with the marker of the next one.

    Raises
    ------
    ApiError
        When either is not what a page was given.
    """
    asked = request.query.get("MaxItems", str(_PAGE))
    number = whole_number(asked)
    given = Constraints({"MaxItems": asked if number is None else number})
    # As on AWS, a page has fifty items at most, however many are asked for.
    size = min(_PAGE, given.number("MaxItems", _PAGE, _MAX_ITEMS))
    given.check()
    marker = request.query.get("Marker") or "0"
    begin = whole_number(marker)
    if begin is None:
        raise invalid(f"Marker: expected the NextMarker of a listing, got {marker!r:.80}")
    body: dict[str, Any] = {name: items[begin : begin + size]}
    if begin + size < len(items):
        body["NextMarker"] = str(begin + size)
    return answer(body)


def check_zipped_size(archive: bytes) -> None:
    """Refuse an archive that is too large to be sent; one in S3 may be larger.

    Raises
    ------
    ApiError
        Naming the limit.
    """
    if len(archive) > ZIPPED_CODE_BYTES:
        raise ApiError(
            "RequestEntityTooLargeException",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"Zipped size must be smaller than {ZIPPED_CODE_BYTES} bytes",
        )
