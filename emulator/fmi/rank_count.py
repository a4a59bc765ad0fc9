"""How many ranks a pipeline has, and whether there may be more than Lambda runs at once.

A Map queues the ranks above that number, so they start when others have ended. That is right for ranks that work alone.
Ranks that talk to each other wait for those that have not started, and would all time out.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from emulator.aws.limits import CONCURRENT_EXECUTIONS
from emulator.errors import EmulatorError
from emulator.fmi.bundle import UploadedFile
from emulator.fmi.executions.imports import first_import
from emulator.fmi.payload import PipelinePayload

# Modules whose import shows that ranks talk to each other.
_TALKING = ("fmi", "fmilib", "fmi_shim", "torch.distributed")
_SOURCE_BYTES = 2**20


class RankCountError(EmulatorError):
    """There are more ranks than can run."""


def rank_count(s3: Any, payload: PipelinePayload, files: Mapping[str, Sequence[UploadedFile]]) -> int:
    """Return the number of ranks: the payload's ``world_size``, or one per data file up to its ``file_limit``.

    Parameters
    ----------
    s3
        boto3 client of S3.
    payload
        The payload.
    files
        What will be uploaded, by bucket.
    """
    if payload.world_size is not None:
        return payload.world_size
    keys = {file.key for file in files.get(payload.data_bucket, ()) if file.key.startswith(payload.data_prefix)}
    keys |= {key for key in _keys(s3, payload.data_bucket, payload.data_prefix) if not key.endswith("/")}
    return min(len(keys), int(payload.event.get("file_limit") or len(keys)))


def check_rank_count(
    ranks: int, s3: Any, payload: PipelinePayload, files: Mapping[str, Sequence[UploadedFile]]
) -> None:
    """Check that ranks that talk to each other can all run at once.

    Parameters
    ----------
    ranks
        Their number.
    s3, payload, files
        As for `rank_count`. The program is read from the files, or from S3 if it is not among them.

    Raises
    ------
    RankCountError
        There are more, and the program imports a module by which ranks talk.
    """
    if ranks <= CONCURRENT_EXECUTIONS:
        return
    prefix = f"{payload.folder}/"
    sources = {
        file.key: file.read()
        for file in files.get(payload.bucket, ())
        if file.key.startswith(prefix) and _is_source(file.key) and file.path.stat().st_size <= _SOURCE_BYTES
    } or {
        key: s3.get_object(Bucket=payload.bucket, Key=key)["Body"].read(_SOURCE_BYTES)
        for key in _keys(s3, payload.bucket, prefix)
        if _is_source(key)
    }
    found = first_import(sources, prefix + payload.script, payload.folder, _TALKING)
    if found is not None:
        name, module = found
        raise RankCountError(
            f"invalid number of ranks {ranks}: expected at most {CONCURRENT_EXECUTIONS}, since the ranks talk to each "
            f"other ({name.removeprefix(prefix)} imports {module}) and must all run at once, and Lambda runs at most "
            f"{CONCURRENT_EXECUTIONS} functions at once: give several data files to each rank with world_size"
        )


def _is_source(key: str) -> bool:
    return key.endswith(".py")


def _keys(s3: Any, bucket: str, prefix: str) -> list[str]:
    """Return the keys below a prefix; none are in a bucket that does not exist yet."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    try:
        return list(itertools.chain.from_iterable((f["Key"] for f in page.get("Contents", [])) for page in pages))
    except s3.exceptions.NoSuchBucket:
        return []
