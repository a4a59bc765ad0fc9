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

# The path style needs no name resolution for buckets; a Task has its own retries.
_CONFIG = Config(
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
    inject_host_prefix=False,
    max_pool_connections=32,
    read_timeout=900,
)


# AWS names services as its SDK for Java does; these are other names than boto3's.
_BOTO_NAMES = {
    "cloudwatchlogs": "logs",
    "cognitoidentityprovider": "cognito-idp",
    "elasticloadbalancingv2": "elbv2",
    "eventbridge": "events",
    "secretsmanager": "secretsmanager",
    "sfn": "stepfunctions",
}
# How AWS writes services in the names of errors, where it is not the name with a capital.
_ERROR_PREFIXES = {"dynamodb": "DynamoDb", "cloudwatchlogs": "CloudWatchLogs", "eventbridge": "EventBridge"}


class AwsClient:
    """Calls AWS services at an endpoint.

    Parameters
    ----------
    endpoint_url
        Where they are.
    """

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    async def call(self, service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Call an operation and return its answer; a streamed body is read.

        Parameters
        ----------
        service, operation
            As boto3 names them, such as ``s3`` and ``GetObject``.
        parameters
            For the operation.

        Raises
        ------
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            When it is refused, or cannot be sent.
        """
        return await asyncio.to_thread(self._call, service, operation, parameters)

    async def model(self, service: str) -> ServiceModel:
        """Return what boto3 knows of a service.

        Raises
        ------
        botocore.exceptions.UnknownServiceError
            When there is none of that name.
        """
        client = await asyncio.to_thread(self._client, service)
        model: ServiceModel = client.meta.service_model
        return model

    def _client(self, service: str) -> Any:
        """Return a service's client, made once."""
        # Making clients is not thread-safe, using them is.
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
        answer: dict[str, Any] = client._make_api_call(operation, parameters)  # noqa: SLF001 - by the API's own name
        return {
            name: value.read() if hasattr(value, "read") else value
            for name, value in answer.items()
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
        """Make a call; names of parameters and results begin with a capital, as in AWS's SDK for Java.

        Raises
        ------
        StateFailure
            Named like ``S3.NoSuchKeyException``.
        """
        resource = call.resource
        service = _BOTO_NAMES.get(resource.service, resource.service)
        operation = resource.action[0].upper() + resource.action[1:]
        try:
            model = await self._aws.model(service)
        except UnknownServiceError:
            raise StateFailure(RUNTIME, f"there is no AWS service {resource.service!r}") from None
        if operation not in model.operation_names:
            raise StateFailure(RUNTIME, f"{resource.service} has no action {resource.action!r}")
        shapes = model.operation_model(operation)
        parameters = _to_boto_names(call.parameters if call.parameters is not None else {}, shapes.input_shape)
        try:
            answer = await self._aws.call(service, operation, parameters)
        except ParamValidationError as error:
            raise StateFailure(RUNTIME, f"The Parameters are not what {operation} takes: {error}") from None
        except ClientError as error:
            raise _service_failure(resource.service, error) from None
        except BotoCoreError as error:
            raise StateFailure(TASK_FAILED, f"{operation}: {error}") from None
        return _to_json(answer)


def _to_boto_names(value: Json, shape: Shape | None) -> Any:
    """Return parameters under the names that boto3 knows: some services begin theirs with a small letter."""
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
    # A text parameter that is given an object takes it as JSON, such as StartExecution's Input.
    if shape is not None and shape.type_name == "string" and isinstance(value, dict | list):
        return dumps(value)
    return value


def _to_json(value: Any) -> Json:
    """Return an answer as JSON, its names with a capital first."""
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
