"""Parsing of requests: a body of limited size, a JSON object, whole numbers in strings."""

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.errors import ApiError

# SQLite stores 64-bit integers; longer strings would also take long to convert.
_MOST_DIGITS = 18
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


# The body of a request whose signature was verified with it.
VERIFIED_BODY = web.RequestKey("verified_body", bytes)


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """Read a body; return its first `limit` bytes and at most one more chunk, and discard the rest."""
    if VERIFIED_BODY in request:
        return request[VERIFIED_BODY]
    body = bytearray()
    async for chunk in request.content.iter_any():
        if len(body) <= limit:
            body += chunk
    return bytes(body)


async def read_json(request: web.BaseRequest, limit: int, too_large: Callable[[], ApiError]) -> dict[str, Any]:
    """Read the JSON object in a body; an empty body is an empty object.

    Raises
    ------
    ApiError
        What `too_large` returns for a body of more than `limit` bytes; SerializationException as `json_object` does.
    """
    content = await read_body(request, limit)
    if len(content) > limit:
        raise too_large()
    return json_object(content)


def json_object(content: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object; an empty body is an empty object.

    Raises
    ------
    ApiError
        SerializationException when it is not a JSON object, or contains a lone surrogate.
    """
    try:
        body = json.loads(content or b"{}", parse_constant=_reject_constant)
        if _ESCAPED_SURROGATE.search(content):
            # JSON can escape half a surrogate pair, but UTF-8 cannot encode it.
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _serialization_error(f"Could not parse request body into json: {error}") from None
    if not isinstance(body, dict):
        raise _serialization_error(f"the request body must be a JSON object, got {type(body).__name__}")
    return body


def whole_number(text: str) -> int | None:
    """Parse a non-negative decimal integer of at most 18 digits; return None for any other string."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _serialization_error(message: str) -> ApiError:
    return ApiError("SerializationException", HTTPStatus.BAD_REQUEST, message)
