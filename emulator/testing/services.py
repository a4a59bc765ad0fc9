"""The servers that worlds use: a rendezvous server, Redis and a local cloud, each started at its first use."""

from __future__ import annotations

import contextlib
import enum
import json
import secrets
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emulator.testing.errors import WorldUsageError
from emulator.testing.rendezvous_process import RendezvousProcess
from rendezvous.options import SECRET_VARIABLE

if TYPE_CHECKING:
    from emulator.cloud import LocalCloud

_START_S = 10.0
_REDIS_POLL_MS = 1
_S3_POLL_MS = 10


class WorldChannel(enum.Enum):
    """A channel, by its name in ``@pytest.mark.fmi(channel=...)``."""

    DIRECT = "direct"
    SHM = "shm"
    REDIS = "redis"
    S3 = "s3"


class MissingServiceError(WorldUsageError):
    """A channel needs a program that is not installed."""


@dataclass(frozen=True)
class Access:
    """How ranks reach each other.

    Attributes
    ----------
    config
        The content of an ``fmi.json``. Not a file: it would remain where the test's process is killed.
    environment
        Their variables.
    """

    config: bytes
    environment: Mapping[str, str]


class Services:
    """Servers of this process, started at their first use and ended by `close`."""

    def __init__(self) -> None:
        self._started = ExitStack()
        self._rendezvous: dict[bool, RendezvousProcess] = {}
        self._redis_port: int | None = None
        self._cloud: LocalCloud | None = None
        self._s3: Any = None
        self._bucket = f"fmi-world-{uuid.uuid4().hex[:12]}"

    def rendezvous(self, *, framed: bool) -> RendezvousProcess:
        """Return the rendezvous server: raw ranks have one without a secret, which they could not prove."""
        if framed not in self._rendezvous:
            self._rendezvous[framed] = server = RendezvousProcess(secrets.token_hex(32) if framed else "")
            self._started.callback(server.close)
        return self._rendezvous[framed]

    @property
    def cloud(self) -> LocalCloud:
        """The local cloud."""
        if self._cloud is None:
            # moto and the zygote take most of a second: a world over Direct needs neither.
            from emulator.cloud import LocalCloud

            self._cloud = self._started.enter_context(LocalCloud())
        return self._cloud

    def access(
        self, channel: WorldChannel, framed: bool, max_timeout_s: float, rendezvous: RendezvousProcess | None = None
    ) -> Access:
        """Return how ranks reach each other over one channel, and start what it needs.

        Parameters
        ----------
        channel
            The channel.
        framed
            Whether messages have headers.
        max_timeout_s
            The longest wait for a rank, s.
        rendezvous
            The rendezvous server; by default the one that all such worlds share.

        Raises
        ------
        MissingServiceError
            If a program that it needs is missing.
        WorldUsageError
            If the channel has no mode without headers.
        """
        if channel is WorldChannel.SHM and not framed:
            raise WorldUsageError("invalid framed=False for channel shm: expected True, shared memory has headers only")
        server = rendezvous or self.rendezvous(framed=framed)
        environment = {"FMI_RENDEZVOUS": server.address, SECRET_VARIABLE: server.secret, "FMI_CHANNEL": "network"}
        host, _, port = server.address.rpartition(":")
        name, backend = "Direct", {"host": host, "port": port}
        if channel is WorldChannel.SHM:
            environment["FMI_CHANNEL"] = "shm"
        elif channel is WorldChannel.REDIS:
            name, backend = "Redis", {"host": "127.0.0.1", "port": str(self._redis()), "timeout": str(_REDIS_POLL_MS)}
        elif channel is WorldChannel.S3:
            name, backend = "S3", {"bucket_name": self._s3_bucket(), "timeout": str(_S3_POLL_MS)}
            environment |= self._s3_environment()
        backend |= {"enabled": "true", "framed": str(framed).lower(), "max_timeout": str(round(max_timeout_s * 1000))}
        return Access(json.dumps({"backends": {name: backend}}).encode(), environment)

    def close(self) -> None:
        """End all servers."""
        self._started.close()

    def _redis(self) -> int:
        if self._redis_port is None:
            self._redis_port = self._start_redis()
        return self._redis_port

    def _start_redis(self) -> int:
        try:
            import redis as _client  # noqa: F401 - the library needs it
        except ImportError:
            raise MissingServiceError(
                "channel redis: the package redis is missing: pip install 'fmi-emulator[redis]'"
            ) from None
        program = shutil.which("redis-server")
        if program is None:
            raise MissingServiceError(
                "channel redis: the program redis-server is missing: for example apt-get install redis-server"
            )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        # It ends with this process, even if that is killed: its standard input ends.
        watch = f'"{program}" --bind 127.0.0.1 --port {port} --save "" --appendonly no & cat; kill $!; wait'
        server = subprocess.Popen(  # noqa: S603 - a program found above, and a number
            ["/bin/sh", "-c", watch], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self._started.callback(_end_by_input, server)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return port
            time.sleep(0.01)
        raise WorldUsageError(f"channel redis: redis-server did not listen within {_START_S:g} s: check that it starts")

    def _s3_bucket(self) -> str:
        """Return the bucket. It is created again each time: a reset of the cloud deletes it."""
        if self._s3 is None:
            self._s3 = self.cloud.client("s3")
            self._started.callback(self._s3.close)
        self._s3.create_bucket(Bucket=self._bucket)
        return self._bucket

    def _s3_environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.cloud.endpoint_url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **self.cloud.credentials.environment(),
        }


def _end_by_input(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None  # noqa: S101 - a pipe was asked for
    server.stdin.close()
    server.wait()
