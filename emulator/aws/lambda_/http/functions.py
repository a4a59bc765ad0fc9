"""Lambda's operations on functions: create, read, update, delete, list."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from emulator.aws import limits
from emulator.aws.account import Account
from emulator.aws.lambda_.core.function_registry import FunctionRegistry, check_revision
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.layers import Layers
from emulator.aws.lambda_.core.models import Function, FunctionSpec
from emulator.aws.lambda_.core.references import Reference
from emulator.aws.lambda_.http.code_sources import CodeSources
from emulator.aws.lambda_.http.requests import Operation, Parameters, page_of, reference_of, summary_of
from emulator.aws.lambda_.updates import UpdatesInProgress
from emulator.aws.protocol.constraints import validation_error, violation

_LONGEST_NAME = 64


class FunctionOperations:
    """Functions: create, read, update, delete, list."""

    def __init__(
        self,
        functions: FunctionRegistry,
        service: LambdaService,
        layers: Layers,
        code: CodeSources,
        updates: UpdatesInProgress,
    ) -> None:
        self._functions = functions
        self._service = service
        self._layers = layers
        self._code = code
        self._updates = updates

    def operations(self) -> dict[str, Operation]:
        """Return the operations by their names in the model."""
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

    async def _create(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = Reference.parse(parameters["FunctionName"], account=account)
        if len(reference.name) > _LONGEST_NAME:
            constraint = f"Member must have length less than or equal to {_LONGEST_NAME}"
            violated = violation("FunctionName", reference.name, constraint)
            raise validation_error([violated], "InvalidParameterValueException")
        layers = self._layers.uses(account, parameters.get("Layers", ()))
        request = self._code.completed({**parameters, "FunctionName": reference.name}, account)
        spec = FunctionSpec.from_api(request, account, layers)
        code = self._code.of(parameters["Code"])
        self._functions.check_new(reference)
        store = self._functions.code_store
        package = await store.store_in_thread(spec, code)
        with store.adopted(package):
            function = self._functions.create(spec, package, parameters.get("Tags"))
        self._updates.end(reference)
        if parameters.get("Publish"):
            # As recorded on AWS, the ARN of this answer has no version.
            return self._functions.publish(reference).created(reference.arn)
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
        check_revision(before.revision_id, parameters.get("RevisionId"))
        store = self._functions.code_store
        package = await store.store_in_thread(before.spec, self._code.of(parameters), "updating")
        with store.adopted(package):
            # Another request may have changed the function meanwhile.
            before = self._functions.get(reference.unqualified())
            self._updates.check_ended(reference)
            function = self._functions.update_code(
                reference,
                package,
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
        reference = reference_of(parameters, account)
        for function in self._functions.delete(reference):
            await self._service.discard(function)
        self._updates.end(reference)
        return {"StatusCode": HTTPStatus.NO_CONTENT}

    def _list(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        functions = self._functions.all(account.region)
        if parameters.get("FunctionVersion") != "ALL":
            return page_of(parameters, "Functions", [function.summary() for function in functions])
        records = self._functions.records_of(account.region)
        shown = [summary_of(function) for record in records for function in record.functions]
        return page_of(parameters, "Functions", shown)

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
        reference = reference_of(parameters, account)
        function = self._functions.get(reference)
        self._updates.end(reference)
        return reference, function
