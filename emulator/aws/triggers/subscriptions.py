"""SNS: messages of moto's topics for functions. moto delivers to queues and URLs itself, and filters."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from emulator.aws.triggers.targets import Delivery, Targets

_log = logging.getLogger(__name__)
# The protocols that moto delivers by.
_DELIVERED = ("sqs", "http", "https")

if TYPE_CHECKING:
    from moto.sns.models import Subscription


class FunctionSubscriptions:
    """Delivers messages to subscribed functions.

    Parameters
    ----------
    targets
        Invokes the functions.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._loop: asyncio.AbstractEventLoop | None = None
        self._replaced: Callable[..., None] | None = None

    def open(self) -> None:
        """Take moto's place for subscriptions of functions, before the first is made. Runs in the event loop."""
        from moto.sns.models import Subscription

        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        original = Subscription.publish
        self._replaced = original
        own = self

        def publish(
            subscription: "Subscription",
            message: str,
            message_id: str,
            subject: str | None = None,
            message_attributes: dict[str, Any] | None = None,
            group_id: str | None = None,
            deduplication_id: str | None = None,
            message_structure: str | None = None,
        ) -> None:
            if subscription.protocol == "lambda":
                own.publish(subscription, message, message_id, subject, message_attributes or {}, message_structure)
                return
            if subscription.protocol not in _DELIVERED:
                _log.warning(
                    "a message for %s is not sent: %s is not emulated", subscription.arn, subscription.protocol
                )
            else:
                original(
                    subscription,
                    message,
                    message_id,
                    subject,
                    message_attributes,
                    group_id,
                    deduplication_id,
                    message_structure,
                )

        Subscription.publish = publish  # type: ignore[method-assign,assignment]

    def close(self) -> None:
        """Give moto its place back."""
        if self._replaced is not None:
            from moto.sns.models import Subscription

            Subscription.publish = self._replaced  # type: ignore[method-assign]
            self._replaced = None
        self._loop = None

    def publish(
        self,
        subscription: "Subscription",
        message: str,
        message_id: str,
        subject: str | None,
        attributes: Mapping[str, Any],
        structure: str | None,
    ) -> None:
        """Invoke the function of a subscription, if its filter matches. From any thread."""
        matcher = subscription._filter_policy_matcher  # noqa: SLF001 - moto has no other access
        if self._loop is None or (matcher is not None and not matcher.matches(dict(attributes), message)):
            return
        if structure == "json":
            choices = json.loads(message)
            message = choices.get("lambda", choices["default"])
        event = sns_event(subscription.topic.arn, subscription.arn, message, message_id, subject, attributes)
        redrive = subscription.attributes.get("RedrivePolicy") or "{}"
        dead_letters = json.loads(redrive).get("deadLetterTargetArn")
        region = subscription.endpoint.split(":")[3]
        delivery = Delivery(subscription.endpoint, region, json.dumps(event), {}, dead_letters, subscription.arn)
        self._loop.call_soon_threadsafe(self._targets.deliver, delivery)


def sns_event(
    topic_arn: str,
    subscription_arn: str,
    message: str,
    message_id: str,
    subject: str | None,
    attributes: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the event that a subscribed function receives.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html
    """
    region = topic_arn.split(":")[3]
    return {
        "Records": [
            {
                "EventSource": "aws:sns",
                "EventVersion": "1.0",
                "EventSubscriptionArn": subscription_arn,
                "Sns": {
                    "Type": "Notification",
                    "MessageId": message_id,
                    "TopicArn": topic_arn,
                    "Subject": subject,
                    "Message": message,
                    "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    "SignatureVersion": "1",
                    "Signature": "not signed by the emulator",
                    "SigningCertUrl": f"https://sns.{region}.amazonaws.com/none.pem",
                    "UnsubscribeUrl": f"https://sns.{region}.amazonaws.com/?Action=Unsubscribe"
                    f"&SubscriptionArn={subscription_arn}",
                    "MessageAttributes": {
                        name: {"Type": value["Type"], "Value": str(value["Value"])}
                        for name, value in attributes.items()
                    },
                },
            }
        ]
    }
