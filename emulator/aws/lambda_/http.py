"""Lambda's REST API: functions, their invocations, versions, aliases, reservations, permissions and tags.

Shapes: https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html
"""

import base64
import binascii
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.aws import limits
from emulator.aws.disk_reserve import DiskFullError
from emulator.aws.json_requests import read_body, read_json, whole_number
from emulator.aws.lambda_.core.constraints import Constraints, invalid_parameter
from emulator.aws.lambda_.core.function_registry import FunctionRegistry, Reference
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.models import Function, FunctionSpec, ImageUri, architecture_of, function_arn
from emulator.aws.limits import ZIPPED_CODE_BYTES
from emulator.errors import ApiError, SandboxError

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# An archive in base64 and the rest of its request; the number is AWS's.
_REQUEST_BYTES = 70_167_211
_PAGE = 50
_MAX_ITEMS = range(1, 10_001)
_FUNCTIONS = "/2015-03-31/functions"
_RESERVATIONS = range(1_000_000)
_INVOCATION_TYPES = ("RequestResponse", "Event", "DryRun")


class LambdaApi:
    """The operations on functions and invocations, and all routes.

    Parameters
    ----------
    functions
        The functions that exist.
    service
        Invokes functions.
    read_object
        Returns the content of an S3 object, for code in S3; None when it does not exist.
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
            web.post(_FUNCTIONS, _aws_errors(self._create)),
            web.post(_FUNCTIONS + "/", _aws_errors(self._create)),
            web.get(_FUNCTIONS, _aws_errors(self._list)),
            web.get(_FUNCTIONS + "/", _aws_errors(self._list)),
            web.get(one, _aws_errors(self._get)),
            web.delete(one, _aws_errors(self._delete)),
            web.get(one + "/configuration", _aws_errors(self._get_configuration)),
            web.put(one + "/configuration", _aws_errors(self._update_configuration)),
            web.put(one + "/code", _aws_errors(self._update_code)),
            web.post(one + "/invocations", _aws_errors(self._invoke)),
            web.get("/2016-08-19/account-settings", _aws_errors(self._account)),
            web.get("/2016-08-19/account-settings/", _aws_errors(self._account)),
            *LambdaVersionsApi(self._functions).routes(),
        ]

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await _read_json(request)
        spec = FunctionSpec.from_api(body)
        parameters = Constraints(body)
        code = parameters.members("Code")
        parameters.check()
        function = self._functions.create(spec, self._code(code), _tags_of(body))
        if body.get("Publish"):
            function = self._functions.publish(function.spec.name)
        return _json_response(function.to_api(), HTTPStatus.CREATED)

    def _code(self, code: Mapping[str, Any]) -> bytes | ImageUri:
        if code.get("ImageUri"):
            return ImageUri(str(code["ImageUri"]))
        if code.get("ZipFile"):
            try:
                archive = base64.b64decode(code["ZipFile"], validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise invalid_parameter(f"invalid Code.ZipFile: expected base64: {error}") from None
            _check_zipped_size(archive)
            return archive
        if code.get("S3Bucket") and code.get("S3Key"):
            content = self._read_object(str(code["S3Bucket"]), str(code["S3Key"]))
            if content is None:
                raise invalid_parameter(
                    "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key "
                    f"does not exist. (s3://{code['S3Bucket']}/{code['S3Key']})"
                )
            return content
        raise invalid_parameter("Please provide a source for function code.")

    async def _list(self, request: web.Request) -> web.StreamResponse:
        functions = self._functions.all()
        if request.query.get("FunctionVersion") == "ALL":
            functions = [version for latest in functions for version in self._functions.versions(latest.spec.name)]
        return _page(request, "Functions", [function.to_api() for function in functions])

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
        return _json_response(body)

    async def _get_configuration(self, request: web.Request) -> web.StreamResponse:
        return _json_response(self._requested(request).to_api())

    async def _update_configuration(self, request: web.Request) -> web.StreamResponse:
        before = self._functions.get(request.match_info["name"])
        function = self._functions.update_configuration(request.match_info["name"], await _read_json(request))
        await self._service.discard(before)
        return _json_response(function.to_api())

    async def _update_code(self, request: web.Request) -> web.StreamResponse:
        name, body = request.match_info["name"], await _read_json(request)
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
        return _json_response(function.to_api())

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        for function in self._functions.delete(request.match_info["name"], request.query.get("Qualifier")):
            await self._service.discard(function)
        return _no_content()

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        name, qualifier = request.match_info["name"], request.query.get("Qualifier")
        # A payload above the limit is cut there; the service rejects it.
        payload = await read_body(request, limits.SYNC_PAYLOAD_BYTES)
        parameters = Constraints({"InvocationType": request.headers.get("X-Amz-Invocation-Type", _INVOCATION_TYPES[0])})
        kind = parameters.one_of("InvocationType", _INVOCATION_TYPES[0], _INVOCATION_TYPES)
        parameters.check()
        if kind == "DryRun":
            self._functions.get(name, qualifier)
            return _no_content()
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
        return _json_response(
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


class LambdaVersionsApi:
    """The operations on versions, aliases, reservations, permissions and tags.

    Parameters
    ----------
    functions
        The functions that exist.
    """

    def __init__(self, functions: FunctionRegistry) -> None:
        self._functions = functions

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the operations' routes."""
        one = _FUNCTIONS + "/{name}"
        concurrency = "/2017-10-31/functions/{name}/concurrency"
        tags = "/2017-03-31/tags/{name}"
        return [
            web.get(one + "/versions", _aws_errors(self._list_versions)),
            web.post(one + "/versions", _aws_errors(self._publish)),
            web.post(one + "/aliases", _aws_errors(self._create_alias)),
            web.get(one + "/aliases", _aws_errors(self._list_aliases)),
            web.get(one + "/aliases/{alias}", _aws_errors(self._get_alias)),
            web.put(one + "/aliases/{alias}", _aws_errors(self._update_alias)),
            web.delete(one + "/aliases/{alias}", _aws_errors(self._delete_alias)),
            web.put(concurrency, _aws_errors(self._reserve)),
            web.delete(concurrency, _aws_errors(self._delete_reservation)),
            web.get("/2019-09-30/functions/{name}/concurrency", _aws_errors(self._get_reservation)),
            web.post(one + "/policy", _aws_errors(self._add_permission)),
            web.get(one + "/policy", _aws_errors(self._get_policy)),
            web.delete(one + "/policy/{statement}", _aws_errors(self._remove_permission)),
            web.get(tags, _aws_errors(self._list_tags)),
            web.post(tags, _aws_errors(self._tag)),
            web.delete(tags, _aws_errors(self._untag)),
        ]

    async def _list_versions(self, request: web.Request) -> web.StreamResponse:
        versions = self._functions.versions(request.match_info["name"])
        return _page(request, "Versions", [version.to_api() for version in versions])

    async def _publish(self, request: web.Request) -> web.StreamResponse:
        body = await _read_json(request)
        published = self._functions.publish(
            request.match_info["name"],
            description=body.get("Description"),
            code_sha256=body.get("CodeSha256"),
            revision_id=body.get("RevisionId"),
        )
        return _json_response(published.to_api(), HTTPStatus.CREATED)

    async def _create_alias(self, request: web.Request) -> web.StreamResponse:
        body, name = await _read_json(request), request.match_info["name"]
        _check_routing(body)
        alias = self._functions.create_alias(
            name, str(body.get("Name")), str(body.get("FunctionVersion")), str(body.get("Description") or "")
        )
        return _json_response(alias.to_api(Reference.parse(name).name), HTTPStatus.CREATED)

    async def _list_aliases(self, request: web.Request) -> web.StreamResponse:
        name, version = request.match_info["name"], request.query.get("FunctionVersion")
        aliases = [alias for alias in self._functions.aliases(name) if version in (None, alias.version)]
        return _page(request, "Aliases", [alias.to_api(Reference.parse(name).name) for alias in aliases])

    async def _get_alias(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        return _json_response(
            self._functions.alias(name, request.match_info["alias"]).to_api(Reference.parse(name).name)
        )

    async def _update_alias(self, request: web.Request) -> web.StreamResponse:
        body, name = await _read_json(request), request.match_info["name"]
        _check_routing(body)
        changes = {member: body.get(member) for member in ("FunctionVersion", "Description")}
        parameters = Constraints({member: value for member, value in changes.items() if value is not None})
        alias = self._functions.update_alias(
            name,
            request.match_info["alias"],
            version=parameters.text("FunctionVersion", "") or None,
            description=parameters.text("Description", "") if changes["Description"] is not None else None,
            revision_id=body.get("RevisionId"),
        )
        return _json_response(alias.to_api(Reference.parse(name).name))

    async def _delete_alias(self, request: web.Request) -> web.StreamResponse:
        self._functions.delete_alias(request.match_info["name"], request.match_info["alias"])
        return _no_content()

    async def _reserve(self, request: web.Request) -> web.StreamResponse:
        parameters = Constraints(await _read_json(request))
        value = parameters.number("ReservedConcurrentExecutions", -1, _RESERVATIONS)
        parameters.check()
        self._functions.reserve(request.match_info["name"], value)
        return _json_response({"ReservedConcurrentExecutions": value})

    async def _delete_reservation(self, request: web.Request) -> web.StreamResponse:
        self._functions.reserve(request.match_info["name"], None)
        return _no_content()

    async def _get_reservation(self, request: web.Request) -> web.StreamResponse:
        reserved = self._functions.reserved(self._functions.get(request.match_info["name"]).spec.name)
        return _json_response({} if reserved is None else {"ReservedConcurrentExecutions": reserved})

    async def _add_permission(self, request: web.Request) -> web.StreamResponse:
        body, name = await _read_json(request), request.match_info["name"]
        policy = self._functions.policy(name)
        parameters = Constraints(body)
        statement_id = parameters.text("StatementId", pattern="[a-zA-Z0-9-_]+", longest=100)
        action, principal = parameters.text("Action"), parameters.text("Principal")
        parameters.check()
        if statement_id in policy:
            raise ApiError(
                "ResourceConflictException",
                HTTPStatus.CONFLICT,
                f"The statement id ({statement_id}) provided already exists. "
                "Please provide a new statement id, or remove the existing statement.",
            )
        statement = {
            "Sid": statement_id,
            "Effect": "Allow",
            "Principal": {"Service" if principal.endswith(".amazonaws.com") else "AWS": principal},
            "Action": action,
            "Resource": function_arn(Reference.parse(name).name),
        }
        if "SourceArn" in body:
            statement["Condition"] = {"ArnLike": {"AWS:SourceArn": body["SourceArn"]}}
        self._functions.set_policy(name, {**policy, statement_id: statement})
        return _json_response({"Statement": json.dumps(statement)}, HTTPStatus.CREATED)

    async def _get_policy(self, request: web.Request) -> web.StreamResponse:
        function = self._functions.get(request.match_info["name"])
        policy = self._functions.policy(function.spec.name)
        if not policy:
            raise _no_policy()
        document = {"Version": "2012-10-17", "Id": "default", "Statement": list(policy.values())}
        return _json_response({"Policy": json.dumps(document), "RevisionId": function.revision_id})

    async def _remove_permission(self, request: web.Request) -> web.StreamResponse:
        policy = self._functions.policy(request.match_info["name"])
        if policy.pop(request.match_info["statement"], None) is None:
            raise _no_policy()
        self._functions.set_policy(request.match_info["name"], policy)
        return _no_content()

    async def _list_tags(self, request: web.Request) -> web.StreamResponse:
        return _json_response({"Tags": self._functions.tags(request.match_info["name"])})

    async def _tag(self, request: web.Request) -> web.StreamResponse:
        tags, name = _tags_of(await _read_json(request)), request.match_info["name"]
        self._functions.set_tags(name, {**self._functions.tags(name), **tags})
        return _no_content()

    async def _untag(self, request: web.Request) -> web.StreamResponse:
        name, removed = request.match_info["name"], request.query.getall("tagKeys", [])
        kept = {key: value for key, value in self._functions.tags(name).items() if key not in removed}
        self._functions.set_tags(name, kept)
        return _no_content()


def _check_routing(body: dict[str, Any]) -> None:
    if body.get("RoutingConfig"):
        raise invalid_parameter("RoutingConfig: weighted aliases are not emulated: create an alias of one version")


def _no_policy() -> ApiError:
    message = "The resource you requested does not exist."
    return ApiError("ResourceNotFoundException", HTTPStatus.NOT_FOUND, message)


def _aws_errors(handler: _Handler) -> _Handler:
    """Convert errors that a handler raises into AWS's error responses."""

    async def call(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except DiskFullError as error:
            return _error_response(error.named("ServiceException"), "Service")
        except ApiError as error:
            return _error_response(error, "User")
        except SandboxError as error:
            return _error_response(
                ApiError("ServiceException", HTTPStatus.INTERNAL_SERVER_ERROR, str(error)), "Service"
            )

    return call


def _error_response(error: ApiError, side: str) -> web.StreamResponse:
    body = {"Type": side, "message": error.message, "Message": error.message, **error.details}
    response = _json_response(body, error.status)
    response.headers["x-amzn-ErrorType"] = error.code
    response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
    return response


def _json_response(body: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Return a JSON response."""
    return web.json_response(body, status=status)


def _no_content() -> web.Response:
    """Return the empty response."""
    return web.Response(status=HTTPStatus.NO_CONTENT)


async def _read_json(request: web.Request) -> dict[str, Any]:
    return await read_json(request, _REQUEST_BYTES, _too_large)


def _too_large() -> ApiError:
    return ApiError(
        "RequestEntityTooLargeException",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"Request must be smaller than {_REQUEST_BYTES} bytes for this operation",
    )


def _tags_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a request.

    Raises
    ------
    ApiError
        When they are not an object of strings.
    """
    tags = body.get("Tags") or {}
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise invalid_parameter(f"invalid Tags {tags!r:.80}: expected an object of strings")
    return tags


def _page(request: web.Request, name: str, items: Sequence[Mapping[str, Any]]) -> web.Response:
    """Return the page of a listing that MaxItems and Marker select, with the NextMarker if more follow.

    Raises
    ------
    ApiError
        When MaxItems or Marker is invalid.
    """
    requested = request.query.get("MaxItems", str(_PAGE))
    number = whole_number(requested)
    parameters = Constraints({"MaxItems": requested if number is None else number})
    # As on AWS, a page has fifty items at most, whatever MaxItems is.
    size = min(_PAGE, parameters.number("MaxItems", _PAGE, _MAX_ITEMS))
    parameters.check()
    marker = request.query.get("Marker") or "0"
    begin = whole_number(marker)
    if begin is None:
        raise invalid_parameter(f"invalid Marker {marker!r:.80}: expected the NextMarker of a previous page")
    body: dict[str, Any] = {name: items[begin : begin + size]}
    if begin + size < len(items):
        body["NextMarker"] = str(begin + size)
    return _json_response(body)


def _check_zipped_size(archive: bytes) -> None:
    """Check the size of an archive in a request; one in S3 may be larger.

    Raises
    ------
    ApiError
        When it is too large.
    """
    if len(archive) > ZIPPED_CODE_BYTES:
        raise ApiError(
            "RequestEntityTooLargeException",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"Zipped size must be smaller than {ZIPPED_CODE_BYTES} bytes",
        )
