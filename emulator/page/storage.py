"""Reads what the page shows of S3 and CloudWatch Logs from the endpoint, with boto3."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from emulator.aws.credentials import Credentials
from emulator.aws.limits import REGION
from emulator.fmi.rank_log import LogLine, RankLineParser

_KEYS_A_PAGE = 200
_STREAMS = 25
_LINES = 1000
_LINES_A_STREAM = 400
# The second is raised for names that no bucket or object can have.
_NOT_FOUND = (ClientError, ParamValidationError)
OBJECT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class ListedObject:
    """An object of a listing."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class FolderListing:
    """One page of a bucket's listing.

    Parameters
    ----------
    folders
        Prefixes that end in a slash.
    objects
        The objects at this level.
    next_token
        Continuation token of the next page, or empty.
    """

    folders: tuple[str, ...]
    objects: tuple[ListedObject, ...]
    next_token: str


class Storage:
    """Reads buckets and logs; every method blocks.

    Parameters
    ----------
    url
        The endpoint's own URL.
    credentials
        A key of the endpoint.
    """

    def __init__(self, url: str, credentials: Credentials) -> None:
        session = boto3.Session(
            region_name=REGION,
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
        )
        config = Config(retries={"total_max_attempts": 1}, read_timeout=30)
        self._s3 = session.client("s3", endpoint_url=url, config=config)
        self._logs = session.client("logs", endpoint_url=url, config=config)

    def buckets(self) -> list[tuple[str, datetime]]:
        """Return the names and creation times of the buckets."""
        return [(found["Name"], found["CreationDate"]) for found in self._s3.list_buckets()["Buckets"]]

    def listing(self, bucket: str, prefix: str, token: str) -> FolderListing | None:
        """Return one page of the objects below a prefix; None if the bucket does not exist."""
        more: dict[str, Any] = {"ContinuationToken": token} if token else {}
        try:
            page = self._s3.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/", MaxKeys=_KEYS_A_PAGE, **more)
        except _NOT_FOUND:
            return None
        return FolderListing(
            tuple(entry["Prefix"] for entry in page.get("CommonPrefixes", [])),
            tuple(
                ListedObject(entry["Key"], entry["Size"], entry["LastModified"]) for entry in page.get("Contents", [])
            ),
            page.get("NextContinuationToken", ""),
        )

    def content(self, bucket: str, key: str) -> bytes | None:
        """Return an object's content; None if it does not exist or is too large to show."""
        try:
            found = self._s3.get_object(Bucket=bucket, Key=key)
        except _NOT_FOUND:
            return None
        with found["Body"] as body:
            return bytes(body.read()) if found["ContentLength"] <= OBJECT_BYTES else None

    def lines(self, function: str) -> list[LogLine]:
        """Return the latest lines of a function's log, from its latest streams."""
        group = f"/aws/lambda/{function}"
        try:
            streams = self._logs.describe_log_streams(
                logGroupName=group, orderBy="LastEventTime", descending=True, limit=_STREAMS
            )["logStreams"]
        except self._logs.exceptions.ResourceNotFoundException:
            return []
        events = [
            (stream["logStreamName"], event)
            for stream in streams
            for event in self._logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], limit=_LINES_A_STREAM, startFromHead=False
            )["events"]
        ]
        return _read(events)[-_LINES:]

    def lines_of(self, group: str, stream: str, began: float, ended: float | None) -> list[LogLine]:
        """Return the first lines of a stream between two times, seconds since 1970; `ended` None means now."""
        until = time.time() if ended is None else ended
        try:
            page = self._logs.get_log_events(
                logGroupName=group,
                logStreamName=stream,
                startTime=int(began * 1000) - 1,
                endTime=int(until * 1000) + 1000,
                limit=_LINES,
                startFromHead=True,
            )
        except self._logs.exceptions.ResourceNotFoundException:
            return []
        return _read([(stream, event) for event in page["events"]])


def _read(events: list[tuple[str, Any]]) -> list[LogLine]:
    reader = RankLineParser()
    lines = [line for stream, event in events for line in reader.feed(stream, event["timestamp"], event["message"])]
    return sorted([*lines, *reader.flush()], key=lambda line: line.timestamp_ms)
