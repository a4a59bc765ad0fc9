"""Targets: what an event can be delivered to, by its ARN."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.aws.sdk_client import AwsClient
from emulator.errors import EmulatorError

_log = logging.getLogger(__name__)
# Pauses before a delivery is tried again; AWS goes on for a day.
_RETRY_PAUSES_S = (0.2, 1.0, 5.0)


@dataclass(frozen=True)
class Delivery:
    """One event for one target.

    Parameters
    ----------
    arn
        The target.
    region
        The region of the event.
    text
        What the target receives, JSON.
    settings
        The target's own settings, such as ``SqsParameters``.
    dead_letters
        The ARN of the queue for events that could not be delivered.
    origin
        The ARN of the rule or schedule, for attributes of dead letters.
    """

    arn: str
    region: str
    text: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    dead_letters: str | None = None
    origin: str = ""


class UnservedTargetError(EmulatorError):
    """Nothing here serves the target of an event."""

    def __init__(self, arn: str, services: Iterable[str]) -> None:
        super().__init__(f"target {arn} is not emulated: expected the ARN of one of {', '.join(sorted(services))}")


class Targets:
    """Delivers events, each as a task of the event loop.

    Parameters
    ----------
    aws
        Makes the calls.
    """

    def __init__(self, aws: AwsClient) -> None:
        self._aws = aws
        self._open: set[asyncio.Task[None]] = set()
        self._services: Mapping[str, Callable[[Delivery], Awaitable[Any]]] = {
            "ecs": self._run_task,
            "events": self._put_event,
            "firehose": self._put_to_firehose,
            "kinesis": self._put_record,
            "lambda": self._invoke,
            "logs": self._log_event,
            "s3": self._put_object,
            "sns": self._publish,
            "sqs": self._send_message,
            "states": self._start_execution,
        }

    def serves(self, arn: str) -> bool:
        """Return whether events can be delivered to an ARN."""
        return _service(arn) in self._services

    def deliver(self, delivery: Delivery) -> None:
        """Begin to deliver an event; it is tried again after an error, and then goes to the dead letters."""
        task = asyncio.get_running_loop().create_task(self._deliver(delivery))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def send(self, delivery: Delivery) -> None:
        """Deliver an event once.

        Raises
        ------
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            When the target refuses it.
        """
        await self._services[_service(delivery.arn)](delivery)

    async def close(self) -> None:
        """Drop what has not been delivered."""
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _deliver(self, delivery: Delivery) -> None:
        error: Exception | None = None
        pauses_s = (*_RETRY_PAUSES_S, None) if self.serves(delivery.arn) else ()
        if not pauses_s:
            error = UnservedTargetError(delivery.arn, self._services)
        for pause_s in pauses_s:
            try:
                await self.send(delivery)
            except (ClientError, BotoCoreError) as raised:
                error = raised
                if pause_s is None or _is_final(raised):
                    break
                await asyncio.sleep(pause_s)
            else:
                return
        if delivery.dead_letters is None:
            _log.warning("an event for %s was dropped: %s", delivery.arn, error)
            return
        attributes = {
            "RULE_ARN" if ":rule/" in delivery.origin else "SOURCE_ARN": delivery.origin,
            "TARGET_ARN": delivery.arn,
            "ERROR_CODE": _code(error),
            "ERROR_MESSAGE": str(error),
        }
        try:
            await self._send(delivery.dead_letters, delivery.text, {"attributes": attributes})
        except (ClientError, BotoCoreError) as raised:
            _log.warning("an event for %s was dropped, and its dead letter too: %s", delivery.arn, raised)

    async def _invoke(self, delivery: Delivery) -> None:
        invocation = {"FunctionName": delivery.arn, "InvocationType": "Event", "Payload": delivery.text.encode()}
        await self._aws.call("lambda", "Invoke", invocation, _region(delivery.arn))

    async def _send_message(self, delivery: Delivery) -> None:
        attributes = delivery.settings.get("MessageAttributes") or {}
        settings = {**(delivery.settings.get("SqsParameters") or {}), "attributes": attributes}
        await self._send(delivery.arn, delivery.text, settings)

    async def _send(self, arn: str, text: str, settings: Mapping[str, Any]) -> None:
        region, name = _region(arn), arn.rpartition(":")[2]
        url = (await self._aws.call("sqs", "GetQueueUrl", {"QueueName": name}, region))["QueueUrl"]
        message: dict[str, Any] = {"QueueUrl": url, "MessageBody": text}
        if "MessageGroupId" in settings:
            message["MessageGroupId"] = settings["MessageGroupId"]
        if name.endswith(".fifo"):
            message.setdefault("MessageGroupId", "default")
            message["MessageDeduplicationId"] = str(uuid.uuid4())
        if settings.get("attributes"):
            message["MessageAttributes"] = _message_attributes(settings["attributes"])
        await self._aws.call("sqs", "SendMessage", message, region)

    async def _publish(self, delivery: Delivery) -> None:
        message: dict[str, Any] = {"TopicArn": delivery.arn, "Message": delivery.text}
        if delivery.settings.get("MessageAttributes"):
            message["MessageAttributes"] = _message_attributes(delivery.settings["MessageAttributes"])
        await self._aws.call("sns", "Publish", message, _region(delivery.arn))

    async def _put_object(self, delivery: Delivery) -> None:
        key = (delivery.settings.get("S3Parameters") or {}).get("Key", str(uuid.uuid4()))
        written = {"Bucket": delivery.arn.rpartition(":")[2], "Key": key, "Body": delivery.text.encode()}
        await self._aws.call("s3", "PutObject", written, delivery.region)

    async def _start_execution(self, delivery: Delivery) -> None:
        execution = {"stateMachineArn": delivery.arn, "input": delivery.text}
        await self._aws.call("stepfunctions", "StartExecution", execution, _region(delivery.arn))

    async def _log_event(self, delivery: Delivery) -> None:
        region, group = _region(delivery.arn), delivery.arn.split(":log-group:")[1].removesuffix(":*")
        stream = {"logGroupName": group, "logStreamName": str(uuid.uuid4())}
        await self._aws.call("logs", "CreateLogStream", stream, region)
        event = {"timestamp": int(time.time() * 1000), "message": delivery.text}
        await self._aws.call("logs", "PutLogEvents", {**stream, "logEvents": [event]}, region)

    async def _put_event(self, delivery: Delivery) -> None:
        try:
            event = json.loads(delivery.text)
            entry = {
                "Source": event["source"],
                "DetailType": event["detail-type"],
                "Detail": json.dumps(event["detail"]),
                "Resources": event.get("resources", []),
                "EventBusName": delivery.arn,
            }
        except (ValueError, KeyError, TypeError):
            settings = delivery.settings.get("EventBridgeParameters") or {}
            entry = {
                "Source": settings.get("Source", "scheduler"),
                "DetailType": settings.get("DetailType", "Scheduled Event"),
                "Detail": delivery.text,
                "EventBusName": delivery.arn,
            }
        await self._aws.call("events", "PutEvents", {"Entries": [entry]}, _region(delivery.arn))

    async def _put_record(self, delivery: Delivery) -> None:
        path = (delivery.settings.get("KinesisParameters") or {}).get("PartitionKey") or str(uuid.uuid4())
        record = {"StreamARN": delivery.arn, "Data": delivery.text.encode(), "PartitionKey": path}
        await self._aws.call("kinesis", "PutRecord", record, _region(delivery.arn))

    async def _put_to_firehose(self, delivery: Delivery) -> None:
        name = delivery.arn.rpartition("/")[2]
        record = {"DeliveryStreamName": name, "Record": {"Data": delivery.text.encode()}}
        await self._aws.call("firehose", "PutRecord", record, _region(delivery.arn))

    async def _run_task(self, delivery: Delivery) -> None:
        settings = delivery.settings.get("EcsParameters") or {}
        network = (settings.get("NetworkConfiguration") or {}).get("awsvpcConfiguration")
        network = network or (settings.get("NetworkConfiguration") or {}).get("AwsvpcConfiguration") or {}
        lowered = {f"{name[0].lower()}{name[1:]}": value for name, value in network.items()}
        request = {
            "cluster": delivery.arn,
            "taskDefinition": settings.get("TaskDefinitionArn"),
            "count": settings.get("TaskCount", 1),
            "launchType": settings.get("LaunchType", "FARGATE"),
            **({"networkConfiguration": {"awsvpcConfiguration": lowered}} if lowered else {}),
        }
        await self._aws.call("ecs", "RunTask", request, _region(delivery.arn))


def _message_attributes(attributes: Mapping[str, str]) -> dict[str, Any]:
    """Return attributes of a message; an empty value is not allowed."""
    return {key: {"DataType": "String", "StringValue": value or "-"} for key, value in attributes.items()}


def _service(arn: str) -> str:
    parts = arn.split(":")
    return parts[2] if len(parts) > 5 and parts[0] == "arn" else ""


def _region(arn: str) -> str:
    return arn.split(":")[3]


def _code(error: Exception | None) -> str:
    if isinstance(error, ClientError):
        return str(error.response["Error"].get("Code", "UNKNOWN"))
    return "INTERNAL_ERROR"


def _is_final(error: Exception) -> bool:
    """Return whether another try cannot succeed: the target does not exist, or the request is not valid."""
    if not isinstance(error, ClientError):
        return False
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return bool(400 <= status < 500 and status != 429)
