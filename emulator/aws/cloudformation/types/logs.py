"""AWS::Logs: log groups and streams.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_Logs.html
"""

from collections.abc import Mapping

from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import EVERY, ApiResource, tag_list


class LogGroup(ApiResource):
    """AWS::Logs::LogGroup."""

    service = "logs"
    replaced_by = frozenset(["LogGroupName", "LogGroupClass"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a log group with its retention."""
        properties = dict(request.properties)
        retention = properties.pop("RetentionInDays", None)
        name = str(properties.setdefault("LogGroupName", request.generated_name(512, "A-Za-z0-9_/.#-")))
        properties["Tags"] = tag_list(request)
        await self.call(request, "CreateLogGroup", properties)
        if retention is not None:
            await self._retain(request, name, retention)
        arn = f"arn:aws:logs:{request.stack.region}:{request.stack.account}:log-group:{name}:*"
        return Resource(name, {"Arn": arn})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the retention and the tags."""
        name = request.physical_id
        if request.changed("RetentionInDays"):
            await self._retain(request, name, request.properties.get("RetentionInDays"))
        current = request.current or Resource(name)
        if request.changed("Tags"):
            arn = str(current.attributes.get("Arn", "")).removesuffix(":*")
            tags = {tag["Key"]: tag["Value"] for tag in request.properties.get("Tags") or []}
            gone = sorted({tag["Key"] for tag in request.previous.get("Tags") or []} - tags.keys())
            if gone:
                await self.call(request, "UntagResource", {"resourceArn": arn, "tagKeys": gone})
            if tags:
                await self.call(request, "TagResource", {"resourceArn": arn, "tags": tags})
        return current

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the log group."""
        await self.call(request, "DeleteLogGroup", {"LogGroupName": request.physical_id})

    async def _retain(self, request: ResourceRequest, name: str, days: object) -> None:
        if days is None:
            await self.call(request, "DeleteRetentionPolicy", {"LogGroupName": name})
        else:
            await self.call(request, "PutRetentionPolicy", {"LogGroupName": name, "RetentionInDays": days})


class LogStream(ApiResource):
    """AWS::Logs::LogStream."""

    service = "logs"
    replaced_by = EVERY

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a log stream."""
        name = request.properties.get("LogStreamName") or request.generated_name(512)
        await self.call(request, "CreateLogStream", {**request.properties, "LogStreamName": name})
        return Resource(str(name))

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the log stream."""
        key = {"LogGroupName": request.properties["LogGroupName"], "LogStreamName": request.physical_id}
        await self.call(request, "DeleteLogStream", key)


TYPES: Mapping[str, type[ApiResource]] = {"AWS::Logs::LogGroup": LogGroup, "AWS::Logs::LogStream": LogStream}
