"""The CloudFormation service: stacks, change sets and exports of all regions."""

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from emulator.aws.cloudformation.deployment import Deployment, Target
from emulator.aws.cloudformation.errors import invalid
from emulator.aws.cloudformation.evaluation import Evaluation, read_parameter
from emulator.aws.cloudformation.resource import ResourceRequest, ResourceTypes, StackIdentity
from emulator.aws.cloudformation.stack_records import StackRecords
from emulator.aws.cloudformation.stacks import (
    REVIEW_IN_PROGRESS,
    Change,
    ChangeSet,
    Operation,
    Stack,
    StackEvent,
    StackOutput,
    StackSettings,
)
from emulator.aws.cloudformation.template import SSM_PARAMETER, ParameterValue, Template
from emulator.aws.cloudformation.template_urls import read_template
from emulator.aws.cloudformation.transforms import apply_transforms
from emulator.aws.cloudformation.types.nested_stack import NestedRequest
from emulator.aws.sdk_client import AwsClient
from emulator.errors import ApiError

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]*")
# A type whose resources end with the endpoint.
_NOT_KEPT = "AWS::ECS::Service"
# Statuses of a stack that can be updated.
_UPDATABLE = frozenset(
    ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE", "UPDATE_FAILED"]
)


@dataclass(frozen=True)
class StackRequest:
    """What a caller wants a stack to be.

    Parameters
    ----------
    template
        The template's text; None to keep the stack's own.
    parameters
        The given values.
    previous
        The names of the parameters that keep their values.
    settings
        Tags and the like.
    """

    template: str | None
    parameters: Mapping[str, str]
    previous: frozenset[str]
    settings: StackSettings


