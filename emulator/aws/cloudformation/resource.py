"""A resource type: what a stack needs to create, update and delete resources of a service."""

import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

_SUFFIX = string.ascii_uppercase + string.digits
_SUFFIX_LENGTH = 12


@dataclass(frozen=True)
class StackIdentity:
    """The stack that a resource belongs to.

    Parameters
    ----------
    name, arn
        The stack's name and id.
    region, account
        Where it is.
    tags
        Tags of the stack, which its resources inherit.
    """

    name: str
    arn: str
    region: str
    account: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ResourceRequest:
    """A change of one resource.

    Parameters
    ----------
    stack
        The stack.
    logical_id
        The name in the template.
    type
        The type in the template, such as ``AWS::S3::Bucket``.
    properties
        The properties, evaluated.
    current
        The resource as it is; None if it is new.
    previous
        The properties that it has.
    """

    stack: StackIdentity
    logical_id: str
    type: str
    properties: Mapping[str, Any]
    current: "Resource | None" = None
    previous: Mapping[str, Any] = field(default_factory=dict)

    @property
    def physical_id(self) -> str:
        """The id of the existing resource."""
        return "" if self.current is None else self.current.physical_id

    def changed(self, *names: str) -> bool:
        """Return whether one of the properties changes."""
        return any(self.properties.get(name) != self.previous.get(name) for name in names)

    def generated_name(self, longest: int = 64, allowed: str = "A-Za-z0-9_-") -> str:
        """Return a new name as CloudFormation generates them: stack, logical id and a random suffix."""
        suffix = "".join(secrets.choice(_SUFFIX) for _ in range(_SUFFIX_LENGTH))
        stem = re.sub(f"[^{allowed}]", "-", f"{self.stack.name}-{self.logical_id}")
        return f"{stem[: longest - _SUFFIX_LENGTH - 1].rstrip('-')}-{suffix}"


@dataclass(frozen=True)
class Resource:
    """A resource that exists.

    Parameters
    ----------
    physical_id
        The result of Ref.
    attributes
        The results of Fn::GetAtt.
    """

    physical_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


class ReplacementNeededError(Exception):
    """A resource cannot take a change: a new one must replace it."""


class ResourceType(Protocol):
    """Creates, updates and deletes the resources of a type. Any exception fails the resource."""

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a resource, and wait until it can be used."""

    async def update(self, request: ResourceRequest) -> Resource:
        """Change a resource in place.

        Raises
        ------
        ReplacementNeededError
            When a new resource must replace it. The stack creates that, and deletes this one at the end.
        """

    async def delete(self, request: ResourceRequest) -> None:
        """Delete a resource; nothing happens if it does not exist any more."""

    def replaces(self, request: ResourceRequest) -> bool:
        """Return whether `update` would need a replacement."""


class ResourceTypes(Protocol):
    """The types that stacks can contain."""

    async def find(self, name: str) -> ResourceType | None:
        """Return the type of that name; None if nobody serves it."""
