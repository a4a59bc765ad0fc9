"""AWS::CloudWatch: alarms.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_CloudWatch.html
"""

from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, SimpleResource


class MetricAlarm(SimpleResource):
    """AWS::CloudWatch::Alarm."""

    service = "cloudwatch"
    create_operation = "PutMetricAlarm"
    update_operation = "PutMetricAlarm"
    delete_operation = "DeleteAlarms"
    name_property = "AlarmName"
    longest_name = 255

    def key(self, request: ResourceRequest) -> dict[str, Any]:
        """Return the alarm's name."""
        return {"AlarmName": request.physical_id}

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the alarm."""
        await self.call(request, "DeleteAlarms", {"AlarmNames": [request.physical_id]})

    async def created(
        self, request: ResourceRequest, properties: Mapping[str, Any], response: Mapping[str, Any]
    ) -> Resource:
        """Return the alarm."""
        name = str(properties["AlarmName"])
        stack = request.stack
        return Resource(name, {"Arn": f"arn:aws:cloudwatch:{stack.region}:{stack.account}:alarm:{name}"})


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::CloudWatch::Alarm": MetricAlarm,
}
