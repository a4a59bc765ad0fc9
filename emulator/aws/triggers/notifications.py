"""S3: notifications of objects that were created or deleted, to functions, queues, topics and EventBridge.

Events: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

import itertools
import json
import re
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import xmltodict
from botocore.exceptions import ClientError

from emulator.aws.s3.core.object_events import ObjectEvent
from emulator.aws.sdk_client import AwsClient
from emulator.aws.triggers.targets import Delivery, Targets
from emulator.errors import ApiError

_TARGETS = {"CloudFunctionConfiguration": "CloudFunction", "QueueConfiguration": "Queue", "TopicConfiguration": "Topic"}
# Event types of S3 that happen here; a configuration may name others, which then never happen.
_EVENTS = re.compile(
    r"s3:(ObjectCreated|ObjectRemoved):(\*|Put|Post|Copy|CompleteMultipartUpload|Delete|DeleteMarkerCreated)"
)
_REASONS = {"Put": "PutObject", "Post": "POST Object", "Copy": "CopyObject"}
# Emits an event: region, source, detail type, resources and detail.
EmitEvent = Callable[[str, str, str, list[str], Mapping[str, Any]], None]


@dataclass(frozen=True)
class Notification:
    """One configured notification of a bucket.

    Parameters
    ----------
    id
        Its name.
    arn
        The target.
    events
        Types of events, such as ``s3:ObjectCreated:*``.
    prefix, suffix
        Of the keys.
    """

    id: str
    arn: str
    events: tuple[str, ...]
    prefix: str
    suffix: str

    def matches(self, event: ObjectEvent) -> bool:
        """Return whether an event is notified."""
        name = f"s3:{event.name}"
        is_wanted = any(
            name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted for wanted in self.events
        )
        return is_wanted and event.key.startswith(self.prefix) and event.key.endswith(self.suffix)


class Notifications:
    """Delivers the notifications of all buckets.

    Parameters
    ----------
    targets
        Delivers to functions, queues and topics.
    aws
        Checks that targets exist.
    emit
        Puts events on EventBridge.
    read
        Returns the document that configures a bucket's notifications, or None.
    """

    def __init__(self, targets: Targets, aws: AwsClient, emit: EmitEvent, read: Callable[[str], bytes | None]) -> None:
        self._targets = targets
        self._aws = aws
        self._emit = emit
        self._read = read
        self._parsed: dict[bytes, tuple[list[Notification], bool]] = {}
        self._sequence = itertools.count(int(time.time() * 1000))

    def happened(self, event: ObjectEvent) -> None:
        """Notify of an event as the bucket's configuration says."""
        document = self._read(event.bucket)
        if not document:
            return
        if document not in self._parsed:
            self._parsed.clear()
            self._parsed[document] = parse_notifications(document)
        notifications, to_event_bridge = self._parsed[document]
        sequencer = f"{next(self._sequence):018X}"
        for notification in notifications:
            if notification.matches(event):
                text = json.dumps({"Records": [s3_record(event, notification.id, sequencer)]})
                self._targets.deliver(
                    Delivery(notification.arn, event.region, text, origin=f"arn:aws:s3:::{event.bucket}")
                )
        if to_event_bridge:
            kind = "Object Created" if event.name.startswith("ObjectCreated") else "Object Deleted"
            bucket = f"arn:aws:s3:::{event.bucket}"
            self._emit(event.region, "aws.s3", kind, [bucket], event_bridge_detail(event, sequencer))

    async def check(self, document: bytes) -> None:
        """Check a new configuration.

        Raises
        ------
        ApiError
            InvalidArgument when a target does not exist, or an event type is unknown.
        """
        notifications, _ = parse_notifications(document)
        for notification in notifications:
            for event in notification.events:
                if not _EVENTS.fullmatch(event):
                    raise _invalid(f"The event {event} is not supported for notifications")
            await self._check_target(notification.arn)

    async def _check_target(self, arn: str) -> None:
        parts = arn.split(":")
        if len(parts) < 6 or parts[2] not in ("lambda", "sqs", "sns"):
            raise _invalid(f"The ARN could not be parsed: {arn}")
        service, region = parts[2], parts[3]
        try:
            if service == "lambda":
                await self._aws.call("lambda", "GetFunctionConfiguration", {"FunctionName": arn}, region)
            elif service == "sqs":
                await self._aws.call("sqs", "GetQueueUrl", {"QueueName": parts[-1]}, region)
            else:
                await self._aws.call("sns", "GetTopicAttributes", {"TopicArn": arn}, region)
        except ClientError:
            raise _invalid("Unable to validate the following destination configurations") from None


def parse_notifications(document: bytes) -> tuple[list[Notification], bool]:
    """Return the notifications of a configuration, and whether events go to EventBridge.

    Raises
    ------
    ApiError
        MalformedXML.
    """
    try:
        root = xmltodict.parse(document).get("NotificationConfiguration") or {}
    except Exception:  # noqa: BLE001 - expat's errors have no common class with xmltodict's
        raise ApiError("MalformedXML", HTTPStatus.BAD_REQUEST, "The XML you provided was not well-formed") from None
    notifications = []
    for element, target in _TARGETS.items():
        for item in _list(root.get(element)):
            rules = {
                str(rule["Name"]).lower(): str(rule.get("Value") or "")
                for rule in _list(((item.get("Filter") or {}).get("S3Key") or {}).get("FilterRule"))
            }
            events = tuple(str(event) for event in _list(item.get("Event")))
            notifications.append(
                Notification(
                    str(item.get("Id") or uuid.uuid4()),
                    str(item[target]),
                    events,
                    rules.get("prefix", ""),
                    rules.get("suffix", ""),
                )
            )
    return notifications, "EventBridgeConfiguration" in root


def s3_record(event: ObjectEvent, configuration_id: str, sequencer: str) -> dict[str, Any]:
    """Return a record of the event that functions, queues and topics receive."""
    described: dict[str, Any] = {"key": urllib.parse.quote_plus(event.key, safe="/"), "sequencer": sequencer}
    if event.etag is not None:
        described |= {"size": event.size, "eTag": event.etag}
    if event.version_id not in ("", "null"):
        described["versionId"] = event.version_id
    principal = {"principalId": "EMULATOR"}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": event.region,
        "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "eventName": event.name,
        "userIdentity": principal,
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": event.request_id, "x-amz-id-2": event.request_id},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": configuration_id,
            "bucket": {"name": event.bucket, "ownerIdentity": principal, "arn": f"arn:aws:s3:::{event.bucket}"},
            "object": described,
        },
    }


def event_bridge_detail(event: ObjectEvent, sequencer: str) -> dict[str, Any]:
    """Return the detail of the event that EventBridge receives.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    """
    described: dict[str, Any] = {"key": event.key, "sequencer": sequencer}
    if event.etag is not None:
        described |= {"size": event.size, "etag": event.etag}
    if event.version_id not in ("", "null"):
        described["version-id"] = event.version_id
    how = event.name.partition(":")[2]
    deletion = {"Delete": "Permanently Deleted", "DeleteMarkerCreated": "Delete Marker Created"}
    return {
        "version": "0",
        "bucket": {"name": event.bucket},
        "object": described,
        "request-id": event.request_id,
        "requester": "emulator",
        "source-ip-address": "127.0.0.1",
        "reason": "DeleteObject" if how in deletion else _REASONS.get(how, how),
        **({"deletion-type": deletion[how]} if how in deletion else {}),
    }


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidArgument", HTTPStatus.BAD_REQUEST, message)
