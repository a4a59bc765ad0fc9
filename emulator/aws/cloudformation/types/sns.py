"""AWS::SNS: topics, their policies and subscriptions.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_SNS.html
"""

from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.api_parameters import text_of
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, check_known, tag_list

_KNOWN_OF_TOPICS = frozenset(
    [
        "ContentBasedDeduplication",
        "DisplayName",
        "FifoThroughputScope",
        "FifoTopic",
        "KmsMasterKeyId",
        "SignatureVersion",
        "Subscription",
        "Tags",
        "TopicName",
        "TracingConfig",
    ]
)
_KNOWN_OF_SUBSCRIPTIONS = frozenset(
    [
        "DeliveryPolicy",
        "Endpoint",
        "FilterPolicy",
        "FilterPolicyScope",
        "Protocol",
        "RawMessageDelivery",
        "RedrivePolicy",
        "TopicArn",
    ]
)
_OTHERS = frozenset(["TopicName", "Subscription", "Tags"])


class Topic(ApiResource):
    """AWS::SNS::Topic."""

    service = "sns"
    replaced_by = frozenset(["TopicName", "FifoTopic"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a topic with its subscriptions."""
        check_known(request, _KNOWN_OF_TOPICS)
        properties = request.properties
        name = str(properties.get("TopicName") or request.generated_name(256))
        if str(properties.get("FifoTopic", "")).lower() == "true" and not name.endswith(".fifo"):
            name = f"{name[:250]}.fifo"
        topic = {"Name": name, "Attributes": _attributes(properties), "Tags": tag_list(request)}
        arn = (await self.call(request, "CreateTopic", topic))["TopicArn"]
        for subscription in properties.get("Subscription") or []:
            await self.call(request, "Subscribe", {"TopicArn": arn, **subscription})
        return Resource(arn, {"TopicArn": arn, "TopicName": name})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the topic's attributes, and add subscriptions."""
        check_known(request, _KNOWN_OF_TOPICS)
        arn, attributes = request.physical_id, _attributes(request.properties)
        for name in {**_attributes(request.previous), **attributes}:
            if request.changed(name):
                changed = {"TopicArn": arn, "AttributeName": name, "AttributeValue": attributes.get(name, "")}
                await self.call(request, "SetTopicAttributes", changed)
        for subscription in request.properties.get("Subscription") or []:
            if subscription not in (request.previous.get("Subscription") or []):
                await self.call(request, "Subscribe", {"TopicArn": arn, **subscription})
        return request.current or Resource(arn)

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the topic."""
        await self.call(request, "DeleteTopic", {"TopicArn": request.physical_id})


class TopicPolicy(ApiResource):
    """AWS::SNS::TopicPolicy."""

    service = "sns"
    replaced_by = frozenset(["Topics"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Set the policy of each topic."""
        for arn in request.properties["Topics"]:
            policy = {"AttributeName": "Policy", "AttributeValue": request.properties["PolicyDocument"]}
            await self.call(request, "SetTopicAttributes", {"TopicArn": arn, **policy})
        return request.current or Resource(request.generated_name())

    async def update(self, request: ResourceRequest) -> Resource:
        """Replace the policies."""
        return await self.create(request)

    async def delete(self, request: ResourceRequest) -> None:
        """Keep the topics' policies: a topic always has one."""


class Subscription(ApiResource):
    """AWS::SNS::Subscription."""

    service = "sns"
    replaced_by = frozenset(["TopicArn", "Protocol", "Endpoint"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Subscribe an endpoint."""
        check_known(request, _KNOWN_OF_SUBSCRIPTIONS)
        key = {member: request.properties.get(member) for member in ("TopicArn", "Protocol", "Endpoint")}
        subscription = {**key, "Attributes": self._attributes(request.properties), "ReturnSubscriptionArn": True}
        arn = (await self.call(request, "Subscribe", subscription))["SubscriptionArn"]
        return Resource(arn, {"Arn": arn})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the subscription's attributes."""
        attributes = self._attributes(request.properties)
        for name in {**self._attributes(request.previous), **attributes}:
            if request.changed(name):
                changed = {"AttributeName": name, "AttributeValue": attributes.get(name, "{}")}
                await self.call(
                    request, "SetSubscriptionAttributes", {"SubscriptionArn": request.physical_id, **changed}
                )
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """End the subscription."""
        await self.call(request, "Unsubscribe", {"SubscriptionArn": request.physical_id})

    def _attributes(self, properties: Mapping[str, Any]) -> dict[str, str]:
        others = ("TopicArn", "Protocol", "Endpoint")
        return {name: text_of(value) for name, value in properties.items() if name not in others}


def _attributes(properties: Mapping[str, Any]) -> dict[str, str]:
    return {name: text_of(value) for name, value in properties.items() if name not in _OTHERS}


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::SNS::Subscription": Subscription,
    "AWS::SNS::Topic": Topic,
    "AWS::SNS::TopicPolicy": TopicPolicy,
}
