"""Writing an answer: the members of a result by the model, and errors with the members that the model gives them."""

import base64
import functools
import json
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from aiohttp import web
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

from emulator.aws.protocol.service_models import error_members
from emulator.errors import ApiError

REQUEST_ID = "x-amzn-RequestId"


def json_answer(operation: OperationModel, result: Mapping[str, Any], request_id: str | None = None) -> web.Response:
    """Return the answer of an operation whose protocol is JSON or REST-JSON.

    Parameters
    ----------
    operation
        The operation.
    result
        The members of its output, by name. Members that are None, and names that the output does not have, are left
        out.
    request_id
        The id of the request; None for a new one.
    """
    shape = operation.output_shape
    status = int(operation.http.get("responseCode", HTTPStatus.OK))
    if isinstance(shape, StructureShape):
        in_status = (
            name for name, member in shape.members.items() if member.serialization.get("location") == "statusCode"
        )
        status = next((int(result[name]) for name in in_status if name in result), status)
    headers = {REQUEST_ID: request_id or str(uuid.uuid4())}
    if not isinstance(shape, StructureShape) or status == HTTPStatus.NO_CONTENT:
        return web.Response(status=status, headers=headers)
    body = json.dumps(_writer(shape)(result)).encode()
    return web.Response(status=status, body=body, content_type=_content_type(operation.service_model), headers=headers)


def error_answer(service: str, error: ApiError) -> web.Response:
    """Return the answer that reports an error of a REST-JSON service.

    Parameters
    ----------
    service
        botocore's name of the service, whose model says whether the message is named ``message`` or ``Message``.
    error
        The error; an empty ``Type`` among its details is left out.
    """
    members = error_members(service, error.code)
    name = "Message" if "Message" in members else "message"
    body: dict[str, Any] = {name: error.message}
    if "Type" in members:
        body["Type"] = "User" if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else "Service"
    body |= error.details
    body = {key: value for key, value in body.items() if key != "Type" or value}
    headers = {"x-amzn-ErrorType": error.code, REQUEST_ID: str(uuid.uuid4())}
    return web.json_response(body, status=error.status, headers=headers)


def json_error(service: ServiceModel, error: ApiError) -> web.Response:
    """Return the answer that reports an error of a service whose protocol is AWS JSON."""
    body = {"__type": error.code, "message": error.message, **error.details}
    headers = {REQUEST_ID: str(uuid.uuid4())}
    return web.json_response(body, status=error.status, content_type=_content_type(service), headers=headers)


def not_implemented(operation: str) -> ApiError:
    """Return the error of an operation of AWS that this emulator does not have."""
    return ApiError(
        "NotImplementedException",
        HTTPStatus.NOT_IMPLEMENTED,
        f"the operation {operation} is not emulated: see the documentation of the emulator for what is",
    )


def _content_type(service: ServiceModel) -> str:
    version = service.metadata.get("jsonVersion")
    return "application/json" if version is None else f"application/x-amz-json-{version}"


@functools.cache
def _writer(shape: Shape) -> Callable[[Any], Any]:
    """Return what writes the values of a shape. Logs' answers have ten thousand events: shapes are visited once."""
    if isinstance(shape, StructureShape):
        members = [
            (name, member.serialization.get("name", name), _writer(member))
            for name, member in shape.members.items()
            if "location" not in member.serialization
        ]
        return lambda values: {
            wire_name: write(values[name]) for name, wire_name, write in members if values.get(name) is not None
        }
    if isinstance(shape, ListShape):
        write_item = _writer(shape.member)
        return lambda values: [write_item(value) for value in values]
    if isinstance(shape, MapShape):
        write_value = _writer(shape.value)
        return lambda values: {key: write_value(value) for key, value in values.items()}
    if shape.type_name == "blob":
        return lambda value: base64.b64encode(value).decode()
    if shape.type_name == "timestamp":
        return _iso_time if shape.serialization.get("timestampFormat") == "iso8601" else _epoch_time
    return _unchanged


def _unchanged(value: Any) -> Any:
    return value


def _iso_time(value: Any) -> Any:
    return f"{value:%Y-%m-%dT%H:%M:%S}Z" if isinstance(value, datetime) else value


def _epoch_time(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value
