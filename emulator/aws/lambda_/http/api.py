"""Lambda's REST API: its operations by the names that they have in AWS's model.

Requests are read and checked, and answers written, by the model. Shapes:
https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html
"""

import base64
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web
from botocore.model import OperationModel

from emulator.aws import limits
from emulator.aws.account import Account
from emulator.aws.disk_reserve import DiskFullError
from emulator.aws.json_requests import read_body
from emulator.aws.lambda_.code_downloads import CodeDownloads
from emulator.aws.lambda_.core.code_signing import CodeSigningConfigs
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.function_urls import FunctionUrls
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.layers import Layers
from emulator.aws.lambda_.core.references import Reference
from emulator.aws.lambda_.http.code_sources import CodeSources
from emulator.aws.lambda_.http.functions import FunctionOperations
from emulator.aws.lambda_.http.layers import LayerOperations
from emulator.aws.lambda_.http.requests import Operation, Parameters
from emulator.aws.lambda_.http.settings import SettingOperations
from emulator.aws.lambda_.http.tags import TaggedResources, TagOperations
from emulator.aws.lambda_.http.versions import VersionOperations
from emulator.aws.lambda_.updates import UpdatesInProgress
from emulator.aws.protocol.answers import REQUEST_ID, error_answer, json_answer, not_implemented
from emulator.aws.protocol.constraints import Overrides, check
from emulator.aws.protocol.credential_scope import credential_scope
from emulator.aws.protocol.event_stream import event_message
from emulator.aws.protocol.requests import read_rest_json
from emulator.aws.protocol.service_models import RestRoutes, service_model
from emulator.errors import ApiError, SandboxError

_SERVICE = "lambda"
# An archive in base64 and the rest of its request; the number is AWS's.
_REQUEST_BYTES = 70_167_211
_INVOKE = ("Invoke", "InvokeWithResponseStream")
_CHUNK_BYTES = 1024 * 1024
_INVOCATION_TYPES = ("RequestResponse", "Event", "DryRun")
_ANY_RUNTIME: Mapping[str, Any] = {"enum": None}
# Where AWS answers otherwise than its model says. Runtimes are checked by Lambda itself, with another error code.
_OVERRIDES: Overrides = {
    "Timeout": {"min": limits.TIMEOUT_S[0], "max": limits.TIMEOUT_S[-1]},
    "MemorySize": {"min": limits.MEMORY_MB[0], "max": limits.MEMORY_MB[-1]},
    "EphemeralStorageSize": {"min": limits.EPHEMERAL_STORAGE_MB[0], "max": limits.EPHEMERAL_STORAGE_MB[-1]},
    # The least number of keys is not in the model: recorded on AWS.
    "TagKeyList": {"min": 1},
}
_WITH_ANY_RUNTIME: Overrides = {**_OVERRIDES, "Runtime": _ANY_RUNTIME}
_OWN_CHECKS = ("CreateFunction", "UpdateFunctionConfiguration")


