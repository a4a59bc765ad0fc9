"""Event source mappings: messages of queues and records of streams for functions, in batches.

Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
"""

import asyncio
import base64
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.aws.sdk_client import AwsClient
from emulator.aws.state import StateDatabase
from emulator.aws.triggers.batch_answers import PARTIAL, failed_items
from emulator.aws.triggers.event_filters import passes
from emulator.aws.triggers.stream_sources import StreamPoller
from emulator.aws.triggers.targets import Targets

_log = logging.getLogger(__name__)
_SCHEMA = "CREATE TABLE IF NOT EXISTS event_sources (id TEXT PRIMARY KEY, record TEXT NOT NULL)"
_STORE = "INSERT INTO event_sources VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record"
_MOMENT = "StartingPositionTimestamp"
# How often a queue is looked at; a look takes microseconds.
_POLL_S = 0.1
_RETRY_S = 1.0
# A queue gives ten messages at most in a call; AWS starts with five invocations at a time.
_RECEIVED = 10
_CONCURRENCY = 5
_DEFAULT_BATCH = 10
_DEFAULT_BATCH_OF_STREAMS = 100
_STREAMS = ("dynamodb", "kinesis")


@dataclass
class EventSource:
    """An event source mapping.

    Parameters
    ----------
    id, arn
        Its UUID and ARN.
    region
        Its region.
    source
        The ARN of the queue or stream.
    function
        The ARN of the function, with version or alias if one was named.
    settings
        Further members of CreateEventSourceMapping: batch size and the like.
    """

    id: str
    arn: str
    region: str
    source: str
    function: str
    settings: dict[str, Any]
    is_enabled: bool = True
    state: str = "Creating"
    result: str = "No records processed"
    modified: float = field(default_factory=time.time)

    @property
    def is_stream(self) -> bool:
        """Whether the source is a stream of Kinesis or DynamoDB."""
        return self.source.split(":")[2] in _STREAMS

    @property
    def is_queue(self) -> bool:
        """Whether the source is a queue."""
        return self.source.split(":")[2] == "sqs"

    @property
    def batch_size(self) -> int:
        """Messages or records in a batch at most."""
        return int(self.settings.get("BatchSize", _DEFAULT_BATCH_OF_STREAMS if self.is_stream else _DEFAULT_BATCH))

    @property
    def window_s(self) -> int:
        """How long a batch may be gathered."""
        return int(self.settings.get("MaximumBatchingWindowInSeconds") or 0)

    @property
    def concurrency(self) -> int:
        """How many batches are processed at once; those of a FIFO queue one after another."""
        if self.source.endswith(".fifo"):
            return 1
        return int((self.settings.get("ScalingConfig") or {}).get("MaximumConcurrency") or _CONCURRENCY)

    def described(self) -> dict[str, Any]:
        """Return the EventSourceMappingConfiguration of the API."""
        described = {
            "FunctionResponseTypes": [],
            **{name: value for name, value in self.settings.items() if name != "Tags"},
            "UUID": self.id,
            "BatchSize": self.batch_size,
            "MaximumBatchingWindowInSeconds": self.window_s,
            "EventSourceArn": self.source,
            "EventSourceMappingArn": self.arn,
            "FunctionArn": self.function,
            "LastModified": self.modified,
            "State": self.state,
            "StateTransitionReason": "User action" if self.is_stream else "USER_INITIATED",
        }
        if not self.is_stream:
            return described
        defaults = {
            "BisectBatchOnFunctionError": False,
            "DestinationConfig": {"OnFailure": {}},
            "MaximumRecordAgeInSeconds": -1,
            "MaximumRetryAttempts": -1,
            "ParallelizationFactor": 1,
            "TumblingWindowInSeconds": 0,
        }
        return {**defaults, **described, "LastProcessingResult": self.result}


