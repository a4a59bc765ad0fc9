"""Lambda's REST API: functions and their invocations; requests taken apart, answers put together.

Shapes: https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.aws import limits
from emulator.aws.json_requests import read
from emulator.aws.lambda_.core.constraints import Constraints, invalid
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.function_spec import FunctionSpec, architecture_of
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.models import Function, ImageUri
from emulator.aws.lambda_.http.requests import answer, answered, check_zipped_size, nothing, page, read_json, tags_of
from emulator.aws.lambda_.http.versions_api import FUNCTIONS, LambdaVersionsApi

_INVOCATION_TYPES = ("RequestResponse", "Event", "DryRun")


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
        one = FUNCTIONS + "/{name}"
        return [
            web.post(FUNCTIONS, answered(self._create)),
            web.post(FUNCTIONS + "/", answered(self._create)),
            web.get(FUNCTIONS, answered(self._list)),
            web.get(FUNCTIONS + "/", answered(self._list)),
            web.get(one, answered(self._get)),
            web.delete(one, answered(self._delete)),
            web.get(one + "/configuration", answered(self._get_configuration)),
            web.put(one + "/configuration", answered(self._update_configuration)),
            web.put(one + "/code", answered(self._update_code)),
            web.post(one + "/invocations", answered(self._invoke)),
            web.get("/2016-08-19/account-settings", answered(self._account)),
            web.get("/2016-08-19/account-settings/", answered(self._account)),
            *LambdaVersionsApi(self._functions).routes(),
        ]

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request)
        spec = FunctionSpec.from_api(body)
        given = Constraints(body)
        code = given.members("Code")
        given.check()
        function = self._functions.create(spec, self._code(code), tags_of(body))
        if body.get("Publish"):
            function = self._functions.publish(function.spec.name)
        return answer(function.to_api(), HTTPStatus.CREATED)

    def _code(self, code: Mapping[str, Any]) -> bytes | ImageUri:
        if code.get("ImageUri"):
            return ImageUri(str(code["ImageUri"]))
        if code.get("ZipFile"):
            try:
                archive = base64.b64decode(code["ZipFile"], validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise invalid(f"Code.ZipFile: expected base64: {error}") from None
            check_zipped_size(archive)
            return archive
        if code.get("S3Bucket") and code.get("S3Key"):
            content = self._read_object(str(code["S3Bucket"]), str(code["S3Key"]))
            if content is None:
                raise invalid(
                    "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key "
                    f"does not exist. (s3://{code['S3Bucket']}/{code['S3Key']})"
                )
            return content
        raise invalid("Please provide a source for function code.")

    async def _list(self, request: web.Request) -> web.StreamResponse:
        functions = self._functions.all()
        if request.query.get("FunctionVersion") == "ALL":
            functions = [version for latest in functions for version in self._functions.versions(latest.spec.name)]
        return page(request, "Functions", [function.to_api() for function in functions])

    async def _get(self, request: web.Request) -> web.StreamResponse:
        function = self._requested(request)
        package, name = function.package, function.spec.name
        code = {"RepositoryType": "ECR", "ImageUri": package.image_uri, "ResolvedImageUri": package.image_uri}
        if package.root is not None:
            code = {"RepositoryType": "S3", "Location": package.root.as_uri()}
        body: dict[str, Any] = {"Configuration": function.to_api(), "Code": code}
        if tags := self._functions.tags(name):
            body["Tags"] = tags
        reserved = self._functions.reserved(name)
        if reserved is not None:
            body["Concurrency"] = {"ReservedConcurrentExecutions": reserved}
        return answer(body)

    async def _get_configuration(self, request: web.Request) -> web.StreamResponse:
        return answer(self._requested(request).to_api())

    async def _update_configuration(self, request: web.Request) -> web.StreamResponse:
        before = self._functions.get(request.match_info["name"])
        function = self._functions.update_configuration(request.match_info["name"], await read_json(request))
        await self._service.discard(before)
        return answer(function.to_api())

    async def _update_code(self, request: web.Request) -> web.StreamResponse:
        name, body = request.match_info["name"], await read_json(request)
        before = self._functions.get(name)
        dry_run = bool(body.get("DryRun"))
        function = self._functions.update_code(
            name,
            self._code(body),
            revision_id=body.get("RevisionId"),
            architecture=architecture_of(body) if body.get("Architectures") else None,
            dry_run=dry_run,
        )
        if not dry_run:
            await self._service.discard(before)
            if body.get("Publish"):
                function = self._functions.publish(name)
        return answer(function.to_api())

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        for function in self._functions.delete(request.match_info["name"], request.query.get("Qualifier")):
            await self._service.discard(function)
        return nothing()

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        name, qualifier = request.match_info["name"], request.query.get("Qualifier")
        # If there is more than allowed, the service sees that there is.
        payload = await read(request, limits.SYNC_PAYLOAD_BYTES)
        given = Constraints({"InvocationType": request.headers.get("X-Amz-Invocation-Type", _INVOCATION_TYPES[0])})
        kind = given.one_of("InvocationType", _INVOCATION_TYPES[0], _INVOCATION_TYPES)
        given.check()
        if kind == "DryRun":
            self._functions.get(name, qualifier)
            return nothing()
        if kind == "Event":
            request_id = self._service.enqueue(name, qualifier, payload)
            return web.Response(status=HTTPStatus.ACCEPTED, headers={"x-amzn-RequestId": request_id})
        result = await self._service.invoke(name, qualifier, payload)
        headers = {"x-amzn-RequestId": result.request_id, "X-Amz-Executed-Version": result.version}
        if request.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(result.log_tail).decode()
        if result.is_error:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return web.Response(body=result.payload, content_type="application/json", headers=headers)

    async def _account(self, _: web.Request) -> web.StreamResponse:
        functions = self._functions.all()
        return answer(
            {
                "AccountLimit": {
                    "TotalCodeSize": limits.ACCOUNT_CODE_BYTES,
                    "CodeSizeUnzipped": limits.UNZIPPED_CODE_BYTES,
                    "CodeSizeZipped": limits.ZIPPED_CODE_BYTES,
                    "ConcurrentExecutions": limits.CONCURRENT_EXECUTIONS,
                    "UnreservedConcurrentExecutions": self._functions.unreserved(),
                },
                "AccountUsage": {
                    "TotalCodeSize": sum(function.package.size for function in functions),
                    "FunctionCount": len(functions),
                },
            }
        )

    def _requested(self, request: web.Request) -> Function:
        return self._functions.get(request.match_info["name"], request.query.get("Qualifier"))
