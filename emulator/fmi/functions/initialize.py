"""The first function of a run: makes one payload per rank, and ``payload.json``, which maps data files to ranks."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.exceptions import ClientError

PAYLOAD_KEY = "payload.json"
# Key of the ranks' payloads, if the state machine reads them from S3 instead of from the answer.
RANKS_KEY = "ranks.json"
RANKS_IN_S3 = "RANKS_IN_S3"
# What all ranks' payloads have in common, below the prefix of a run.
COMMON_KEY = "common.json"
# Programs by the digest of their manifest, in which each file has the digest of its content.
MANIFESTS, BLOBS, PROGRAMS = "cache/manifests/", "cache/blobs/", "cache/programs/"
# Step Functions runs as many iterations of an inline Map at once.
INLINE_RANKS = 40
# Its states pass at most 256 KiB to each other.
_INLINE_CHARACTERS = 200_000
# What the payloads of a run's ranks do not have in common.
_OF_RANK = ("RANK", "DATA_PATH")
_DOWNLOADS = 32
# With a constant date, equal programs give equal archives.
_DATE = (2020, 1, 1, 0, 0, 0)
_EXECUTABLE = 0o755 << 16


# The data of a rank as published functions and programs have it: the key of its only file as text, several keys as a
# list, or None.
DataPath = str | list[str] | None


class DamagedProgramError(Exception):
    """A file of the program is not in S3, or has another content than its manifest says."""


def handler(event: dict[str, Any], context: object = None) -> dict[str, Any]:
    """Return the ranks' payloads, and write them, the event and its data map to the bucket.

    Parameters
    ----------
    event
        The state machine's input, in either published generation: ``bucket``, ``S3_object_name`` and ``script``;
        ``world_size``, or as many ranks as there are data files; and for the data ``data_path``, or
        ``data_bucket`` with ``data_prefix`` and ``file_limit``. Numbers may be strings. Or the ``bucket`` and the
        ``run_prefix`` of a run whose event is in S3 below that prefix.
    context
        Not used.

    Returns
    -------
    dict
        ``statusCode`` 200 and ``body``, a list with one payload a rank; where the environment has ``RANKS_IN_S3``,
        the ``S3_BUCKET`` and ``S3_KEY`` of that list, for a Map whose ItemReader takes them from there. Of a run, what
        the deployed state machine needs.
    """
    s3 = boto3.client("s3")
    if "run_prefix" in event:
        return _initialize_run(s3, event["bucket"], event["run_prefix"])
    body, data_map = _distribute(s3, event)
    _put_json(s3, event["bucket"], PAYLOAD_KEY, {**event, "data_map": data_map, "body": body})
    if not os.environ.get(RANKS_IN_S3):
        return {"statusCode": 200, "body": body}
    _put_json(s3, event["bucket"], RANKS_KEY, body)
    return {"statusCode": 200, "body": {"S3_BUCKET": event["bucket"], "S3_KEY": RANKS_KEY}}


def _distribute(s3: Any, event: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, DataPath]]:
    """Return the payload of each rank, and the data map in the published form."""
    keys = _data_keys(s3, event)
    world_size = int(event.get("world_size") or len(keys))
    if world_size < 1:
        raise ValueError(
            f"invalid world_size {event.get('world_size')!r} with {len(keys)} data files: expected at least 1 rank; "
            "give world_size, or a data_prefix that has files"
        )
    blocks = assign(keys, world_size)
    body = [rank_payload(event, rank, world_size, blocks[str(rank)]) for rank in range(world_size)]
    return body, {rank: data_path(block) for rank, block in blocks.items()}


def _initialize_run(s3: Any, bucket: str, prefix: str) -> dict[str, Any]:
    """Write what the ranks of a run need below its prefix. Only places in S3 go through Step Functions' history."""
    event = json.loads(s3.get_object(Bucket=bucket, Key=f"{prefix}event.json")["Body"].read())
    build_program(s3, bucket, event["manifest"])
    body, data_map = _distribute(s3, event)
    world_size = len(body)
    common = {name: value for name, value in body[0].items() if name not in _OF_RANK}
    of_run = {"S3_OBJECT_NAME": f"{PROGRAMS}{event['manifest']}.zip", "PAYLOAD_KEY": f"{prefix}{PAYLOAD_KEY}"}
    _put_json(s3, bucket, f"{prefix}{COMMON_KEY}", {**common, **of_run, **event["rank_variables"]})
    _put_json(s3, bucket, f"{prefix}{PAYLOAD_KEY}", {**event, "world_size": world_size, "data_map": data_map})
    # Where published programs look for it.
    _put_json(s3, bucket, PAYLOAD_KEY, {**event, "world_size": world_size, "data_map": data_map})
    ranks = [
        {
            "S3_BUCKET": bucket,
            "RUN_PREFIX": prefix,
            "WORLD_SIZE": str(world_size),
            **{name: own[name] for name in _OF_RANK},
        }
        for own in body
    ]
    is_inline = world_size <= INLINE_RANKS and len(json.dumps(ranks)) <= _INLINE_CHARACTERS
    if not is_inline:
        _put_json(s3, bucket, prefix + RANKS_KEY, ranks)
    return {
        "is_inline": is_inline,
        "body": ranks if is_inline else [],
        "ranks_key": prefix + RANKS_KEY,
        "event": {
            "bucket": bucket,
            "run_prefix": prefix,
            "world_size": world_size,
            "result_path": event.get("result_path", "") if event.get("merge", True) else "",
        },
    }


