"""The processor time of one rank in a short allreduce or barrier, beside that of bare sockets.

``python -m benchmarks.own_time`` makes a rank whose connections are connected to themselves: it receives what it sends,
at once. No other rank takes part and nothing blocks. The shortest of many series is little affected by other programs,
so that it tells what the library adds to the kernel's time, where the times of a real collective tell mostly when the
scheduler runs which rank.
"""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fmi_shim as fmi
from fmi_shim.frames import Operation
from fmi_shim.transports.tcp.connections import Connections
from fmi_shim.transports.tcp.framed import FramedChannel
from fmi_shim.transports.transfers import octets

_SERIES = 300
_CALLS = 50
_WORLDS = (2, 4, 8)
_SIZES = (8, 64, 512, 4096)


def _self_connected(*_: Any) -> socket.socket:
    """Return a TCP connection to itself."""
    connection = socket.socket()
    connection.bind(("127.0.0.1", 0))
    connection.connect(connection.getsockname())
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _rank(size: int, framed: bool, folder: Path) -> fmi.Communicator:
    direct = {"enabled": True, "host": "127.0.0.1", "port": 1, "max_timeout": 5000, "framed": framed}
    (folder / "fmi.json").write_text(json.dumps({"backends": {"Direct": direct}}))
    rank = fmi.Communicator(0, size, folder / "fmi.json", f"own-{size}-{framed}")
    channel: Any = rank._calls.collective(Operation.barrier).channel  # noqa: SLF001
    for bit in range(size.bit_length() - 1):
        channel._stream(1 << bit)  # noqa: SLF001 - else a raw rank would wait for a message at first
    return rank


def _bare(size: int, value: memoryview) -> Callable[[], None]:
    """Return recursive doubling over bare sockets, in which nothing is combined."""
    peers = [_self_connected() for _ in range(size.bit_length() - 1)]
    received = memoryview(bytearray(value))

    def run() -> None:
        for peer in peers:
            peer.send(value)
            if peer.recv_into(received) != len(value):
                raise ConnectionError("a short message came in pieces")

    return run


def _microseconds(call: Callable[[], object]) -> float:
    for _ in range(_CALLS):
        call()
    best = float("inf")
    for _ in range(_SERIES):
        start = time.perf_counter()
        for _ in range(_CALLS):
            call()
        best = min(best, time.perf_counter() - start)
    return best / _CALLS * 1e6


def _print_row(name: str, size_bytes: int, size: int, calls: Sequence[Callable[[], object]]) -> None:
    times = "".join(f"{_microseconds(call):>10.1f}" for call in calls)
    print(f"{name:<10}{size_bytes:>8}{size:>4}{times}", flush=True)


def main() -> None:
    """Print the table."""
    FramedChannel._connect = Connections._connect = _self_connected  # type: ignore[method-assign]  # noqa: SLF001
    total = fmi.func(fmi.op.sum)
    print("microseconds of processor time, float64, result in place")
    print(f"{'':<10}{'bytes':>8}{'N':>4}{'sockets':>10}{'framed':>10}{'raw':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for size in _WORLDS:
            ranks = [_rank(size, framed, Path(folder)) for framed in (True, False)]
            one = memoryview(bytearray(1))
            _print_row("barrier", 1, size, [_bare(size, one), *(rank.barrier for rank in ranks)])
            for size_bytes in _SIZES:
                value = np.zeros(size_bytes // 8)
                calls = [partial(rank.allreduce, value, total, out=value) for rank in ranks]
                _print_row("allreduce", size_bytes, size, [_bare(size, octets(value)), *calls])
            for rank in ranks:
                rank.close()


if __name__ == "__main__":
    main()
