"""Load on a rendezvous server of its own, on loopback: ``python -m benchmarks.rendezvous_load [--scale 1.0]``.

Figures to reach on 2 cores: 5,000 version 1 pairings/s sustained; 10,000 waiting clients under 300 MB; p99
pairing latency under 20 ms at 1,000 pairings/s; relay at 100 MB/s or more; after 100,000 pairings with 10 % of
the clients misbehaving, nothing lost and no descriptor leaked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection

import psutil

from rendezvous.protocol import Endpoint
from rendezvous.protocol.extension import CHALLENGE_BYTES, NO_PROOF, Hello, Purpose
from rendezvous.protocol.messages import (
    Announce,
    Decoder,
    Introduction,
    Message,
    Register,
    Welcome,
    encode,
)
from rendezvous.protocol.registration import Registration

GENERATORS = 2
BATCH = 50
"""Pairs under way at a time."""
SOURCES = 100
"""Loopback addresses that clients come from: a closed port of one address cannot be used again for a minute."""
_RECORDS = 16
_RESET = struct.pack("ii", 1, 0)
_TIMEOUT_SECONDS = 30.0
_names = count()
_sources = count()


@dataclass(frozen=True)
class Server:
    """The server under load."""

    process: psutil.Process
    address: tuple[str, int]
    health_url: str

    def cpu_seconds(self) -> float:
        """Return the processor time it has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def health(self) -> dict[str, int]:
        """Return what it says of itself."""
        with urllib.request.urlopen(f"{self.health_url}/health", timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - http
            found: dict[str, int] = json.load(answer)
            return found

    def settle(self, connections: int = 0) -> None:
        """Wait until it has no more than so many connections."""
        end = time.monotonic() + _TIMEOUT_SECONDS
        while self.health()["connections"] > connections and time.monotonic() < end:
            time.sleep(0.05)


@contextlib.contextmanager
def running_server(*flags: str) -> Iterator[Server]:
    """Run a server on free loopback ports."""
    command = [sys.executable, "-m", "rendezvous", "--port", "0", "--max-connections-per-address", "20000", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            host, _, port = process.stdout.readline().split()[-1].rpartition(":")
            health_url = process.stdout.readline().split()[-1]
            yield Server(psutil.Process(process.pid), (host, int(port)), health_url)
        finally:
            process.terminate()


def connect(server: Server) -> socket.socket:
    """Return a client from one of many loopback addresses."""
    client = socket.socket()
    client.settimeout(_TIMEOUT_SECONDS)
    client.bind((f"127.0.1.{next(_sources) % SOURCES + 1}", 0))
    client.connect(server.address)
    return client


def fresh_name() -> bytes:
    """Return a pairing name that nobody has used."""
    return b"load%d_0" % next(_names)


def records(client: socket.socket) -> bytes:
    """Return both records of a version 1 client."""
    data = client.recv(_RECORDS)
    while 0 < len(data) < _RECORDS:
        part = client.recv(_RECORDS - len(data))
        if not part:
            break
        data += part
    return data


def check_pair(first: socket.socket, second: socket.socket) -> bool:
    """Return whether each of two clients was told its own and the other's address."""
    expected = [Endpoint(*client.getsockname()).encode() + bytes(2) for client in (first, second)]
    return records(first) == expected[0] + expected[1] and records(second) == expected[1] + expected[0]


def pair_batch(server: Server, pairs: int) -> int:
    """Pair so many at once; return how many of them came out right."""
    firsts, seconds = ([connect(server) for _ in range(pairs)] for _ in range(2))
    for first, second in zip(firsts, seconds, strict=True):
        name = fresh_name()
        first.send(name)
        second.send(name)
    right = sum(check_pair(first, second) for first, second in zip(firsts, seconds, strict=True))
    for client in (*firsts, *seconds):
        client.close()
    return right


def _generate(server: Server, pairings: int, right: Connection) -> None:
    # Forked copies count their names and addresses alike: each takes its own.
    global _names, _sources
    _names, _sources = count(os.getpid() * 10_000_000), count(os.getpid())
    right.send(sum(pair_batch(server, BATCH) for _ in range(pairings // BATCH)))


def throughput(server: Server, pairings: int) -> None:
    """Pair as fast as it goes, from several processes at once."""
    processes = multiprocessing.get_context("fork")
    began, cpu = time.perf_counter(), server.cpu_seconds()
    ends = []
    for _ in range(GENERATORS):
        ours, theirs = processes.Pipe(duplex=False)
        processes.Process(target=_generate, args=(server, pairings // GENERATORS, theirs), daemon=True).start()
        ends.append(ours)
    right = sum(end.recv() for end in ends)
    seconds = time.perf_counter() - began
    per_pairing = (server.cpu_seconds() - cpu) / right
    print(
        f"throughput: {right} pairings, {right / seconds:.0f}/s from {GENERATORS} generators; the server used "
        f"{per_pairing * 1e6:.0f} us of processor a pairing, which is {1 / per_pairing:.0f}/s a core",
        flush=True,
    )


def latency(server: Server, rate: int, pairings: int) -> None:
    """Pair at a fixed rate; measure from the time at which the second client was due to send its name.

    A second client that is late because the one before it was slow counts its own wait, too.
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


def waiting_memory(server: Server, clients: int) -> None:
    """Have many clients wait."""
    before = server.process.memory_info().rss
    waiting = [connect(server) for _ in range(clients)]
    for client in waiting:
        client.send(fresh_name())
    for client in waiting:
        client.recv(8)
    known = server.health()["waiting"]
    rss = server.process.memory_info().rss
    print(f"{known} waiting clients: {rss / 1e6:.0f} MB resident, {(rss - before) / clients / 1e3:.1f} kB a client")
    for client in waiting:
        client.close()


class _Rank:
    def __init__(self, server: Server, rank: int) -> None:
        self._socket = connect(server)
        self._decoder = Decoder()
        self._messages: list[Message] = []
        self._socket.sendall(Hello(Purpose.control, bytes(32)).encode())
        assert len(self._socket.recv(CHALLENGE_BYTES, socket.MSG_WAITALL)) == CHALLENGE_BYTES
        local = Endpoint(*self._socket.getsockname())
        self.send(Register(Registration("load", "relay", rank, 2, bytes(16), local), NO_PROOF))
        assert isinstance(self.receive(), Welcome)

    def send(self, message: Message) -> None:
        self._socket.sendall(encode(message))

    def receive(self) -> Message:
        while not self._messages:
            self._messages = self._decoder.feed(self._socket.recv(4096))
        return self._messages.pop(0)


def relay(server: Server, seconds: float) -> None:
    """Pass bytes through the relay in one direction."""
    ranks = [_Rank(server, rank) for rank in range(2)]
    for rank, own in enumerate(ranks):
        own.send(Announce(1 - rank, 9))
    ends = []
    for own in ranks:
        introduction = own.receive()
        assert isinstance(introduction, Introduction)
        end = connect(server)
        end.sendall(Hello(Purpose.relay, introduction.ticket).encode())
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
    print(f"relay: {moved / elapsed / 1e6:.0f} MB/s, {moved / cpu / 1e6:.0f} MB a processor second of the server")
    source.close()
    target.close()


def _silent(server: Server) -> socket.socket:
    return connect(server)


def _half_a_name(server: Server) -> socket.socket:
    client = connect(server)
    client.send(b"load")
    return client


def _reset(server: Server) -> socket.socket:
    client = connect(server)
    client.send(fresh_name())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return client


def _garbage(server: Server) -> socket.socket:
    client = connect(server)
    with contextlib.suppress(OSError):
        client.send(b"\0\xff" * 300 + b"GET / HTTP/1.1\r\n\r\n" * 20)
    return client


def _slow_reader(server: Server) -> socket.socket:
    client = connect(server)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.send(fresh_name())
    return client


MISBEHAVIOURS: list[Callable[[Server], socket.socket]] = [_silent, _half_a_name, _reset, _garbage, _slow_reader]


def soak(server: Server, pairings: int) -> None:
    """Pair many while one client in ten misbehaves; count what was lost and what stayed behind."""
    server.settle()
    descriptors, rss = server.process.num_fds(), server.process.memory_info().rss
    right = 0
    odd: list[socket.socket] = []
    began = time.perf_counter()
    for batch in range(pairings // BATCH):
        # 2 * BATCH clients behave; one in ten of all makes a ninth of them beside.
        odd += [MISBEHAVIOURS[(batch + i) % len(MISBEHAVIOURS)](server) for i in range(round(2 * BATCH / 9))]
        right += pair_batch(server, BATCH)
        while len(odd) > 500:
            odd.pop(0).close()
    elapsed = time.perf_counter() - began
    for client in odd:
        client.close()
    server.settle()
    print(
        f"soak: {right} of {pairings // BATCH * BATCH} pairings right at {right / elapsed:.0f}/s with 10 % of the "
        f"clients misbehaving; descriptors {descriptors} before, {server.process.num_fds()} after; "
        f"memory {rss / 1e6:.0f} MB before, {server.process.memory_info().rss / 1e6:.0f} MB after"
    )


def main() -> None:
    """Run all of it, scaled down if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="part of the full load, up to 1 (default: %(default)s)"
    )
    scale = min(1.0, parser.parse_args().scale)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with running_server() as server:
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
