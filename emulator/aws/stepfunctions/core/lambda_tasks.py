"""Tasks that invoke Lambda functions, directly in the Lambda service, without HTTP."""

import json
import time
import uuid
from http import HTTPStatus

from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.stepfunctions.asl.failures import RUNTIME, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json, dumps, loads
from emulator.aws.stepfunctions.core.sdk_names import ServiceError, optimized_failure
from emulator.aws.stepfunctions.core.tasks import TaskCall
from emulator.errors import ApiError, SandboxError

_UNKNOWN_CAUSE = (
    "The cause could not be determined because Lambda did not return an error type. Returned payload: {payload}"
)


class LambdaTasks:
    """Invokes functions through ``lambda:invoke`` or by their own ARN.

    Parameters
    ----------
    service
        The Lambda service. Cancelling an invocation stops its sandbox.
    """

    def __init__(self, service: LambdaService) -> None:
        self._service = service

    async def call(self, call: TaskCall) -> Json:
        """Invoke a function; return its result, or for ``lambda:invoke`` the whole response of Lambda.

        Raises
        ------
        StateFailure
            With the handler's exception as the error name, or ``Lambda.…Exception`` for an error of Lambda itself.
        """
        if call.resource.is_function:
            payload, _, _ = await self._invoke(call, call.resource.arn, None, _encoded(call.parameters))
            return payload
        parameters = call.parameters
        function, qualifier = parameters["FunctionName"], parameters.get("Qualifier")
        if not isinstance(function, str) or not isinstance(qualifier, str | None):
            raise StateFailure(RUNTIME, f"FunctionName and Qualifier: expected strings, got {dumps(parameters)[:200]}")
        event = _payload(parameters.get("Payload"))
        if parameters.get("InvocationType", "RequestResponse") == "Event":
            try:
                request_id = self._service.enqueue(function, qualifier, event, account=call.execution.machine.account)
            except ApiError as error:
                raise _service_failure(error) from None
            return _invoke_response("", None, request_id, HTTPStatus.ACCEPTED)
        return _invoke_response(*await self._invoke(call, function, qualifier, event), HTTPStatus.OK)

    async def _invoke(
        self, call: TaskCall, function: str, qualifier: str | None, event: bytes
    ) -> tuple[Json, str, str]:
        """Return the payload, the version that ran and the request id."""
        started = time.time()
        try:
            account = call.execution.machine.account
            result = await self._service.invoke(function, qualifier, event, account=account)
        except ApiError as error:
            raise _service_failure(error) from None
        except SandboxError as error:
            raise StateFailure("Lambda.ServiceException", str(error)) from None
        call.record_invocation(function, result.request_id, started, failed=result.is_error)
        text = result.payload.decode()
        if result.is_error:
            raise _function_failure(text)
        # A handler's result may contain NaN, which is invalid JSON. AWS then passes the payload on as a string.
        return _parsed(text), result.version, result.request_id


def _invoke_response(payload: Json, version: str | None, request_id: str, status: HTTPStatus) -> Json:
    """Return Lambda's response with the metadata that AWS's SDK for Java adds."""
    headers = {"x-amzn-RequestId": request_id, "Content-Type": "application/json"}
    named = {} if version is None else {"ExecutedVersion": version}
    return {
        **named,
        "Payload": payload,
        "SdkHttpMetadata": {
            "AllHttpHeaders": {name: [value] for name, value in headers.items()},
            "HttpHeaders": headers,
            "HttpStatusCode": int(status),
        },
        "SdkResponseMetadata": {"RequestId": request_id},
        "StatusCode": int(status),
    }


def _payload(value: Json) -> bytes:
    """Return the event that AWS sends for a Payload: a string of JSON is that JSON, null is an empty object."""
    if value is None:
        return b"{}"
    return value.encode() if isinstance(value, str) and _is_json(value) else _encoded(value)


def _encoded(event: Json) -> bytes:
    # An unpaired surrogate is valid in JSON, but not in UTF-8: it stays escaped.
    return json.dumps(event).encode()


def _is_json(text: str) -> bool:
    try:
        loads(text)
        text.encode()
    except ValueError:
        return False
    return True


def _parsed(text: str) -> Json:
    try:
        return loads(text) if text else None
    except ValueError:
        return text


def _service_failure(error: ApiError) -> StateFailure:
    described = ServiceError("Invoke", (error.code,), error.message, error.status.value, str(uuid.uuid4()))
    return StateFailure(*optimized_failure("lambda", None, described))


def _function_failure(text: str) -> StateFailure:
    error = json.loads(text)
    if isinstance(error, dict) and isinstance(error.get("errorType"), str):
        return StateFailure(error["errorType"], text)
    return StateFailure("Lambda.Unknown", _UNKNOWN_CAUSE.format(payload=text))
