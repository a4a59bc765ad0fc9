"""Objects as the string values of a Redis server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any, cast

from fmi_shim.config import RedisConfig
from fmi_shim.errors import ConfigError, StoreError
from fmi_shim.transports.objects.store import Content
from fmi_shim.transports.objects.timing import REDIS_FAILURE_RECORD, REDIS_OBJECT

_DELETE_BATCH = 1000


class RedisStore:
    """A Redis server. Implements `Store`.

    Many objects are written or read in one round trip. A value is at most 512 MB, which is Redis's limit.

    Raises
    ------
    ConfigError
        If the ``redis`` package is not installed.
    """

    detects_absence = True

    def __init__(self, config: RedisConfig) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise ConfigError(
                f"backends.Redis is enabled and chosen, but {error}: pip install 'fmi-emulator[redis]'"
            ) from error
        self._presence: Any = None
        self.name = f"Redis at {config.host}:{config.port}"
        self._error = redis.RedisError
        # No retries: a write that is repeated because its response was lost would find its own object.
        self._client = redis.Redis(
            config.host,
            config.port,
            socket_timeout=config.max_timeout,
            socket_connect_timeout=config.max_timeout,
            retry=Retry(NoBackoff(), 0),
            socket_keepalive=True,
        )

    def put(self, objects: Mapping[str, Content]) -> list[str]:
        """Write objects with SET NX EX in one pipeline: Redis deletes those of a killed rank; see `Store`."""
        with self._errors_of("write", objects), self._client.pipeline(transaction=False) as pipeline:
            for key, content in objects.items():
                pipeline.set(key, content, nx=True, ex=REDIS_OBJECT)
            return [key for key, new in zip(objects, pipeline.execute(), strict=True) if not new]

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read objects with one MGET; see `Store`."""
        with self._errors_of("read", keys):
            return cast("list[bytes | None]", self._client.mget(keys))  # typed as if it might be asynchronous

    def present(self, keys: AbstractSet[str], prefix: str) -> set[str]:
        """Check with EXISTS in one pipeline, which, unlike FMI's KEYS, does not scan the whole server; see `Store`."""
        with self._errors_of("look for", sorted(keys)), self._client.pipeline(transaction=False) as pipeline:
            asked = list(keys)
            for key in asked:
                pipeline.exists(key)
            return {key for key, there in zip(asked, pipeline.execute(), strict=True) if there}

    def delete(self, keys: Sequence[str]) -> None:
        """Delete with DEL; see `Store`."""
        with self._errors_of("delete", keys):
            for start in range(0, len(keys), _DELETE_BATCH):
                self._client.delete(*keys[start : start + _DELETE_BATCH])

    def register_presence(self, name: str) -> None:
        """Subscribe to a channel: the server ends the subscription with the connection; see `Store`.

        Idle subscribers are not disconnected, as other clients may be (redis.conf, ``timeout``).
        """
        with self._errors_of("register as", [name]):
            self._presence = cast("Any", self._client).pubsub()  # without types
            self._presence.subscribe(_channel(name))

    def absent(self, names: AbstractSet[str]) -> set[str]:
        """Read the numbers of subscribers, in one round trip; see `Store`."""
        asked = list(names)
        with self._errors_of("look for", asked):
            counts = cast("list[Any]", self._client.pubsub_numsub(*map(_channel, asked)))
        return {name for name, (_, count) in zip(asked, counts, strict=True) if not count}

    def put_temporarily(self, key: str, content: bytes) -> None:
        """Write with SET NX EX; see `Store`."""
        with self._errors_of("write", [key]):
            self._client.set(key, content, nx=True, ex=REDIS_FAILURE_RECORD)

    def close(self) -> None:
        """Close the connections; see `Store`."""
        if self._presence is not None:
            self._presence.close()
        self._client.close()

    @contextmanager
    def _errors_of(self, action: str, keys: Sequence[str] | Mapping[str, Content]) -> Iterator[None]:
        """Convert an error of the client into a `StoreError` that names the action and the first key."""
        try:
            yield
        except self._error as error:
            raise StoreError(f"{self.name}: cannot {action} {next(iter(keys))!r}: {error}") from error


def _channel(name: str) -> str:
    return f"fmi-present-{name}"
