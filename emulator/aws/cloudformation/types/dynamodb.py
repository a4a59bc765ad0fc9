"""AWS::DynamoDB: tables.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_DynamoDB.html
"""

from collections.abc import Mapping

from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, tag_list, wait_until


class Table(ApiResource):
    """AWS::DynamoDB::Table."""

    service = "dynamodb"
    replaced_by = frozenset(["TableName", "KeySchema", "LocalSecondaryIndexes", "AttributeDefinitions"])
    _own = ("PointInTimeRecoverySpecification", "TimeToLiveSpecification", "Tags")

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a table, and wait until it is active."""
        properties = {name: value for name, value in request.properties.items() if name not in self._own}
        name = str(properties.setdefault("TableName", request.generated_name(255)))
        stream = properties.get("StreamSpecification")
        if stream is not None:
            properties["StreamSpecification"] = {"StreamEnabled": True, **stream}
        encryption = properties.get("SSESpecification")
        if encryption is not None:
            specification = dict(encryption)
            properties["SSESpecification"] = {"Enabled": specification.pop("SSEEnabled", False), **specification}
        made = (await self.call(request, "CreateTable", {**properties, "Tags": tag_list(request)}))["TableDescription"]

        async def is_active() -> bool:
            table = (await self.call(request, "DescribeTable", {"TableName": name}))["Table"]
            return bool(table["TableStatus"] == "ACTIVE")

        await wait_until(is_active, f"table {name}")
        await self._set(request, name)
        return Resource(name, {"Arn": made["TableArn"], "StreamArn": made.get("LatestStreamArn")})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change throughput, stream and time to live."""
        name = request.physical_id
        members = ("BillingMode", "ProvisionedThroughput", "DeletionProtectionEnabled", "TableClass")
        if request.changed(*members):
            changed = {member: request.properties.get(member) for member in members}
            await self.call(request, "UpdateTable", {"TableName": name, **changed})
        await self._set(request, name)
        return request.current or Resource(name)

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the table."""
        await self.call(request, "DeleteTable", {"TableName": request.physical_id})

    async def _set(self, request: ResourceRequest, name: str) -> None:
        lifetime = request.properties.get("TimeToLiveSpecification")
        if lifetime and request.changed("TimeToLiveSpecification"):
            await self.call(request, "UpdateTimeToLive", {"TableName": name, "TimeToLiveSpecification": lifetime})
        recovery = request.properties.get("PointInTimeRecoverySpecification")
        if recovery and request.changed("PointInTimeRecoverySpecification"):
            changed = {"TableName": name, "PointInTimeRecoverySpecification": recovery}
            await self.call(request, "UpdateContinuousBackups", changed)


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::DynamoDB::Table": Table,
}
