"""Content-addressed uploads: a program's files are uploaded once, whatever program or run they belong to.

A blob is a file's content at the SHA-256 of it. A manifest lists the paths and digests of a program, at the digest of
that list. S3 deletes manifests after 30 days and blobs after 90; a blob that is older than 30 days is uploaded again
when a new manifest names it, so it outlives the manifest.
"""

import datetime
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from emulator.fmi.bundle import UploadedFile
from emulator.fmi.functions.initialize import BLOBS, MANIFESTS

DATA = "cache/data/"
_THREADS = 16
_FRESH = datetime.timedelta(days=30)
# A manifest that S3 may delete while the run starts is written again.
_MANIFEST_FRESH = datetime.timedelta(days=20)
_NOT_FOUND = 404
# S3 copies larger objects in parts.
_LARGEST_COPY = 5 * 1024**3


@dataclass(frozen=True)
class Uploaded:
    """What an upload made of files.

    Parameters
    ----------
    digest
        The digest of their paths and contents.
    count, size
        Number of files that were uploaded since they were not there, and their bytes.
    """

    digest: str
    count: int
    size: int


def upload_program(s3: Any, bucket: str, files: Sequence[UploadedFile]) -> Uploaded:
    """Upload what is missing of a program, and its manifest.

    Parameters
    ----------
    s3
        boto3 client of S3.
    bucket
        The bucket.
    files
        The files; their keys are their paths in the program.

    Returns
    -------
    Uploaded
        The digest of the manifest. Where it was known, S3 received one request in total.
    """
    contents = {file.key: file.read() for file in files}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = json.dumps(digests, sort_keys=True).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    key = f"{MANIFESTS}{digest}.json"
    if _is_there(s3, bucket, key, _MANIFEST_FRESH):
        return Uploaded(digest, 0, 0)
    count, size = _put_missing(s3, bucket, {BLOBS + digests[name]: contents[name] for name in contents})
    s3.put_object(Bucket=bucket, Key=key, Body=manifest)
    return Uploaded(digest, count, size)


def upload_data(s3: Any, bucket: str, files: Sequence[UploadedFile]) -> Uploaded:
    """Upload what is missing of data, each file below a prefix with the digest of all; see `data_prefix`."""
    digests = {}
    for file in files:
        with file.path.open("rb") as opened:
            digests[file.path.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    digest = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    mark = f"{DATA}{digest}.complete"
    if _is_there(s3, bucket, mark, _FRESH):
        return Uploaded(digest, 0, 0)
    prefix = data_prefix(digest)

    def put(file: UploadedFile) -> int:
        blob = BLOBS + digests[file.path.name]
        is_new = not _is_there(s3, bucket, blob, _FRESH)
        if is_new:
            # In parts, each of which is tried again by itself.
            s3.upload_file(str(file.path), bucket, blob)
        size = file.path.stat().st_size
        source = {"Bucket": bucket, "Key": blob}
        if size <= _LARGEST_COPY:
            s3.copy_object(CopySource=source, Bucket=bucket, Key=prefix + file.path.name)
        else:
            s3.copy(source, bucket, prefix + file.path.name)
        return size if is_new else -1

    with ThreadPoolExecutor(_THREADS) as threads:
        sizes = [size for size in threads.map(put, files) if size >= 0]
    s3.put_object(Bucket=bucket, Key=mark, Body=b"")
    return Uploaded(digest, len(sizes), sum(sizes))


def data_prefix(digest: str) -> str:
    """Return the prefix of data with this digest."""
    return f"{DATA}{digest}/"


def _put_missing(s3: Any, bucket: str, contents: dict[str, bytes]) -> tuple[int, int]:
    def put(key: str) -> int:
        if _is_there(s3, bucket, key, _FRESH):
            return -1
        s3.put_object(Bucket=bucket, Key=key, Body=contents[key])
        return len(contents[key])

    with ThreadPoolExecutor(_THREADS) as threads:
        sizes = [size for size in threads.map(put, contents) if size >= 0]
    return len(sizes), sum(sizes)


def _is_there(s3: Any, bucket: str, key: str, fresh: datetime.timedelta) -> bool:
    """Return whether an object exists and is so fresh that S3 will not delete it soon."""
    try:
        found = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != _NOT_FOUND:
            raise
        return False
    return bool(datetime.datetime.now(datetime.UTC) - found["LastModified"] < fresh)
