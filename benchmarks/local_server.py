"""A rendezvous server of its own for a measurement."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running ``fmi-rendezvous``."""

    host: str
    port: int
    pid: int

    def write_config(self, path: Path, max_timeout: int = 60_000) -> None:
        """Write an ``fmi.json`` for framed ranks that meet here; `max_timeout` in ms."""
        direct = {"enabled": True, "host": self.host, "port": self.port, "max_timeout": max_timeout, "framed": True}
        path.write_text(json.dumps({"backends": {"Direct": direct}}))


@contextmanager
def running_server() -> Iterator[LocalServer]:
    """Run a server on a free port until the block ends."""
    command = [sys.executable, "-m", "rendezvous", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as server:
        try:
            assert server.stdout is not None
            host, _, port = server.stdout.readline().split()[-1].rpartition(":")
            yield LocalServer(host, int(port), server.pid)
        finally:
            server.terminate()
