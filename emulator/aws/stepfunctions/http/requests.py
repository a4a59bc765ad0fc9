"""What Step Functions' operations read from requests besides what the model says: sizes in bytes, tags, pages."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from emulator.aws import limits
from emulator.aws.protocol.constraints import VALIDATION
from emulator.aws.protocol.json_api import Parameters
from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.errors import ApiError

_Entry = TypeVar("_Entry")
_PAGE = 100
_MAX_TAGS = 50
_SETTINGS = ("loggingConfiguration", "tracingConfiguration", "encryptionConfiguration")


def invalid(message: str) -> ApiError:
    """Return AWS's ValidationException."""
    return ApiError(VALIDATION, HTTPStatus.BAD_REQUEST, message)


def data(request: Parameters, name: str, default: str = "") -> str:
    """Return a string within the size limit for data between states."""
    value = str(request.get(name, default))
    size = len(value.encode(errors="surrogatepass"))
    if size > limits.STATE_DATA_BYTES:
        raise invalid(f"Value at '{name}': expected at most {limits.STATE_DATA_BYTES} bytes, got {size}")
    return value


def machine_type(request: Parameters) -> MachineType:
    """Return a state machine's type, by default STANDARD."""
    return MachineType(request.get("type", "STANDARD"))


def check_unpublished(request: Parameters) -> None:
    """Check that a request asks for no version.

    Raises
    ------
    ApiError
        ValidationException.
    """
    if request.get("publish"):
        raise invalid("publish: versions of state machines are not emulated; omit it")
    if "versionDescription" in request:
        raise invalid("Version description can only be set when publish is true")


def settings(request: Parameters) -> dict[str, Any]:
    """Return the settings that are stored and returned, but have no effect."""
    return {name: request[name] for name in _SETTINGS if name in request}


def tags(request: Parameters, existing: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the tags of a request merged into existing ones."""
    listed = request.get("tags", [])
    merged = {**(existing or {}), **{tag.get("key", ""): tag.get("value", "") for tag in listed}}
    if len(merged) > _MAX_TAGS:
        raise ApiError("TooManyTags", HTTPStatus.BAD_REQUEST, f"expected at most {_MAX_TAGS} tags, got {len(merged)}")
    return merged


def page(
    request: Parameters, name: str, entries: Sequence[_Entry], shape: Callable[[_Entry], dict[str, Any]]
) -> dict[str, Any]:
    """Return the page of entries that a request selects, and the token of the next page."""
    size = request.get("maxResults") or _PAGE
    start = _start(request["nextToken"]) if "nextToken" in request else 0
    end = start + size
    listed: dict[str, Any] = {name: [shape(entry) for entry in entries[start:end]]}
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
