"""Starts a rendezvous server for a measurement."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path(__file__).resolve().parent.parent
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running ``fmi-rendezvous``."""

    host: str
    port: int
    health_url: str
    process: psutil.Process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def write_config(self, path: Path, max_timeout: int = 60_000) -> None:
        """Write an ``fmi.json`` for framed ranks that use this server; `max_timeout` in ms."""
        direct = {"enabled": True, "host": self.host, "port": self.port, "max_timeout": max_timeout, "framed": True}
        path.write_text(json.dumps({"backends": {"Direct": direct}}))

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def health(self) -> dict[str, int]:
        """Return its health report."""
        with urllib.request.urlopen(f"{self.health_url}/health", timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - http
            found: dict[str, int] = json.load(answer)
            return found

    def settle(self, connections: int = 0) -> None:
        """Wait until it has at most this many connections."""
        end = time.monotonic() + _ANSWER_SECONDS
        while self.health()["connections"] > connections and time.monotonic() < end:
            time.sleep(0.05)


@contextmanager
def running_server(*flags: str) -> Iterator[LocalServer]:
    """Run a server on free loopback ports until the block ends."""
    command = [sys.executable, "-m", "rendezvous", "--port", "0", *flags]
    # In a session of its own: Ctrl-C reaches only the measurement, which stops its server last.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT, start_new_session=True) as server:
        try:
            assert server.stdout is not None
            host, _, port = server.stdout.readline().split()[-1].rpartition(":")
            health_url = server.stdout.readline().split()[-1]
            yield LocalServer(host, int(port), health_url, psutil.Process(server.pid))
        finally:
            server.terminate()