class LambdaApi:
    """The operations of Lambda, for the endpoint and for other services of it.

    Parameters
    ----------
    functions, service, layers, code_signing, urls
        The services behind the operations.
    read_object
        Returns the content of an S3 object, for code in S3; raises S3's error when it does not exist.
    vpc_of
        Returns the id of the VPC of subnets in a region, and checks that they and security groups exist.
    downloads
        Serves archives.
    account_number
        The number of the account.
    """

    def __init__(
        self,
        functions: FunctionRegistry,
        service: LambdaService,
        layers: Layers,
        code_signing: CodeSigningConfigs,
        urls: FunctionUrls,
        read_object: Callable[[str, str], bytes],
        vpc_of: Callable[[str, Sequence[str], Sequence[str]], str],
        downloads: CodeDownloads,
        account_number: str,
    ) -> None:
        self._functions = functions
        self._service = service
        self._account_number = account_number
        self._routes = RestRoutes(_SERVICE)
        updates = UpdatesInProgress()
        code = CodeSources(read_object, layers, downloads, vpc_of)
        self._tags = TagOperations(functions)
        self._tags.add("code-signing-config", code_signing)
        groups = (
            FunctionOperations(functions, service, layers, code, updates),
            VersionOperations(functions, service, updates),
            SettingOperations(functions, service, urls, code_signing),
            LayerOperations(layers, code),
            self._tags,
        )
        self._operations: dict[str, Operation] = {}
        for group in groups:
            self._operations |= group.operations()

    def add_operations(self, operations: Mapping[str, Operation]) -> None:
        """Add operations by their names, such as those on event source mappings."""
        self._operations |= operations

    def add_tagged(self, kind: str, resources: TaggedResources) -> None:
        """Add resources with tags, by the word that their ARNs have in the place of ``function``."""
        self._tags.add(kind, resources)

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes of all operations of the model."""
        return [web.route("*", f"{prefix}{{rest:(/.*)?}}", self._handle) for prefix in sorted(self._routes.prefixes)]

    async def call(self, name: str, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        """Perform an operation.

        Parameters
        ----------
        name
            Its name in the model.
        parameters
            The members of its input.
        account
            The caller's account and region.

        Returns
        -------
        Mapping
            The members of its output.

        Raises
        ------
        ApiError
            When the parameters are invalid, or the operation fails or is not emulated.
        """
        model = service_model(_SERVICE).operation_model(name)
        _check(model, parameters)
        operation = self._operations.get(name)
        if operation is None:
            raise not_implemented(name)
        result = operation(parameters, account)
        if isinstance(result, Awaitable):
            result = await result
        return result or {}

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            found = self._routes.find(request.method, request.rel_url.raw_path, request.query)
            if found is None:
                message = f"unknown operation: {request.method} {request.path:.200}"
                return error_answer(_SERVICE, ApiError("UnknownOperationException", HTTPStatus.NOT_FOUND, message))
            return await self._perform(request, *found)
        except DiskFullError as error:
            return error_answer(_SERVICE, error.named("ServiceException"))
        except ApiError as error:
            return error_answer(_SERVICE, error)
        except SandboxError as error:
            failure = ApiError("ServiceException", HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
            return error_answer(_SERVICE, failure)

    async def _perform(self, request: web.Request, model: OperationModel, path: dict[str, str]) -> web.StreamResponse:
        account = Account(credential_scope(request).region, self._account_number)
        is_invoke = model.name in _INVOKE
        # A payload above the limit is cut there; the service rejects it.
        limit = limits.SYNC_PAYLOAD_BYTES if is_invoke else _REQUEST_BYTES
        body = await read_body(request, limit)
        if not is_invoke and len(body) > limit:
            raise ApiError(
                "RequestEntityTooLargeException",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"Request must be smaller than {limit} bytes for the {model.name} operation",
                {"Type": ""},
            )
        parameters = read_rest_json(model, path, request.query, request.headers, body)
        if is_invoke:
            _check(model, parameters)
            if model.name == "InvokeWithResponseStream":
                return await self._invoke_with_stream(parameters, account)
            return await self._invoke(parameters, account)
        return json_answer(model, await self.call(model.name, parameters, account))

    async def _invoke(self, parameters: Parameters, account: Account) -> web.StreamResponse:
        name, qualifier, payload = parameters["FunctionName"], parameters.get("Qualifier"), parameters["Payload"]
        kind = parameters.get("InvocationType", _INVOCATION_TYPES[0])
        context = _client_context(parameters)
        if kind == "DryRun":
            self._functions.get(Reference.parse(name, qualifier, account))
            return web.Response(status=HTTPStatus.NO_CONTENT, headers={REQUEST_ID: str(uuid.uuid4())})
        if kind == "Event":
            request_id = self._service.enqueue(name, qualifier, payload, account=account, client_context=context)
            return web.Response(status=HTTPStatus.ACCEPTED, headers={REQUEST_ID: request_id})
        result = await self._service.invoke(name, qualifier, payload, account=account, client_context=context)
        headers = {REQUEST_ID: result.request_id, "X-Amz-Executed-Version": result.version}
        if parameters.get("LogType") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(result.log_tail).decode()
        if result.is_error:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return web.Response(body=result.payload, content_type="application/json", headers=headers)

    async def _invoke_with_stream(self, parameters: Parameters, account: Account) -> web.StreamResponse:
        """Return a function's result as an event stream; the result is complete before it is sent."""
        name, qualifier, payload = parameters["FunctionName"], parameters.get("Qualifier"), parameters["Payload"]
        context = _client_context(parameters)
        result = await self._service.invoke(name, qualifier, payload, account=account, client_context=context)
        complete: dict[str, str] = {}
        if result.is_error:
            complete = {"ErrorCode": "Unhandled", "ErrorDetails": result.payload.decode(errors="replace")}
        if parameters.get("LogType") == "Tail":
            complete["LogResult"] = base64.b64encode(result.log_tail).decode()
        events = (
            []
            if result.is_error
            else [
                event_message("PayloadChunk", result.payload[start : start + _CHUNK_BYTES], "application/octet-stream")
                for start in range(0, len(result.payload), _CHUNK_BYTES)
            ]
        )
        events.append(event_message("InvokeComplete", json.dumps(complete).encode(), "application/json"))
        headers = {
            REQUEST_ID: result.request_id,
            "X-Amz-Executed-Version": result.version,
            "X-Amzn-Remapped-Content-Type": "application/octet-stream",
        }
        return web.Response(body=b"".join(events), content_type="application/vnd.amazon.eventstream", headers=headers)


def _check(model: OperationModel, parameters: Parameters) -> None:
    if model.input_shape is not None:
        check(model.input_shape, parameters, _WITH_ANY_RUNTIME if model.name in _OWN_CHECKS else _OVERRIDES)


def _client_context(parameters: Parameters) -> str:
    try:
        return base64.b64decode(parameters.get("ClientContext", "")).decode()
    except ValueError:
        raise ApiError(
            "InvalidRequestContentException",
            HTTPStatus.BAD_REQUEST,
            "Client context must be a valid Base64-encoded JSON object.",
        ) from None
