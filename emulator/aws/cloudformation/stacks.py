"""Stacks as they are stored and described: resources, events, outputs and change sets."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from emulator.aws.cloudformation.resource import Resource, StackIdentity
from emulator.aws.cloudformation.template import ParameterValue, Template

STACK_TYPE = "AWS::CloudFormation::Stack"


class Operation(StrEnum):
    """The operations of stacks and resources; a status is an operation and a state of it."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    ROLLBACK = "ROLLBACK"
    UPDATE_ROLLBACK = "UPDATE_ROLLBACK"
    IMPORT = "IMPORT"

    @property
    def in_progress(self) -> str:
        """The status while it runs."""
        return f"{self}_IN_PROGRESS"

    @property
    def complete(self) -> str:
        """The status when it succeeded."""
        return f"{self}_COMPLETE"

    @property
    def failed(self) -> str:
        """The status when it failed."""
        return f"{self}_FAILED"


REVIEW_IN_PROGRESS = "REVIEW_IN_PROGRESS"
_INTERRUPTED = "The endpoint was stopped during the operation."


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


@dataclass
class StackResource:
    """A resource of a stack.

    Parameters
    ----------
    logical_id, type
        From the template.
    properties
        The evaluated properties.
    resource
        What exists; None until it is created.
    depends_on
        The logical ids of the resources it needs, which are deleted after it.
    deletion_policy
        What happens to it when it leaves the stack: ``Delete``, ``Retain``, ``RetainExceptOnCreate`` or ``Snapshot``.
    replacement_policy
        What happens to it when another one replaces it.
    """

    logical_id: str
    type: str
    properties: Mapping[str, Any] = field(default_factory=dict)
    resource: Resource | None = None
    depends_on: frozenset[str] = frozenset()
    deletion_policy: str = "Delete"
    replacement_policy: str = "Delete"
    status: str = ""
    reason: str | None = None
    updated_at: datetime = field(default_factory=now)

    @property
    def physical_id(self) -> str:
        """The physical id; empty until it is known."""
        return "" if self.resource is None else self.resource.physical_id


@dataclass(frozen=True)
class StackEvent:
    """An event of a stack: a new status of it or of one of its resources."""

    logical_id: str
    physical_id: str
    type: str
    status: str
    reason: str | None
    properties: str | None
    token: str | None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    timestamp: datetime = field(default_factory=now)


@dataclass(frozen=True)
class StackOutput:
    """An output of a stack, with the name of its export, if any."""

    key: str
    value: str
    description: str | None
    export: str | None


@dataclass(frozen=True)
class StackSettings:
    """What a caller may set besides template and parameters.

    Parameters
    ----------
    on_failure
        ``ROLLBACK``, ``DELETE`` or ``DO_NOTHING``.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    notification_arns: tuple[str, ...] = ()
    role_arn: str | None = None
    on_failure: str = "ROLLBACK"
    timeout_s: float | None = None
    token: str | None = None


@dataclass
class Stack:
    """A stack.

    Parameters
    ----------
    identity
        Name, id, region and account.
    template
        The deployed template, as sent and with its transforms applied.
    parameters
        The values in use.
    root, parent
        The ids of the stacks that contain it.
    """

    identity: StackIdentity
    original: Template
    template: Template
    parameters: Mapping[str, ParameterValue]
    settings: StackSettings
    root: str | None = None
    parent: str | None = None
    status: str = ""
    reason: str | None = None
    created_at: datetime = field(default_factory=now)
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    termination_protection: bool = False
    policy: str | None = None
    resources: dict[str, StackResource] = field(default_factory=dict)
    events: list[StackEvent] = field(default_factory=list)
    outputs: dict[str, StackOutput] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)
    change_set_id: str | None = None
    # Called at each event: notifies topics.
    on_event: Callable[["Stack", StackEvent], None] | None = None

    @property
    def name(self) -> str:
        """The stack's name."""
        return self.identity.name

    @property
    def id(self) -> str:
        """The stack's id, an ARN."""
        return self.identity.arn

    @property
    def is_busy(self) -> bool:
        """Whether an operation runs."""
        return self.status.endswith("_IN_PROGRESS") and self.status != REVIEW_IN_PROGRESS

    @property
    def is_deleted(self) -> bool:
        """Whether it has been deleted."""
        return self.status == Operation.DELETE.complete

    def interrupt(self) -> None:
        """End the operation that ran when the endpoint stopped: it has failed, and so have the resources it changed."""
        for resource in self.resources.values():
            if resource.status.endswith("_IN_PROGRESS"):
                self.set_resource_status(resource, _failed(resource.status), _INTERRUPTED)
        is_clean_up = "_COMPLETE_CLEANUP_" in self.status
        status = self.status.removesuffix("_CLEANUP_IN_PROGRESS") if is_clean_up else _failed(self.status)
        self.set_status(status, _INTERRUPTED)

    def set_status(self, status: str, reason: str | None = None) -> None:
        """Change the stack's status, and record the event."""
        self.status, self.reason = status, reason
        self._add(StackEvent(self.name, self.id, STACK_TYPE, status, reason, None, self.settings.token))

    def set_resource_status(
        self, resource: StackResource, status: str, reason: str | None = None, properties: str | None = None
    ) -> None:
        """Change a resource's status, and record the event."""
        resource.status, resource.reason, resource.updated_at = status, reason, now()
        self._add(
            StackEvent(
                resource.logical_id,
                resource.physical_id,
                resource.type,
                status,
                reason,
                properties,
                self.settings.token,
            )
        )

    def _add(self, event: StackEvent) -> None:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(self, event)


def _failed(status: str) -> str:
    return f"{status.removesuffix('_IN_PROGRESS')}_FAILED"


@dataclass(frozen=True)
class Change:
    """A change of a resource in a change set.

    Parameters
    ----------
    action
        ``Add``, ``Modify`` or ``Remove``.
    replacement
        ``True`` or ``False`` of a modified resource.
    properties
        The names of the properties that change.
    """

    action: str
    logical_id: str
    physical_id: str
    type: str
    replacement: str | None = None
    properties: tuple[str, ...] = ()


@dataclass
class ChangeSet:
    """A change set: an update that waits for its execution."""

    name: str
    id: str
    stack: Stack
    kind: str
    original: Template
    template: Template
    parameters: Mapping[str, ParameterValue]
    settings: StackSettings
    description: str | None
    changes: list[Change]
    status: str = "CREATE_COMPLETE"
    execution_status: str = "AVAILABLE"
    reason: str | None = None
    created_at: datetime = field(default_factory=now)
