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
from emulator.lambda_service.functions import FunctionRegistry, FunctionSpec, invalid
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
        return [
            web.post(_FUNCTIONS, _api(self._create)),
            web.post(_FUNCTIONS + "/", _api(self._create)),
            web.get(_FUNCTIONS, _api(self._list)),
            web.get(_FUNCTIONS + "/", _api(self._list)),
            web.get(one, _api(self._get)),
            web.get(one + "/configuration", _api(self._get_configuration)),
            web.delete(one, _api(self._delete)),
            web.post(one + "/invocations", _api(self._invoke)),
        ]

    async def _create(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await _read(request, _CREATE_BYTES))
        except ValueError as error:
            raise invalid(f"the request is no JSON: {error}") from None
        spec = FunctionSpec.from_api(body)
        function = self._functions.create(spec, self._archive(body.get("Code", {})))
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
        function = self._functions.get(request.match_info["name"])
        return _json(
            {
                "Configuration": function.to_api(),
                "Code": {"RepositoryType": "S3", "Location": function.code_root.as_uri()},
                "Tags": {},
            }
        )

    async def _get_configuration(self, request: web.Request) -> web.StreamResponse:
        return _json(self._functions.get(request.match_info["name"]).to_api())

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        function = self._functions.delete(request.match_info["name"])
        await self._service.discard(function)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if "Qualifier" in request.query:
            name = f"{name}:{request.query['Qualifier']}"
        kind = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if kind == "DryRun":
            self._functions.get(name)
            return web.Response(status=HTTPStatus.NO_CONTENT)
        if kind != "RequestResponse":
            raise invalid(f"InvocationType: expected RequestResponse or DryRun, the ones emulated, got {kind!r}")
        # One byte more than allowed is read, so that the service sees that there were too many.
        payload = await _read(request, SYNC_PAYLOAD_BYTES + 1)
        result = await self._service.invoke(name, payload)
        headers = {"x-amzn-RequestId": result.request_id, "X-Amz-Executed-Version": "$LATEST"}
        if request.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(result.log_tail).decode()
        if result.is_error:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return web.Response(body=result.payload, content_type="application/json", headers=headers)


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
    response = _json({"Type": side, "message": error.message, "Message": error.message}, error.status)
    response.headers["x-amzn-ErrorType"] = error.code
    response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
    return response


async def _read(request: web.Request, limit: int) -> bytes:
    """Read a body up to a limit; what lies beyond it is read too, but not kept."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        if len(body) < limit:
            body += chunk
    return bytes(body)


def _json(body: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.json_response(body, status=status)
