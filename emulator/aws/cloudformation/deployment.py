"""Deployments: bring a stack's resources to a template, roll back on failure, delete.

Resources that do not need each other are handled at once. The order of events and the statuses are those of
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from emulator.aws.cloudformation.deployment_errors import failure_reason, is_gone
from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.evaluation import Evaluation
from emulator.aws.cloudformation.resource import (
    ReplacementNeededError,
    Resource,
    ResourceRequest,
    ResourceType,
    ResourceTypes,
)
from emulator.aws.cloudformation.stacks import Operation, Stack, StackResource, StackSettings, now
from emulator.aws.cloudformation.template import ParameterValue, Template
from emulator.errors import ApiError, EmulatorError

# Once a resource has failed, how long the others may take to end; a custom resource would wait for an hour.
_CANCEL_S = 5.0
_KEPT_POLICIES = ("Retain", "RetainExceptOnCreate")
# Resources that could not be deleted, because others still use them, are tried again.
_DELETE_ATTEMPTS = 3


@dataclass(frozen=True)
class Target:
    """What a stack is to become."""

    original: Template
    template: Template
    parameters: Mapping[str, ParameterValue]
    settings: StackSettings


class Deployment:
    """One operation on one stack.

    Parameters
    ----------
    stack
        The stack, which is changed in place.
    types
        The types that resources can have.
    evaluation
        Makes the evaluation of a template for the stack.
    """

    def __init__(self, stack: Stack, types: ResourceTypes, evaluation: Callable[[Stack, Target], Evaluation]) -> None:
        self._stack = stack
        self._types = types
        self._make_evaluation = evaluation
        # Resources that were replaced or removed, to delete when all others have succeeded.
        self._obsolete: list[StackResource] = []
        self._created: list[StackResource] = []
        # What a resource was before this operation changed it.
        self._before: dict[str, StackResource] = {}

    async def create(self, target: Target) -> None:
        """Create the stack's resources; if one fails, do what the settings say."""
        stack = self._stack
        try:
            async with asyncio.timeout(target.settings.timeout_s):
                await self._apply(target, Operation.CREATE)
        except TimeoutError:
            await self._fail_creation("Stack creation time exceeded the specified timeout. Rollback requested by user.")
        except (EmulatorError, ApiError) as error:
            await self._fail_creation(str(error))
        else:
            stack.set_status(Operation.CREATE.complete)

    async def update(self, target: Target) -> None:
        """Change the stack's resources; if one fails, change them back."""
        stack = self._stack
        before = Target(stack.original, stack.template, stack.parameters, stack.settings)
        try:
            await self._apply(target, Operation.UPDATE)
        except (EmulatorError, ApiError) as error:
            if target.settings.on_failure == "DO_NOTHING":
                self._stop_update(str(error))
            else:
                await self._roll_back_update(before, str(error))
            return
        await self._clean_up(Operation.UPDATE)
        stack.set_status(Operation.UPDATE.complete)

    async def delete(self, retained: frozenset[str] = frozenset()) -> None:
        """Delete the stack's resources, those that others need last."""
        stack = self._stack
        failed = await self._delete_all(list(stack.resources.values()), retained)
        if failed:
            stack.set_status(
                Operation.DELETE.failed, f"The following resource(s) failed to delete: [{', '.join(failed)}]. "
            )
            return
        stack.outputs.clear()
        stack.deleted_at = now()
        stack.set_status(Operation.DELETE.complete)

    async def _apply(self, target: Target, operation: Operation) -> None:
        """Create and update all resources of a template; make the template the stack's own.

        Raises
        ------
        EmulatorError
            When a resource failed; the others have ended.
        """
        stack = self._stack
        stack.original, stack.template = target.original, target.template
        stack.parameters, stack.settings = target.parameters, target.settings
        stack.identity = replace(stack.identity, tags=target.settings.tags)
        evaluation = self._make_evaluation(stack, target)
        wanted = evaluation.wanted()
        for resource in list(stack.resources.values()):
            if resource.logical_id not in wanted:
                self._obsolete.append(resource)
        done = {name: asyncio.get_running_loop().create_future() for name in wanted}
        failed: dict[str, str] = {}

        async def handle(name: str) -> None:
            try:
                for dependency in sorted(evaluation.dependencies(name)):
                    await done[dependency]
                if failed:
                    return
                await self._bring(name, evaluation, operation, failed)
            except (Exception, asyncio.CancelledError) as error:
                failed.setdefault(name, str(error))
                raise
            finally:
                if not done[name].done():
                    done[name].set_result(None)

        for result in await _all_unless_one_fails([handle(name) for name in wanted]):
            if isinstance(result, Exception) and not isinstance(result, EmulatorError):
                raise result
        if failed:
            raise ResourceFailedError(
                f"The following resource(s) failed to {operation.lower()}: [{', '.join(sorted(failed))}]. "
            )
        stack.outputs = await evaluation.outputs()

    async def _bring(self, name: str, evaluation: Evaluation, operation: Operation, failed: dict[str, str]) -> None:
        """Create or update one resource."""
        stack, definition = self._stack, evaluation.template.resources[name]
        existing = stack.resources.get(name)
        wanted = StackResource(
            name,
            str(definition["Type"]),
            depends_on=frozenset(evaluation.dependencies(name)),
            deletion_policy=str(evaluation.evaluate(definition.get("DeletionPolicy", "Delete"))),
            replacement_policy=str(evaluation.evaluate(definition.get("UpdateReplacePolicy", "Delete"))),
        )
        is_new = existing is None or existing.resource is None or existing.type != wanted.type
        step = Operation.CREATE if is_new else Operation.UPDATE
        try:
            kind = await self._type(wanted.type)
            wanted.properties = await evaluation.properties(name)
        except (EmulatorError, ApiError) as error:
            shown = wanted if existing is None else existing
            stack.resources.setdefault(name, wanted)
            stack.set_resource_status(shown, step.failed, str(error))
            raise
        if existing is not None and existing.resource is not None and not is_new:
            await self._change(kind, existing, wanted)
            return
        if existing is not None and existing.resource is not None:
            self._before[name] = replace(existing)
            self._supersede(existing)
        await self._make(kind, wanted)

    async def _make(self, kind: ResourceType, wanted: StackResource, step: Operation = Operation.CREATE) -> None:
        """Create a resource."""
        stack = self._stack
        stack.resources[wanted.logical_id] = wanted
        shown = json.dumps(wanted.properties, default=str)
        stack.set_resource_status(wanted, step.in_progress, properties=shown)
        with_failure = self._failing(wanted, step)
        wanted.resource = await with_failure(kind.create(self._request(wanted)))
        self._created.append(wanted)
        stack.set_resource_status(wanted, step.in_progress, "Resource creation Initiated", shown)
        stack.set_resource_status(wanted, step.complete, properties=shown)

    async def _change(self, kind: ResourceType, existing: StackResource, wanted: StackResource) -> None:
        """Update a resource whose properties differ; replace it if it cannot be updated."""
        stack = self._stack
        name, resource = wanted.logical_id, existing.resource
        if _same(existing.properties, wanted.properties):
            existing.depends_on, existing.deletion_policy = wanted.depends_on, wanted.deletion_policy
            existing.replacement_policy = wanted.replacement_policy
            return
        self._before[name] = replace(existing)
        shown = json.dumps(wanted.properties, default=str)
        request = self._request(wanted, resource, existing.properties)
        wanted.resource = resource
        stack.resources[name] = wanted
        if kind.replaces(request):
            await self._replace(kind, wanted, shown)
            return
        stack.set_resource_status(wanted, Operation.UPDATE.in_progress, properties=shown)
        try:
            wanted.resource = await self._failing(wanted, Operation.UPDATE)(kind.update(request))
        except ReplacementNeededError:
            await self._replace(kind, wanted, shown)
            return
        stack.set_resource_status(wanted, Operation.UPDATE.complete, properties=shown)
        if wanted.physical_id != existing.physical_id:
            self._supersede(self._before[name])

    async def _replace(self, kind: ResourceType, wanted: StackResource, shown: str) -> None:
        """Create a new resource in the place of one, which is deleted at the end of the update."""
        stack = self._stack
        reason = "Requested update requires the creation of a new physical resource; hence creating one."
        stack.set_resource_status(wanted, Operation.UPDATE.in_progress, reason, shown)
        wanted.resource = await self._failing(wanted, Operation.UPDATE)(kind.create(self._request(wanted)))
        self._created.append(replace(wanted))
        stack.set_resource_status(wanted, Operation.UPDATE.complete, properties=shown)
        self._supersede(self._before[wanted.logical_id])

    def _supersede(self, resource: StackResource) -> None:
        """Delete a resource at the end of the update, because another one has replaced it."""
        self._obsolete.append(replace(resource, deletion_policy=resource.replacement_policy))

    def _failing(
        self, resource: StackResource, step: Operation
    ) -> Callable[[Awaitable[Resource]], Awaitable[Resource]]:
        """Return a function that awaits a step, and records its failure."""

        async def run(work: Awaitable[Resource]) -> Resource:
            try:
                return await work
            except ReplacementNeededError:
                raise
            except asyncio.CancelledError:
                kind = {Operation.CREATE: "creation", Operation.UPDATE: "update"}.get(step, step.lower())
                self._stack.set_resource_status(resource, step.failed, f"Resource {kind} cancelled")
                raise
            except Exception as error:
                # Whatever fails a resource is the reason of its event.
                reason = failure_reason(error)
                self._stack.set_resource_status(resource, step.failed, reason)
                raise ResourceFailedError(reason) from error

        return run

    async def _fail_creation(self, reason: str) -> None:
        stack = self._stack
        if stack.settings.on_failure == "DO_NOTHING":
            stack.set_status(Operation.CREATE.failed, reason)
            return
        if stack.settings.on_failure == "DELETE":
            stack.set_status(Operation.DELETE.in_progress, reason)
            await self.delete()
            return
        stack.set_status(Operation.ROLLBACK.in_progress, f"{reason}Rollback requested by user.")
        failed = await self._delete_all(list(stack.resources.values()), keep=("Retain",))
        if failed:
            stack.set_status(Operation.ROLLBACK.failed, f"failed to delete: [{', '.join(failed)}]")
        else:
            stack.set_status(Operation.ROLLBACK.complete)

    def _stop_update(self, reason: str) -> None:
        """Leave all as it is; the next update tries again what has failed, and deletes what this one has replaced."""
        stack = self._stack
        for name, old in self._before.items():
            if stack.resources[name].status == Operation.UPDATE.failed:
                stack.resources[name].properties = old.properties
        stack.set_status(Operation.UPDATE.failed, reason)

    async def _roll_back_update(self, before: Target, reason: str) -> None:
        """Bring resources back to what they were, and delete those that the update created."""
        stack = self._stack
        stack.set_status(Operation.UPDATE_ROLLBACK.in_progress, reason)
        stack.original, stack.template = before.original, before.template
        stack.parameters, stack.settings = before.parameters, before.settings
        stack.identity = replace(stack.identity, tags=before.settings.tags)
        failed = []
        replaced = {resource.physical_id for resource in self._created}
        for name, old in self._before.items():
            changed = stack.resources[name]
            if changed.physical_id in replaced or changed.resource is None or old.type != changed.type:
                stack.resources[name] = old
                stack.set_resource_status(old, Operation.UPDATE.complete)
                continue
            request = self._request(old, changed.resource, changed.properties)
            stack.set_resource_status(changed, Operation.UPDATE.in_progress)
            try:
                old.resource = await self._failing(changed, Operation.UPDATE)(
                    (await self._type(old.type)).update(request)
                )
            except (ResourceFailedError, ReplacementNeededError):
                failed.append(name)
                continue
            stack.resources[name] = old
            stack.set_resource_status(old, Operation.UPDATE.complete)
        if failed:
            message = f"The following resource(s) failed to update: [{', '.join(failed)}]. "
            stack.set_status(Operation.UPDATE_ROLLBACK.failed, message)
            return
        stack.set_status("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        kept = {resource.physical_id for resource in self._before.values()}
        created = [resource for resource in self._created if resource.physical_id not in kept]
        await self._delete_all(created)
        for name, resource in list(stack.resources.items()):
            if resource.resource is None:
                del stack.resources[name]
        stack.set_status(Operation.UPDATE_ROLLBACK.complete)

    async def _clean_up(self, operation: Operation) -> None:
        """Delete what the new template does not have any more. As on AWS, a failure here fails nothing."""
        self._stack.set_status(f"{operation}_COMPLETE_CLEANUP_IN_PROGRESS")
        await self._delete_all(self._obsolete)

    async def _delete_all(
        self,
        resources: list[StackResource],
        retained: frozenset[str] = frozenset(),
        keep: tuple[str, ...] = _KEPT_POLICIES,
    ) -> list[str]:
        """Delete resources, each after those that need it; return the logical ids of those that failed."""
        remaining = [resource for resource in resources if not resource.status.startswith("DELETE_COMPLETE")]
        for resource in list(remaining):
            if resource.deletion_policy in keep or resource.logical_id in retained:
                remaining.remove(resource)
                self._stack.set_resource_status(resource, "DELETE_SKIPPED")
                self._forget(resource)
        for _ in range(_DELETE_ATTEMPTS):
            remaining = await self._delete_once(remaining)
            if not remaining:
                break
        return sorted(resource.logical_id for resource in remaining)

    async def _delete_once(self, resources: list[StackResource]) -> list[StackResource]:
        """Try to delete each resource; return those that failed."""
        done = {id(resource): asyncio.get_running_loop().create_future() for resource in resources}

        async def handle(resource: StackResource) -> bool:
            users = [other for other in resources if resource.logical_id in other.depends_on and other is not resource]
            try:
                for user in users:
                    await done[id(user)]
                return await self._delete(resource)
            finally:
                done[id(resource)].set_result(None)

        deleted = await asyncio.gather(*(handle(resource) for resource in resources))
        return [resource for resource, is_deleted in zip(resources, deleted, strict=True) if not is_deleted]

    async def _delete(self, resource: StackResource) -> bool:
        """Delete one resource; return whether it is gone."""
        stack = self._stack
        if resource.resource is None:
            self._forget(resource)
            return True
        stack.set_resource_status(resource, Operation.DELETE.in_progress)
        request = self._request(resource, resource.resource, resource.properties)
        try:
            await (await self._type(resource.type)).delete(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever fails a resource is the reason of its event
            reason = failure_reason(error)
            if not is_gone(error):
                stack.set_resource_status(resource, Operation.DELETE.failed, reason)
                return False
        stack.set_resource_status(resource, Operation.DELETE.complete)
        self._forget(resource)
        return True

    def _forget(self, resource: StackResource) -> None:
        """Remove a resource from an updated stack; a deleted stack lists its resources."""
        if self._stack.resources.get(resource.logical_id) is resource and not self._stack.status.startswith(
            ("DELETE_", "ROLLBACK_")
        ):
            del self._stack.resources[resource.logical_id]

    async def _type(self, name: str) -> ResourceType:
        kind = await self._types.find(name)
        if kind is None:
            raise ResourceFailedError(
                f"resource type {name} is not emulated: expected one of those that docs/cloudformation.md lists"
            )
        return kind

    def _request(
        self, resource: StackResource, current: Resource | None = None, previous: Mapping[str, Any] | None = None
    ) -> ResourceRequest:
        return ResourceRequest(
            self._stack.identity,
            resource.logical_id,
            resource.type,
            resource.properties,
            current,
            {} if previous is None else previous,
        )


async def _all_unless_one_fails(works: Iterable[Coroutine[Any, Any, None]]) -> list[BaseException | None]:
    """Run all at once; after the first failure, cancel those that do not end soon. Return the errors."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        if tasks:
            _, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if others:
                _, others = await asyncio.wait(others, timeout=_CANCEL_S)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    return results


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)
