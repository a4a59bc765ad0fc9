"""SDK Tasks: calls of other AWS services at the emulator's own endpoint, with the SDK for Java's names."""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError, UnknownServiceError
from botocore.model import ServiceModel

from emulator.aws.sdk_client import AwsClient
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
        resource, region = call.resource, call.execution.machine.account.region
        operation = resource.action[0].upper() + resource.action[1:]
        try:
            service = boto_service(resource.service, await self._aws.services())
            model = await self._aws.model(service)
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
            response, metadata = await self._aws.call_with_metadata(service, operation, parameters, region)
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
