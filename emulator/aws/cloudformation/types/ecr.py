"""AWS::ECR: image repositories.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_ECR.html
"""

import json
from collections.abc import Mapping

from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, tag_list


class Repository(ApiResource):
    """AWS::ECR::Repository."""

    service = "ecr"
    replaced_by = frozenset(["RepositoryName", "EncryptionConfiguration"])
    _own = ("LifecyclePolicy", "RepositoryPolicyText", "EmptyOnDelete", "Tags")

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a repository."""
        properties = {name: value for name, value in request.properties.items() if name not in self._own}
        name = properties.setdefault("RepositoryName", request.generated_name(256).lower())
        made = await self.call(request, "CreateRepository", {**properties, "Tags": tag_list(request)})
        await self._set_policies(request, name)
        repository = made["repository"]
        return Resource(name, {"Arn": repository["repositoryArn"], "RepositoryUri": repository["repositoryUri"]})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change policies and settings."""
        name = {"RepositoryName": request.physical_id}
        if request.changed("ImageTagMutability"):
            mutability = request.properties.get("ImageTagMutability", "MUTABLE")
            await self.call(request, "PutImageTagMutability", {**name, "ImageTagMutability": mutability})
        if request.changed("ImageScanningConfiguration"):
            scanning = request.properties.get("ImageScanningConfiguration", {"ScanOnPush": False})
            await self.call(request, "PutImageScanningConfiguration", {**name, "ImageScanningConfiguration": scanning})
        await self._set_policies(request, request.physical_id)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the repository."""
        empties = request.properties.get("EmptyOnDelete")
        await self.call(request, "DeleteRepository", {"RepositoryName": request.physical_id, "Force": empties})

    async def _set_policies(self, request: ResourceRequest, name: str) -> None:
        lifecycle = (request.properties.get("LifecyclePolicy") or {}).get("LifecyclePolicyText")
        if lifecycle and request.changed("LifecyclePolicy"):
            policy = {"RepositoryName": name, "LifecyclePolicyText": lifecycle}
            await self.call(request, "PutLifecyclePolicy", policy)
        text = request.properties.get("RepositoryPolicyText")
        if text and request.changed("RepositoryPolicyText"):
            document = text if isinstance(text, str) else json.dumps(text)
            await self.call(request, "SetRepositoryPolicy", {"RepositoryName": name, "PolicyText": document})


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::ECR::Repository": Repository,
}
