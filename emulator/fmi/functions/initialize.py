"""The first function of a run: one payload a rank, and the map of the data to the ranks in ``payload.json``."""

import json
import os
from typing import Any

import boto3

PAYLOAD_KEY = "payload.json"
# Where the ranks' payloads go, when the state machine reads them from S3 instead of the answer.
RANKS_KEY = "ranks.json"
RANKS_IN_S3 = "RANKS_IN_S3"


def handler(event: dict[str, Any], context: object = None) -> dict[str, Any]:
    """Answer with the ranks' payloads, and write them, the event and its data map into the bucket.

    Parameters
    ----------
    event
        The state machine's input, in either published generation: ``bucket``, ``S3_object_name`` and ``script``;
        ``world_size``, or as many ranks as there are data files; and for the data ``data_path``, or
        ``data_bucket`` with ``data_prefix`` and ``file_limit``. Numbers may be texts.
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
            f"world_size: expected at least 1, got {event.get('world_size')!r} with {len(keys)} data files; "
            "give world_size, or a data_prefix below which there are files"
        )
    data_map = assign(keys, world_size)
    body = [rank_payload(event, rank, world_size) for rank in range(world_size)]
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
    """Deal data files out to the ranks in turn: their numbers differ by one at most.

    Parameters
    ----------
    keys
        The files' S3 keys.
    world_size
        Number of ranks.

    Returns
    -------
    dict
        Rank, as text, to its keys.
    """
    return {str(rank): keys[rank::world_size] for rank in range(world_size)}


def rank_payload(event: dict[str, Any], rank: int, world_size: int) -> dict[str, Any]:
    """Return the event of one rank's *execute*, with the names that programs find in their environment."""
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
        "DATA_PATH": event.get("data_path", ""),
        "RESULT_PATH": event.get("result_path", ""),
        "BATCH_SIZE": str(event.get("batch_size", "")),
    }


def _data_keys(s3: Any, event: dict[str, Any]) -> list[str]:
    if "data_prefix" not in event:
        return []
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=event.get("data_bucket", event["bucket"]), Prefix=event["data_prefix"]
    )
    keys = [found["Key"] for page in pages for found in page.get("Contents", []) if not found["Key"].endswith("/")]
    # 2.pt comes before 10.pt.
    keys.sort(key=lambda key: (len(key), key))
    limit = int(event.get("file_limit") or len(keys))
    return keys[:limit]
