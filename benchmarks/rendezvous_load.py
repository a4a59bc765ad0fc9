"""Load test of a rendezvous server on loopback: ``python -m benchmarks.rendezvous_load [--scale 1.0]``.

Goals on 2 cores: 5,000 version 1 pairings/s sustained; 10,000 waiting clients under 300 MB; p99
pairing latency under 20 ms at 1,000 pairings/s; relay at 100 MB/s or more; after 100,000 pairings with 10 % of
the clients misbehaving, no pairing lost and no descriptor leaked.
"""

from __future__ import annotations

import multiprocessing
import resource
import socket
import statistics
import threading
import time
from multiprocessing.connection import Connection

from benchmarks import arguments
from benchmarks.cleanup import exit_on_signals, signals_blocked_in_forks
from benchmarks.load_clients import MISBEHAVIOURS, RelayedRank, check_pair, connect, fresh_name, use_separate_counters
from benchmarks.local_server import LocalServer, running_server
from rendezvous.protocol.extension import Preamble, Purpose
from rendezvous.protocol.messages import Announce, Introduction

GENERATORS = 2
BATCH = 50
"""Number of concurrent pairs."""


def pair_batch(server: LocalServer, pairs: int) -> int:
    """Run this many pairings at once; return how many were correct."""
    firsts, seconds = ([connect(server) for _ in range(pairs)] for _ in range(2))
    for first, second in zip(firsts, seconds, strict=True):
        name = fresh_name()
        first.send(name)
        second.send(name)
    right = sum(check_pair(first, second) for first, second in zip(firsts, seconds, strict=True))
    for client in (*firsts, *seconds):
        client.close()
    return right