def build_program(s3: Any, bucket: str, digest: str) -> None:
    """Make one archive of a program's files, unless there is one: each rank then downloads one object.

    Parameters
    ----------
    s3
        boto3 client of S3.
    bucket
        The bucket.
    digest
        The digest of the program's manifest, a JSON object of paths and the SHA-256 of their contents.

    Raises
    ------
    DamagedProgramError
        If a file is missing, or its content has another digest.
    """
    key = f"{PROGRAMS}{digest}.zip"
    if s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("KeyCount"):
        return
    manifest: Mapping[str, str] = json.loads(
        s3.get_object(Bucket=bucket, Key=f"{MANIFESTS}{digest}.json")["Body"].read()
    )

    def read(name: str) -> bytes:
        try:
            content: bytes = s3.get_object(Bucket=bucket, Key=BLOBS + manifest[name])["Body"].read()
        except ClientError as error:
            raise DamagedProgramError(f"{name} is not in s3://{bucket}/{BLOBS}: {error}: start the run again") from None
        if hashlib.sha256(content).hexdigest() != manifest[name]:
            raise DamagedProgramError(f"{name} in s3://{bucket}/{BLOBS}{manifest[name]} was changed: delete the object")
        return content

    buffer = io.BytesIO()
    with ThreadPoolExecutor(_DOWNLOADS) as threads, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in zip(sorted(manifest), threads.map(read, sorted(manifest)), strict=True):
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = _EXECUTABLE
            archive.writestr(info, content)
    s3.put_object(Bucket=bucket, Key=key, Body=buffer.getvalue())


def _put_json(s3: Any, bucket: str, key: str, value: object) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(value).encode(), ContentType="application/json")


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


def data_path(keys: Sequence[str]) -> DataPath:
    """Return a rank's keys in the published form."""
    return None if not keys else keys[0] if len(keys) == 1 else list(keys)


def rank_payload(event: dict[str, Any], rank: int, world_size: int, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return the event of one rank's *execute*, with the names of the environment variables of programs.

    DATA_PATH is the event's ``data_path``; without one, the key of the rank's only file as text, or the list of them.
    """
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
        "DATA_PATH": event.get("data_path") or data_path(keys) or "",
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
