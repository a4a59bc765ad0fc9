"""Types that stand for nothing: metadata of tools, and handles that signals are sent to."""

from emulator.aws.cloudformation.resource import Resource, ResourceRequest

NAMES = ("AWS::CDK::Metadata",)


class Marker:
    """A type whose resources exist in their stack alone."""

    async def create(self, request: ResourceRequest) -> Resource:
        """Return a resource of that name."""
        return Resource(request.generated_name())

    async def update(self, request: ResourceRequest) -> Resource:
        """Return the resource."""
        return request.current or Resource(request.generated_name())

    async def delete(self, request: ResourceRequest) -> None:
        """Do nothing."""

    def replaces(self, request: ResourceRequest) -> bool:
        """Return False: any property can change."""
        return False
