"""Event source mappings of streams: the records of a shard of Kinesis or DynamoDB for a function, in their order.

Source: https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html
"""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.aws.sdk_client import AwsClient
from emulator.aws.triggers.batch_answers import PARTIAL, failed_items
from emulator.aws.triggers.event_filters import passes
from emulator.aws.triggers.targets import Delivery, Targets

if TYPE_CHECKING:
    from emulator.aws.triggers.event_sources import EventSource

_log = logging.getLogger(__name__)
# As often as AWS reads a shard without records.
_POLL_S = 1.0
# New shards, of a stream that was split, are looked for so often.
_DISCOVERY_S = 10.0
_RETRY_S, _LONGEST_RETRY_S = 0.5, 30.0
_FOREVER = -1


@dataclass(frozen=True)
class _Batch:
    """Records of a shard, as the function receives them, and when the first of them arrived, seconds since 1970."""

    shard: str
    records: Sequence[Mapping[str, Any]]
    arrived: float


class StreamPoller:
    """Reads all shards of a stream and invokes the function of a mapping.

    Parameters
    ----------
    aws
        Reads the stream, and invokes the function.
    targets
        Delivers records of batches that have failed.
    mapping
        The mapping.
    """

    def __init__(self, aws: AwsClient, targets: Targets, mapping: "EventSource") -> None:
        self._aws = aws
        self._targets = targets
        self._mapping = mapping
        self._is_kinesis = mapping.source.split(":")[2] == "kinesis"
        self._service = "kinesis" if self._is_kinesis else "dynamodbstreams"
        # moto's iterators contain the name that was given, not one that it takes from an ARN.
        name = mapping.source.rpartition("/")[2]
        self._stream = {"StreamName": name} if self._is_kinesis else {"StreamArn": mapping.source}
        self._event: Callable[[str, Mapping[str, Any]], dict[str, Any]] = (
            self._kinesis_record if self._is_kinesis else self._dynamodb_record
        )

    async def run(self) -> None:
        """Read the stream until the task is cancelled."""
        position = self._mapping.settings["StartingPosition"]
        started: set[str] = set()
        async with asyncio.TaskGroup() as shards:
            while True:
                try:
                    for shard in await self._shards():
                        if shard not in started:
                            started.add(shard)
                            shards.create_task(self._read_shard(shard, position))
                    # A shard that appears later is read from its beginning.
                    position = "TRIM_HORIZON"
                except (ClientError, BotoCoreError) as error:
                    _log.warning("event source mapping %s: %s", self._mapping.id, error)
                await asyncio.sleep(_DISCOVERY_S)

    async def _call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return await self._aws.call(self._service, operation, parameters, self._mapping.source.split(":")[3])

    async def _shards(self) -> list[str]:
        described = (await self._call("DescribeStream", self._stream))["StreamDescription"]
        return [shard["ShardId"] for shard in described["Shards"]]

    async def _first_iterator(self, shard: str, position: str) -> str:
        wanted: dict[str, Any] = {**self._stream, "ShardId": shard, "ShardIteratorType": position}
        if position == "AT_TIMESTAMP":
            wanted["Timestamp"] = self._mapping.settings["StartingPositionTimestamp"]
        while True:
            try:
                return str((await self._call("GetShardIterator", wanted))["ShardIterator"])
            except (ClientError, BotoCoreError) as error:
                _log.warning("event source mapping %s: %s", self._mapping.id, error)
                await asyncio.sleep(_LONGEST_RETRY_S)

    async def _read_shard(self, shard: str, position: str) -> None:
        iterator: str | None = await self._first_iterator(shard, position)
        records: list[Mapping[str, Any]] = []
        arrived = 0.0
        while iterator is not None or records:
            found: list[dict[str, Any]] = []
            if iterator is not None:
                limit = self._mapping.batch_size - len(records)
                try:
                    response = await self._call("GetRecords", {"ShardIterator": iterator, "Limit": limit})
                    iterator, found = response.get("NextShardIterator"), response["Records"]
                except (ClientError, BotoCoreError) as error:
                    _log.warning("event source mapping %s: %s", self._mapping.id, error)
            if found and not records:
                arrived = time.time()
            events = (self._event(shard, record) for record in found)
            records += [event for event in events if passes(_filtered(event), self._mapping.settings)]
            is_old = time.time() - arrived >= self._mapping.window_s
            if records and (len(records) >= self._mapping.batch_size or is_old or iterator is None):
                await self._process(_Batch(shard, records, arrived))
                records = []
            elif not found:
                await asyncio.sleep(_POLL_S)

    async def _process(self, batch: _Batch) -> None:
        """Invoke the function with a batch until it succeeds, or is given up and reported to the destination."""
        settings = self._mapping.settings
        attempts, pause_s = 0, _RETRY_S
        while True:
            response = await self._invoke(batch)
            attempts += 1
            self._mapping.result = "OK" if not response.get("FunctionError") else "PROBLEM: Function call failed"
            left = self._left(batch, response)
            if not left:
                return
            if len(left) < len(batch.records):
                # What precedes the reported failure is done.
                batch = _Batch(batch.shard, left, batch.arrived)
                attempts = 0
            retries = settings.get("MaximumRetryAttempts", _FOREVER)
            oldest_s = settings.get("MaximumRecordAgeInSeconds", _FOREVER)
            is_expired = oldest_s != _FOREVER and time.time() - batch.arrived > oldest_s
            if is_expired or (retries != _FOREVER and attempts > retries):
                self._give_up(
                    batch, response, attempts, "RecordAgeExceeded" if is_expired else "RetryAttemptsExhausted"
                )
                return
            if settings.get("BisectBatchOnFunctionError") and len(batch.records) > 1:
                middle = len(batch.records) // 2
                await self._process(_Batch(batch.shard, batch.records[:middle], batch.arrived))
                await self._process(_Batch(batch.shard, batch.records[middle:], batch.arrived))
                return
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_RETRY_S, pause_s * 2)

    async def _invoke(self, batch: _Batch) -> dict[str, Any]:
        event = json.dumps({"Records": batch.records}).encode()
        invocation = {"FunctionName": self._mapping.function, "Payload": event}
        try:
            return await self._aws.call("lambda", "Invoke", invocation, self._mapping.region)
        except (ClientError, BotoCoreError) as error:
            _log.info("event source mapping %s: %s", self._mapping.id, error)
            return {"FunctionError": str(error), "StatusCode": 500, "ExecutedVersion": "$LATEST"}

    def _left(self, batch: _Batch, response: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Return the records of a batch that are to be processed again: with a reported failure, those from it on."""
        if response.get("FunctionError"):
            return batch.records
        if PARTIAL not in self._mapping.settings.get("FunctionResponseTypes", ()):
            return ()
        numbers = [self._number(record) for record in batch.records]
        failed = failed_items(response["Payload"], set(numbers))
        if failed is None:
            return batch.records
        first = min((numbers.index(number) for number in failed), default=len(numbers))
        return batch.records[first:]

    def _give_up(self, batch: _Batch, response: Mapping[str, Any], attempts: int, condition: str) -> None:
        destination = self._mapping.settings.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        if not destination:
            _log.warning("event source mapping %s: %d records were dropped", self._mapping.id, len(batch.records))
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        arrived = datetime.fromtimestamp(batch.arrived, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {
            "requestContext": {
                "requestId": self._mapping.id,
                "functionArn": self._mapping.function,
                "condition": condition,
                "approximateInvokeCount": attempts,
            },
            "responseContext": {
                "statusCode": response["StatusCode"],
                "executedVersion": response.get("ExecutedVersion"),
                "functionError": response.get("FunctionError"),
            },
            "version": "1.0",
            "timestamp": now,
            "KinesisBatchInfo" if self._is_kinesis else "DDBStreamBatchInfo": {
                "shardId": batch.shard,
                "startSequenceNumber": self._number(batch.records[0]),
                "endSequenceNumber": self._number(batch.records[-1]),
                "approximateArrivalOfFirstRecord": arrived,
                "approximateArrivalOfLastRecord": arrived,
                "batchSize": len(batch.records),
                "streamArn": self._mapping.source,
            },
        }
        text, origin = json.dumps(record), self._mapping.arn
        self._targets.deliver(Delivery(destination, self._mapping.region, text, {}, origin=origin))

    def _number(self, record: Mapping[str, Any]) -> str:
        return str(record["kinesis"]["sequenceNumber"] if self._is_kinesis else record["dynamodb"]["SequenceNumber"])

    def _kinesis_record(self, shard: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record as https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html has it."""
        source = self._mapping.source
        return {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": record["PartitionKey"],
                "sequenceNumber": record["SequenceNumber"],
                "data": base64.b64encode(record["Data"]).decode(),
                "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{shard}:{record['SequenceNumber']}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": f"arn:aws:iam::{source.split(':')[4]}:role/lambda",
            "awsRegion": source.split(":")[3],
            "eventSourceARN": source,
        }

    def _dynamodb_record(self, _: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record as https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html has it."""
        return {**_plain(record), "eventSourceARN": self._mapping.source}


def _filtered(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the patterns of a mapping are compared with: the data of Kinesis as JSON, if that is what it is."""
    if "kinesis" not in event:
        return dict(event)
    data = base64.b64decode(event["kinesis"]["data"])
    try:
        return {**event["kinesis"], "data": json.loads(data)}
    except ValueError:
        return {**event["kinesis"], "data": data.decode(errors="replace")}


def _plain(value: Any) -> Any:
    """Return a record of boto3 as JSON: binary values in base64, times in seconds."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.timestamp() if isinstance(value, datetime) else value
