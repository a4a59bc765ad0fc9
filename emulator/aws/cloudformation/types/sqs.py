"""AWS::SQS: queues and their policies.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_SQS.html
"""

from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.api_parameters import text_of
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, check_known, tag_list

_KNOWN = frozenset(
    [
        "ContentBasedDeduplication",
        "DeduplicationScope",
        "DelaySeconds",
        "FifoQueue",
        "FifoThroughputLimit",
        "KmsDataKeyReusePeriodSeconds",
        "KmsMasterKeyId",
        "MaximumMessageSize",
        "MessageRetentionPeriod",
        "QueueName",
        "ReceiveMessageWaitTimeSeconds",
        "RedriveAllowPolicy",
        "RedrivePolicy",
        "SqsManagedSseEnabled",
        "Tags",
        "VisibilityTimeout",
    ]
)
# What an attribute that leaves the template becomes.
_DEFAULTS = {
    "DelaySeconds": "0",
    "MaximumMessageSize": "262144",
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "RedrivePolicy": "",
    "RedriveAllowPolicy": "",
    "VisibilityTimeout": "30",
}


class Queue(ApiResource):
    """AWS::SQS::Queue."""

    service = "sqs"
    replaced_by = frozenset(["QueueName", "FifoQueue"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a queue."""
        check_known(request, _KNOWN)
        properties = request.properties
        is_fifo = str(properties.get("FifoQueue", "")).lower() == "true"
        name = str(properties.get("QueueName") or request.generated_name(75)) + (
            ".fifo" if is_fifo and "QueueName" not in properties else ""
        )
        tags = {tag["Key"]: tag["Value"] for tag in tag_list(request) or []}
        queue = {"QueueName": name, "Attributes": _attributes(properties), "Tags": tags or None}
        url = (await self.call(request, "CreateQueue", queue))["QueueUrl"]
        found = await self.call(request, "GetQueueAttributes", {"QueueUrl": url, "AttributeNames": ["QueueArn"]})
        return Resource(url, {"Arn": found["Attributes"]["QueueArn"], "QueueName": name, "QueueUrl": url})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the queue's attributes."""
        check_known(request, _KNOWN)
        removed = {name: value for name, value in _DEFAULTS.items() if name in request.previous}
        attributes = {**removed, **_attributes(request.properties)}
        # These cannot be set again.
        attributes.pop("FifoQueue", None)
        if attributes:
            changed = {"QueueUrl": request.physical_id, "Attributes": attributes}
            await self.call(request, "SetQueueAttributes", changed)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the queue."""
        await self.call(request, "DeleteQueue", {"QueueUrl": request.physical_id})


class QueuePolicy(ApiResource):
    """AWS::SQS::QueuePolicy."""

    service = "sqs"
    replaced_by = frozenset(["Queues"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Set the policy of each queue."""
        await self._set(request, text_of(request.properties["PolicyDocument"]))
        return request.current or Resource(request.generated_name())

    async def update(self, request: ResourceRequest) -> Resource:
        """Replace the policies."""
        return await self.create(request)

    async def delete(self, request: ResourceRequest) -> None:
        """Remove the policies."""
        await self._set(request, "")

    async def _set(self, request: ResourceRequest, policy: str) -> None:
        for url in request.properties["Queues"]:
            await self.call(request, "SetQueueAttributes", {"QueueUrl": url, "Attributes": {"Policy": policy}})


def _attributes(properties: Mapping[str, Any]) -> dict[str, str]:
    return {name: text_of(value) for name, value in properties.items() if name not in ("QueueName", "Tags")}


TYPES: Mapping[str, type[ApiResource]] = {"AWS::SQS::Queue": Queue, "AWS::SQS::QueuePolicy": QueuePolicy}
