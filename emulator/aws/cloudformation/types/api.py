"""Resources that calls of a service's own API create, update and delete."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from emulator.aws.cloudformation.api_parameters import api_parameters
from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import ReplacementNeededError, Resource, ResourceRequest
from emulator.aws.sdk_client import AwsClient

# A change of any property needs a new resource.
EVERY = frozenset(["*"])
_POLLS_S = (0.05, 0.1, 0.2, 0.5)
_WAIT_S = 300.0


class ApiResource:
    """A type whose operations are calls of one service. Subclasses say which.

    Parameters
    ----------
    aws
        Makes the calls.
    """

    service: ClassVar[str]
    # Properties whose change needs a new resource.
    replaced_by: ClassVar[frozenset[str]] = frozenset()
    # The parameters of properties that have other names.
    renamed: ClassVar[Mapping[str, str]] = {}

    def __init__(self, aws: AwsClient) -> None:
        self._aws = aws

    def replaces(self, request: ResourceRequest) -> bool:
        """Return whether a change needs a new resource."""
        return self.replaced_by == EVERY or request.changed(*self.replaced_by)

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a resource."""
        raise NotImplementedError

    async def update(self, request: ResourceRequest) -> Resource:
        """Change a resource; unless a subclass can, a new one replaces it."""
        raise ReplacementNeededError

    async def delete(self, request: ResourceRequest) -> None:
        """Delete a resource."""
        raise NotImplementedError

    async def call(
        self, request: ResourceRequest, operation: str, parameters: Mapping[str, Any], service: str | None = None
    ) -> dict[str, Any]:
        """Call an operation of the service with the properties that it takes.

        Parameters
        ----------
        request
            Names the region.
        operation
            Its name in the API.
        parameters
            Properties and further parameters; None values are omitted.
        service
            Another service than the type's own.
        """
        name = service or self.service
        model = (await self._aws.model(name)).operation_model(operation)
        given = {self.renamed.get(key, key): value for key, value in parameters.items() if value is not None}
        parameters = {} if model.input_shape is None else api_parameters(model.input_shape, given)
        return await self._aws.call(name, operation, parameters, request.stack.region)


class SimpleResource(ApiResource):
    """A type with one operation to create, update and delete each."""

    create_operation: ClassVar[str]
    update_operation: ClassVar[str] = ""
    delete_operation: ClassVar[str]
    # The property that names the resource; a name is generated if it is absent.
    name_property: ClassVar[str] = ""
    longest_name: ClassVar[int] = 64
    # Properties that update_operation does not take.
    creation_only: ClassVar[frozenset[str]] = frozenset()

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a resource."""
        properties = dict(request.properties)
        if self.name_property and self.name_property not in properties:
            properties[self.name_property] = request.generated_name(self.longest_name)
        return await self.created(request, properties, await self.call(request, self.create_operation, properties))

    async def update(self, request: ResourceRequest) -> Resource:
        """Change a resource; without an operation for it, a new one replaces it."""
        if not self.update_operation:
            raise ReplacementNeededError
        changed = {name: value for name, value in request.properties.items() if name not in self.creation_only}
        await self.call(request, self.update_operation, {**changed, **self.key(request)})
        return await self.updated(request)

    async def delete(self, request: ResourceRequest) -> None:
        """Delete a resource."""
        await self.call(request, self.delete_operation, self.key(request))

    def replaces(self, request: ResourceRequest) -> bool:
        """Return whether a change needs a new resource."""
        renames = bool(self.name_property) and request.changed(self.name_property)
        return renames or not self.update_operation or super().replaces(request)

    def key(self, request: ResourceRequest) -> dict[str, Any]:
        """Return the parameters that identify the resource."""
        raise NotImplementedError

    async def created(
        self, request: ResourceRequest, properties: Mapping[str, Any], response: Mapping[str, Any]
    ) -> Resource:
        """Return the resource that a response describes."""
        raise NotImplementedError

    async def updated(self, request: ResourceRequest) -> Resource:
        """Return the resource after an update; by default it has the same id and attributes."""
        if request.current is None:
            raise ResourceFailedError("no resource to update")
        return request.current


def check_known(request: ResourceRequest, known: Collection[str]) -> None:
    """Check the names of the properties of a type whose operations take attributes of any name.

    Raises
    ------
    ResourceFailedError
        When a property is none of them.
    """
    for name in request.properties:
        if name not in known:
            raise ResourceFailedError(
                f"Encountered unsupported property {name}: expected one of {', '.join(sorted(known))}"
            )


def tag_list(request: ResourceRequest) -> list[dict[str, str]] | None:
    """Return the tags of a resource and of its stack as a list of Key and Value; None if there are none."""
    own = {str(tag["Key"]): str(tag["Value"]) for tag in request.properties.get("Tags") or []}
    tags = {**request.stack.tags, **own}
    return [{"Key": key, "Value": value} for key, value in tags.items()] or None


async def wait_until(is_ready: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll until a resource is ready.

    Raises
    ------
    ResourceFailedError
        When it is not ready within five minutes.
    """
    try:
        async with asyncio.timeout(_WAIT_S):
            polls = iter(_POLLS_S)
            pause_s = next(polls)
            while not await is_ready():
                await asyncio.sleep(pause_s)
                pause_s = next(polls, pause_s)
    except TimeoutError:
        raise ResourceFailedError(f"{what} was not ready within {_WAIT_S:.0f} s: check its own state") from None


def is_code(error: ClientError, *codes: str) -> bool:
    """Return whether a call failed with one of these codes."""
    return error.response["Error"].get("Code") in codes
