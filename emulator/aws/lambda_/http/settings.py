"""Lambda's operations on concurrency, function URLs, asynchronous invocations, code signing and smaller settings."""

from collections.abc import Mapping
from typing import Any

from emulator.aws.account import Account
from emulator.aws.lambda_.core.code_signing import CodeSigningConfigs
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.function_urls import FunctionUrls
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.provisioned_concurrency import check_reservable
from emulator.aws.lambda_.core.references import LATEST, conflict, invalid_parameter, resource_not_found
from emulator.aws.lambda_.http.requests import Operation, Parameters, page_of, reference_of


class SettingOperations:
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
        """Return the operations by their names in the model."""
        urls, events, provisioned, signing = self._urls, self._event_configs, self._provisioned, self._code_signing
        return {
            "PutFunctionConcurrency": self._reserve,
            "GetFunctionConcurrency": self._get_reservation,
            "DeleteFunctionConcurrency": lambda p, a: self._functions.reserve(reference_of(p, a), None),
            "PutProvisionedConcurrencyConfig": lambda p, a: provisioned.put(
                reference_of(p, a), p["ProvisionedConcurrentExecutions"]
            ),
            "GetProvisionedConcurrencyConfig": lambda p, a: provisioned.get(reference_of(p, a)),
            "DeleteProvisionedConcurrencyConfig": lambda p, a: provisioned.delete(reference_of(p, a)),
            "ListProvisionedConcurrencyConfigs": lambda p, a: page_of(
                p, "ProvisionedConcurrencyConfigs", provisioned.list(reference_of(p, a))
            ),
            "CreateFunctionUrlConfig": lambda p, a: urls.create(reference_of(p, a), p),
            "GetFunctionUrlConfig": lambda p, a: urls.get(reference_of(p, a)),
            "UpdateFunctionUrlConfig": lambda p, a: urls.update(reference_of(p, a), p),
            "DeleteFunctionUrlConfig": lambda p, a: urls.delete(reference_of(p, a)),
            "ListFunctionUrlConfigs": lambda p, a: page_of(p, "FunctionUrlConfigs", urls.list(reference_of(p, a))),
            "PutFunctionEventInvokeConfig": lambda p, a: events.put(reference_of(p, a), p),
            "UpdateFunctionEventInvokeConfig": lambda p, a: events.update(reference_of(p, a), p),
            "GetFunctionEventInvokeConfig": lambda p, a: events.get(reference_of(p, a)),
            "DeleteFunctionEventInvokeConfig": lambda p, a: events.delete(reference_of(p, a)),
            "ListFunctionEventInvokeConfigs": lambda p, a: page_of(
                p, "FunctionEventInvokeConfigs", events.list(reference_of(p, a))
            ),
            "CreateCodeSigningConfig": lambda p, a: {"CodeSigningConfig": signing.create(a, p)},
            "GetCodeSigningConfig": lambda p, _: {"CodeSigningConfig": signing.get(p["CodeSigningConfigArn"])},
            "UpdateCodeSigningConfig": lambda p, _: {"CodeSigningConfig": signing.update(p["CodeSigningConfigArn"], p)},
            "DeleteCodeSigningConfig": self._delete_code_signing_config,
            "ListCodeSigningConfigs": lambda p, a: page_of(p, "CodeSigningConfigs", signing.all(a)),
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
        reference = reference_of(parameters, account)
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
        record = self._functions.record(reference_of(parameters, account))
        return {"ReservedConcurrentExecutions": record.reserved_concurrency}

    def _signed_functions(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        return page_of(parameters, "FunctionArns", self._functions_with(parameters["CodeSigningConfigArn"], account))

    def _delete_code_signing_config(self, parameters: Parameters, account: Account) -> None:
        arn = parameters["CodeSigningConfigArn"]
        if self._functions_with(arn, account):
            raise conflict(f"The code signing configuration {arn} is used by functions and cannot be deleted.")
        self._code_signing.delete(arn)

    def _functions_with(self, arn: str, account: Account) -> list[str]:
        """Return the ARNs of the functions with a code signing configuration, which exists."""
        self._code_signing.get(arn)
        records = self._functions.records_of(account.region)
        return [record.latest.arn for record in records if record.options.get("CodeSigningConfigArn") == arn]

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
                "FunctionName": reference_of(parameters, account).name,
            }
        )

    def _put_runtime_management(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        kept = {name: parameters[name] for name in ("UpdateRuntimeOn", "RuntimeVersionArn") if name in parameters}
        self._set_option(parameters, account, "RuntimeManagement", kept)
        return self._get_runtime_management(parameters, account)

    def _get_runtime_management(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        function = self._functions.get(reference_of(parameters, account))
        kept = self._option(parameters, account, "RuntimeManagement", {"UpdateRuntimeOn": "Auto"})
        return {**kept, "FunctionArn": function.arn}

    def _option(self, parameters: Parameters, account: Account, name: str, default: Any) -> Any:
        return self._functions.record(reference_of(parameters, account)).options.get(name, default)

    def _set_option(self, parameters: Parameters, account: Account, name: str, value: Any) -> Mapping[str, Any]:
        reference = reference_of(parameters, account)
        options = self._functions.record(reference).options
        if value is None:
            options.pop(name, None)
        else:
            options[name] = value
        self._functions.save(reference)
        return {name: value}
