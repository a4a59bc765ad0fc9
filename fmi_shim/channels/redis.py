"""Objects as the string values of a Redis server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

from fmi_shim.channels.objects import Content
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

    def keys(self, prefix: str) -> set[str]:
        """List with SCAN, which unlike FMI's KEYS does not stop the server; see `Store`."""
        with self._told("list", [prefix]):
            found = self._client.scan_iter(_literally(prefix) + "*", _AT_ONCE)
            return {key.decode(errors="replace") for key in found}

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


def _literally(text: str) -> str:
    """Return a pattern for SCAN that matches `text` alone."""
    return "".join(f"\\{character}" if character in "*?[\\" else character for character in text)
