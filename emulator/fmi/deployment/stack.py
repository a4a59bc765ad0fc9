"""A CloudFormation stack of ours: what it contains, and its change sets, shown before they are applied."""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from botocore.exceptions import ClientError

from emulator.errors import EmulatorError

DEFAULT_STACK = "fmi"
# The tag by which a stack is known as ours.
OWNER_TAG = "fmi-emulator"
_POLL_S = 0.5
_BEGIN_S = 30.0
# CloudFormation's longest operation here is the start of the service, after which it gives up by itself.
_OPERATION_S = 3 * 3600
_NOTHING_TO_DO = ("didn't contain changes", "No updates are to be performed")
_CANCELLED = ("Resource creation cancelled", "Resource update cancelled", "cancelled")


# Roles and functions are known everywhere only some time after they were made: the same change succeeds later.
_NOT_YET = (
    "cannot be assumed",
    "is authorized to assume the provided role",
    "unable to assume the role",
    "Unable to assume the service linked role",
    "An update is in progress for resource",
    "currently in the following state: Pending",
)
_MENDED_BY = (
    (
        ("already exist", "AlreadyExists", "AlreadyOwnedByYou", "BucketAlready", "already in use"),
        "delete the other one, or deploy under another name with --stack-name",
    ),
    (
        ("not authorized", "AccessDenied", "Access Denied", "UnauthorizedOperation"),
        "attach the policy `deploy` that `fmi-emulator deploy --print-policy` prints, and run the command again",
    ),
    (
        ("LimitExceeded", "limit exceeded", "quota", "Quota", "maximum number of"),
        "delete what is not needed, or ask for more with `aws service-quotas request-service-quota-increase`, and run "
        "the command again",
    ),
    (
        ("architecture", "exec format error"),
        "give --architecture of the image, or build the image for the stack's architecture",
    ),
    (
        ("Source image", "image does not exist", "manifest", "CannotPullContainer"),
        "check --image-uri, or push an image of this machine with --image",
    ),
)


class StackError(EmulatorError):
    """The stack cannot be used, or an operation on it failed.

    Parameters
    ----------
    message
        What was wrong and what to do.
    is_early
        Whether a resource failed only since AWS did not know another one yet: the same change succeeds later.
    """

    def __init__(self, message: str, *, is_early: bool = False) -> None:
        super().__init__(message)
        self.is_early = is_early


