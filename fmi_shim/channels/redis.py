"""Objects as the string values of a Redis server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import cast

from fmi_shim.channels.store import Content
from fmi_shim.config import RedisConfig
from fmi_shim.errors import ConfigError, StoreError

_AT_ONCE = 1000


class RedisStore:
    """A Redis server. Implements `Store`.

    Many objects are written or read in one round trip. A value is at most 512 MB, which is Redis's limit.

    Raises
    ------
    ConfigError
        If the ``redis`` package is not installed.
    """

    def __init__(self, config: RedisConfig) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise ConfigError(
                f"backends.Redis is enabled and chosen, but {error}: pip install 'fmi-emulator[redis]'"
            ) from error
        self.name = f"Redis at {config.host}:{config.port}"
        self._error = redis.RedisError
        # A write that is sent again because its answer was lost would find its own object.
        self._client = redis.Redis(
            config.host,
            config.port,
            socket_timeout=config.max_timeout,
            socket_connect_timeout=config.max_timeout,
            retry=Retry(NoBackoff(), 0),
        )

    def put(self, objects: Mapping[str, Content]) -> list[str]:
        """Write objects with SET NX in one pipeline; see `Store`."""
        with self._told("write", objects), self._client.pipeline(transaction=False) as pipeline:
            for key, content in objects.items():
                pipeline.set(key, content, nx=True)
            return [key for key, new in zip(objects, pipeline.execute(), strict=True) if not new]

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read objects with one MGET; see `Store`."""
        with self._told("read", keys):
            return cast("list[bytes | None]", self._client.mget(keys))  # typed as if it might be asynchronous

    def present(self, keys: AbstractSet[str], prefix: str) -> set[str]:
        """Ask with EXISTS in one pipeline: unlike FMI's KEYS it does not go through the whole server; see `Store`."""
        with self._told("look for", sorted(keys)), self._client.pipeline(transaction=False) as pipeline:
            asked = list(keys)
            for key in asked:
                pipeline.exists(key)
            return {key for key, there in zip(asked, pipeline.execute(), strict=True) if there}

    def delete(self, keys: Sequence[str]) -> None:
        """Delete with DEL; see `Store`."""
        with self._told("delete", keys):
            for start in range(0, len(keys), _AT_ONCE):
                self._client.delete(*keys[start : start + _AT_ONCE])

    def close(self) -> None:
        """Close the connection; see `Store`."""
        self._client.close()

    @contextmanager
    def _told(self, action: str, keys: Sequence[str] | Mapping[str, Content]) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise StoreError(f"{self.name}: cannot {action} {next(iter(keys))!r}: {error}") from error
