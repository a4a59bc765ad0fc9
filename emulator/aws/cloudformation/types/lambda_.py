"""AWS::Lambda: functions with their versions, aliases, permissions, layers, URLs and event sources.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_Lambda.html
"""

import importlib.resources
import io
import zipfile
from collections.abc import Mapping
from typing import Any, ClassVar

from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import EVERY, ApiResource, SimpleResource, wait_until

_CODE = "Code"
# Set by operations of their own.
_OWN_OPERATIONS = frozenset(
    [_CODE, "Architectures", "ReservedConcurrentExecutions", "RuntimeManagementConfig", "RecursiveLoop", "Tags"]
)


class Function(ApiResource):
    """AWS::Lambda::Function."""

    service = "lambda"
    replaced_by = frozenset(["FunctionName", "PackageType"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a function, and wait until it is active."""
        properties = dict(request.properties)
        concurrency = properties.pop("ReservedConcurrentExecutions", None)
        runtime_management = properties.pop("RuntimeManagementConfig", None)
        recursive_loop = properties.pop("RecursiveLoop", None)
        name = properties.setdefault("FunctionName", request.generated_name())
        properties[_CODE] = _archived(properties)
        properties["Tags"] = _tags(request)
        made = await self.call(request, "CreateFunction", properties)
        try:
            if concurrency is not None:
                await self._reserve(request, name, concurrency)
            if runtime_management is not None:
                config = {"FunctionName": name, **runtime_management}
                await self.call(request, "PutRuntimeManagementConfig", config)
            if recursive_loop is not None:
                loop = {"FunctionName": name, "RecursiveLoop": recursive_loop}
                await self.call(request, "PutFunctionRecursionConfig", loop)
            await self._settled(request, name)
        except BaseException:
            # A failed or cancelled resource has no id, so the rollback could not delete it.
            await self.call(request, "DeleteFunction", {"FunctionName": name})
            raise
        return Resource(name, {"Arn": made["FunctionArn"]})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change configuration, code, tags and reservation, each by its operation."""
        name, properties = request.physical_id, request.properties
        key = {"FunctionName": name}
        configuration = {member: value for member, value in properties.items() if member not in _OWN_OPERATIONS}
        removed = {member: value for member, value in _DEFAULTS.items() if member in request.previous}
        if any(request.changed(member) for member in {*configuration, *request.previous} - _OWN_OPERATIONS):
            await self.call(request, "UpdateFunctionConfiguration", {**removed, **configuration, **key})
            await self._settled(request, name)
        if request.changed(_CODE, "Architectures"):
            code = {**_archived(properties), "Architectures": properties.get("Architectures")}
            code.pop("SourceKMSKeyArn", None)
            await self.call(request, "UpdateFunctionCode", {**code, **key})
            await self._settled(request, name)
        if request.changed("ReservedConcurrentExecutions"):
            await self._reserve(request, name, properties.get("ReservedConcurrentExecutions"))
        if request.changed("RuntimeManagementConfig") and "RuntimeManagementConfig" in properties:
            await self.call(request, "PutRuntimeManagementConfig", {**key, **properties["RuntimeManagementConfig"]})
        if request.changed("RecursiveLoop") and "RecursiveLoop" in properties:
            await self.call(
                request, "PutFunctionRecursionConfig", {**key, "RecursiveLoop": properties["RecursiveLoop"]}
            )
        if request.changed("Tags"):
            await self._retag(request)
        return request.current or Resource(name)

    async def delete(self, request: ResourceRequest) -> None:
        """Delete a function with its versions."""
        await self.call(request, "DeleteFunction", {"FunctionName": request.physical_id})

    async def _reserve(self, request: ResourceRequest, name: str, concurrency: Any) -> None:
        if concurrency is None:
            await self.call(request, "DeleteFunctionConcurrency", {"FunctionName": name})
        else:
            reservation = {"FunctionName": name, "ReservedConcurrentExecutions": concurrency}
            await self.call(request, "PutFunctionConcurrency", reservation)

    async def _retag(self, request: ResourceRequest) -> None:
        arn = {"Resource": (request.current or Resource("")).attributes["Arn"]}
        before = {tag["Key"] for tag in request.previous.get("Tags") or []}
        tags = _tags(request)
        if removed := sorted(before - tags.keys()):
            await self.call(request, "UntagResource", {**arn, "TagKeys": removed})
        if tags:
            await self.call(request, "TagResource", {**arn, "Tags": tags})

    async def _settled(self, request: ResourceRequest, name: str) -> None:
        """Wait until a function is active and its update has ended."""

        async def is_settled() -> bool:
            found = await self.call(request, "GetFunctionConfiguration", {"FunctionName": name})
            if "Failed" in (found.get("State"), found.get("LastUpdateStatus")):
                reason = found.get("StateReason") or found.get("LastUpdateStatusReason") or "no reason given"
                raise ResourceFailedError(f"function {name} failed: {reason}")
            return found.get("State", "Active") == "Active" and found.get("LastUpdateStatus") != "InProgress"

        await wait_until(is_settled, f"function {name}")


# What a property that leaves the template becomes: https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
_DEFAULTS: Mapping[str, Any] = {
    "DeadLetterConfig": {},
    "Description": "",
    "Environment": {"Variables": {}},
    "EphemeralStorage": {"Size": 512},
    "FileSystemConfigs": [],
    "Layers": [],
    "MemorySize": 128,
    "Timeout": 3,
    "TracingConfig": {"Mode": "PassThrough"},
    "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
}


def _tags(request: ResourceRequest) -> dict[str, str]:
    own = {str(tag["Key"]): str(tag["Value"]) for tag in request.properties.get("Tags") or []}
    return {**request.stack.tags, **own}


def _archived(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return a function's code; source text in a template becomes an archive, as on AWS."""
    code = dict(properties.get(_CODE) or {})
    source = code.pop("ZipFile", None)
    if source is None:
        return code
    is_node = str(properties.get("Runtime", "")).startswith("nodejs")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {
            "index.js" if is_node else "index.py": source,
            **({} if is_node else {"cfnresponse.py": _response_module()}),
        }.items():
            # The same source makes the same archive.
            archive.writestr(zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0)), text)
    return {**code, "ZipFile": buffer.getvalue()}


def _response_module() -> str:
    """Return the module that AWS adds to a Python function whose source is in a template."""
    return importlib.resources.files(__package__).joinpath("cfnresponse_source.txt").read_text()


class Version(ApiResource):
    """AWS::Lambda::Version."""

    service = "lambda"
    replaced_by = EVERY

    async def create(self, request: ResourceRequest) -> Resource:
        """Publish a version."""
        properties = dict(request.properties)
        provisioned = properties.pop("ProvisionedConcurrencyConfig", None)
        made = await self.call(request, "PublishVersion", properties)
        if provisioned is not None:
            await self.call(
                request,
                "PutProvisionedConcurrencyConfig",
                {"FunctionName": made["FunctionName"], "Qualifier": made["Version"], **provisioned},
            )
        arn = _with_qualifier(made["FunctionArn"], made["Version"])
        return Resource(arn, {"Version": made["Version"], "FunctionArn": arn})

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the version."""
        function, _, version = request.physical_id.rpartition(":")
        await self.call(request, "DeleteFunction", {"FunctionName": function, "Qualifier": version})


class Alias(ApiResource):
    """AWS::Lambda::Alias."""

    service = "lambda"
    replaced_by = frozenset(["FunctionName", "Name"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create an alias."""
        made = await self.call(request, "CreateAlias", self._alias(request.properties))
        await self._provision(request)
        return Resource(made["AliasArn"], {"AliasArn": made["AliasArn"]})

    async def update(self, request: ResourceRequest) -> Resource:
        """Point the alias to another version."""
        await self.call(request, "UpdateAlias", {"RoutingConfig": {}, **self._alias(request.properties)})
        await self._provision(request)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the alias."""
        function, _, name = request.physical_id.rpartition(":")
        await self.call(request, "DeleteAlias", {"FunctionName": function, "Name": name})

    async def _provision(self, request: ResourceRequest) -> None:
        provisioned = request.properties.get("ProvisionedConcurrencyConfig")
        if provisioned is not None and request.changed("ProvisionedConcurrencyConfig"):
            key = {"FunctionName": request.properties["FunctionName"], "Qualifier": request.properties["Name"]}
            await self.call(request, "PutProvisionedConcurrencyConfig", {**key, **provisioned})

    def _alias(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        alias = {name: value for name, value in properties.items() if name != "ProvisionedConcurrencyConfig"}
        routing = alias.pop("RoutingConfig", None)
        if routing:
            weights = {
                str(weight["FunctionVersion"]): weight["FunctionWeight"]
                for weight in routing.get("AdditionalVersionWeights", [])
            }
            alias["RoutingConfig"] = {"AdditionalVersionWeights": weights}
        return alias


class Permission(ApiResource):
    """AWS::Lambda::Permission."""

    service = "lambda"
    replaced_by = EVERY

    async def create(self, request: ResourceRequest) -> Resource:
        """Add the statement to the function's policy."""
        statement = request.generated_name(100)
        await self.call(request, "AddPermission", {**request.properties, "StatementId": statement})
        return Resource(statement, {"Id": statement})

    async def delete(self, request: ResourceRequest) -> None:
        """Remove the statement."""
        key = {"FunctionName": request.properties["FunctionName"], "StatementId": request.physical_id}
        await self.call(request, "RemovePermission", key)


class LayerVersion(ApiResource):
    """AWS::Lambda::LayerVersion."""

    service = "lambda"
    replaced_by = EVERY

    async def create(self, request: ResourceRequest) -> Resource:
        """Publish a version of a layer."""
        name = request.properties.get("LayerName") or request.generated_name(140)
        made = await self.call(request, "PublishLayerVersion", {**request.properties, "LayerName": name})
        arn = made["LayerVersionArn"]
        return Resource(arn, {"LayerVersionArn": arn})

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the version."""
        layer, _, number = request.physical_id.rpartition(":")
        await self.call(request, "DeleteLayerVersion", {"LayerName": layer, "VersionNumber": number})


class LayerVersionPermission(ApiResource):
    """AWS::Lambda::LayerVersionPermission."""

    service = "lambda"
    replaced_by = EVERY

    async def create(self, request: ResourceRequest) -> Resource:
        """Add the statement to the layer version's policy."""
        properties = dict(request.properties)
        statement = request.generated_name(100)
        layer, _, number = str(properties.pop("LayerVersionArn")).rpartition(":")
        added = {**properties, "LayerName": layer, "VersionNumber": number, "StatementId": statement}
        await self.call(request, "AddLayerVersionPermission", added)
        return Resource(f"{layer}:{number}#{statement}")

    async def delete(self, request: ResourceRequest) -> None:
        """Remove the statement."""
        version, _, statement = request.physical_id.partition("#")
        layer, _, number = version.rpartition(":")
        key = {"LayerName": layer, "VersionNumber": number, "StatementId": statement}
        await self.call(request, "RemoveLayerVersionPermission", key)


class Url(ApiResource):
    """AWS::Lambda::Url."""

    service = "lambda"
    renamed: ClassVar[Mapping[str, str]] = {"TargetFunctionArn": "FunctionName"}
    replaced_by = frozenset(["TargetFunctionArn", "Qualifier"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create the URL of a function."""
        return self._made(await self.call(request, "CreateFunctionUrlConfig", request.properties))

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the URL's settings."""
        return self._made(await self.call(request, "UpdateFunctionUrlConfig", request.properties))

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the URL."""
        key = {name: request.properties.get(name) for name in ("TargetFunctionArn", "Qualifier")}
        await self.call(request, "DeleteFunctionUrlConfig", key)

    def _made(self, response: Mapping[str, Any]) -> Resource:
        arn = response["FunctionArn"]
        return Resource(arn, {"FunctionArn": arn, "FunctionUrl": response["FunctionUrl"]})


class EventSourceMapping(SimpleResource):
    """AWS::Lambda::EventSourceMapping."""

    service = "lambda"
    create_operation = "CreateEventSourceMapping"
    update_operation = "UpdateEventSourceMapping"
    delete_operation = "DeleteEventSourceMapping"
    replaced_by = frozenset(["EventSourceArn", "StartingPosition", "StartingPositionTimestamp", "Queues"])
    creation_only = frozenset(["EventSourceArn", "StartingPosition", "StartingPositionTimestamp", "Queues", "Tags"])

    def key(self, request: ResourceRequest) -> dict[str, Any]:
        """Return the mapping's UUID."""
        return {"UUID": request.physical_id}

    async def created(
        self, request: ResourceRequest, properties: Mapping[str, Any], response: Mapping[str, Any]
    ) -> Resource:
        """Return the mapping."""
        arn = response.get("EventSourceMappingArn", "")
        return Resource(response["UUID"], {"Id": response["UUID"], "EventSourceMappingArn": arn})


class EventInvokeConfig(ApiResource):
    """AWS::Lambda::EventInvokeConfig."""

    service = "lambda"
    replaced_by = frozenset(["FunctionName", "Qualifier"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Set retries and destinations of asynchronous invocations."""
        await self.call(request, "PutFunctionEventInvokeConfig", request.properties)
        return Resource(request.generated_name())

    async def update(self, request: ResourceRequest) -> Resource:
        """Replace the settings."""
        await self.call(request, "PutFunctionEventInvokeConfig", request.properties)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the settings."""
        key = {name: request.properties.get(name) for name in ("FunctionName", "Qualifier")}
        await self.call(request, "DeleteFunctionEventInvokeConfig", key)


def _with_qualifier(arn: str, qualifier: str) -> str:
    return arn if arn.endswith(f":{qualifier}") else f"{arn}:{qualifier}"


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::Lambda::Alias": Alias,
    "AWS::Lambda::EventInvokeConfig": EventInvokeConfig,
    "AWS::Lambda::EventSourceMapping": EventSourceMapping,
    "AWS::Lambda::Function": Function,
    "AWS::Lambda::LayerVersion": LayerVersion,
    "AWS::Lambda::LayerVersionPermission": LayerVersionPermission,
    "AWS::Lambda::Permission": Permission,
    "AWS::Lambda::Url": Url,
    "AWS::Lambda::Version": Version,
}
