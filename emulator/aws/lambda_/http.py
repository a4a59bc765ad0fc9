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
from emulator.aws.disk_reserve import DiskFullError
from emulator.aws.json_requests import read_body, whole_number
from emulator.aws.lambda_.code_downloads import CodeDownloads
from emulator.aws.lambda_.core.code_signing import CodeSigningConfigs
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.function_urls import FunctionUrls
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.layers import Layers
from emulator.aws.lambda_.core.models import Function, FunctionSpec, ImageUri
from emulator.aws.lambda_.core.permissions import Permissions, compact_json
from emulator.aws.lambda_.core.provisioned_concurrency import check_reservable
from emulator.aws.lambda_.core.references import (
    LATEST,
    Account,
    Reference,
    invalid_parameter,
    resource_not_found,
)
from emulator.aws.lambda_.updates import UpdatesInProgress
from emulator.aws.protocol.answers import REQUEST_ID, error_answer, json_answer, not_implemented
from emulator.aws.protocol.constraints import Overrides, check, validation_error, violation
from emulator.aws.protocol.credential_scope import credential_scope
from emulator.aws.protocol.event_stream import event_message
from emulator.aws.protocol.requests import read_rest_json
from emulator.aws.protocol.service_models import RestRoutes, service_model
from emulator.errors import ApiError, SandboxError

_SERVICE = "lambda"
# An archive in base64 and the rest of its request; the number is AWS's.
_REQUEST_BYTES = 70_167_211
_PAGE = 50
_LONGEST_NAME = 64
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

Parameters = Mapping[str, Any]
Operation = Callable[[Parameters, Account], Any]


