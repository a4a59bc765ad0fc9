"""Calls of other AWS services through boto3, at the emulator's own endpoint: for SDK Tasks and distributed Maps."""

import asyncio
import threading
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError, UnknownServiceError
from botocore.model import ServiceModel

from emulator.aws.credentials import Credentials
from emulator.aws.limits import REGION
from emulator.aws.stepfunctions.asl.failures import RUNTIME, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json, dumps
from emulator.aws.stepfunctions.asl.resources import Resource
from emulator.aws.stepfunctions.core.sdk_names import (
    OPTIMIZED_SERVICES,
    ServiceError,
    boto_service,
    optimized_failure,
    sdk_failure,
    service_name,
    to_boto,
    to_json,
)
from emulator.aws.stepfunctions.core.tasks import TaskCall

# Path style needs no name resolution of buckets. A Task has its own retries.
_CONFIG = Config(
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
    inject_host_prefix=False,
    max_pool_connections=32,
    read_timeout=900,
)


class AwsClient:
    """Calls AWS services at an endpoint, each call in a thread.

    Parameters
    ----------
    endpoint_url
        The endpoint of all services.
    """

    def __init__(self, endpoint_url: str, credentials: Credentials | None = None) -> None:
        self._credentials = credentials or Credentials.random()
        self._endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}
        self._services: frozenset[str] = frozenset()
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
        response, _ = await self.call_with_metadata(service, operation, parameters)
        return response

    async def call_with_metadata(
        self, service: str, operation: str, parameters: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Call an operation as `call` does; return its response, and the headers, status and id of the response."""
        return await asyncio.to_thread(self._call, service, operation, parameters)

    async def model(self, name: str) -> tuple[str, ServiceModel]:
        """Return boto3's name and model of a service that a Resource names, such as ``sfn``.

        Raises
        ------
        botocore.exceptions.UnknownServiceError
            If there is no service of that name.
        """
        return await asyncio.to_thread(self._model, name)

    def _model(self, name: str) -> tuple[str, ServiceModel]:
        with self._lock:
            self._services = self._services or frozenset(boto3.Session().get_available_services())
        service = boto_service(name, self._services)
        return service, self._client(service).meta.service_model

    def _client(self, service: str) -> Any:
        """Return a service's client, created at the first call."""
        # Creating clients is not thread-safe, using them is.
        with self._lock:
            if service not in self._clients:
                make: Any = boto3.Session
                session = make(region_name=REGION, **self._credentials.for_boto3())
                self._clients[service] = session.client(service, endpoint_url=self._endpoint_url, config=_CONFIG)
            return self._clients[service]

    def _call(self, service: str, operation: str, parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        client = self._client(service)
        response: dict[str, Any] = client._make_api_call(operation, parameters)  # noqa: SLF001 - by the operation's name in the API
        metadata: dict[str, Any] = response.pop("ResponseMetadata", {})
        return {name: value.read() if hasattr(value, "read") else value for name, value in response.items()}, metadata


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
        """Make a call. Parameters, results and errors have the names of AWS's SDK for Java.

        Raises
        ------
        StateFailure
            With an error name such as ``S3.NoSuchKeyException``.
        """
        resource = call.resource
        operation = resource.action[0].upper() + resource.action[1:]
        try:
            service, model = await self._aws.model(resource.service)
        except UnknownServiceError:
            raise StateFailure(
                RUNTIME, f"unknown AWS service {resource.service!r}: expected a service that boto3 has"
            ) from None
        if operation not in model.operation_names:
            raise StateFailure(RUNTIME, f"unknown action {resource.action!r} of AWS service {resource.service!r}")
        shapes = model.operation_model(operation)
        if shapes.has_event_stream_output or shapes.has_event_stream_input:
            raise StateFailure(RUNTIME, f"{resource.service}:{resource.action} streams events, which is not emulated")
        parameters = to_boto(call.parameters if call.parameters is not None else {}, shapes.input_shape)
        try:
            response, metadata = await self._aws.call_with_metadata(service, operation, parameters)
        except ParamValidationError as error:
            raise StateFailure(RUNTIME, f"invalid Parameters for {operation}: {error}") from None
        except ClientError as error:
            raise _service_failure(resource, model, error) from None
        except BotoCoreError as error:
            name = service_name(str(model.service_id)) if resource.sdk else OPTIMIZED_SERVICES[resource.service].prefix
            raise StateFailure(f"{name}.SdkClientException", f"{operation}: {error}") from None
        result = to_json(response, shapes.output_shape, sdk=resource.sdk)
        if resource.sdk:
            return result
        if resource.service == "events":
            # A put event that fails is no error of the API, but one of this integration.
            if result.get("FailedEntryCount"):
                raise StateFailure("EventBridge.FailedEntry", dumps(result))
            return result
        return {**result, **_sdk_metadata(metadata)}


def _sdk_metadata(metadata: dict[str, Any]) -> dict[str, Json]:
    """Return the metadata that optimized integrations add to a response."""
    headers = metadata.get("HTTPHeaders", {})
    return {
        "SdkHttpMetadata": {
            "AllHttpHeaders": {name: [value] for name, value in headers.items()},
            "HttpHeaders": headers,
            "HttpStatusCode": metadata.get("HTTPStatusCode"),
        },
        "SdkResponseMetadata": {"RequestId": metadata.get("RequestId", "")},
    }


def _service_failure(resource: Resource, model: ServiceModel, error: ClientError) -> StateFailure:
    found, metadata = error.response["Error"], error.response["ResponseMetadata"]
    # A service with the protocols Query and JSON has a code for each.
    codes = (found["Code"], str(found.get("QueryErrorCode", found["Code"])))
    described = ServiceError(
        error.operation_name,
        codes,
        found.get("Message", ""),
        metadata.get("HTTPStatusCode", 0),
        metadata.get("RequestId", ""),
        metadata.get("HostId", ""),
    )
    if resource.sdk:
        return StateFailure(*sdk_failure(model, described))
    return StateFailure(*optimized_failure(resource.service, model, described))
