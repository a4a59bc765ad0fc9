"""Lambda's REST API: requests taken apart, answers put together.

Shapes: https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html
"""

import base64
import binascii
import json
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.errors import ApiError, SandboxError
from emulator.lambda_service.function_spec import FunctionSpec, invalid
from emulator.lambda_service.functions import Function, FunctionRegistry
from emulator.lambda_service.invocations import LambdaService
from emulator.limits import SYNC_PAYLOAD_BYTES, ZIPPED_CODE_BYTES

_FUNCTIONS = "/2015-03-31/functions"
# An archive in base64, and the rest of the request around it.
_CREATE_BYTES = ZIPPED_CODE_BYTES * 4 // 3 + 1024 * 1024
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LambdaApi:
    """The operations on functions, over HTTP.

    Parameters
    ----------
    functions
        The functions that exist.
    service
        Runs them.
    read_object
        Returns the content of an S3 object, for code that lies there, or None.
    """

    def __init__(
        self,
        functions: FunctionRegistry,
        service: LambdaService,
        read_object: Callable[[str, str], bytes | None],
    ) -> None:
        self._functions = functions
        self._service = service
        self._read_object = read_object

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the operations' routes."""
        one = _FUNCTIONS + "/{name}"
        concurrency = "/2017-10-31/functions/{name}/concurrency"
        return [
            web.post(_FUNCTIONS, _api(self._create)),
            web.get(_FUNCTIONS, _api(self._list)),
            web.get(one, _api(self._get)),
            web.delete(one, _api(self._delete)),
            web.get(one + "/configuration", _api(self._get_configuration)),
            web.put(one + "/configuration", _api(self._update_configuration)),
            web.put(one + "/code", _api(self._update_code)),
            web.get(one + "/versions", _api(self._list_versions)),
            web.post(one + "/versions", _api(self._publish)),
            web.post(one + "/aliases", _api(self._create_alias)),
            web.get(one + "/aliases/{alias}", _api(self._get_alias)),
            web.put(one + "/aliases/{alias}", _api(self._update_alias)),
            web.delete(one + "/aliases/{alias}", _api(self._delete_alias)),
            web.put(concurrency, _api(self._reserve)),
            web.delete(concurrency, _api(self._take_reservation_back)),
            web.get("/2019-09-30/functions/{name}/concurrency", _api(self._get_reservation)),
            web.post(one + "/invocations", _api(self._invoke)),
        ]

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await _read_json(request)
        function = self._functions.create(FunctionSpec.from_api(body), self._archive(body.get("Code", {})))
        if body.get("Publish"):
            function = self._functions.publish(function.spec.name)
        return _json(function.to_api(), HTTPStatus.CREATED)

    def _archive(self, code: dict[str, Any]) -> bytes:
        if "ZipFile" in code:
            try:
                return base64.b64decode(code["ZipFile"], validate=True)
            except (binascii.Error, TypeError) as error:
                raise invalid(f"Code.ZipFile: expected base64: {error}") from None
        if "S3Bucket" in code and "S3Key" in code:
            content = self._read_object(code["S3Bucket"], code["S3Key"])
            if content is None:
                raise invalid(f"Error occurred while GetObject: no object s3://{code['S3Bucket']}/{code['S3Key']}")
            return content
        raise invalid("Code: expected ZipFile, or S3Bucket and S3Key")

    async def _list(self, _: web.Request) -> web.StreamResponse:
        return _json({"Functions": [function.to_api() for function in self._functions.all()]})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        function = self._requested(request)
        answer: dict[str, Any] = {
            "Configuration": function.to_api(),
            "Code": {"RepositoryType": "S3", "Location": function.code_root.as_uri()},
            "Tags": {},
        }
        reserved = self._functions.reserved(function.spec.name)
        if reserved is not None:
            answer["Concurrency"] = {"ReservedConcurrentExecutions": reserved}
        return _json(answer)

    async def _get_configuration(self, request: web.Request) -> web.StreamResponse:
        return _json(self._requested(request).to_api())

    async def _update_configuration(self, request: web.Request) -> web.StreamResponse:
        before = self._functions.get(request.match_info["name"])
        function = self._functions.update_configuration(request.match_info["name"], await _read_json(request))
        await self._service.discard(before)
        return _json(function.to_api())

    async def _update_code(self, request: web.Request) -> web.StreamResponse:
        name, body = request.match_info["name"], await _read_json(request)
        before = self._functions.get(name)
        function = self._functions.update_code(name, self._archive(body))
        await self._service.discard(before)
        if body.get("Publish"):
            function = self._functions.publish(name)
        return _json(function.to_api())

    async def _list_versions(self, request: web.Request) -> web.StreamResponse:
        versions = self._functions.versions(request.match_info["name"])
        return _json({"Versions": [version.to_api() for version in versions]})

    async def _publish(self, request: web.Request) -> web.StreamResponse:
        return _json(self._functions.publish(request.match_info["name"]).to_api(), HTTPStatus.CREATED)

    async def _create_alias(self, request: web.Request) -> web.StreamResponse:
        body = await _read_json(request)
        name, alias, version = request.match_info["name"], body.get("Name"), body.get("FunctionVersion")
        return _json(self._functions.set_alias(name, str(alias), str(version), new=True), HTTPStatus.CREATED)

    async def _get_alias(self, request: web.Request) -> web.StreamResponse:
        return _json(self._functions.alias(request.match_info["name"], request.match_info["alias"]))

    async def _update_alias(self, request: web.Request) -> web.StreamResponse:
        name, alias = request.match_info["name"], request.match_info["alias"]
        current = self._functions.alias(name, alias)["FunctionVersion"]
        version = (await _read_json(request)).get("FunctionVersion", current)
        return _json(self._functions.set_alias(name, alias, str(version), new=False))

    async def _delete_alias(self, request: web.Request) -> web.StreamResponse:
        self._functions.delete_alias(request.match_info["name"], request.match_info["alias"])
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _reserve(self, request: web.Request) -> web.StreamResponse:
        value = (await _read_json(request)).get("ReservedConcurrentExecutions")
        if not isinstance(value, int):
            raise invalid(f"ReservedConcurrentExecutions: expected a whole number, got {value!r}")
        self._functions.reserve(request.match_info["name"], value)
        return _json({"ReservedConcurrentExecutions": value})

    async def _take_reservation_back(self, request: web.Request) -> web.StreamResponse:
        self._functions.reserve(request.match_info["name"], None)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _get_reservation(self, request: web.Request) -> web.StreamResponse:
        reserved = self._functions.reserved(self._functions.get(request.match_info["name"]).spec.name)
        return _json({} if reserved is None else {"ReservedConcurrentExecutions": reserved})

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        for function in self._functions.delete(request.match_info["name"]):
            await self._service.discard(function)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        name, qualifier = request.match_info["name"], request.query.get("Qualifier")
        kind = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        # One byte more than allowed is read, so that the service sees that there were too many.
        payload = await _read(request, SYNC_PAYLOAD_BYTES + 1)
        if kind == "DryRun":
            self._functions.get(name, qualifier)
            return web.Response(status=HTTPStatus.NO_CONTENT)
        if kind == "Event":
            request_id = self._service.enqueue(name, qualifier, payload)
            return web.Response(status=HTTPStatus.ACCEPTED, headers={"x-amzn-RequestId": request_id})
        if kind != "RequestResponse":
            raise invalid(f"InvocationType: expected RequestResponse, Event or DryRun, got {kind!r}")
        result = await self._service.invoke(name, qualifier, payload)
        headers = {"x-amzn-RequestId": result.request_id, "X-Amz-Executed-Version": result.version}
        if request.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(result.log_tail).decode()
        if result.is_error:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return web.Response(body=result.payload, content_type="application/json", headers=headers)

    def _requested(self, request: web.Request) -> Function:
        return self._functions.get(request.match_info["name"], request.query.get("Qualifier"))


def _api(handler: _Handler) -> _Handler:
    """Let a refusal become AWS's error response."""

    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            return _refusal(error, "User")
        except SandboxError as error:
            return _refusal(ApiError("ServiceException", HTTPStatus.INTERNAL_SERVER_ERROR, str(error)), "Service")

    return answered


def _refusal(error: ApiError, side: str) -> web.StreamResponse:
    body = {"Type": side, "message": error.message, "Message": error.message, **error.details}
    response = _json(body, error.status)
    response.headers["x-amzn-ErrorType"] = error.code
    response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
    return response


async def _read_json(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await _read(request, _CREATE_BYTES) or b"{}")
    except ValueError as error:
        raise invalid(f"the request is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise invalid(f"the request is {type(body).__name__}, expected a JSON object")
    return body


async def _read(request: web.Request, limit: int) -> bytes:
    """Read a body up to a limit; what lies beyond it is read too, but not kept."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        if len(body) < limit:
            body += chunk
    return bytes(body)


def _json(body: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.json_response(body, status=status)