@dataclass(frozen=True)
class Stack:
    """A stack, as CloudFormation describes it.

    Parameters
    ----------
    name
        Its name.
    status
        CloudFormation's name of its state, for example CREATE_COMPLETE.
    tags, parameters, outputs
        Its tags, the values of its parameters, and its outputs.
    """

    name: str
    status: str
    tags: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether `fmi-emulator deploy` made it."""
        return OWNER_TAG in self.tags

    @property
    def is_empty(self) -> bool:
        """Whether it has no resources, and can only be deleted: it was never created, or its creation failed."""
        return self.status in ("REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED")

    @property
    def is_busy(self) -> bool:
        """Whether an operation is in progress."""
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"

    def check_owner(self) -> None:
        """Check that `fmi-emulator deploy` made it.

        Raises
        ------
        StackError
            If it is another owner's.
        """
        if not self.is_ours:
            raise StackError(
                f"stack {self.name!r} was not made by `fmi-emulator deploy`: it has no tag {OWNER_TAG!r}; choose "
                "another --stack-name"
            )


@dataclass(frozen=True)
class Change:
    """One entry of a change set.

    Parameters
    ----------
    action
        ``Add``, ``Modify``, ``Remove`` and so on.
    resource, kind
        The logical id, and the type.
    replacement
        Whether the resource is made anew: ``True``, ``False``, ``Conditional`` or empty.
    """

    action: str
    resource: str
    kind: str
    replacement: str = ""

    def __str__(self) -> str:
        """Return it in one line."""
        replaced = {"True": ", replaced", "Conditional": ", perhaps replaced"}.get(self.replacement, "")
        return f"{self.action.lower():>8}  {self.resource} ({self.kind}{replaced})"


@dataclass(frozen=True)
class StackEvent:
    """The new state of one resource.

    Parameters
    ----------
    resource, kind
        The logical id, and the type.
    status, reason
        The state, and why it was reached.
    """

    resource: str
    kind: str
    status: str
    reason: str


class StackOperations:
    """Operations on one stack.

    Parameters
    ----------
    cloudformation
        boto3 client of CloudFormation.
    name
        The stack's name.
    on_event
        Called with each change of a resource's state while an operation runs.
    """

    def __init__(self, cloudformation: Any, name: str, on_event: Callable[[StackEvent], None] | None = None) -> None:
        self._cloudformation = cloudformation
        self._name = name
        self._on_event = on_event or (lambda _: None)

    def describe(self) -> Stack | None:
        """Return the stack; None if there is none."""
        try:
            found = self._cloudformation.describe_stacks(StackName=self._name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in error.response["Error"].get("Message", ""):
                return None
            raise
        return Stack(
            self._name,
            found["StackStatus"],
            {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])},
            {entry["ParameterKey"]: entry.get("ParameterValue", "") for entry in found.get("Parameters", [])},
            {entry["OutputKey"]: entry["OutputValue"] for entry in found.get("Outputs", [])},
        )

    def own(self) -> Stack | None:
        """Return the stack if it is ours and no operation is in progress; None if there is none.

        Raises
        ------
        StackError
            If it is another owner's, or busy.
        """
        stack = self.describe()
        if stack is None:
            return None
        stack.check_owner()
        if stack.is_busy:
            raise StackError(
                f"stack {self._name!r} is being changed ({stack.status}): wait for its end, see `fmi-emulator status`"
            )
        return stack

    def plan(self, template: str, parameters: Mapping[str, str], *, is_new: bool) -> tuple[str, list[Change]] | None:
        """Make a change set; return its name and its changes, or None if there is nothing to change.

        Parameters
        ----------
        template
            The template.
        parameters
            The values of its parameters.
        is_new
            Whether the stack does not exist yet.

        Raises
        ------
        StackError
            If CloudFormation rejects it.
        """
        name = f"fmi-{uuid.uuid4().hex[:12]}"
        self._cloudformation.create_change_set(
            StackName=self._name,
            ChangeSetName=name,
            ChangeSetType="CREATE" if is_new else "UPDATE",
            TemplateBody=template,
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in sorted(parameters.items())],
            Capabilities=["CAPABILITY_IAM"],
            Tags=[{"Key": OWNER_TAG, "Value": metadata.version("fmi-emulator")}],
        )
        while True:
            found = self._cloudformation.describe_change_set(StackName=self._name, ChangeSetName=name)
            if found["Status"] in ("CREATE_COMPLETE", "FAILED"):
                break
            time.sleep(_POLL_S)
        changes = [
            Change(
                change["Action"],
                change["LogicalResourceId"],
                change.get("ResourceType", ""),
                change.get("Replacement", ""),
            )
            for change in (entry["ResourceChange"] for entry in self._changes(name, found))
        ]
        reason = found.get("StatusReason", "")
        if found["Status"] == "FAILED" and not any(text in reason for text in _NOTHING_TO_DO):
            self.discard(name, is_new=is_new)
            raise StackError(f"CloudFormation rejects the change of stack {self._name!r}: {reason}")
        if found["Status"] == "FAILED" or not changes:
            self.discard(name, is_new=is_new)
            return None
        return name, changes

    def discard(self, change_set: str, *, is_new: bool) -> None:
        """Delete a change set that is not applied, and the stack if there is nothing in it yet."""
        if is_new:
            self._cloudformation.delete_stack(StackName=self._name)
        else:
            self._cloudformation.delete_change_set(StackName=self._name, ChangeSetName=change_set)

    def apply(self, change_set: str) -> Stack:
        """Apply a change set and wait for its end; return the stack.

        Raises
        ------
        StackError
            If a resource failed; the stack was then rolled back. The message names the resource and the reason.
        """
        seen = self._event_ids()
        self._cloudformation.execute_change_set(StackName=self._name, ChangeSetName=change_set)
        stack = self._settled(seen)
        if stack is None or stack.status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise self._failure(seen, stack)
        return stack

    def delete(self, *, wait: bool = True) -> None:
        """Delete the stack.

        Raises
        ------
        StackError
            If a resource cannot be deleted. The message names it and the reason.
        """
        if self.describe() is None:
            return
        seen = self._event_ids()
        self._cloudformation.delete_stack(StackName=self._name)
        if not wait:
            return
        stack = self._settled(seen)
        if stack is not None and stack.status != "DELETE_COMPLETE":
            raise self._failure(seen, stack)

    def physical_ids(self) -> dict[str, str]:
        """Return the name or ARN of each resource, by its logical id."""
        pages = self._cloudformation.get_paginator("list_stack_resources").paginate(StackName=self._name)
        return {
            found["LogicalResourceId"]: found.get("PhysicalResourceId", "")
            for page in pages
            for found in page["StackResourceSummaries"]
        }

    def _changes(self, name: str, first: Mapping[str, Any]) -> list[dict[str, Any]]:
        changes = list(first.get("Changes", []))
        token = first.get("NextToken")
        while token:
            page = self._cloudformation.describe_change_set(StackName=self._name, ChangeSetName=name, NextToken=token)
            changes += page.get("Changes", [])
            token = page.get("NextToken")
        return changes

    def _settled(self, seen: set[str]) -> Stack | None:
        """Report events until no operation is in progress; return the stack, None if it is gone."""
        ends = time.monotonic() + _OPERATION_S
        begins = time.monotonic() + _BEGIN_S
        reported = set(seen)
        has_begun = False
        while True:
            stack = self.describe()
            for found in self._new_events(reported):
                has_begun = True
                self._on_event(
                    StackEvent(
                        found["LogicalResourceId"],
                        found.get("ResourceType", ""),
                        found["ResourceStatus"],
                        found.get("ResourceStatusReason", ""),
                    )
                )
            # The first answers may still have the state before the operation.
            has_begun = has_begun or time.monotonic() > begins
            if stack is None or (has_begun and not (stack.is_busy or stack.status == "REVIEW_IN_PROGRESS")):
                return stack
            if time.monotonic() > ends:
                raise StackError(f"stack {self._name!r} is still {stack.status} after {_OPERATION_S // 3600} h")
            time.sleep(_POLL_S)

    def _events(self) -> list[dict[str, Any]]:
        """Return the stack's events, newest first."""
        try:
            pages = self._cloudformation.get_paginator("describe_stack_events").paginate(StackName=self._name)
            return [event for page in pages for event in page["StackEvents"]]
        except ClientError as error:
            if "does not exist" in error.response["Error"].get("Message", ""):
                return []
            raise

    def _event_ids(self) -> set[str]:
        return {event["EventId"] for event in self._events()}

    def _new_events(self, seen: set[str]) -> list[dict[str, Any]]:
        fresh = [event for event in reversed(self._events()) if event["EventId"] not in seen]
        seen.update(event["EventId"] for event in fresh)
        return fresh

    def _failure(self, seen: set[str], stack: Stack | None) -> StackError:
        failed = [
            event
            for event in self._new_events(set(seen))
            if event["ResourceStatus"].endswith("_FAILED")
            and not any(text in event.get("ResourceStatusReason", "") for text in _CANCELLED)
            and event.get("ResourceType") != "AWS::CloudFormation::Stack"
        ]
        status = stack.status if stack else "gone"
        if not failed:
            return StackError(f"stack {self._name!r} is {status}: see its events in CloudFormation")
        first = failed[0]
        after = "the stack was rolled back" if "ROLLBACK_COMPLETE" in status else f"the stack is {status}"
        reason = first.get("ResourceStatusReason", "no reason given")
        return StackError(
            f"{first['LogicalResourceId']} ({first.get('ResourceType', '')}) failed: {reason}; {after}: "
            f"{_remedy(reason)}",
            is_early=any(text in reason for text in _NOT_YET),
        )


def _remedy(reason: str) -> str:
    """Return what to do about the reason of a failed resource."""
    known = (remedy for texts, remedy in _MENDED_BY if any(text in reason for text in texts))
    return next(known, "mend the cause and run the command again")
