"""Lambda's operations on layers and their permissions."""

from collections.abc import Mapping
from typing import Any

from emulator.aws.account import Account
from emulator.aws.lambda_.core.layers import Layers
from emulator.aws.lambda_.core.permissions import compact_json
from emulator.aws.lambda_.http.code_sources import CodeSources
from emulator.aws.lambda_.http.requests import Operation, Parameters, page_of


class LayerOperations:
    """Layers and their permissions."""

    def __init__(self, layers: Layers, code: CodeSources) -> None:
        self._layers = layers
        self._code = code

    def operations(self) -> dict[str, Operation]:
        """Return the operations by their names in the model."""
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

    async def _publish(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        name = _layer_name(parameters)
        published = await self._layers.publish(account, name, self._code.archive(parameters["Content"]), parameters)
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
        return page_of(parameters, "Layers", shown)

    def _list_versions(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        versions = self._layers.versions(account, _layer_name(parameters))
        return page_of(parameters, "LayerVersions", [found for found in versions if _is_compatible(found, parameters)])

    def _add_permission(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        name, number = _layer_name(parameters), parameters["VersionNumber"]
        statement, revision_id = self._layers.add_permission(account, name, number, parameters)
        return {"Statement": compact_json(statement), "RevisionId": revision_id}

    def _get_policy(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        document, revision_id = self._layers.policy(account, _layer_name(parameters), parameters["VersionNumber"])
        return {"Policy": compact_json(document), "RevisionId": revision_id}


def _layer_name(parameters: Parameters) -> str:
    """Return the name of a layer, which a request may name by its ARN."""
    return str(parameters["LayerName"]).rpartition(":")[2]


def _is_compatible(version: Mapping[str, Any], parameters: Parameters) -> bool:
    runtime, architecture = parameters.get("CompatibleRuntime"), parameters.get("CompatibleArchitecture")
    return (runtime is None or runtime in version.get("CompatibleRuntimes", ())) and (
        architecture is None or architecture in version.get("CompatibleArchitectures", ())
    )
