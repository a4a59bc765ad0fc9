"""S3 through our endpoint side by side with moto's own server and with ministack, on this machine.

Clients are processes with boto3, all against one server at a time; the servers take turns at each case, so that a busy
moment of the machine meets all of them: ratios are to be trusted more than rates. A figure is the median over the
turns. A ratio is ours divided by the other's: above 1, ours is faster. Memory is resident at the end, after all of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config

_KB, _MB = 1000, 1000 * 1000
_SIZES = (_KB, _MB, 25 * _MB, 100 * _MB)
_CLIENTS = (1, 8)
_BUCKET = "bench-bucket"
_SHORT_TURNS = 2
_READY_S = 30.0
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    url: str
    pid: int


@dataclass(frozen=True)
class Case:
    """What is measured: operation, object size in bytes, clients, and calls of each client in a turn."""

    operation: str
    size: int
    clients: int
    calls: int

    def __str__(self) -> str:
        """Return the case's row head."""
        unit, factor = ("MB", _MB) if self.size >= _MB else ("KB", _KB)
        return f"{self.operation} {self.size // factor} {unit}, {self.clients} client{'s' * (self.clients > 1)}"


def cases(*, short: bool) -> list[Case]:
    """Return what is measured: enough calls for a tenth of a second or so; when short, fewer, and no 8 x 100 MB."""
    found = []
    for size in _SIZES:
        for clients in _CLIENTS if not short or size < _SIZES[-1] else _CLIENTS[:1]:
            total = {_KB: 200, _MB: 40, 25 * _MB: 8, 100 * _MB: 8}[size] // (5 if short else 1)
            calls = max(1, total // clients)
            found += [Case(operation, size, clients, calls) for operation in ("put", "get")]
    return found


@contextmanager
def serving(name: str, command: list[str], url: str, environment: dict[str, str]) -> Iterator[Server]:
    """Run a server until the block ends."""
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, **environment},
        ) as process,
    ):
        try:
            host, _, port = url.removeprefix("http://").rpartition(":")
            deadline = time.monotonic() + _READY_S
            while True:
                try:
                    socket.create_connection((host, int(port)), timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise SystemExit(f"{name} did not start: {' '.join(command)}") from None
                    time.sleep(0.1)
            _client(url).create_bucket(Bucket=_BUCKET)
            yield Server(name, url, process.pid)
        finally:
            process.terminate()


def measure(pool: Any, server: Server, case: Case) -> float:
    """Return a server's rate in a case, calls a second."""
    began = time.perf_counter()
    pool.starmap(_work, [(server.url, case, client) for client in range(case.clients)], chunksize=1)
    return case.calls * case.clients / (time.perf_counter() - began)


_clients: dict[str, Any] = {}


def _client(url: str) -> Any:
    if url not in _clients:
        _clients[url] = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - checked nowhere
            config=Config(retries={"total_max_attempts": 1}, read_timeout=120),
        )
    return _clients[url]


def _work(url: str, case: Case, client: int) -> None:
    s3, key = _client(url), f"{case.size}/{client}"
    body = bytes(case.size) if case.operation == "put" else b""
    for _ in range(case.calls):
        if case.operation == "put":
            s3.put_object(Bucket=_BUCKET, Key=key, Body=body)
        else:
            stream = s3.get_object(Bucket=_BUCKET, Key=key)["Body"]
            size = sum(map(len, iter(lambda: stream.read(_PIECE_BYTES), b"")))  # noqa: B023 - used at once
            assert size == case.size


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _launches(moto_server: str | None, ministack: str | None) -> list[Callable[[], Any]]:
    """Return how to start every server that there is; the others are said to be absent."""
    ours = str(Path(sys.executable).with_name("fmi-emulator"))
    found: list[Callable[[], Any]] = []
    for name, path, option in (
        ("ours", ours, ""),
        ("moto", moto_server, "--moto-server"),
        ("ministack", ministack, "--ministack"),
    ):
        if path is None or shutil.which(path) is None:
            print(f"{name} is absent: install it, or name its command with {option} PATH")
            continue
        port = _free_port()
        command = {
            "ours": [path, "serve", "--port", str(port)],
            "moto": [path, "-H", "127.0.0.1", "-p", str(port)],
            "ministack": [path],
        }[name]
        environment = {"GATEWAY_PORT": str(port)} if name == "ministack" else {}
        url = f"http://127.0.0.1:{port}"
        found.append(lambda n=name, c=command, u=url, e=environment: serving(n, c, u, e))  # type: ignore[misc]
    return found


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer turns and calls, under 20 seconds")
    parser.add_argument("--turns", type=int, default=5, help="turns of every case (default %(default)s)")
    beside = Path(sys.executable).with_name("moto_server")
    parser.add_argument("--moto-server", default=str(beside), metavar="PATH", help="default: the one beside Python")
    parser.add_argument("--ministack", default=shutil.which("ministack"), metavar="PATH", help="default: from PATH")
    options = parser.parse_args()
    turns = _SHORT_TURNS if options.short else options.turns
    with ExitStack() as stack:
        servers = [stack.enter_context(launch()) for launch in _launches(options.moto_server, options.ministack)]
        # Each client process is one of the fork server's: clean, and ready before the first measurement.
        pool = stack.enter_context(get_context("spawn").Pool(max(_CLIENTS)))
        peers = servers[1:]
        for server in servers:
            measure(pool, server, Case("put", _KB, max(_CLIENTS), 1))
        heads = [f"{server.name}" for server in servers] + [f"ours / {peer.name}" for peer in peers]
        print("| case | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
        for case in cases(short=options.short):
            rates = {server.name: [] for server in servers}
            for _ in range(turns):
                for server in servers:
                    rates[server.name].append(measure(pool, server, case))
            medians = {name: statistics.median(found) for name, found in rates.items()}
            shown = [
                f"{rate:.0f}/s" if case.size < _MB else f"{rate * case.size / _MB:.0f} MB/s"
                for rate in medians.values()
            ]
            ratios = [
                statistics.median(a / b for a, b in zip(rates["ours"], rates[peer.name], strict=True)) for peer in peers
            ]
            print(f"| {case} | " + " | ".join([*shown, *(f"{ratio:.2f}" for ratio in ratios)]) + " |", flush=True)
        resident = [f"{psutil.Process(server.pid).memory_info().rss / _MB:.0f} MB" for server in servers]
        print("| resident memory at the end | " + " | ".join([*resident, *("" for _ in peers)]) + " |")


if __name__ == "__main__":
    main()
