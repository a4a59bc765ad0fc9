"""Calls of other AWS services through boto3, at the emulator's own endpoint: for SDK Tasks and distributed Maps."""

import asyncio
import datetime
import threading
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError, UnknownServiceError
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from emulator.aws.limits import REGION
from emulator.aws.stepfunctions.asl.failures import RUNTIME, TASK_FAILED, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json, dumps
from emulator.aws.stepfunctions.core.tasks import TaskCall

# Path style needs no name resolution of buckets. A Task has its own retries.
_CONFIG = Config(
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
    inject_host_prefix=False,
    max_pool_connections=32,
    read_timeout=900,
)


# AWS names services as its SDK for Java does. These names differ from boto3's.
_BOTO_NAMES = {
    "cloudwatchlogs": "logs",
    "cognitoidentityprovider": "cognito-idp",
    "elasticloadbalancingv2": "elbv2",
    "eventbridge": "events",
    "secretsmanager": "secretsmanager",
    "sfn": "stepfunctions",
}
# Services whose prefix in error names is not the capitalized service name.
_ERROR_PREFIXES = {"dynamodb": "DynamoDb", "cloudwatchlogs": "CloudWatchLogs", "eventbridge": "EventBridge"}


class AwsClient:
    """Calls AWS services at an endpoint, each call in a thread.

    Parameters
    ----------
    endpoint_url
        The endpoint of all services.
    """

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    async def call(self, service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Call an operation and return its response; a streamed body is read.

        Parameters
        ----------
        service, operation
            Names as in boto3, such as ``s3`` and ``GetObject``.
        parameters
            The operation's parameters.

        Raises
        ------
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            If the service returns an error, or the call cannot be sent.
        """
        return await asyncio.to_thread(self._call, service, operation, parameters)

    async def model(self, service: str) -> ServiceModel:
        """Return boto3's model of a service.

        Raises
        ------
        botocore.exceptions.UnknownServiceError
            If there is no service of that name.
        """
        client = await asyncio.to_thread(self._client, service)
        model: ServiceModel = client.meta.service_model
        return model

    def _client(self, service: str) -> Any:
        """Return a service's client, created at the first call."""
        # Creating clients is not thread-safe, using them is.
        with self._lock:
            if service not in self._clients:
                session: Any = boto3.Session(
                    region_name=REGION,
                    aws_access_key_id="local",
                    aws_secret_access_key="local",  # noqa: S106 - the local endpoint checks no credentials
                )
                self._clients[service] = session.client(service, endpoint_url=self._endpoint_url, config=_CONFIG)
            return self._clients[service]

    def _call(self, service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        client = self._client(service)
        response: dict[str, Any] = client._make_api_call(operation, parameters)  # noqa: SLF001 - by the operation's name in the API
        return {
            name: value.read() if hasattr(value, "read") else value
            for name, value in response.items()
            if name != "ResponseMetadata"
        }


class SdkTasks:
    """Calls AWS services at the emulator's own endpoint.

    Parameters
    ----------
    aws
        Makes the calls.
    """

    def __init__(self, aws: AwsClient) -> None:
        self._aws = aws

    async def call(self, call: TaskCall) -> Json:
        """Make a call. Names of parameters and results are capitalized, as in AWS's SDK for Java.

        Raises
        ------
        StateFailure
            With an error name such as ``S3.NoSuchKeyException``.
        """
        resource = call.resource
        service = _BOTO_NAMES.get(resource.service, resource.service)
        operation = resource.action[0].upper() + resource.action[1:]
        try:
            model = await self._aws.model(service)
        except UnknownServiceError:
            raise StateFailure(
                RUNTIME, f"unknown AWS service {resource.service!r}: expected a service that boto3 has"
            ) from None
        if operation not in model.operation_names:
            raise StateFailure(RUNTIME, f"unknown action {resource.action!r} of AWS service {resource.service!r}")
        shapes = model.operation_model(operation)
        parameters = _to_boto_names(call.parameters if call.parameters is not None else {}, shapes.input_shape)
        try:
            response = await self._aws.call(service, operation, parameters)
        except ParamValidationError as error:
            raise StateFailure(RUNTIME, f"invalid Parameters for {operation}: {error}") from None
        except ClientError as error:
            raise _service_failure(resource.service, error) from None
        except BotoCoreError as error:
            raise StateFailure(TASK_FAILED, f"{operation}: {error}") from None
        return _to_json(response)


def _to_boto_names(value: Json, shape: Shape | None) -> Any:
    """Return parameters under boto3's names, which differ in case for some services."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        known = {str(member).lower(): str(member) for member in shape.members}
        names = {str(name): known.get(str(name).lower(), str(name)) for name in value}
        return {names[name]: _to_boto_names(part, shape.members.get(names[name])) for name, part in value.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_to_boto_names(item, shape.member) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {name: _to_boto_names(part, shape.value) for name, part in value.items()}
    if shape is not None and shape.type_name == "blob":
        return value if isinstance(value, str) else dumps(value)
    # An object for a string parameter is serialized as JSON, for example StartExecution's Input.
    if shape is not None and shape.type_name == "string" and isinstance(value, dict | list):
        return dumps(value)
    return value


def _to_json(value: Any) -> Json:
    """Return a response as JSON with capitalized names."""
    if isinstance(value, dict):
        return {name[:1].upper() + name[1:]: _to_json(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
    return value


def _service_failure(service: str, error: ClientError) -> StateFailure:
    code = error.response["Error"]["Code"]
    code = code if code.endswith("Exception") else f"{code}Exception"
    prefix = _ERROR_PREFIXES.get(service, service[0].upper() + service[1:])
    status = error.response["ResponseMetadata"].get("HTTPStatusCode")
    message = error.response["Error"].get("Message", "")
    return StateFailure(f"{prefix}.{code}", f"{message} (Service: {prefix}, Status Code: {status})")