class LambdaApi:
    """The operations of Lambda, for the endpoint and for other services of it.

    Parameters
    ----------
    functions, service, layers, code_signing, urls
        The services behind the operations.
    read_object
        Returns the content of an S3 object, for code in S3; None when it does not exist.
    vpc_of
        Returns the id of the VPC of a subnet.
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
        read_object: Callable[[str, str], bytes | None],
        vpc_of: Callable[[str, Sequence[str]], str],
        downloads: CodeDownloads,
        account_number: str = limits.ACCOUNT_ID,
    ) -> None:
        self._functions = functions
        self._service = service
        self._account_number = account_number
        self._routes = RestRoutes(_SERVICE)
        updates = UpdatesInProgress()
        code = _Code(read_object, layers, downloads, vpc_of)
        groups = (
            _FunctionOperations(functions, service, layers, code, updates),
            _VersionOperations(functions, service, updates),
            _SettingOperations(functions, service, urls, code_signing),
            _LayerOperations(layers, code),
        )
        self._operations: dict[str, Operation] = {}
        for group in groups:
            self._operations |= group.operations()

    def add_operations(self, operations: Mapping[str, Operation]) -> None:
        """Add operations by their names, such as those on event source mappings."""
        self._operations |= operations

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


class _Code:
    """Where the code of functions and layers comes from and goes to."""

    def __init__(
        self,
        read_object: Callable[[str, str], bytes | None],
        layers: Layers,
        downloads: CodeDownloads,
        vpc_of: Callable[[str, Sequence[str]], str],
    ) -> None:
        self._read_object = read_object
        self._layers = layers
        self.downloads = downloads
        self._vpc_of = vpc_of

    def of(self, code: Parameters) -> bytes | ImageUri:
        """Return the archive or the image of a request."""
        return ImageUri(code["ImageUri"]) if code.get("ImageUri") else self.archive(code)

    def archive(self, code: Parameters) -> bytes:
        """Return the archive of a request, which has it or names an object in S3."""
        if code.get("ZipFile"):
            archive: bytes = code["ZipFile"]
            if len(archive) > limits.ZIPPED_CODE_BYTES:
                raise ApiError(
                    "RequestEntityTooLargeException",
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"Zipped size must be smaller than {limits.ZIPPED_CODE_BYTES} bytes",
                )
            return archive
        if code.get("S3Bucket") and code.get("S3Key"):
            content = self._read_object(code["S3Bucket"], code["S3Key"])
            if content is None:
                raise invalid_parameter(
                    "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key "
                    f"does not exist. (s3://{code['S3Bucket']}/{code['S3Key']})"
                )
            return content
        raise invalid_parameter("Please provide a source for function code.")

    def completed(self, parameters: Parameters, account: Account) -> dict[str, Any]:
        """Return a request for a function with the VPC of its subnets."""
        vpc = parameters.get("VpcConfig")
        if not vpc:
            return dict(parameters)
        subnets = vpc.get("SubnetIds", ())
        return {**parameters, "VpcConfig": {**vpc, "VpcId": self._vpc_of(account.region, subnets) if subnets else ""}}


class _FunctionOperations:
    """Functions: create, read, update, delete, list."""

    def __init__(
        self,
        functions: FunctionRegistry,
        service: LambdaService,
        layers: Layers,
        code: _Code,
        updates: UpdatesInProgress,
    ) -> None:
        self._functions = functions
        self._service = service
        self._layers = layers
        self._code = code
        self._updates = updates

    def operations(self) -> dict[str, Operation]:
        return {
            "CreateFunction": self._create,
            "GetFunction": self._get,
            "GetFunctionConfiguration": self._get_configuration,
            "UpdateFunctionConfiguration": self._update_configuration,
            "UpdateFunctionCode": self._update_code,
            "DeleteFunction": self._delete,
            "ListFunctions": self._list,
            "GetAccountSettings": self._account_settings,
        }

    def _create(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = Reference.parse(parameters["FunctionName"], account=account)
        if len(reference.name) > _LONGEST_NAME:
            constraint = f"Member must have length less than or equal to {_LONGEST_NAME}"
            violated = violation("FunctionName", reference.name, constraint)
            raise validation_error([violated], "InvalidParameterValueException")
        layers = self._layers.uses(account, parameters.get("Layers", ()))
        request = self._code.completed({**parameters, "FunctionName": reference.name}, account)
        spec = FunctionSpec.from_api(request, account, layers)
        function = self._functions.create(spec, self._code.of(parameters["Code"]), parameters.get("Tags"))
        self._updates.end(reference)
        if parameters.get("Publish"):
            return self._functions.publish(reference).created()
        return function.created()

    def _get(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference, function = self._requested(parameters, account)
        package, entry = function.package, self._functions.record(reference)
        code = {"RepositoryType": "ECR", "ImageUri": package.image_uri, "ResolvedImageUri": package.image_uri}
        if package.root is not None:
            archive = self._functions.code_store.archive(package.root)
            code = {"RepositoryType": "S3", "Location": self._code.downloads.url(archive)}
        reserved = entry.reserved_concurrency
        return {
            "Configuration": function.to_api(reference.qualified_arn),
            "Code": code,
            "Tags": entry.tags or None,
            "Concurrency": None if reserved is None else {"ReservedConcurrentExecutions": reserved},
        }

    def _get_configuration(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference, function = self._requested(parameters, account)
        return function.to_api(reference.qualified_arn)

    async def _update_configuration(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = Reference.parse(parameters["FunctionName"], account=account)
        before = self._functions.get(reference.unqualified())
        self._updates.check_ended(reference)
        layers = self._layers.uses(account, parameters["Layers"]) if "Layers" in parameters else None
        request = self._code.completed(parameters, account)
        function = self._functions.update_configuration(reference, request, layers)
        await self._service.discard(before)
        self._updates.begin(reference)
        return function.in_update()

    async def _update_code(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = Reference.parse(parameters["FunctionName"], account=account)
        before = self._functions.get(reference.unqualified())
        self._updates.check_ended(reference)
        dry_run = bool(parameters.get("DryRun"))
        function = self._functions.update_code(
            reference,
            self._code.of(parameters),
            revision_id=parameters.get("RevisionId"),
            architecture=(parameters.get("Architectures") or [None])[0],
            dry_run=dry_run,
        )
        if dry_run:
            return function.to_api()
        await self._service.discard(before)
        self._updates.begin(reference)
        if parameters.get("Publish"):
            return self._functions.publish(reference).created()
        return function.in_update()

    async def _delete(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = _reference(parameters, account)
        for function in self._functions.delete(reference):
            await self._service.discard(function)
        self._updates.end(reference)
        return {"StatusCode": HTTPStatus.NO_CONTENT}

    def _list(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        functions = self._functions.all(account.region)
        if parameters.get("FunctionVersion") != "ALL":
            return _page(parameters, "Functions", [function.summary() for function in functions])
        records = self._functions.records_of(account.region)
        shown = [_summary(function) for record in records for function in record.functions]
        return _page(parameters, "Functions", shown)

    def _account_settings(self, _: Parameters, account: Account) -> Mapping[str, Any]:
        records = self._functions.records_of(account.region)
        sizes = (function.package.size for record in records for function in record.functions)
        return {
            "AccountLimit": {
                "TotalCodeSize": limits.ACCOUNT_CODE_BYTES,
                "CodeSizeUnzipped": limits.UNZIPPED_CODE_BYTES,
                "CodeSizeZipped": limits.ZIPPED_CODE_BYTES,
                "ConcurrentExecutions": limits.CONCURRENT_EXECUTIONS,
                "UnreservedConcurrentExecutions": self._functions.unreserved(account.region),
            },
            "AccountUsage": {
                "TotalCodeSize": sum(sizes) + self._layers.total_size(account.region),
                "FunctionCount": len(records),
            },
        }

    def _requested(self, parameters: Parameters, account: Account) -> tuple[Reference, Function]:
        reference = _reference(parameters, account)
        function = self._functions.get(reference)
        self._updates.end(reference)
        return reference, function


class _VersionOperations:
    """Versions, aliases, permissions and tags."""

    def __init__(self, functions: FunctionRegistry, service: LambdaService, updates: UpdatesInProgress) -> None:
        self._functions = functions
        self._service = service
        self._permissions = Permissions(functions)
        self._updates = updates

    def operations(self) -> dict[str, Operation]:
        return {
            "ListVersionsByFunction": self._list_versions,
            "PublishVersion": self._publish,
            "CreateAlias": self._create_alias,
            "GetAlias": self._get_alias,
            "UpdateAlias": self._update_alias,
            "DeleteAlias": self._delete_alias,
            "ListAliases": self._list_aliases,
            "AddPermission": self._add_permission,
            "GetPolicy": self._get_policy,
            "RemovePermission": self._remove_permission,
            "ListTags": self._list_tags,
            "TagResource": self._tag,
            "UntagResource": self._untag,
        }

    def _list_versions(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        record = self._functions.record(_reference(parameters, account))
        return _page(parameters, "Versions", [_summary(function) for function in record.functions])

    def _publish(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = _reference(parameters, account)
        self._functions.record(reference)
        self._updates.check_ended(reference)
        published = self._functions.publish(
            reference,
            description=parameters.get("Description"),
            code_sha256=parameters.get("CodeSha256"),
            revision_id=parameters.get("RevisionId"),
        )
        return published.to_api()

    def _create_alias(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = _reference(parameters, account)
        alias = self._functions.create_alias(
            reference,
            parameters["Name"],
            parameters["FunctionVersion"],
            parameters.get("Description", ""),
            parameters.get("RoutingConfig", {}).get("AdditionalVersionWeights") or {},
        )
        return alias.to_api(reference.arn)

    def _get_alias(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = _reference(parameters, account)
        return self._functions.alias(reference, parameters["Name"]).to_api(reference.arn)

    def _update_alias(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = _reference(parameters, account)
        alias = self._functions.update_alias(
            reference,
            parameters["Name"],
            version=parameters.get("FunctionVersion"),
            description=parameters.get("Description"),
            weights=parameters.get("RoutingConfig", {}).get("AdditionalVersionWeights"),
            revision_id=parameters.get("RevisionId"),
        )
        return alias.to_api(reference.arn)

    def _delete_alias(self, parameters: Parameters, account: Account) -> None:
        self._functions.delete_alias(_reference(parameters, account), parameters["Name"])

    def _list_aliases(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference, version = _reference(parameters, account), parameters.get("FunctionVersion")
        aliases = self._functions.record(reference).aliases
        shown = [aliases[name] for name in sorted(aliases) if version in (None, aliases[name].version)]
        return _page(parameters, "Aliases", [alias.to_api(reference.arn) for alias in shown])

    def _add_permission(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        statement = self._permissions.add(_reference(parameters, account), parameters)
        return {"Statement": compact_json(statement)}

    def _get_policy(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        document, revision_id = self._permissions.get(_reference(parameters, account))
        return {"Policy": compact_json(document), "RevisionId": revision_id}

    def _remove_permission(self, parameters: Parameters, account: Account) -> None:
        reference = _reference(parameters, account)
        self._permissions.remove(reference, parameters["StatementId"], parameters.get("RevisionId"))

    def _list_tags(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        return {"Tags": self._functions.record(_tagged(parameters, account)).tags}

    def _tag(self, parameters: Parameters, account: Account) -> None:
        reference = _tagged(parameters, account)
        if not parameters["Tags"]:
            raise invalid_parameter("An error occurred and the request cannot be processed.")
        self._functions.set_tags(reference, {**self._functions.record(reference).tags, **parameters["Tags"]})

    def _untag(self, parameters: Parameters, account: Account) -> None:
        reference = _tagged(parameters, account)
        tags = self._functions.record(reference).tags
        kept = {key: value for key, value in tags.items() if key not in parameters["TagKeys"]}
        self._functions.set_tags(reference, kept)


class _SettingOperations:
    """Concurrency, function URLs, asynchronous invocations, code signing and smaller settings of functions."""

    def __init__(
        self,
        functions: FunctionRegistry,
        service: LambdaService,
        urls: FunctionUrls,
        code_signing: CodeSigningConfigs,
    ) -> None:
        self._functions = functions
        self._provisioned = service.provisioned
        self._event_configs = service.event_configs
        self._urls = urls
        self._code_signing = code_signing

    def operations(self) -> dict[str, Operation]:
        urls, events, provisioned, signing = self._urls, self._event_configs, self._provisioned, self._code_signing
        return {
            "PutFunctionConcurrency": self._reserve,
            "GetFunctionConcurrency": self._get_reservation,
            "DeleteFunctionConcurrency": lambda p, a: self._functions.reserve(_reference(p, a), None),
            "PutProvisionedConcurrencyConfig": lambda p, a: provisioned.put(
                _reference(p, a), p["ProvisionedConcurrentExecutions"]
            ),
            "GetProvisionedConcurrencyConfig": lambda p, a: provisioned.get(_reference(p, a)),
            "DeleteProvisionedConcurrencyConfig": lambda p, a: provisioned.delete(_reference(p, a)),
            "ListProvisionedConcurrencyConfigs": lambda p, a: _page(
                p, "ProvisionedConcurrencyConfigs", provisioned.list(_reference(p, a))
            ),
            "CreateFunctionUrlConfig": lambda p, a: urls.create(_reference(p, a), p),
            "GetFunctionUrlConfig": lambda p, a: urls.get(_reference(p, a)),
            "UpdateFunctionUrlConfig": lambda p, a: urls.update(_reference(p, a), p),
            "DeleteFunctionUrlConfig": lambda p, a: urls.delete(_reference(p, a)),
            "ListFunctionUrlConfigs": lambda p, a: _page(p, "FunctionUrlConfigs", urls.list(_reference(p, a))),
            "PutFunctionEventInvokeConfig": lambda p, a: events.put(_reference(p, a), p),
            "UpdateFunctionEventInvokeConfig": lambda p, a: events.update(_reference(p, a), p),
            "GetFunctionEventInvokeConfig": lambda p, a: events.get(_reference(p, a)),
            "DeleteFunctionEventInvokeConfig": lambda p, a: events.delete(_reference(p, a)),
            "ListFunctionEventInvokeConfigs": lambda p, a: _page(
                p, "FunctionEventInvokeConfigs", events.list(_reference(p, a))
            ),
            "CreateCodeSigningConfig": lambda p, a: {"CodeSigningConfig": signing.create(a, p)},
            "GetCodeSigningConfig": lambda p, _: {"CodeSigningConfig": signing.get(p["CodeSigningConfigArn"])},
            "UpdateCodeSigningConfig": lambda p, _: {"CodeSigningConfig": signing.update(p["CodeSigningConfigArn"], p)},
            "DeleteCodeSigningConfig": lambda p, _: signing.delete(p["CodeSigningConfigArn"]),
            "ListCodeSigningConfigs": lambda p, a: _page(p, "CodeSigningConfigs", signing.all(a)),
            "ListFunctionsByCodeSigningConfig": self._signed_functions,
            "PutFunctionCodeSigningConfig": self._put_code_signing,
            "GetFunctionCodeSigningConfig": self._get_code_signing,
            "DeleteFunctionCodeSigningConfig": lambda p, a: self._set_option(p, a, "CodeSigningConfigArn", None),
            "PutFunctionRecursionConfig": lambda p, a: self._set_option(p, a, "RecursiveLoop", p["RecursiveLoop"]),
            "GetFunctionRecursionConfig": lambda p, a: {
                "RecursiveLoop": self._option(p, a, "RecursiveLoop", "Terminate")
            },
            "PutRuntimeManagementConfig": self._put_runtime_management,
            "GetRuntimeManagementConfig": self._get_runtime_management,
        }

    def _reserve(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = _reference(parameters, account)
        if reference.qualifier is not None:
            raise invalid_parameter(
                "This operation is permitted on Lambda functions only. Aliases and versions do not support this "
                "operation. Please specify either a function name or an unqualified function ARN."
            )
        if not self._functions.exists(reference):
            raise resource_not_found(f"Function not found: {reference.arn}:{LATEST}")
        value = parameters["ReservedConcurrentExecutions"]
        check_reservable(self._functions.record(reference), value)
        self._functions.reserve(reference, value)
        return {"ReservedConcurrentExecutions": value}

    def _get_reservation(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        record = self._functions.record(_reference(parameters, account))
        return {"ReservedConcurrentExecutions": record.reserved_concurrency}

    def _signed_functions(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        arn = parameters["CodeSigningConfigArn"]
        self._code_signing.get(arn)
        records = self._functions.records_of(account.region)
        signed = [record.latest.arn for record in records if record.options.get("CodeSigningConfigArn") == arn]
        return _page(parameters, "FunctionArns", signed)

    def _put_code_signing(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        self._code_signing.check_usable(parameters["CodeSigningConfigArn"])
        self._set_option(parameters, account, "CodeSigningConfigArn", parameters["CodeSigningConfigArn"])
        return self._get_code_signing(parameters, account)

    def _get_code_signing(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        arn = self._option(parameters, account, "CodeSigningConfigArn", None)
        return (
            {}
            if arn is None
            else {
                "CodeSigningConfigArn": arn,
                "FunctionName": _reference(parameters, account).name,
            }
        )

    def _put_runtime_management(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        kept = {name: parameters[name] for name in ("UpdateRuntimeOn", "RuntimeVersionArn") if name in parameters}
        self._set_option(parameters, account, "RuntimeManagement", kept)
        return self._get_runtime_management(parameters, account)

    def _get_runtime_management(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        function = self._functions.get(_reference(parameters, account))
        kept = self._option(parameters, account, "RuntimeManagement", {"UpdateRuntimeOn": "Auto"})
        return {**kept, "FunctionArn": function.arn}

    def _option(self, parameters: Parameters, account: Account, name: str, default: Any) -> Any:
        return self._functions.record(_reference(parameters, account)).options.get(name, default)

    def _set_option(self, parameters: Parameters, account: Account, name: str, value: Any) -> Mapping[str, Any]:
        reference = _reference(parameters, account)
        options = self._functions.record(reference).options
        if value is None:
            options.pop(name, None)
        else:
            options[name] = value
        self._functions.save(reference)
        return {name: value}


class _LayerOperations:
    """Layers and their permissions."""

    def __init__(self, layers: Layers, code: _Code) -> None:
        self._layers = layers
        self._code = code

    def operations(self) -> dict[str, Operation]:
        layers = self._layers
        return {
            "PublishLayerVersion": self._publish,
            "GetLayerVersion": self._get,
            "GetLayerVersionByArn": self._get_by_arn,
            "ListLayers": self._list,
            "ListLayerVersions": self._list_versions,
            "DeleteLayerVersion": lambda p, a: layers.delete(a, _layer_name(p), p["VersionNumber"]),
            "AddLayerVersionPermission": self._add_permission,
            "GetLayerVersionPolicy": self._get_policy,
            "RemoveLayerVersionPermission": lambda p, a: layers.remove_permission(
                a, _layer_name(p), p["VersionNumber"], p["StatementId"], p.get("RevisionId")
            ),
        }

    def _publish(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        name = _layer_name(parameters)
        published = self._layers.publish(account, name, self._code.archive(parameters["Content"]), parameters)
        return self._located(account, name, published)

    def _get(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        name = _layer_name(parameters)
        return self._located(account, name, self._layers.get(account, name, parameters["VersionNumber"]))

    def _get_by_arn(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        found = self._layers.get_by_arn(account, parameters["Arn"])
        return self._located(account, found["LayerArn"].rpartition(":")[2], found)

    def _located(self, account: Account, name: str, version: dict[str, Any]) -> Mapping[str, Any]:
        root = self._layers.root(account, name, version["Version"])
        location = self._code.downloads.url(self._layers.code_store.archive(root))
        return {**version, "Content": {**version["Content"], "Location": location}}

    def _list(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        layers = self._layers.all(account)
        shown = [layer for layer in layers if _is_compatible(layer["LatestMatchingVersion"], parameters)]
        return _page(parameters, "Layers", shown)

    def _list_versions(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        versions = self._layers.versions(account, _layer_name(parameters))
        return _page(parameters, "LayerVersions", [found for found in versions if _is_compatible(found, parameters)])

    def _add_permission(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        name, number = _layer_name(parameters), parameters["VersionNumber"]
        statement, revision_id = self._layers.add_permission(account, name, number, parameters)
        return {"Statement": compact_json(statement), "RevisionId": revision_id}

    def _get_policy(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        document, revision_id = self._layers.policy(account, _layer_name(parameters), parameters["VersionNumber"])
        return {"Policy": compact_json(document), "RevisionId": revision_id}


def _check(model: OperationModel, parameters: Parameters) -> None:
    if model.input_shape is not None:
        check(model.input_shape, parameters, _WITH_ANY_RUNTIME if model.name in _OWN_CHECKS else _OVERRIDES)


def _reference(parameters: Parameters, account: Account) -> Reference:
    return Reference.parse(parameters["FunctionName"], parameters.get("Qualifier"), account)


def _tagged(parameters: Parameters, account: Account) -> Reference:
    """Return the function whose tags a request is about."""
    arn = parameters["Resource"]
    kind = arn.split(":")[5]
    if kind == "event-source-mapping":
        raise resource_not_found(f"Event source mapping not found: {arn}")
    if kind == "capacity-provider":
        raise resource_not_found(f"Capacity provider not found: {arn}")
    if kind != "function":
        raise invalid_parameter(f"{arn}: tags of a {kind} are not emulated, only those of functions")
    reference = Reference.parse(arn, account=account)
    if reference.qualifier is not None:
        raise invalid_parameter(
            "Tags on function aliases and versions are not supported. Please specify a function ARN."
        )
    return reference


def _layer_name(parameters: Parameters) -> str:
    """Return the name of a layer, which a request may name by its ARN."""
    return str(parameters["LayerName"]).rpartition(":")[2]


def _is_compatible(version: Mapping[str, Any], parameters: Parameters) -> bool:
    runtime, architecture = parameters.get("CompatibleRuntime"), parameters.get("CompatibleArchitecture")
    return (runtime is None or runtime in version.get("CompatibleRuntimes", ())) and (
        architecture is None or architecture in version.get("CompatibleArchitectures", ())
    )


def _summary(function: Function) -> dict[str, Any]:
    """Return a function as listings of versions show it."""
    return function.summary(f"{function.spec.arn}:{function.version}")


def _client_context(parameters: Parameters) -> str:
    try:
        return base64.b64decode(parameters.get("ClientContext", "")).decode()
    except ValueError:
        raise ApiError(
            "InvalidRequestContentException",
            HTTPStatus.BAD_REQUEST,
            "Client context must be a valid Base64-encoded JSON object.",
        ) from None


def _page(parameters: Parameters, name: str, items: Sequence[Any]) -> dict[str, Any]:
    """Return the page of a listing that MaxItems and Marker select, with the NextMarker if more follow.

    Raises
    ------
    ApiError
        When Marker is invalid.
    """
    # As on AWS, a page has fifty items at most, whatever MaxItems is.
    size = min(_PAGE, parameters.get("MaxItems", _PAGE))
    begin = whole_number(parameters.get("Marker") or "0")
    if begin is None:
        marker = parameters["Marker"]
        raise invalid_parameter(f"invalid Marker {marker!r:.80}: expected the NextMarker of a previous page")
    page: dict[str, Any] = {name: items[begin : begin + size]}
    if begin + size < len(items):
        page["NextMarker"] = str(begin + size)
    return page
