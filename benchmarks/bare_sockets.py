"""A lower bound for collectives over loopback TCP: the same bytes between the same ranks over bare sockets."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fmi_shim.collectives.tree import position
from fmi_shim.pairing.sockets import disable_pacing
from fmi_shim.transports.transfers import octets

if TYPE_CHECKING:
    from benchmarks.contestants import Calls, Memory

_LOOPBACK = "127.0.0.1"
_LOOK_SECONDS = 0.01
_SHORT_BYTES = 4096
_ROUNDS = """
#include <sys/socket.h>
int rounds(const int *peers, int count, const char *value, char *out, int size) {
    for (int i = 0; i < count; i++)
        if (send(peers[i], value, size, 0) != size || recv(peers[i], out, size, MSG_WAITALL) != size) return 1;
    return 0;
}
"""


class BareSockets:
    """One connection per pair of ranks, without headers or error handling. The number of ranks is a power of two.

    Large payloads use Direct's algorithms: binomial tree, ring, recursive halving and pairwise exchange. Nothing is
    combined: a reduction takes the time of the kernel's copies. A short allreduce and a barrier are recursive doubling
    by one blocking send and one blocking receive a round: the least that a Python program can do.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    folder
        Where the ranks find each other's ports.
    in_c
        Whether a C function runs the rounds of a short allreduce: the least that any program can do.
    """

    def __init__(self, rank: int, size: int, folder: Path, *, in_c: bool = False) -> None:
        folder = folder / "c" if in_c else folder
        folder.mkdir(exist_ok=True)
        self._compiled = _compiled_rounds(folder) if in_c else None
        self._rank = rank
        self._size = size
        self._peers: dict[int, socket.socket] = {}
        with self._socket() as listener:
            listener.bind((_LOOPBACK, 0))
            listener.listen(size)
            (folder / f"new-{rank}").write_text(str(listener.getsockname()[1]))
            (folder / f"new-{rank}").rename(folder / f"port-{rank}")
            for peer in range(rank):
                while not (folder / f"port-{peer}").exists():
                    time.sleep(_LOOK_SECONDS)
                self._peers[peer] = connection = self._socket()
                connection.connect((_LOOPBACK, int((folder / f"port-{peer}").read_text())))
                connection.sendall(bytes([rank]))
            for _ in range(rank + 1, size):
                connection, _ = listener.accept()
                self._peers[connection.recv(1)[0]] = connection
        for connection in self._peers.values():
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def calls(self, memory: Memory) -> Calls:
        """Return one call of each operation."""
        value, out = octets(memory.value), octets(memory.out)
        return {
            "allreduce": functools.partial(self._halve, value, out)
            if len(value) > _SHORT_BYTES
            else self._double(value, out),
            "reduce": lambda: self._up(value),
            "bcast": lambda: self._down(value),
            "barrier": self._double(value[:1], out[:1]),
            "allgather": lambda: self._ring(out),
            "alltoall": lambda: self._spread(value, out),
        }

    def close(self) -> None:
        """Close all connections."""
        for connection in self._peers.values():
            connection.close()

    @staticmethod
    def _socket() -> socket.socket:
        fresh = socket.socket()
        disable_pacing(fresh, _LOOPBACK)
        return fresh

    def _down(self, value: memoryview) -> None:
        place = position(self._rank, self._size, 0)
        if place.parent is not None:
            self._exchange(value[:0], place.parent, value, place.parent)
        for child in reversed(place.children):
            self._peers[child.rank].sendall(value)

    def _up(self, value: memoryview) -> None:
        place = position(self._rank, self._size, 0)
        for child in place.children:
            self._exchange(value[:0], child.rank, value, child.rank)
        if place.parent is not None:
            self._peers[place.parent].sendall(value)

    def _double(self, value: memoryview, out: memoryview) -> Callable[[], None]:
        if self._compiled is None:
            return functools.partial(self._rounds, value, out)
        return self._rounds_in_c(value, out)

    def _rounds(self, value: memoryview, out: memoryview) -> None:
        distance = 1
        while distance < self._size:
            peer = self._peers[self._rank ^ distance]
            peer.send(value)
            if peer.recv_into(out, len(value)) != len(value):
                raise ConnectionError("a short message came in pieces")
            distance *= 2

    def _rounds_in_c(self, value: memoryview, out: memoryview) -> Callable[[], None]:
        """Return one call of the compiled rounds."""
        assert self._compiled is not None
        count = self._size.bit_length() - 1
        peers = (ctypes.c_int * count)(*(self._peers[self._rank ^ 1 << bit].fileno() for bit in range(count)))
        pointers = [(ctypes.c_char * len(buffer)).from_buffer(buffer) for buffer in (value, out)]
        return functools.partial(self._compiled, peers, count, *pointers, len(value))

    def _halve(self, value: memoryview, out: memoryview) -> None:
        distance, part = 1, len(value) // 2
        while distance < self._size:
            self._exchange(value[:part], self._rank ^ distance, out[:part], self._rank ^ distance)
            distance, part = distance * 2, part // 2
        while distance > 1:
            distance, part = distance // 2, part * 2
            self._exchange(value[:part], self._rank ^ distance, out[:part], self._rank ^ distance)

    def _ring(self, out: memoryview) -> None:
        part = len(out) // self._size
        for step in range(self._size - 1):
            outgoing, incoming = (self._rank - step) % self._size * part, (self._rank - step - 1) % self._size * part
            after, before = (self._rank + 1) % self._size, (self._rank - 1) % self._size
            self._exchange(out[outgoing : outgoing + part], after, out[incoming : incoming + part], before)

    def _spread(self, value: memoryview, out: memoryview) -> None:
        part = len(value) // self._size
        for step in range(1, self._size):
            to, source = (self._rank + step) % self._size, (self._rank - step) % self._size
            self._exchange(value[to * part :][:part], to, out[source * part :][:part], source)

    def _exchange(self, outgoing: memoryview, to: int, incoming: memoryview, source: int) -> None:
        """Send and receive at the same time."""
        target, origin = self._peers[to], self._peers[source]
        while outgoing or incoming:
            sent = received = 0
            if outgoing:
                with contextlib.suppress(BlockingIOError):
                    sent = target.send(outgoing, socket.MSG_DONTWAIT)
            if incoming:
                with contextlib.suppress(BlockingIOError):
                    received = origin.recv_into(incoming, 0, socket.MSG_DONTWAIT)
            outgoing, incoming = outgoing[sent:], incoming[received:]
            if sent == received == 0:
                poll = select.poll()
                if incoming:
                    poll.register(origin, select.POLLIN)
                if outgoing:
                    poll.register(target, select.POLLOUT | (select.POLLIN if incoming and target is origin else 0))
                poll.poll()


def _compiled_rounds(folder: Path) -> Callable[..., None]:
    """Compile `_ROUNDS` and return its function."""
    source, library = folder / f"rounds-{os.getpid()}.c", folder / f"rounds-{os.getpid()}.so"
    source.write_text(_ROUNDS)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    rounds: Callable[..., None] = ctypes.CDLL(str(library)).rounds
    return rounds
