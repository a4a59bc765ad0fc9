"""Where files are written: a folder, or a prefix of an S3 bucket."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from inference.errors import PartitionError

SCHEME = "s3://"


class Destination(Protocol):
    """A place for the files of one data set."""

    def prepare(self, count: int, suffix: str, size: int) -> None:
        """Check that there is nothing but partitions 1 to ``count``, and that ``size`` bytes fit, if this is known.

        Raises
        ------
        PartitionError
            One of these is not so.
        """

    def save(self, name: str, write: Callable[[Path], None]) -> str:
        """Store what ``write`` writes to the path that it is given; return the location for messages."""


class Folder:
    """A local folder, which is created if it does not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self, count: int, suffix: str, size: int) -> None:
        """See `Destination`."""
        self._path.mkdir(parents=True, exist_ok=True)
        _refuse_others(str(self._path), [path.name for path in self._path.iterdir()], count, suffix)
        replaced = sum(path.stat().st_size for path in self._path.glob(f"*{suffix}"))
        free = shutil.disk_usage(self._path).free + replaced
        if size > free:
            raise PartitionError(
                f"{self._path}: expected {size / 1e9:.3g} GB of free space, got {free / 1e9:.3g} GB: choose another "
                "folder, or a smaller set"
            )

    def save(self, name: str, write: Callable[[Path], None]) -> str:
        """See `Destination`."""
        write(self._path / name)
        return str(self._path / name)


class BucketPrefix:
    """A prefix of an existing bucket; files pass through one temporary file at a time."""

    def __init__(self, s3: Any, bucket: str, prefix: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def __str__(self) -> str:
        return f"{SCHEME}{self._bucket}/{self._prefix}"

    def prepare(self, count: int, suffix: str, size: int) -> None:
        """See `Destination`; S3 has no limit of the size."""
        try:
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        except (BotoCoreError, ClientError) as error:
            raise PartitionError(
                f"{self}: expected an existing bucket, listing it failed: {error}; create it with `aws s3 mb`, and set "
                "AWS_ENDPOINT_URL for a local cloud"
            ) from error
        _refuse_others(str(self), [key.removeprefix(self._prefix) for key in keys], count, suffix)

    def save(self, name: str, write: Callable[[Path], None]) -> str:
        """See `Destination`."""
        with tempfile.TemporaryDirectory(prefix="partition-") as folder:
            path = Path(folder) / name
            write(path)
            try:
                self._s3.upload_file(str(path), self._bucket, self._prefix + name)
            except (BotoCoreError, ClientError) as error:
                raise PartitionError(f"{self}{name}: the upload failed: {error}") from error
        return f"{self}{name}"


def open_destination(place: str | Path) -> Destination:
    """Return the destination that a path or an s3:// URL names.

    Raises
    ------
    PartitionError
        The URL names no bucket.
    """
    text = str(place)
    if not text.startswith(SCHEME):
        return Folder(Path(text))
    bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise PartitionError(f"invalid destination {text!r}: expected s3://BUCKET/PREFIX")
    import boto3  # takes a quarter of a second, and a folder does not need it

    return BucketPrefix(boto3.client("s3"), bucket, prefix)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whose folder is created; a reader finds the old file or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _refuse_others(place: str, present: Iterable[str], count: int, suffix: str) -> None:
    unexpected = sorted(
        name for name in present if name.endswith((".pt", ".safetensors")) and not _is_expected(name, count, suffix)
    )
    if unexpected:
        raise PartitionError(
            f"{place}: contains other partitions ({', '.join(unexpected[:5])}): delete them or choose another place"
        )


def _is_expected(name: str, count: int, suffix: str) -> bool:
    number = name.removesuffix(suffix)
    return name.endswith(suffix) and number.isascii() and number.isdigit() and 1 <= int(number) <= count