class EventSources:
    """Polls the queues and streams of all enabled mappings.

    Parameters
    ----------
    database
        Stores the mappings.
    aws
        Receives and deletes messages, reads streams, and invokes functions.
    targets
        Delivers records of failed batches.
    account
        The account.
    """

    def __init__(self, database: StateDatabase, aws: AwsClient, targets: Targets, account: str) -> None:
        self._database = database
        self._aws = aws
        self._targets = targets
        self._account = account
        database.execute(_SCHEMA)
        rows = database.execute("SELECT record FROM event_sources ORDER BY rowid").fetchall()
        stored = [_restored(json.loads(record)) for (record,) in rows]
        self._mappings = {mapping.id: mapping for mapping in stored}
        self._pollers: dict[str, asyncio.Task[None]] = {}

    def resume(self) -> None:
        """Poll the queues of the stored mappings."""
        for mapping in self._mappings.values():
            self._begin(mapping)

    def add(self, mapping: EventSource) -> None:
        """Add a mapping, and poll its queue if it is enabled."""
        self._mappings[mapping.id] = mapping
        self.apply(mapping)

    def apply(self, mapping: EventSource) -> None:
        """Store a change of a mapping, and begin or end to poll."""
        mapping.modified = time.time()
        self.store(mapping)
        poller = self._pollers.pop(mapping.id, None)
        if poller is not None:
            poller.cancel()
        self._begin(mapping)

    def store(self, mapping: EventSource) -> None:
        """Store a change of a mapping that does not concern its queue."""
        self._database.write(_STORE, (mapping.id, json.dumps(asdict(mapping), default=datetime.isoformat)))

    def remove(self, mapping: EventSource) -> None:
        """Remove a mapping. A batch under way is dropped: its messages become visible again."""
        poller = self._pollers.pop(mapping.id, None)
        if poller is not None:
            poller.cancel()
        self._mappings.pop(mapping.id, None)
        self._database.write("DELETE FROM event_sources WHERE id = ?", (mapping.id,))

    def get(self, mapping_id: str) -> EventSource | None:
        """Return a mapping by its UUID."""
        return self._mappings.get(mapping_id)

    def all(self, region: str) -> list[EventSource]:
        """Return the mappings of a region."""
        return [mapping for mapping in self._mappings.values() if mapping.region == region]

    async def reset(self) -> None:
        """Remove all mappings."""
        await self.close()
        self._mappings.clear()
        self._database.write("DELETE FROM event_sources")

    async def close(self) -> None:
        """End to poll."""
        pollers = list(self._pollers.values())
        self._pollers.clear()
        for poller in pollers:
            poller.cancel()
        await asyncio.gather(*pollers, return_exceptions=True)

    def _begin(self, mapping: EventSource) -> None:
        if mapping.is_enabled:
            polling = (
                StreamPoller(self._aws, self._targets, mapping).run() if mapping.is_stream else self._poll(mapping)
            )
            self._pollers[mapping.id] = asyncio.get_running_loop().create_task(polling, name=mapping.arn)

    async def _poll(self, mapping: EventSource) -> None:
        slots = asyncio.Semaphore(mapping.concurrency)
        async with asyncio.TaskGroup() as batches:
            while True:
                try:
                    await slots.acquire()
                    messages = await self._gather(mapping)
                    batches.create_task(self._process(mapping, messages, slots))
                except (ClientError, BotoCoreError) as error:
                    slots.release()
                    _log.warning("event source mapping %s: %s", mapping.id, error)
                    await asyncio.sleep(_RETRY_S)

    async def _gather(self, mapping: EventSource) -> list[dict[str, Any]]:
        """Wait for messages; return a batch that is full, or as old as its window allows."""
        messages: list[dict[str, Any]] = []
        deadline = 0.0
        while True:
            if self._has_messages(mapping):
                found = await self._receive(mapping, mapping.batch_size - len(messages))
                if found and not messages:
                    deadline = time.monotonic() + mapping.window_s
                messages += found
                if len(messages) >= mapping.batch_size:
                    return messages
                if found:
                    # More may be waiting: a call gives ten at most.
                    continue
            if messages and time.monotonic() >= deadline:
                return messages
            await asyncio.sleep(_POLL_S)

    def _has_messages(self, mapping: EventSource) -> bool:
        """Return whether a queue has visible messages; asking moto's API ten times a second would cost a core."""
        from moto.sqs.models import sqs_backends

        queue = sqs_backends[self._account][mapping.source.split(":")[3]].queues.get(mapping.source.rpartition(":")[2])
        return queue is not None and bool(queue.messages)

    async def _receive(self, mapping: EventSource, limit: int) -> list[dict[str, Any]]:
        request = {
            "QueueUrl": await self._url(mapping),
            "MaxNumberOfMessages": min(_RECEIVED, limit),
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
            "WaitTimeSeconds": 0,
        }
        response = await self._aws.call("sqs", "ReceiveMessage", request, mapping.region)
        received: list[dict[str, Any]] = response.get("Messages", [])
        settings, source = mapping.settings, mapping.source
        kept = [message for message in received if passes(_filtered(sqs_record(message, source)), settings)]
        # What no filter matches is deleted, as on AWS.
        await self._delete(mapping, [message for message in received if message not in kept])
        return kept

    async def _process(
        self, mapping: EventSource, messages: Sequence[Mapping[str, Any]], slots: asyncio.Semaphore
    ) -> None:
        """Invoke the function with a batch; delete what it has processed. The rest becomes visible again."""
        try:
            event = {"Records": [sqs_record(message, mapping.source) for message in messages]}
            invocation = {"FunctionName": mapping.function, "Payload": json.dumps(event).encode()}
            response = await self._aws.call("lambda", "Invoke", invocation, mapping.region)
            if response.get("FunctionError"):
                return
            failed = frozenset[str]()
            if PARTIAL in (mapping.settings.get("FunctionResponseTypes") or []):
                reported = failed_items(response["Payload"], {str(message["MessageId"]) for message in messages})
                if reported is None:
                    return
                failed = reported
            await self._delete(mapping, [message for message in messages if message["MessageId"] not in failed])
        except (ClientError, BotoCoreError) as error:
            _log.info("event source mapping %s: %s", mapping.id, error)
        finally:
            slots.release()

    async def _delete(self, mapping: EventSource, messages: Sequence[Mapping[str, Any]]) -> None:
        url = await self._url(mapping) if messages else ""
        for start in range(0, len(messages), _RECEIVED):
            entries = [
                {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
                for index, message in enumerate(messages[start : start + _RECEIVED])
            ]
            await self._aws.call("sqs", "DeleteMessageBatch", {"QueueUrl": url, "Entries": entries}, mapping.region)

    async def _url(self, mapping: EventSource) -> str:
        name = mapping.source.rpartition(":")[2]
        return str((await self._aws.call("sqs", "GetQueueUrl", {"QueueName": name}, mapping.region))["QueueUrl"])


def _restored(record: dict[str, Any]) -> EventSource:
    """Return a stored mapping; what was changing when it was stored has long changed."""
    mapping = EventSource(**record)
    mapping.state = "Enabled" if mapping.is_enabled else "Disabled"
    if _MOMENT in mapping.settings:
        mapping.settings[_MOMENT] = datetime.fromisoformat(mapping.settings[_MOMENT])
    return mapping


def sqs_record(message: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a message as a record of the event that a function receives."""
    attributes = {
        name: {
            **({"stringValue": value["StringValue"]} if "StringValue" in value else {}),
            **({"binaryValue": _base64(value["BinaryValue"])} if "BinaryValue" in value else {}),
            "stringListValues": [],
            "binaryListValues": [],
            "dataType": value["DataType"],
        }
        for name, value in (message.get("MessageAttributes") or {}).items()
    }
    digest = message.get("MD5OfMessageAttributes")
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes") or {}),
        "messageAttributes": attributes,
        **({"md5OfMessageAttributes": digest} if digest else {}),
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": source,
        "awsRegion": source.split(":")[3],
    }


def new_id() -> str:
    """Return a UUID for a mapping."""
    return str(uuid.uuid4())


def _filtered(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the patterns of a mapping are compared with: the body as JSON, if that is what it is."""
    with contextlib.suppress(ValueError):
        return {**record, "body": json.loads(record["body"])}
    return dict(record)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
