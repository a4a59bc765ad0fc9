"""torch's key-value store in a bucket of S3, and the rendezvous of torch.distributed that uses it in a run."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from fmi_shim.backoff import pauses
from fmi_shim.config import RENDEZVOUS_VARIABLE

_LONGEST_LOOK_S = 0.1
"""Longest pause between two looks at the store."""
_rendezvous_count = itertools.count()
"""How often this process initialised torch.distributed: each time with a store of its own."""


class S3Store(Store):
    """torch's key-value store in a bucket, for ranks that can connect to no other rank's port, such as Lambdas.

    Parameters
    ----------
    client
        boto3 client of S3.
    bucket, prefix
        Where the entries are stored, an object each.
    timeout
        How long `get` and `wait` wait for an entry.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, timeout: timedelta = timedelta(minutes=5)) -> None:
        super().__init__()
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._timeout = timeout

    def set(self, key: str, value: str | bytes) -> None:
        """Store a value."""
        self._put(key, _encoded(value))

    def get(self, key: str) -> bytes:
        """Return a value; wait until it is stored.

        Raises
        ------
        DistStoreError
            If it is not stored within the time limit.
        """
        self.wait([key], self._timeout)
        found = self._found(key)
        if found is None:
            raise dist.DistStoreError(f"key {key!r} was deleted while it was read")
        return found[0]

    def add(self, key: str, amount: int) -> int:
        """Add to a number, 0 if there is none yet; return the sum."""
        while True:
            found = self._found(key)
            total = int(found[0]) + amount if found else amount
            if self._put_if(key, str(total).encode(), found[1] if found else None):
                return total

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        """Store `desired` if the value is `expected`, or if there is none and `expected` is empty; return the value."""
        while True:
            found = self._found(key)
            current = found[0] if found else b""
            if current != _encoded(expected):
                return current if found else _encoded(expected)
            if self._put_if(key, _encoded(desired), found[1] if found else None):
                return _encoded(desired)

    def check(self, keys: list[str]) -> bool:
        """Return whether all keys are stored."""
        return all(self._found(key) is not None for key in keys)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Wait until all keys are stored.

        Raises
        ------
        DistStoreError
            If they are not stored within the time limit.
        """
        seconds = (timeout or self._timeout).total_seconds()
        end = time.monotonic() + seconds
        for pause in pauses(_LONGEST_LOOK_S):
            missing = [key for key in keys if self._found(key) is None]
            if not missing:
                return
            if time.monotonic() >= end:
                raise dist.DistStoreError(f"keys {missing} not stored within {seconds:g} s: check that all ranks run")
            time.sleep(pause)

    def delete_key(self, key: str) -> bool:
        """Delete a value; return whether there was one."""
        existed = self._found(key) is not None
        self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)
        return existed

    def num_keys(self) -> int:
        """Return the number of keys."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        return sum(page.get("KeyCount", 0) for page in pages)

    @property
    def timeout(self) -> timedelta:
        """How long `get` waits."""
        return self._timeout

    def set_timeout(self, timeout: timedelta) -> None:
        """Set how long `get` waits."""
        self._timeout = timeout

    def _found(self, key: str) -> tuple[bytes, str] | None:
        """Return a value and its ETag."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        except self._client.exceptions.NoSuchKey:
            return None
        return found["Body"].read(), found["ETag"]

    def _put(self, key: str, value: bytes, **condition: str) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=value, **condition)

    def _put_if(self, key: str, value: bytes, etag: str | None) -> bool:
        """Store a value if the present one has this ETag, or if there is none; return whether it was stored."""
        try:
            self._put(key, value, **({"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}))
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"):
                return False
            raise
        return True


def _encoded(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def rendezvous_in_s3(
    otherwise: Callable[..., Iterator[tuple[Store, int, int]]], url: str, **settings: Any
) -> Iterator[tuple[Store, int, int]]:
    """Give the ranks of a run a store in its bucket; do as torch's ``env://`` where the environment is not a run's."""
    environment = os.environ
    if environment.get("MASTER_ADDR") or not (environment.get("S3_BUCKET") and environment.get(RENDEZVOUS_VARIABLE)):
        yield from otherwise(url, **settings)
        return
    import boto3

    job = environment.get("FMI_JOB", "")
    prefix = f"torch-store/{job}/{next(_rendezvous_count)}/"
    store = S3Store(boto3.client("s3"), environment["S3_BUCKET"], prefix)
    yield store, int(environment["RANK"]), int(environment["WORLD_SIZE"])
