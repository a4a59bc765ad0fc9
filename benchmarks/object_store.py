"""Compares S3 at the emulator's endpoint with moto's own server and with MiniStack, on this machine.

Clients are processes with boto3, all against one server at a time. The servers take turns at each case, so that other
load on the machine affects all of them: ratios are more reliable than rates. A figure is the median over the turns. A
ratio is the emulator's rate divided by the other's: above 1, the emulator is faster. Memory is resident at the end.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from benchmarks import arguments
from benchmarks.cleanup import exit_on_signals, signals_deferred
from benchmarks.endpoints import RunningEndpoint, add_arguments, contenders, running

_KB, _MB = 1000, 1000 * 1000
_SIZES = (_KB, _MB, 25 * _MB, 100 * _MB)
_CLIENTS = (1, 8)
_BUCKET = "bench-bucket"
_SHORT_TURNS = 2
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Case:
    """A case: operation, object size in bytes, number of clients, and calls of each client in a turn."""

    operation: str
    size: int
    clients: int
    calls: int

    def __str__(self) -> str:
        """Return the case's row label."""
        unit, factor = ("MB", _MB) if self.size >= _MB else ("KB", _KB)
        return f"{self.operation} {self.size // factor} {unit}, {self.clients} client{'s' * (self.clients > 1)}"


def cases(*, short: bool) -> list[Case]:
    """Return the cases, with calls for about a tenth of a second each; `short` has fewer, and no 8 x 100 MB."""
    found = []
    for size in _SIZES:
        for clients in _CLIENTS if not short or size < _SIZES[-1] else _CLIENTS[:1]:
            total = {_KB: 200, _MB: 40, 25 * _MB: 8, 100 * _MB: 8}[size] // (5 if short else 1)
            calls = max(1, total // clients)
            found += [Case(operation, size, clients, calls) for operation in ("put", "get")]
    return found


def measure(pool: Any, server: RunningEndpoint, case: Case) -> float:
    """Return a server's rate in a case, calls per second."""
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
            aws_secret_access_key="test",  # noqa: S106 - not checked
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


def _started(stack: ExitStack, options: argparse.Namespace) -> list[RunningEndpoint]:
    """Start every installed server, each with a bucket, the emulator first."""
    servers = []
    for contender in contenders(options):
        try:
            server = stack.enter_context(running(contender))
        except RuntimeError as error:
            print(f"{contender.name}: not measured: {error}")
            continue
        server.client("s3").create_bucket(Bucket=_BUCKET)
        servers.append(server)
    return servers


def _client_processes() -> Any:
    """Return a pool of client processes that ignore Ctrl-C; this process stops them."""
    resource_tracker.ensure_running()  # if started within the block below, it would unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return get_context("spawn").Pool(max(_CLIENTS))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def main() -> None:
    """Measure all cases and print a Markdown table."""
    parser = arguments.parser("benchmarks.object_store", __doc__)
    parser.add_argument("--short", action="store_true", help="fewer turns and calls, under 20 seconds")
    parser.add_argument(
        "--turns", type=arguments.positive, default=5, metavar="N", help="turns of every case (default %(default)s)"
    )
    add_arguments(parser, moto_server=str(Path(sys.executable).with_name("moto_server")))
    options = parser.parse_args()
    exit_on_signals()
    with ExitStack() as stack:
        servers = _started(stack, options)
        with signals_deferred():
            pool = stack.enter_context(_client_processes())
        _measure_all(pool, servers, cases(short=options.short), _SHORT_TURNS if options.short else options.turns)
        resident = [f"{server.process.memory_info().rss / _MB:.0f} MB" for server in servers]
        print("| resident memory at the end | " + " | ".join([*resident, *("" for _ in servers[1:])]) + " |")


def _measure_all(pool: Any, servers: Sequence[RunningEndpoint], measured: Sequence[Case], turns: int) -> None:
    """Measure the cases and print one row for each."""
    for server in servers:
        measure(pool, server, Case("put", _KB, max(_CLIENTS), 1))
    ours, *peers = servers
    heads = [server.name for server in servers] + [f"{ours.name} / {peer.name}" for peer in peers]
    print("| case | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads), flush=True)
    for case in measured:
        rates: dict[str, list[float]] = {server.name: [] for server in servers}
        for _ in range(turns):
            for server in servers:
                rates[server.name].append(measure(pool, server, case))
        medians = [statistics.median(found) for found in rates.values()]
        shown = [f"{rate:.0f}/s" if case.size < _MB else f"{rate * case.size / _MB:.0f} MB/s" for rate in medians]
        ratios = [
            statistics.median(a / b for a, b in zip(rates[ours.name], rates[peer.name], strict=True)) for peer in peers
        ]
        print(f"| {case} | " + " | ".join([*shown, *(f"{ratio:.2f}" for ratio in ratios)]) + " |", flush=True)


if __name__ == "__main__":
    main()