class CloudFormationService:
    """Stacks and their operations, each of which runs as a task of the event loop.

    Parameters
    ----------
    records
        Stores the stacks.
    aws
        Calls the services that the resources belong to.
    types
        The types that resources can have.
    account
        The account.
    """

    def __init__(self, records: StackRecords, aws: AwsClient, types: ResourceTypes, account: str) -> None:
        self._records = records
        self._aws = aws
        self._types = types
        self._account = account
        self._change_sets: dict[str, ChangeSet] = {}
        self._stacks = {stack.id: stack for stack in records.read(self._change_sets)}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._notices: set[asyncio.Task[Any]] = set()

    def resume(self) -> list[str]:
        """Begin to serve the stored stacks; return a sentence for each thing that is not as it was."""
        notes = []
        for stack in self._stacks.values():
            if stack.is_busy:
                notes.append(f"the operation on stack {stack.name} was interrupted by a stop")
                stack.interrupt()
                self._records.changed(stack)
            stack.on_event = self._notify
            notes += [
                f"{resource.logical_id} of stack {stack.name} does not run any more: {resource.type} is not kept"
                for resource in stack.resources.values()
                if resource.type == _NOT_KEPT and resource.resource is not None and not stack.is_deleted
            ]
        return notes

    async def create_stack(
        self,
        region: str,
        name: str,
        request: StackRequest,
        *,
        termination_protection: bool = False,
        parent: Stack | None = None,
    ) -> Stack:
        """Begin to create a stack.

        Raises
        ------
        ApiError
            AlreadyExistsException, or ValidationError when the request or the template is not valid.
        """
        self._check_new(region, name)
        stack = self._new_stack(region, name, request)
        target = await self._target(stack, request)
        # Another request may have created it while its template was transformed.
        self._check_new(region, name)
        stack.original, stack.template, stack.parameters = target.original, target.template, target.parameters
        stack.termination_protection = termination_protection
        if parent is not None:
            stack.parent, stack.root = parent.id, parent.root or parent.id
        self._stacks[stack.id] = stack
        stack.set_status(Operation.CREATE.in_progress, "User Initiated")
        self._run(stack, self._create(stack, target))
        return stack

    async def update_stack(self, region: str, name: str, request: StackRequest) -> Stack:
        """Begin to update a stack.

        Raises
        ------
        ApiError
            ValidationError when there is no such stack, it cannot be updated, or nothing would change.
        """
        stack = self.get(region, name)
        self._check_updatable(stack)
        target = await self._target(stack, request)
        if not self._differs(stack, target):
            raise invalid("No updates are to be performed.")
        self._check_updatable(stack)
        stack.set_status(Operation.UPDATE.in_progress, "User Initiated")
        self._run(stack, self._update(stack, target))
        return stack

    def delete_stack(self, region: str, name: str, retained: Iterable[str] = ()) -> None:
        """Begin to delete a stack; nothing happens if there is none.

        Raises
        ------
        ApiError
            ValidationError when it is protected, or another stack imports one of its exports.
        """
        try:
            stack = self.get(region, name)
        except ApiError:
            return
        if stack.is_deleted or stack.status == Operation.DELETE.in_progress:
            return
        if stack.termination_protection:
            raise invalid(f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled")
        self._check_exports_unused(stack, stack.outputs.values())
        for change_set in self.change_sets(stack):
            self.delete_change_set(change_set)
        if not stack.is_busy:
            stack.set_status(Operation.DELETE.in_progress, "User Initiated")
        self._run(stack, self._delete(stack, frozenset(retained), self._tasks.get(stack.id)))

    async def create_change_set(
        self, region: str, stack_name: str, name: str, kind: str, request: StackRequest, description: str | None
    ) -> ChangeSet:
        """Create a change set, and for a new stack that stack.

        Raises
        ------
        ApiError
            AlreadyExistsException or ValidationError.
        """
        if not _NAME.fullmatch(name) or len(name) > 128:
            raise invalid(
                f"1 validation error detected: Value '{name}' at 'changeSetName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
            )
        if kind not in ("CREATE", "UPDATE"):
            raise invalid(f"change set type {kind} is not emulated: expected CREATE or UPDATE")
        stack = self._find(region, stack_name)
        is_new = stack is None or stack.status == REVIEW_IN_PROGRESS
        if kind == "CREATE" and not is_new:
            raise _already_exists(
                f"Stack [{stack_name}] already exists and cannot be created again with the changeSet [{name}]."
            )
        if kind == "UPDATE" and stack is None:
            raise invalid(f"Stack [{stack_name}] does not exist")
        if stack is None:
            stack = self._new_stack(region, stack_name, request)
        elif kind == "UPDATE":
            self._check_updatable(stack)
        if any(item.name == name for item in self.change_sets(stack)):
            raise _already_exists(f"ChangeSet {name} cannot be created due to a mismatch with existing attributes")
        target = await self._target(stack, request)
        if stack.id not in self._stacks:
            self._stacks[stack.id] = stack
            stack.set_status(REVIEW_IN_PROGRESS, "User Initiated")
        arn = f"arn:aws:cloudformation:{region}:{self._account}:changeSet/{name}/{uuid.uuid4()}"
        change_set = ChangeSet(
            name,
            arn,
            stack,
            kind,
            target.original,
            target.template,
            target.parameters,
            target.settings,
            description,
            await self._changes(stack, target),
        )
        if kind == "UPDATE" and not change_set.changes and not self._differs(stack, target):
            change_set.status, change_set.execution_status = "FAILED", "UNAVAILABLE"
            change_set.reason = (
                "The submitted information didn't contain changes. Submit different information to create a change set."
            )
        self._change_sets[arn] = change_set
        self._records.changed(stack)
        return change_set

    def execute_change_set(self, change_set: ChangeSet, *, disable_rollback: bool = False) -> None:
        """Begin the update, or the creation, that a change set describes.

        Raises
        ------
        ApiError
            InvalidChangeSetStatus when it cannot be executed.
        """
        stack = change_set.stack
        if change_set.execution_status != "AVAILABLE":
            raise ApiError(
                "InvalidChangeSetStatus",
                HTTPStatus.BAD_REQUEST,
                f"ChangeSet [{change_set.id}] cannot be executed in its current status of [{change_set.status}]",
            )
        if change_set.kind == "UPDATE":
            self._check_updatable(stack)
        settings = change_set.settings
        if disable_rollback:
            settings = replace(settings, on_failure="DO_NOTHING")
        target = Target(change_set.original, change_set.template, change_set.parameters, settings)
        change_set.execution_status = "EXECUTE_COMPLETE"
        stack.change_set_id = change_set.id
        for other in [item for item in self.change_sets(stack) if item is not change_set]:
            del self._change_sets[other.id]
        operation = Operation(change_set.kind)
        stack.set_status(operation.in_progress, "User Initiated")
        self._run(stack, (self._create if operation is Operation.CREATE else self._update)(stack, target))

    def delete_change_set(self, change_set: ChangeSet) -> None:
        """Delete a change set; its stack stays, as on AWS."""
        self._change_sets.pop(change_set.id, None)
        self._records.changed(change_set.stack)

    def change_set(self, region: str, name: str, stack_name: str | None) -> ChangeSet:
        """Return a change set by id, or by name and stack.

        Raises
        ------
        ApiError
            ChangeSetNotFound.
        """
        if name in self._change_sets:
            return self._change_sets[name]
        if stack_name is not None:
            stack = self.get(region, stack_name)
            for change_set in self.change_sets(stack):
                if change_set.name == name:
                    return change_set
        raise ApiError("ChangeSetNotFound", HTTPStatus.NOT_FOUND, f"ChangeSet [{name}] does not exist")

    def change_sets(self, stack: Stack) -> list[ChangeSet]:
        """Return the change sets of a stack."""
        return [change_set for change_set in self._change_sets.values() if change_set.stack is stack]

    def get(self, region: str, name: str) -> Stack:
        """Return a stack by name or id; a deleted one only by its id.

        Raises
        ------
        ApiError
            ValidationError when there is none.
        """
        stack = self._find(region, name)
        if stack is None:
            raise invalid(f"Stack with id {name} does not exist")
        return stack

    def all(self, region: str) -> list[Stack]:
        """Return the stacks of a region, deleted ones too, the latest first."""
        return [stack for stack in reversed(self._stacks.values()) if stack.identity.region == region]

    def exports(self, region: str) -> list[tuple[Stack, StackOutput]]:
        """Return the exports of a region with their stacks."""
        return [
            (stack, output)
            for stack in self.all(region)
            if not stack.is_deleted
            for output in stack.outputs.values()
            if output.export is not None
        ]

    def importers(self, region: str, name: str) -> list[str]:
        """Return the names of the stacks that import an export."""
        return [stack.name for stack in self.all(region) if name in stack.imports and not stack.is_deleted]

    async def transformed(self, text: str, region: str, parameters: Mapping[str, str]) -> Template:
        """Return a template with its transforms applied."""
        return await apply_transforms(Template.parse(text), parameters, self._account, region, self._aws)

    async def deploy_nested(self, request: ResourceRequest, wanted: NestedRequest) -> Stack:
        """Begin to create, or to update, the stack of a nested stack's resource; return it.

        Raises
        ------
        ApiError
            When the template or the parameters are not valid.
        """
        region = request.stack.region
        text = await read_template(wanted.url, region, self._aws)
        stack_request = StackRequest(text, wanted.parameters, frozenset(), wanted.settings)
        if request.current is None:
            name = request.generated_name(128, "A-Za-z0-9-")
            return await self.create_stack(region, name, stack_request, parent=self.get(region, request.stack.arn))
        stack = self.get(region, request.physical_id)
        target = await self._target(stack, stack_request)
        if self._differs(stack, target):
            stack.set_status(Operation.UPDATE.in_progress, "User Initiated")
            self._run(stack, self._update(stack, target))
        return stack

    async def wait(self, stack: Stack) -> None:
        """Wait until no operation runs on a stack."""
        task = self._tasks.get(stack.id)
        if task is not None:
            await asyncio.wait({task})

    async def reset(self) -> None:
        """Forget all stacks; what runs is stopped first."""
        await self.close()
        self._stacks.clear()
        self._change_sets.clear()
        self._records.clear()

    async def close(self) -> None:
        """Stop what runs."""
        tasks = [*self._tasks.values(), *self._notices]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._records.flush()

    def changed(self, stack: Stack) -> None:
        """Store a stack whose settings have changed."""
        self._records.changed(stack)

    async def _create(self, stack: Stack, target: Target) -> None:
        await self._deployment(stack).create(target)

    async def _delete(self, stack: Stack, retained: frozenset[str], before: asyncio.Task[None] | None) -> None:
        """Delete a stack, after the operation that runs on it: what that makes would be left otherwise."""
        if before is not None:
            await asyncio.wait({before})
            if stack.is_deleted:
                return
            stack.set_status(Operation.DELETE.in_progress, "User Initiated")
        await self._deployment(stack).delete(retained)

    async def _update(self, stack: Stack, target: Target) -> None:
        await self._deployment(stack).update(target)
        stack.updated_at = stack.events[-1].timestamp
        self._records.changed(stack)

    def _run(self, stack: Stack, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 - an error in the emulator must end the operation
                _log.exception("the operation on stack %s failed", stack.name)
                operation = stack.status.removesuffix("_IN_PROGRESS").removesuffix("_CLEANUP")
                stack.set_status(f"{operation.removesuffix('_COMPLETE')}_FAILED", f"internal error: {error}")

        task = asyncio.get_running_loop().create_task(guarded(), name=f"stack {stack.name}")
        self._tasks[stack.id] = task
        task.add_done_callback(lambda ended: self._forget_task(stack, ended))

    def _forget_task(self, stack: Stack, ended: asyncio.Task[None]) -> None:
        if self._tasks.get(stack.id) is ended:
            del self._tasks[stack.id]

    def _deployment(self, stack: Stack) -> Deployment:
        return Deployment(stack, self._types, self._evaluation)

    def _evaluation(self, stack: Stack, target: Target, *, is_preview: bool = False) -> Evaluation:
        evaluation = Evaluation(
            target.template,
            target.parameters,
            stack.identity,
            target.settings.notification_arns,
            stack.resources,
            lambda name: self._export(stack.identity.region, name),
            self._aws,
            is_preview=is_preview,
        )
        if not is_preview:
            stack.imports = evaluation.imports
        return evaluation

    def _export(self, region: str, name: str) -> str | None:
        for _, output in self.exports(region):
            if output.export == name:
                return output.value
        return None

    async def _target(self, stack: Stack, request: StackRequest) -> Target:
        """Return what a request wants a stack to be; its template is transformed and checked."""
        if request.template is None and not stack.template.body:
            raise invalid("Either Template URL or Template Body must be specified.")
        given = dict(request.parameters)
        for name in request.previous:
            if name not in stack.parameters:
                raise invalid(f"Parameter {name} has no previous value")
            given[name] = stack.parameters[name].text
        original = stack.original if request.template is None else Template.parse(request.template)
        region = stack.identity.region
        template = await apply_transforms(original, given, self._account, region, self._aws)
        template.check()
        own = {
            name: text for name, text in given.items() if name in template.parameters or name not in original.parameters
        }
        parameters = {
            name: await self._resolved(template.parameters[name], value, region)
            for name, value in template.parameter_values(own).items()
        }
        target = Target(original, template, parameters, request.settings)
        preview = self._evaluation(stack, target, is_preview=True)
        preview.check_rules()
        for name in preview.wanted():
            preview.evaluate(template.resources[name].get("Properties") or {})
        self._check_exports(stack, await preview.outputs())
        return target

    async def _resolved(self, slot: Mapping[str, Any], value: ParameterValue, region: str) -> ParameterValue:
        """Return a parameter's value; that of a parameter in Systems Manager, if its type says so."""
        if not str(slot.get("Type", "")).startswith(SSM_PARAMETER):
            return value
        found = await read_parameter(self._aws, region, value.text)
        return replace(value, value=found.split(",") if isinstance(value.value, list) else found)

    def _differs(self, stack: Stack, target: Target) -> bool:
        return (
            stack.template.body != target.template.body
            or {name: value.value for name, value in stack.parameters.items()}
            != {name: value.value for name, value in target.parameters.items()}
            or dict(stack.settings.tags) != dict(target.settings.tags)
        )

    async def _changes(self, stack: Stack, target: Target) -> list[Change]:
        """Return the changes of resources that a deployment would make."""
        evaluation = self._evaluation(stack, target, is_preview=True)
        wanted, changes = evaluation.wanted(), []
        for name in wanted:
            definition = target.template.resources[name]
            kind, existing = str(definition["Type"]), stack.resources.get(name)
            if existing is None or existing.resource is None:
                changes.append(Change("Add", name, "", kind))
                continue
            properties = evaluation.evaluate(definition.get("Properties") or {})
            names = sorted(
                member
                for member in properties.keys() | existing.properties.keys()
                if properties.get(member) != existing.properties.get(member)
            )
            if kind == existing.type and not names:
                continue
            found = await self._types.find(kind)
            request = ResourceRequest(stack.identity, name, kind, properties, existing.resource, existing.properties)
            replaces = kind != existing.type or (found is not None and found.replaces(request))
            changes.append(Change("Modify", name, existing.physical_id, kind, str(replaces), tuple(names)))
        for name, existing in stack.resources.items():
            if name not in wanted:
                changes.append(Change("Remove", name, existing.physical_id, existing.type))
        return changes

    def _new_stack(self, region: str, name: str, request: StackRequest) -> Stack:
        if not _NAME.fullmatch(name) or len(name) > 128:
            raise invalid(
                f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: Member must "
                "satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
            )
        arn = f"arn:aws:cloudformation:{region}:{self._account}:stack/{name}/{uuid.uuid4()}"
        identity = StackIdentity(name, arn, region, self._account, request.settings.tags)
        empty = Template("", {})
        return Stack(identity, empty, empty, {}, request.settings, on_event=self._notify)

    def _find(self, region: str, name: str) -> Stack | None:
        if name in self._stacks:
            return self._stacks[name]
        for stack in self.all(region):
            if stack.name == name and not stack.is_deleted:
                return stack
        return None

    def _check_new(self, region: str, name: str) -> None:
        existing = self._find(region, name)
        if existing is not None and not existing.is_deleted:
            raise _already_exists(f"Stack [{name}] already exists")

    def _check_updatable(self, stack: Stack) -> None:
        if stack.status not in _UPDATABLE:
            raise invalid(f"Stack:{stack.id} is in {stack.status} state and can not be updated.")

    def _check_exports(self, stack: Stack, outputs: Mapping[str, StackOutput]) -> None:
        """Check that no other stack exports one of the names, and that no export in use disappears."""
        others = {output.export: owner for owner, output in self.exports(stack.identity.region) if owner is not stack}
        for output in outputs.values():
            if output.export in others:
                raise invalid(
                    f"Export with name {output.export} is already exported by stack {others[output.export].name}"
                )
        kept = {output.export for output in outputs.values()}
        self._check_exports_unused(stack, [output for output in stack.outputs.values() if output.export not in kept])

    def _check_exports_unused(self, stack: Stack, outputs: Iterable[StackOutput]) -> None:
        for output in outputs:
            if output.export is None:
                continue
            users = [name for name in self.importers(stack.identity.region, output.export) if name != stack.name]
            if users:
                raise invalid(f"Export {output.export} cannot be deleted as it is in use by {', '.join(users)}")

    def _notify(self, stack: Stack, event: StackEvent) -> None:
        """Store an event of a stack, and publish it to the stack's topics."""
        self._records.changed(stack)
        if not stack.settings.notification_arns:
            return
        message = "".join(
            f"{name}='{'' if value is None else value}'\n"
            for name, value in {
                "StackId": stack.id,
                "Timestamp": event.timestamp.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "EventId": event.id,
                "LogicalResourceId": event.logical_id,
                "Namespace": stack.identity.account,
                "PhysicalResourceId": event.physical_id,
                "ResourceProperties": event.properties,
                "ResourceStatus": event.status,
                "ResourceStatusReason": event.reason,
                "ResourceType": event.type,
                "StackName": stack.name,
                "ClientRequestToken": event.token,
            }.items()
        )

        async def publish() -> None:
            for arn in stack.settings.notification_arns:
                with contextlib.suppress(Exception):
                    await self._aws.call(
                        "sns",
                        "Publish",
                        {"TopicArn": arn, "Subject": "AWS CloudFormation Notification", "Message": message},
                        stack.identity.region,
                    )

        task = asyncio.get_running_loop().create_task(publish())
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)


def _already_exists(message: str) -> ApiError:
    return ApiError("AlreadyExistsException", HTTPStatus.BAD_REQUEST, message)
