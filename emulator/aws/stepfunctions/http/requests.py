"""Readers of the fields of Step Functions' requests: strings, numbers, tags, pages.

An invalid field raises an `ApiError`, mostly AWS's ValidationException.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar

from emulator.aws import limits
from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.errors import ApiError

Request: TypeAlias = Mapping[str, Any]
Response: TypeAlias = dict[str, Any]
_Entry = TypeVar("_Entry")

# A definition as a JSON string, and the rest of the request.
REQUEST_BYTES = 3 * limits.DEFINITION_BYTES
PAGE = 100
_MAX_PAGE = 1000
_MAX_TAGS = 50


def too_large() -> ApiError:
    """Return the error for a body of more than `REQUEST_BYTES`."""
    return invalid(f"expected a request of at most {REQUEST_BYTES} bytes")


def invalid(message: str) -> ApiError:
    """Return AWS's ValidationException."""
    return ApiError("ValidationException", HTTPStatus.BAD_REQUEST, f"1 validation error detected: {message}")


def string(request: Request, name: str) -> str:
    """Return a required string."""
    value = optional_string(request, name)
    if value is None:
        raise invalid(f"Value at '{name}' failed to satisfy constraint: Member must not be null")
    return value


def optional_string(request: Request, name: str) -> str | None:
    """Return a string, or None if it is absent."""
    value = request.get(name)
    if not isinstance(value, str | None):
        raise invalid(f"Value at '{name}': expected a string, got {value!r:.80}")
    return value


def data(request: Request, name: str) -> str:
    """Return a required string within the size limit for data between states."""
    value = string(request, name)
    size = len(value.encode(errors="surrogatepass"))
    if size > limits.STATE_DATA_BYTES:
        raise invalid(f"Value at '{name}': expected at most {limits.STATE_DATA_BYTES} bytes, got {size}")
    return value


def execution_input(request: Request) -> str:
    """Return an execution's input, by default ``{}``."""
    return data(request, "input") if "input" in request else "{}"


def integer(request: Request, name: str, maximum: int) -> int:
    """Return an integer from 0 to a maximum; 0 if it is absent."""
    value = request.get(name, 0)
    if type(value) is not int or not 0 <= value <= maximum:
        raise invalid(f"Value at '{name}': expected an integer from 0 to {maximum}, got {value!r:.80}")
    return value


def machine_type(request: Request) -> MachineType:
    """Return a state machine's type, by default STANDARD."""
    kind = request.get("type", "STANDARD")
    if kind not in tuple(MachineType):
        raise invalid(f"Value at 'type': expected STANDARD or EXPRESS, got {kind!r:.80}")
    return MachineType(kind)


def settings(request: Request) -> Response:
    """Return the settings that are stored and returned, but have no effect."""
    names = ("loggingConfiguration", "tracingConfiguration")
    return {name: request[name] for name in names if isinstance(request.get(name), dict)}


def tags(request: Request, existing: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the tags of a request merged into existing ones."""
    listed = request.get("tags", [])
    if not isinstance(listed, list) or not all(isinstance(tag, dict) and "key" in tag for tag in listed):
        raise invalid(f"Value at 'tags': expected objects with key and value, got {listed!r:.80}")
    merged = {**(existing or {}), **{str(tag["key"]): str(tag.get("value", "")) for tag in listed}}
    if len(merged) > _MAX_TAGS:
        raise ApiError("TooManyTags", HTTPStatus.BAD_REQUEST, f"expected at most {_MAX_TAGS} tags, got {len(merged)}")
    return merged


def tag_keys(request: Request) -> Sequence[str]:
    """Return the keys of tags to remove."""
    keys = request.get("tagKeys", [])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise invalid(f"Value at 'tagKeys': expected strings, got {keys!r:.80}")
    return keys


def page(request: Request, name: str, entries: Sequence[_Entry], shape: Callable[[_Entry], Response]) -> Response:
    """Return the page of entries that a request selects, and the token of the next page."""
    size = integer(request, "maxResults", _MAX_PAGE) or PAGE
    start = _start(str(request["nextToken"])) if "nextToken" in request else 0
    end = start + size
    listed: Response = {name: [shape(entry) for entry in entries[start:end]]}
    if end < len(entries):
        listed["nextToken"] = base64.urlsafe_b64encode(str(end).encode()).decode()
    return listed


def _start(token: str) -> int:
    try:
        start = int(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError):
        start = -1
    if start < 0:
        raise ApiError("InvalidToken", HTTPStatus.BAD_REQUEST, "Invalid Token: 'Invalid token'")
    return start
