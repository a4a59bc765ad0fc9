"""Objects in an S3 bucket, of AWS or of the endpoint in ``AWS_ENDPOINT_URL``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

from fmi_shim.config import S3Config
from fmi_shim.errors import ConfigError, StoreError
from fmi_shim.transports.objects.store import Content
from fmi_shim.transports.objects.timing import S3_FAILURE_RECORD

Result = TypeVar("Result")

_THREADS = 16
"""Concurrent requests: a request is tens of milliseconds of waiting and little work."""

_DELETE_BATCH = 1000  # DeleteObjects' limit


class S3Store:
    """A bucket, strongly consistent (AWS S3 is since December 2020). Implements `Store`.

    boto3 is imported here, and finds credentials and endpoint as usual. A written object is copied once, since
    boto3 needs bytes.

    Raises
    ------
    ConfigError
        If boto3 is not installed, or rejects the settings.
    """

    detects_absence = False

    def __init__(self, config: S3Config) -> None:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise ConfigError(f"backends.S3 is enabled and chosen, but {error}: pip install boto3") from error
        self.name = f"S3 bucket {config.bucket_name!r}"
        self._bucket = config.bucket_name
        self._client_error = ClientError
        self._errors = (BotoCoreError, ClientError)
        settings = Config(retries={"mode": "standard"}, max_pool_connections=_THREADS)
        try:
            self._client = boto3.client("s3", region_name=config.region, config=settings)
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"backends.S3: boto3 cannot create a client: {error}") from error

    def put(self, objects: Mapping[str, Content]) -> list[str]:
        """Write objects, one conditional PutObject each; see `Store`."""
        written = self._each(lambda item: self._put(*item), list(objects.items()))
        return [key for key, new in zip(objects, written, strict=True) if not new]

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read objects, one GetObject each; see `Store`."""
        return self._each(self._get, keys)

    def present(self, keys: AbstractSet[str], prefix: str) -> set[str]:
        """List, one ListObjectsV2 for every 1000 objects with `prefix`; see `Store`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        try:
            return {found["Key"] for page in pages for found in page.get("Contents", ()) if found["Key"] in keys}
        except self._errors as error:
            raise self._store_error("list", prefix, error) from error

    def delete(self, keys: Sequence[str]) -> None:
        """Delete, one DeleteObjects for every 1000 keys; see `Store`."""
        for start in range(0, len(keys), _DELETE_BATCH):
            batch = keys[start : start + _DELETE_BATCH]
            try:
                response = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            except self._errors as error:
                raise self._store_error("delete", batch[0], error) from error
            for failure in response.get("Errors", ()):
                raise StoreError(f"{self.name}: cannot delete {failure.get('Key')!r}: {failure.get('Message')}")

    def register_presence(self, name: str) -> None:
        """Do nothing: S3 cannot detect that a process ended; see `Store`."""

    def absent(self, names: AbstractSet[str]) -> set[str]:
        """Return none: S3 cannot detect that a process ended; see `Store`."""
        return set()

    def put_temporarily(self, key: str, content: bytes) -> None:
        """Write, sleep while waiting ranks read it, and delete; see `Store`."""
        if self._put(key, content):
            try:
                time.sleep(S3_FAILURE_RECORD)
            finally:
                self.delete([key])

    def close(self) -> None:
        """Close the connections; see `Store`."""
        if "_threads" in self.__dict__:
            self._threads.shutdown()
        self._client.close()

    def _put(self, key: str, content: Content) -> bool:
        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=bytes(content), IfNoneMatch="*")
        except self._client_error as error:
            # boto3 repeats a write whose response was lost, and then finds its own object.
            if _code(error) == "PreconditionFailed":
                return bool(error.response["ResponseMetadata"].get("RetryAttempts"))
            raise self._store_error("write", key, error) from error
        except self._errors as error:
            raise self._store_error("write", key, error) from error
        return True

    def _get(self, key: str) -> bytes | None:
        try:
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except self._client_error as error:
            if _code(error) == "NoSuchKey":
                return None
            raise self._store_error("read", key, error) from error
        except self._errors as error:
            raise self._store_error("read", key, error) from error

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_THREADS, thread_name_prefix="fmi-s3")

    def _each(self, request: Callable[[Any], Result], arguments: Sequence[Any]) -> list[Result]:
        if len(arguments) == 1:
            return [request(arguments[0])]
        return list(self._threads.map(request, arguments))

    def _store_error(self, action: str, key: str, error: Exception) -> StoreError:
        hint = ""
        if isinstance(error, self._client_error) and _code(error) in ("AccessDenied", "403"):
            hint = (
                "; allow s3:GetObject, PutObject, DeleteObject and ListBucket, which a missing object is detected with"
            )
        return StoreError(f"{self.name}: cannot {action} {key!r}: {error}{hint}")


def _code(error: Any) -> str:
    code: str = error.response.get("Error", {}).get("Code", "")
    return code
