"""What is in a request: a body of limited size, a JSON object, whole numbers in texts."""

import json
import re
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.errors import ApiError

# As many digits as a database's number has, and Python reads in no time.
_MOST_DIGITS = 18
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """Read a body up to a limit, and at most a piece beyond it; the rest is read too, but not kept."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        if len(body) <= limit:
            body += chunk
    return bytes(body)


def json_object(content: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is, an empty one for an empty body.

    Raises
    ------
    ApiError
        SerializationException when it is something else, or has a text that is no Unicode.
    """
    try:
        body = json.loads(content or b"{}", parse_constant=_refuse)
        if _ESCAPED_SURROGATE.search(content):
            # Half a surrogate pair can be written in JSON, but not be kept.
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _no_object(f"Could not parse request body into json: {error}") from None
    if not isinstance(body, dict):
        raise _no_object(f"the request is {type(body).__name__}, expected a JSON object")
    return body


def whole_number(text: str) -> int | None:
    """Return the number from 0 that a text writes out in digits; None when it is none, or absurdly long."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _no_object(message: str) -> ApiError:
    return ApiError("SerializationException", HTTPStatus.BAD_REQUEST, message)