def _generate(server: LocalServer, pairings: int, right: Connection) -> None:
    use_separate_counters()
    right.send(sum(pair_batch(server, BATCH) for _ in range(pairings // BATCH)))


def throughput(server: LocalServer, pairings: int) -> None:
    """Pair at the maximum rate, from several processes at once."""
    processes = multiprocessing.get_context("fork")
    began, cpu = time.perf_counter(), server.cpu_seconds()
    pipes = [processes.Pipe(duplex=False) for _ in range(GENERATORS)]
    generators = [
        processes.Process(target=_generate, args=(server, pairings // GENERATORS, theirs)) for _, theirs in pipes
    ]
    try:
        with signals_blocked_in_forks():
            for generator in generators:
                generator.start()
        right = sum(ours.recv() for ours, _ in pipes)
    finally:
        for generator in generators:
            if generator.pid is not None:
                generator.kill()
                generator.join()
    seconds = time.perf_counter() - began
    per_pairing = (server.cpu_seconds() - cpu) / right
    print(
        f"throughput: {right} pairings, {right / seconds:.0f}/s from {GENERATORS} generators; the server used "
        f"{per_pairing * 1e6:.0f} us of processor per pairing, which is {1 / per_pairing:.0f}/s per core",
        flush=True,
    )


def latency(server: LocalServer, rate: int, pairings: int) -> None:
    """Pair at a fixed rate; measure from the time at which the second client was due to send its name.

    If a second client is late because the one before it was slow, its own wait counts, too.
    """
    waiting = [(connect(server), fresh_name()) for _ in range(pairings)]
    for client, name in waiting:
        client.send(name)
    seconds = [connect(server) for _ in range(pairings)]
    time.sleep(0.5)
    took = []
    began = time.perf_counter()
    for i, ((first, name), second) in enumerate(zip(waiting, seconds, strict=True)):
        due = began + i / rate
        while time.perf_counter() < due:
            time.sleep(max(0.0, due - time.perf_counter()) / 2)
        second.send(name)
        assert check_pair(first, second)
        took.append(time.perf_counter() - due)
    for client in (*(client for client, _ in waiting), *seconds):
        client.close()
    took.sort()
    print(
        f"latency at {rate} pairings/s: median {statistics.median(took) * 1e3:.2f} ms, "
        f"p99 {took[int(0.99 * len(took))] * 1e3:.2f} ms, max {took[-1] * 1e3:.2f} ms"
    )


def waiting_memory(server: LocalServer, clients: int) -> None:
    """Measure the memory of many waiting clients."""
    before = server.process.memory_info().rss
    waiting = [connect(server) for _ in range(clients)]
    for client in waiting:
        client.send(fresh_name())
    for client in waiting:
        client.recv(8)
    known = server.health()["waiting"]
    rss = server.process.memory_info().rss
    print(f"{known} waiting clients: {rss / 1e6:.0f} MB resident, {(rss - before) / clients / 1e3:.1f} kB per client")
    for client in waiting:
        client.close()


def relay(server: LocalServer, seconds: float) -> None:
    """Send bytes through the relay in one direction."""
    ranks = [RelayedRank(server, rank) for rank in range(2)]
    for rank, own in enumerate(ranks):
        own.send(Announce(1 - rank, 9))
    ends = []
    for own in ranks:
        introduction = own.receive()
        assert isinstance(introduction, Introduction)
        end = connect(server)
        end.sendall(Preamble(Purpose.relay, introduction.ticket).encode())
        ends.append(end)
    source, target = ends
    stop = time.perf_counter() + seconds
    chunk = bytes(1 << 18)

    def pour() -> None:
        while time.perf_counter() < stop:
            source.sendall(chunk)
        source.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=pour)
    began, cpu = time.perf_counter(), server.cpu_seconds()
    thread.start()
    buffer = bytearray(1 << 18)
    moved = 0
    while received := target.recv_into(buffer):
        moved += received
    elapsed = time.perf_counter() - began
    thread.join()
    cpu = server.cpu_seconds() - cpu
    print(f"relay: {moved / elapsed / 1e6:.0f} MB/s, {moved / cpu / 1e6:.0f} MB per processor second of the server")
    source.close()
    target.close()


def soak(server: LocalServer, pairings: int) -> None:
    """Pair many clients while one in ten misbehaves; count lost pairings and leaked descriptors."""
    server.settle()
    descriptors, rss = server.process.num_fds(), server.process.memory_info().rss
    right = 0
    odd: list[socket.socket] = []
    began = time.perf_counter()
    for batch in range(pairings // BATCH):
        # 2 * BATCH clients behave; with one in ten of all misbehaving, a ninth of that number is added.
        odd += [MISBEHAVIOURS[(batch + i) % len(MISBEHAVIOURS)](server) for i in range(round(2 * BATCH / 9))]
        right += pair_batch(server, BATCH)
        while len(odd) > 500:
            odd.pop(0).close()
    elapsed = time.perf_counter() - began
    for client in odd:
        client.close()
    server.settle()
    print(
        f"soak: {right} of {pairings // BATCH * BATCH} pairings correct at {right / elapsed:.0f}/s with 10 % of the "
        f"clients misbehaving; descriptors {descriptors} before, {server.process.num_fds()} after; "
        f"memory {rss / 1e6:.0f} MB before, {server.process.memory_info().rss / 1e6:.0f} MB after"
    )


def main() -> None:
    """Run all load tests, scaled."""
    parser = arguments.parser("benchmarks.rendezvous_load", __doc__)
    parser.add_argument(
        "--scale",
        type=arguments.share,
        default=1.0,
        metavar="X",
        help="fraction of the full load, for example 0.1 (default: %(default)s)",
    )
    scale = parser.parse_args().scale
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    exit_on_signals()
    with running_server("--max-connections-per-address", "20000") as server:
        for _ in range(3):
            throughput(server, int(20_000 * scale))
        for _ in range(3):
            latency(server, 1000, int(3000 * scale))
        waiting_memory(server, int(10_000 * scale))
        server.settle()
        for _ in range(3):
            relay(server, 2.0 * scale)
        soak(server, int(100_000 * scale))


if __name__ == "__main__":
    main()
