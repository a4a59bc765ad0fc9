"""AWS::CloudFormation::Stack: a stack in a stack."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from emulator.aws.cloudformation.api_parameters import text_of
from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.stacks import Operation, Stack, StackSettings


class Stacks(Protocol):
    """What a nested stack needs of the service."""

    def get(self, region: str, name: str) -> Stack:
        """Return a stack."""

    def delete_stack(self, region: str, name: str) -> None:
        """Begin to delete a stack."""

    async def wait(self, stack: Stack) -> None:
        """Wait until no operation runs on a stack."""


class NestedStack:
    """Deploys another template as a stack of its own, whose outputs are its attributes.

    Parameters
    ----------
    stacks
        The stacks of the service.
    begin
        Begins to create, or to update, a stack; returns it.
    """

    def __init__(self, stacks: Stacks, begin: "Callable[[ResourceRequest, NestedRequest], Awaitable[Stack]]") -> None:
        self._stacks = stacks
        self._begin = begin

    def replaces(self, request: ResourceRequest) -> bool:
        """Return False: a stack can be updated."""
        return False

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a stack, and wait for its end."""
        stack = await self._begin(request, NestedRequest.of(request))
        try:
            await self._stacks.wait(stack)
        except asyncio.CancelledError:
            self._stacks.delete_stack(request.stack.region, stack.id)
            raise
        if stack.status != Operation.CREATE.complete:
            self._stacks.delete_stack(request.stack.region, stack.id)
            await self._stacks.wait(stack)
            raise ResourceFailedError(f"Embedded stack {stack.id} was not successfully created: {_reason(stack)}")
        return _resource(stack)

    async def update(self, request: ResourceRequest) -> Resource:
        """Update the stack, and wait for its end."""
        stack = await self._begin(request, NestedRequest.of(request))
        await self._stacks.wait(stack)
        if stack.status != Operation.UPDATE.complete and stack.status != Operation.CREATE.complete:
            raise ResourceFailedError(f"Embedded stack {stack.id} was not successfully updated: {_reason(stack)}")
        return _resource(stack)

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the stack."""
        region = request.stack.region
        stack = self._stacks.get(region, request.physical_id)
        self._stacks.delete_stack(region, stack.id)
        await self._stacks.wait(stack)
        if not stack.is_deleted:
            raise ResourceFailedError(f"Embedded stack {stack.id} was not successfully deleted: {stack.reason}")


class NestedRequest:
    """What a nested stack's properties say.

    Attributes
    ----------
    url, parameters, settings
        Its template, the values of its parameters, tags and the like.
    """

    def __init__(self, url: str, parameters: Mapping[str, str], settings: StackSettings) -> None:
        self.url = url
        self.parameters = parameters
        self.settings = settings

    @classmethod
    def of(cls, request: ResourceRequest) -> "NestedRequest":
        """Read the properties.

        Raises
        ------
        ResourceFailedError
            When there is no TemplateURL, or a property is unknown.
        """
        properties = request.properties
        known = ("NotificationARNs", "Parameters", "Tags", "TemplateURL", "TimeoutInMinutes")
        for name in properties:
            if name not in known:
                raise ResourceFailedError(
                    f"Encountered unsupported property {name}: expected one of {', '.join(known)}"
                )
        if "TemplateURL" not in properties:
            raise ResourceFailedError("missing property TemplateURL: expected the URL of a template in S3")
        own = {tag["Key"]: tag["Value"] for tag in properties.get("Tags") or []}
        minutes = properties.get("TimeoutInMinutes")
        settings = StackSettings(
            {**request.stack.tags, **own},
            notification_arns=tuple(properties.get("NotificationARNs") or ()),
            timeout_s=None if minutes is None else int(minutes) * 60,
        )
        parameters = {name: text_of(value) for name, value in (properties.get("Parameters") or {}).items()}
        return cls(str(properties["TemplateURL"]), parameters, settings)


def _resource(stack: Stack) -> Resource:
    outputs: dict[str, Any] = {f"Outputs.{key}": output.value for key, output in stack.outputs.items()}
    return Resource(stack.id, outputs)


def _reason(stack: Stack) -> str:
    reasons = [event.reason for event in stack.events if event.status.endswith("_FAILED") and event.reason]
    return reasons[0] if reasons else str(stack.reason)
