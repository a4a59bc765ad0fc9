"""Types that stand for nothing: metadata of tools."""

from collections.abc import Mapping

from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource


class Marker(ApiResource):
    """A type whose resources exist in their stack alone."""

    async def create(self, request: ResourceRequest) -> Resource:
        """Return a resource with a new name."""
        return Resource(request.generated_name())

    async def update(self, request: ResourceRequest) -> Resource:
        """Return the resource: any property can change."""
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Do nothing."""


TYPES: Mapping[str, type[ApiResource]] = {"AWS::CDK::Metadata": Marker}
