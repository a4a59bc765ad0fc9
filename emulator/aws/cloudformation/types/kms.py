"""AWS::KMS: keys and their aliases.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_KMS.html
"""

from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, SimpleResource, tag_list


class Key(ApiResource):
    """AWS::KMS::Key."""

    service = "kms"
    replaced_by = frozenset(["KeySpec", "KeyUsage", "Origin", "MultiRegion"])
    _own = ("EnableKeyRotation", "Enabled", "KeyPolicy", "PendingWindowInDays", "RotationPeriodInDays", "Tags")

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a key."""
        properties = {name: value for name, value in request.properties.items() if name not in self._own}
        tags = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tag_list(request) or []]
        policy = request.properties.get("KeyPolicy")
        made = await self.call(request, "CreateKey", {**properties, "Policy": policy, "Tags": tags or None})
        key = made["KeyMetadata"]["KeyId"]
        await self._set(request, key)
        return Resource(key, {"Arn": made["KeyMetadata"]["Arn"], "KeyId": key})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change policy, description and rotation."""
        key = request.physical_id
        if request.changed("KeyPolicy"):
            policy = {"KeyId": key, "PolicyName": "default", "Policy": request.properties.get("KeyPolicy")}
            await self.call(request, "PutKeyPolicy", policy)
        if request.changed("Description"):
            description = request.properties.get("Description", "")
            await self.call(request, "UpdateKeyDescription", {"KeyId": key, "Description": description})
        await self._set(request, key)
        return request.current or Resource(key)

    async def delete(self, request: ResourceRequest) -> None:
        """Schedule the key's deletion."""
        window = request.properties.get("PendingWindowInDays", 30)
        key = {"KeyId": request.physical_id, "PendingWindowInDays": window}
        await self.call(request, "ScheduleKeyDeletion", key)

    async def _set(self, request: ResourceRequest, key: str) -> None:
        if request.changed("EnableKeyRotation"):
            is_on = str(request.properties.get("EnableKeyRotation", "")).lower() == "true"
            await self.call(request, "EnableKeyRotation" if is_on else "DisableKeyRotation", {"KeyId": key})
        if request.changed("Enabled"):
            is_on = str(request.properties.get("Enabled", "true")).lower() == "true"
            await self.call(request, "EnableKey" if is_on else "DisableKey", {"KeyId": key})


class KeyAlias(SimpleResource):
    """AWS::KMS::Alias."""

    service = "kms"
    create_operation = "CreateAlias"
    update_operation = "UpdateAlias"
    delete_operation = "DeleteAlias"
    name_property = "AliasName"

    def key(self, request: ResourceRequest) -> dict[str, Any]:
        """Return the alias's name."""
        return {"AliasName": request.physical_id}

    async def created(
        self, request: ResourceRequest, properties: Mapping[str, Any], response: Mapping[str, Any]
    ) -> Resource:
        """Return the alias."""
        return Resource(str(properties["AliasName"]))


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::KMS::Alias": KeyAlias,
    "AWS::KMS::Key": Key,
}
