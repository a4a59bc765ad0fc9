"""AWS::Events and AWS::Scheduler: event buses, rules and schedules.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_Events.html
"""

from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, SimpleResource

_DEFAULT_BUS = "default"


class Rule(ApiResource):
    """AWS::Events::Rule."""

    service = "events"
    replaced_by = frozenset(["Name", "EventBusName"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Put a rule and its targets."""
        properties = {name: value for name, value in request.properties.items() if name != "Targets"}
        name = str(properties.get("Name") or request.generated_name())
        made = await self.call(request, "PutRule", {**properties, "Name": name})
        bus = str(properties.get("EventBusName") or _DEFAULT_BUS).rpartition("/")[2]
        targets = request.properties.get("Targets") or []
        if targets:
            await self._put_targets(request, name, bus, targets)
        return Resource(name if bus == _DEFAULT_BUS else f"{bus}|{name}", {"Arn": made["RuleArn"]})

    async def update(self, request: ResourceRequest) -> Resource:
        """Replace the rule and its targets."""
        bus, name = self._place(request)
        properties = {name: value for name, value in request.properties.items() if name != "Targets"}
        await self.call(request, "PutRule", {**properties, "Name": name})
        targets = request.properties.get("Targets") or []
        ids = {target["Id"] for target in targets}
        gone = [target["Id"] for target in request.previous.get("Targets") or [] if target["Id"] not in ids]
        if gone:
            await self.call(request, "RemoveTargets", {"Rule": name, "EventBusName": bus, "Ids": gone})
        if targets:
            await self._put_targets(request, name, bus, targets)
        return request.current or Resource(name)

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the rule and its targets."""
        bus, name = self._place(request)
        key = {"EventBusName": bus}
        found = await self.call(request, "ListTargetsByRule", {"Rule": name, **key})
        ids = [target["Id"] for target in found["Targets"]]
        if ids:
            await self.call(request, "RemoveTargets", {"Rule": name, **key, "Ids": ids})
        await self.call(request, "DeleteRule", {"Name": name, **key})

    def _place(self, request: ResourceRequest) -> tuple[str, str]:
        bus, _, name = request.physical_id.rpartition("|")
        return bus or _DEFAULT_BUS, name

    async def _put_targets(self, request: ResourceRequest, name: str, bus: str, targets: list[Any]) -> None:
        put = await self.call(request, "PutTargets", {"Rule": name, "EventBusName": bus, "Targets": targets})
        for failed in put.get("FailedEntries", []):
            raise ResourceFailedError(f"target {failed.get('TargetId')}: {failed.get('ErrorMessage')}")


class EventBus(SimpleResource):
    """AWS::Events::EventBus."""

    service = "events"
    create_operation = "CreateEventBus"
    update_operation = "UpdateEventBus"
    delete_operation = "DeleteEventBus"
    name_property = "Name"
    creation_only = frozenset(["Policy", "Tags", "EventSourceName"])

    def key(self, request: ResourceRequest) -> dict[str, Any]:
        """Return the bus's name."""
        return {"Name": request.physical_id}

    async def created(
        self, request: ResourceRequest, properties: Mapping[str, Any], response: Mapping[str, Any]
    ) -> Resource:
        """Return the bus."""
        name = str(properties["Name"])
        return Resource(name, {"Arn": response["EventBusArn"], "Name": name, "Policy": properties.get("Policy", {})})


class Schedule(SimpleResource):
    """AWS::Scheduler::Schedule."""

    service = "scheduler"
    create_operation = "CreateSchedule"
    update_operation = "UpdateSchedule"
    delete_operation = "DeleteSchedule"
    name_property = "Name"
    replaced_by = frozenset(["GroupName"])

    def key(self, request: ResourceRequest) -> dict[str, Any]:
        """Return name and group."""
        return {"Name": request.physical_id, "GroupName": request.properties.get("GroupName")}

    async def created(
        self, request: ResourceRequest, properties: Mapping[str, Any], response: Mapping[str, Any]
    ) -> Resource:
        """Return the schedule."""
        return Resource(str(properties["Name"]), {"Arn": response["ScheduleArn"]})


class ScheduleGroup(SimpleResource):
    """AWS::Scheduler::ScheduleGroup."""

    service = "scheduler"
    create_operation = "CreateScheduleGroup"
    delete_operation = "DeleteScheduleGroup"
    name_property = "Name"

    def key(self, request: ResourceRequest) -> dict[str, Any]:
        """Return the group's name."""
        return {"Name": request.physical_id}

    async def created(
        self, request: ResourceRequest, properties: Mapping[str, Any], response: Mapping[str, Any]
    ) -> Resource:
        """Return the group."""
        return Resource(str(properties["Name"]), {"Arn": response["ScheduleGroupArn"]})


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::Events::EventBus": EventBus,
    "AWS::Events::Rule": Rule,
    "AWS::Scheduler::Schedule": Schedule,
    "AWS::Scheduler::ScheduleGroup": ScheduleGroup,
}
