"""AWS::SecretsManager: secrets.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_SecretsManager.html
"""

import json
from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, tag_list


class Secret(ApiResource):
    """AWS::SecretsManager::Secret."""

    service = "secretsmanager"
    replaced_by = frozenset(["Name"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a secret, with a random value if the template asks for one."""
        properties = dict(request.properties)
        generate = properties.pop("GenerateSecretString", None)
        if generate is not None:
            properties["SecretString"] = await self._generated(request, generate)
        properties.setdefault("Name", request.generated_name(256))
        properties["Tags"] = tag_list(request)
        arn = (await self.call(request, "CreateSecret", properties))["ARN"]
        return Resource(arn, {"Id": arn})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change description, key and value; a generated value is made anew if its settings change."""
        changed = {member: request.properties.get(member) for member in ("Description", "KmsKeyId", "SecretString")}
        if request.changed("GenerateSecretString") and "GenerateSecretString" in request.properties:
            changed["SecretString"] = await self._generated(request, request.properties["GenerateSecretString"])
        await self.call(request, "UpdateSecret", {"SecretId": request.physical_id, **changed})
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the secret at once."""
        key = {"SecretId": request.physical_id, "ForceDeleteWithoutRecovery": True}
        await self.call(request, "DeleteSecret", key)

    async def _generated(self, request: ResourceRequest, settings: Mapping[str, Any]) -> str:
        own = ("GenerateStringKey", "SecretStringTemplate")
        password = {name: value for name, value in settings.items() if name not in own}
        value: str = (await self.call(request, "GetRandomPassword", password))["RandomPassword"]
        if own[0] not in settings:
            return value
        try:
            template = json.loads(settings[own[1]])
        except (KeyError, ValueError):
            raise ResourceFailedError("invalid SecretStringTemplate: expected a JSON object") from None
        return json.dumps({**template, settings[own[0]]: value})


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::SecretsManager::Secret": Secret,
}
