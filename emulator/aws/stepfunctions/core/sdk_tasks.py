"""Tasks that call any AWS service: ``aws-sdk:SERVICE:ACTION``, and the integrations that need no more than that."""

import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError, UnknownServiceError
from botocore.model import ListShape, MapShape, Shape, StructureShape

from emulator.aws.stepfunctions.asl.failures import RUNTIME, TASK_FAILED, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json, dumps
from emulator.aws.stepfunctions.core.aws_calls import AwsCalls
from emulator.aws.stepfunctions.core.tasks import TaskCall

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


class SdkTasks:
    """Calls AWS services at the emulator's own endpoint.

    Parameters
    ----------
    aws
        Makes the calls.
    """

    def __init__(self, aws: AwsCalls) -> None:
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
        parameters = _renamed(call.parameters if call.parameters is not None else {}, shapes.input_shape)
        try:
            answer = await self._aws.call(service, operation, parameters)
        except ParamValidationError as error:
            raise StateFailure(RUNTIME, f"The Parameters are not what {operation} takes: {error}") from None
        except ClientError as error:
            raise _refused(resource.service, error) from None
        except BotoCoreError as error:
            raise StateFailure(TASK_FAILED, f"{operation}: {error}") from None
        return _to_json(answer)


def _renamed(value: Json, shape: Shape | None) -> Any:
    """Return parameters under the names that boto3 knows: some services begin theirs with a small letter."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        known = {str(member).lower(): str(member) for member in shape.members}
        names = {str(name): known.get(str(name).lower(), str(name)) for name in value}
        return {names[name]: _renamed(part, shape.members.get(names[name])) for name, part in value.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_renamed(item, shape.member) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {name: _renamed(part, shape.value) for name, part in value.items()}
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


def _refused(service: str, error: ClientError) -> StateFailure:
    code = error.response["Error"]["Code"]
    code = code if code.endswith("Exception") else f"{code}Exception"
    prefix = _ERROR_PREFIXES.get(service, service[0].upper() + service[1:])
    status = error.response["ResponseMetadata"].get("HTTPStatusCode")
    message = error.response["Error"].get("Message", "")
    return StateFailure(f"{prefix}.{code}", f"{message} (Service: {prefix}, Status Code: {status})")
