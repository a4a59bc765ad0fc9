"""The first function of a run: makes one payload per rank, and ``payload.json``, which maps data files to ranks."""

import json
import os
from collections.abc import Sequence
from typing import Any

import boto3

PAYLOAD_KEY = "payload.json"
# Key of the ranks' payloads, if the state machine reads them from S3 instead of from the answer.
RANKS_KEY = "ranks.json"
RANKS_IN_S3 = "RANKS_IN_S3"


def handler(event: dict[str, Any], context: object = None) -> dict[str, Any]:
    """Return the ranks' payloads, and write them, the event and its data map to the bucket.

    Parameters
    ----------
    event
        The state machine's input, in either published generation: ``bucket``, ``S3_object_name`` and ``script``;
        ``world_size``, or as many ranks as there are data files; and for the data ``data_path``, or
        ``data_bucket`` with ``data_prefix`` and ``file_limit``. Numbers may be strings.
    context
        Not used.

    Returns
    -------
    dict
        ``statusCode`` 200 and ``body``, a list with one payload a rank; where the environment has ``RANKS_IN_S3``,
        the ``S3_BUCKET`` and ``S3_KEY`` of that list, for a Map whose ItemReader takes them from there.
    """
    s3 = boto3.client("s3")
    keys = _data_keys(s3, event)
    world_size = int(event.get("world_size") or len(keys))
    if world_size < 1:
        raise ValueError(
            f"invalid world_size {event.get('world_size')!r} with {len(keys)} data files: expected at least 1 rank; "
            "give world_size, or a data_prefix that has files"
        )
    data_map = assign(keys, world_size)
    body = [rank_payload(event, rank, world_size, data_map[str(rank)]) for rank in range(world_size)]
    s3.put_object(
        Bucket=event["bucket"],
        Key=PAYLOAD_KEY,
        Body=json.dumps({**event, "data_map": data_map, "body": body}).encode(),
        ContentType="application/json",
    )
    if not os.environ.get(RANKS_IN_S3):
        return {"statusCode": 200, "body": body}
    s3.put_object(Bucket=event["bucket"], Key=RANKS_KEY, Body=json.dumps(body).encode(), ContentType="application/json")
    return {"statusCode": 200, "body": {"S3_BUCKET": event["bucket"], "S3_KEY": RANKS_KEY}}


def assign(keys: list[str], world_size: int) -> dict[str, list[str]]:
    """Distribute data files to the ranks in contiguous blocks, as the published function does.

    The numbers of files differ by at most one; the first ranks have the larger blocks. A rank may have none.

    Parameters
    ----------
    keys
        The files' S3 keys.
    world_size
        Number of ranks.

    Returns
    -------
    dict
        Rank, as a string, to its keys.
    """
    size, more = divmod(len(keys), world_size)
    starts = [rank * size + min(rank, more) for rank in range(world_size + 1)]
    return {str(rank): keys[starts[rank] : starts[rank + 1]] for rank in range(world_size)}


def rank_payload(event: dict[str, Any], rank: int, world_size: int, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return the event of one rank's *execute*, with the names of the environment variables of programs.

    DATA_PATH is the event's ``data_path``; without one, the key of the rank's only file as text, or the list of them.
    """
    own_data = keys[0] if len(keys) == 1 else list(keys)
    return {
        "S3_BUCKET": event["bucket"],
        "S3_OBJECT_NAME": event["S3_object_name"],
        "SCRIPT": event["script"],
        "SCRIPT_ARGUMENTS": event.get("script_arguments", []),
        "S3_OBJECT_TYPE": event.get("object_type", "folder"),
        "WORLD_SIZE": str(world_size),
        "RANK": str(rank),
        "DATA_BUCKET": event.get("data_bucket", event["bucket"]),
        "DATA_PREFIX": event.get("data_prefix", ""),
        "DATA_PATH": event.get("data_path") or own_data or "",
        "RESULT_PATH": event.get("result_path", ""),
        "BATCH_SIZE": str(event.get("batch_size", "")),
        **({"SCRIPT_MODULE": event["script_module"]} if event.get("script_module") else {}),
        **({"SCRIPT_ENVIRONMENT": event["script_environment"]} if event.get("script_environment") else {}),
        **({"CONSOLE": event["console"]} if event.get("console") and rank == 0 else {}),
    }


def _data_keys(s3: Any, event: dict[str, Any]) -> list[str]:
    if "data_prefix" not in event:
        return []
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=event.get("data_bucket", event["bucket"]), Prefix=event["data_prefix"]
    )
    keys = [found["Key"] for page in pages for found in page.get("Contents", []) if not found["Key"].endswith("/")]
    # S3 lists 10.pt before 2.pt. The published function takes the files in this order, on which file_limit depends.
    limit = int(event.get("file_limit") or len(keys))
    return keys[:limit]
