"""Names of services, members and errors as AWS shows them: those of its SDK for Java, which Step Functions uses.

An ``aws-sdk`` integration has the names of version 2 of the SDK, an optimized integration those of version 1. Rules:
https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html and the SDK's naming strategy.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape
from botocore.utils import EVENT_ALIASES

from emulator.aws.stepfunctions.asl.json_values import Json, dumps

# Members that the SDK renames, because their names mean something else in Java.
_RENAMED = {"NULL": "Nul", "Equals": "EqualsValue", "equals": "EqualsValue"}
# HEAD responses have no body, hence no error code: the SDK derives it.
_HEAD_CODES = {("HeadObject", "404"): "NoSuchKey", ("HeadBucket", "404"): "NoSuchBucket"}


@dataclass(frozen=True)
class OptimizedService:
    """The names of a service with optimized integrations.

    Parameters
    ----------
    prefix
        The prefix of its error names.
    base
        The name of errors that the service's model does not define.
    client
        The service's name in causes.
    """

    prefix: str
    base: str
    client: str


# By the service's name in a Resource: one for each service of `resources.OPTIMIZED`.
OPTIMIZED_SERVICES = {
    "lambda": OptimizedService("Lambda", "AWSLambdaException", "AWSLambda"),
    "states": OptimizedService("StepFunctions", "AWSStepFunctionsException", "AWSStepFunctions"),
    "dynamodb": OptimizedService("DynamoDB", "AmazonDynamoDBException", "AmazonDynamoDBv2"),
    "sns": OptimizedService("SNS", "AmazonSNSException", "AmazonSNS"),
    "sqs": OptimizedService("SQS", "AmazonSQSException", "AmazonSQS"),
    "events": OptimizedService("EventBridge", "AmazonEventBridgeException", "AmazonEventBridge"),
}


@dataclass(frozen=True)
class ServiceError:
    """An error response of a service.

    Parameters
    ----------
    operation
        The operation that failed, such as ``HeadObject``.
    codes
        The error's codes: a service with two protocols has one for each.
    message
        The message.
    status
        The HTTP status.
    request_id, extended_id
        The ids of the request; the second one is S3's and otherwise empty.
    """

    operation: str
    codes: tuple[str, ...]
    message: str
    status: int
    request_id: str
    extended_id: str = ""


def _words(name: str) -> list[str]:
    """Split a name into words, as the SDK's ``splitOnWordBoundaries`` does: ``DynamoDB`` into Dynamo and DB."""
    spaced = re.sub(r"[^A-Za-z0-9]+", " ", name)
    spaced = re.sub(r"([^a-z]{2,})v([0-9]+)", r"\1 v\2 ", spaced)
    spaced = re.sub(r"([^A-Z]{2,})V([0-9]+)", r"\1 V\2 ", spaced)
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-zA-Z0-9])", " ", spaced)
    spaced = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1 \2", spaced)
    return re.sub(r"([0-9])([a-zA-Z])", r"\1 \2", spaced).split()


def _pascal(name: str) -> str:
    return "".join(word.capitalize() for word in _words(name))


def service_name(service_id: str) -> str:
    """Return a service's name from its id, such as ``DynamoDb`` or ``CloudWatchLogs``."""
    return _pascal(service_id).removeprefix("Amazon").removeprefix("Aws").removesuffix("Service")


def boto_service(name: str, available: Iterable[str]) -> str:
    """Return boto3's name of the service that a Resource names, such as ``stepfunctions`` for ``sfn``.

    Parameters
    ----------
    name
        The name in the Resource: that of the SDK, in lower case.
    available
        All services of boto3.
    """
    names = {service_name(EVENT_ALIASES.get(service, service)).lower(): service for service in available}
    return names.get(name, name)


