"""Partitions in S3: read the data map of a run's event, and download a partition."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from inference import partition
from inference.errors import PartitionError
from inference.partition import Partition

PAYLOAD_KEY = "payload.json"


def read_data_map(s3: Any, bucket: str, world_size: int) -> list[list[str]]:
    """Return the partition keys of each rank, by rank; the list of a rank without data is empty.

    The event of the *initialize* function maps each rank, as a string, to a key, a list of keys, or null. It is the
    object that the variable PAYLOAD_KEY names, else ``payload.json``.

    Raises
    ------
    PartitionError
        The event is missing or its data_map has another form.
    """
    key = os.environ.get("PAYLOAD_KEY", PAYLOAD_KEY)
    place = f"s3://{bucket}/{key}"
    try:
        event = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        data_map = event["data_map"]
    except (BotoCoreError, ClientError, ValueError, KeyError, TypeError) as error:
        raise PartitionError(f"{place}: expected the run's event with a data_map, got {error!r}") from error
    if not isinstance(data_map, Mapping):
        raise PartitionError(f"{place}: data_map must be a JSON object of ranks and keys, got {data_map!r}")
    return [_keys(data_map.get(str(rank), []), f"{place}: data_map of rank {rank}") for rank in range(world_size)]


def _keys(value: object, name: str) -> list[str]:
    keys = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PartitionError(f"{name}: expected a key or a list of keys, got {value!r}")
    return keys


def download(s3: Any, bucket: str, key: str) -> Partition:
    """Download a partition to a temporary file, read it, and delete the file.

    Raises
    ------
    PartitionError
        The object is missing or is not a partition. The message contains bucket and key.
    """
    name = f"s3://{bucket}/{key}"
    with tempfile.TemporaryDirectory(prefix="partition-") as folder:
        path = Path(folder) / f"partition{PurePosixPath(key).suffix}"
        try:
            s3.download_file(bucket, key, str(path))
        except (BotoCoreError, ClientError) as error:
            raise PartitionError(f"{name}: expected a partition, the download failed: {error}") from error
        return partition.read(path, name)
