"""Lambda's operations on versions, aliases and permissions."""

from collections.abc import Mapping
from typing import Any

from emulator.aws.account import Account
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.permissions import Permissions, compact_json
from emulator.aws.lambda_.http.requests import Operation, Parameters, page_of, reference_of, summary_of
from emulator.aws.lambda_.updates import UpdatesInProgress


class VersionOperations:
    """Versions, aliases and permissions."""

    def __init__(self, functions: FunctionRegistry, service: LambdaService, updates: UpdatesInProgress) -> None:
        self._functions = functions
        self._service = service
        self._permissions = Permissions(functions)
        self._updates = updates

    def operations(self) -> dict[str, Operation]:
        """Return the operations by their names in the model."""
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
        }

    def _list_versions(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        record = self._functions.record(reference_of(parameters, account))
        return page_of(parameters, "Versions", [summary_of(function) for function in record.functions])

    def _publish(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = reference_of(parameters, account)
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
        reference = reference_of(parameters, account)
        alias = self._functions.create_alias(
            reference,
            parameters["Name"],
            parameters["FunctionVersion"],
            parameters.get("Description", ""),
            parameters.get("RoutingConfig", {}).get("AdditionalVersionWeights") or {},
        )
        return alias.to_api(reference.arn)

    def _get_alias(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = reference_of(parameters, account)
        return self._functions.alias(reference, parameters["Name"]).to_api(reference.arn)

    def _update_alias(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference = reference_of(parameters, account)
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
        self._functions.delete_alias(reference_of(parameters, account), parameters["Name"])

    def _list_aliases(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        reference, version = reference_of(parameters, account), parameters.get("FunctionVersion")
        aliases = self._functions.record(reference).aliases
        shown = [aliases[name] for name in sorted(aliases) if version in (None, aliases[name].version)]
        return page_of(parameters, "Aliases", [alias.to_api(reference.arn) for alias in shown])

    def _add_permission(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        statement = self._permissions.add(reference_of(parameters, account), parameters)
        return {"Statement": compact_json(statement)}

    def _get_policy(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        document, revision_id = self._permissions.get(reference_of(parameters, account))
        return {"Policy": compact_json(document), "RevisionId": revision_id}

    def _remove_permission(self, parameters: Parameters, account: Account) -> None:
        reference = reference_of(parameters, account)
        self._permissions.remove(reference, parameters["StatementId"], parameters.get("RevisionId"))