def member_name(name: str) -> str:
    """Return the name of a member in an ``aws-sdk`` integration: ``SSEKMSKeyId`` is ``SsekmsKeyId``."""
    if name in _RENAMED:
        return _RENAMED[name]
    # The SDK lowers the capitals at the start, except one that begins a word: SSEKMSKeyId becomes ssekmsKeyId.
    position = 1
    while position < len(name) and name[position].isupper() and not name[position + 1 : position + 2].islower():
        position += 1
    lowered = name[:position].lower() + name[position:]
    return lowered[:1].upper() + lowered[1:]


def _optimized_member_name(name: str) -> str:
    return name[:1].upper() + name[1:]


def sdk_failure(model: ServiceModel, error: ServiceError) -> tuple[str, str]:
    """Return the error name and the cause in an ``aws-sdk`` integration."""
    service = service_name(str(model.service_id))
    shape = _error_shape(model, error)
    name = f"{service}Exception" if shape is None else _with_suffix(_pascal(shape))
    ids = f"Request ID: {error.request_id}" + (
        f", Extended Request ID: {error.extended_id}" if error.extended_id else ""
    )
    return f"{service}.{name}", f"{error.message} (Service: {service}, Status Code: {error.status}, {ids})"


def optimized_failure(service: str, model: ServiceModel | None, error: ServiceError) -> tuple[str, str]:
    """Return the error name and the cause in an optimized integration.

    Parameters
    ----------
    service
        The service's name in the Resource.
    model
        The service's model, or None where the code is known to be one of it.
    error
        The error.
    """
    names = OPTIMIZED_SERVICES[service]
    shape = error.codes[0] if model is None else _error_shape(model, error)
    name = names.base if shape is None else _with_suffix(shape)
    return f"{names.prefix}.{name}", (
        f"{error.message} (Service: {names.client}; Status Code: {error.status}; Error Code: {error.codes[0]}; "
        f"Request ID: {error.request_id}; Proxy: null)"
    )


def _error_shape(model: ServiceModel, error: ServiceError) -> str | None:
    """Return the name of the shape that a service's model has for an error, or None."""
    codes: Collection[str] = {*error.codes, *(_HEAD_CODES.get((error.operation, code), code) for code in error.codes)}
    shapes: list[Any] = model.error_shapes
    return next((str(shape.name) for shape in shapes if {shape.name, shape.error_code} & set(codes)), None)


def _with_suffix(name: str) -> str:
    return name if name.endswith("Exception") else f"{name.removesuffix('Fault')}Exception"


def to_boto(value: Json, shape: Shape | None) -> Any:
    """Return parameters under boto3's names. Keys of maps stay; null is no parameter."""
    if isinstance(shape, StructureShape) and isinstance(value, dict) and not shape.is_document_type:
        known = {
            name: str(member) for member in shape.members for name in (member.lower(), member_name(member).lower())
        }
        named = {str(known.get(name.lower(), name)): part for name, part in value.items() if part is not None}
        return {name: to_boto(part, shape.members.get(name)) for name, part in named.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [to_boto(item, shape.member) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {name: to_boto(part, shape.value) for name, part in value.items()}
    if shape is not None and shape.type_name == "blob":
        return value if isinstance(value, str) else dumps(value)
    # An object for a string parameter is serialized as JSON, for example StartExecution's Input.
    if shape is not None and shape.type_name == "string" and isinstance(value, dict | list):
        return dumps(value)
    return value


def to_json(value: Any, shape: Shape | None, *, sdk: bool) -> Json:
    """Return a response as JSON under AWS's names. Keys of maps and the content of documents stay.

    Parameters
    ----------
    value
        The response from boto3.
    shape
        Its shape.
    sdk
        Whether it is that of an ``aws-sdk`` integration.
    """
    if isinstance(shape, StructureShape) and isinstance(value, dict) and not shape.is_document_type:
        rename = member_name if sdk else _optimized_member_name
        return {rename(name): to_json(part, shape.members.get(name), sdk=sdk) for name, part in value.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [to_json(item, shape.member, sdk=sdk) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {name: to_json(part, shape.value, sdk=sdk) for name, part in value.items()}
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value
