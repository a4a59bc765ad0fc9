"""Reading a request: its members by the model, from the path, the query, the headers and the body."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Protocol

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from emulator.aws.json_requests import json_object
from emulator.errors import ApiError

_CONSTANTS = {"true": True, "false": False}


class Query(Protocol):
    """A query, of which a name may have several values."""

    def getall(self, key: str, default: Sequence[str]) -> Sequence[str]:
        """Return all values of a name."""


def read_rest_json(
    operation: OperationModel,
    path: Mapping[str, str],
    query: Query,
    headers: Mapping[str, str],
    body: bytes,
) -> dict[str, Any]:
    """Return the members of a request of the protocol REST-JSON; what the request does not have is left out.

    Parameters
    ----------
    operation
        The operation.
    path
        The parameters in the path, decoded.
    query, headers, body
        As received.

    Raises
    ------
    ApiError
        SerializationException when the body is not JSON, or a value has another type than the model says.
    """
    shape = operation.input_shape
    if not isinstance(shape, StructureShape):
        return {}
    parameters: dict[str, Any] = {}
    in_body: dict[str, Shape] = {}
    payload = shape.serialization.get("payload")
    for name, member in shape.members.items():
        wire_name = member.serialization.get("name", name)
        location = member.serialization.get("location")
        value: Any = None
        if location == "uri":
            value = path.get(wire_name)
        elif location == "querystring":
            found = query.getall(wire_name, ())
            value = (list(found) or None) if isinstance(member, ListShape) else (found[0] if found else None)
        elif location == "header":
            value = headers.get(wire_name)
        elif name == payload:
            parameters[name] = body if member.type_name == "blob" else read_value(member, json_object(body))
            continue
        else:
            in_body[name] = member
            continue
        if value is not None:
            parameters[name] = _from_text(member, value)
    if in_body and payload is None:
        parameters |= _members(in_body, json_object(body))
    return parameters


def read_value(shape: Shape, value: Any) -> Any:
    """Return a JSON value as the model's type, without members that are null.

    Blobs are bytes, timestamps datetime.

    Raises
    ------
    ApiError
        SerializationException when it has another type.
    """
    if isinstance(shape, StructureShape):
        return _members(shape.members, _of_type(value, dict))
    if isinstance(shape, ListShape):
        return [None if item is None else read_value(shape.member, item) for item in _of_type(value, list)]
    if isinstance(shape, MapShape):
        items = _of_type(value, dict).items()
        return {key: None if item is None else read_value(shape.value, item) for key, item in items}
    reader = _SCALARS.get(shape.type_name)
    return value if reader is None else reader(value)


def _members(members: Mapping[str, Shape], values: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, member in members.items():
        value = values.get(member.serialization.get("name", name))
        if value is not None:
            found[name] = read_value(member, value)
    return found


def _from_text(shape: Shape, value: Any) -> Any:
    """Return the value of a member outside of the body."""
    if isinstance(shape, ListShape):
        return [_from_text(shape.member, item) for item in value]
    if shape.type_name in ("integer", "long"):
        try:
            return int(value)
        except ValueError:
            raise _wrong_type("STRING_VALUE", "an Integer") from None
    if shape.type_name == "boolean":
        if value.lower() not in _CONSTANTS:
            raise _wrong_type("STRING_VALUE", "a Boolean")
        return _CONSTANTS[value.lower()]
    return value


def _of_type(value: Any, kind: type) -> Any:
    if isinstance(value, kind):
        return value
    if isinstance(value, dict):
        raise _serialization_error("Start of structure or map found where not expected.")
    if isinstance(value, list):
        raise _serialization_error("Start of list found where not expected")
    raise _serialization_error("Unexpected field type")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type(_token(value), "a String")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(_token(value), "an Integer")
    return value


def _real(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong_type(_token(value), "a Double")
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(_token(value), "a Boolean")
    return value


def _blob(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError):
        raise _serialization_error("Unable to decode a blob: expected base64") from None


def _time(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            raise _wrong_type("STRING_VALUE", "a Timestamp") from None
    return datetime.fromtimestamp(_real(value), UTC)


_SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "string": _text,
    "character": _text,
    "integer": _whole,
    "long": _whole,
    "float": _real,
    "double": _real,
    "boolean": _truth,
    "blob": _blob,
    "timestamp": _time,
}


def _token(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    if isinstance(value, dict):
        return "START_OBJECT"
    return "START_ARRAY" if isinstance(value, list) else "NUMBER_VALUE"


def _wrong_type(token: str, expected: str) -> ApiError:
    return _serialization_error(f"{token} can not be converted to {expected}")


def _serialization_error(message: str) -> ApiError:
    return ApiError("SerializationException", HTTPStatus.BAD_REQUEST, message)
