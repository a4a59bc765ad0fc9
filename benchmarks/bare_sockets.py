"""The least that collectives over loopback TCP take: the same bytes on the same ways by bare sockets, nothing else."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fmi_shim.collectives.tree import position
from fmi_shim.pairing.sockets import disable_pacing
from fmi_shim.transports.transfers import octets

if TYPE_CHECKING:
    from benchmarks.contestants import Calls, Memory

_LOOPBACK = "127.0.0.1"
_LOOK_SECONDS = 0.01


class BareSockets:
    """One connection for each pair of ranks, whose number is a power of two; no headers, and no way to fail well.

    Large payloads go the ways of Direct: down and up the binomial tree, around the ring, by halves, and from each to
    each. Nothing is combined: a reduction takes what the kernel's copies take.
    """

    def __init__(self, rank: int, size: int, folder: Path) -> None:
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
        """Return the calls."""
        value, out = octets(memory.value), octets(memory.out)
        return {
            "allreduce": lambda: self._halve(value, out),
            "reduce": lambda: self._up(value),
            "bcast": lambda: self._down(value),
            "barrier": lambda: self._double(value[:1], out[:1]),
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

    def _double(self, value: memoryview, out: memoryview) -> None:
        distance = 1
        while distance < self._size:
            self._exchange(value, self._rank ^ distance, out, self._rank ^ distance)
            distance *= 2

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
            going, coming = (self._rank - step) % self._size * part, (self._rank - step - 1) % self._size * part
            after, before = (self._rank + 1) % self._size, (self._rank - 1) % self._size
            self._exchange(out[going : going + part], after, out[coming : coming + part], before)

    def _spread(self, value: memoryview, out: memoryview) -> None:
        part = len(value) // self._size
        for step in range(1, self._size):
            to, source = (self._rank + step) % self._size, (self._rank - step) % self._size
            self._exchange(value[to * part :][:part], to, out[source * part :][:part], source)

    def _exchange(self, going: memoryview, to: int, coming: memoryview, source: int) -> None:
        """Send and receive at the same time."""
        target, origin = self._peers[to], self._peers[source]
        while going or coming:
            sent = received = 0
            if going:
                with contextlib.suppress(BlockingIOError):
                    sent = target.send(going, socket.MSG_DONTWAIT)
            if coming:
                with contextlib.suppress(BlockingIOError):
                    received = origin.recv_into(coming, 0, socket.MSG_DONTWAIT)
            going, coming = going[sent:], coming[received:]
            if sent == received == 0:
                poll = select.poll()
                if coming:
                    poll.register(origin, select.POLLIN)
                if going:
                    poll.register(target, select.POLLOUT | (select.POLLIN if coming and target is origin else 0))
                poll.poll()
