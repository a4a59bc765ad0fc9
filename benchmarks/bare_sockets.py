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
from dataclasses import dataclass
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
_STEPS = """
#include <stddef.h>
#include <sys/socket.h>
struct step { int to, size_out, from, size_in; const char *out; char *in; };
int run(const struct step *steps, int count) {
    for (const struct step *step = steps; step < steps + count; step++) {
        if (step->to >= 0 && send(step->to, step->out, step->size_out, 0) != step->size_out) return 1;
        if (step->from >= 0 && recv(step->from, step->in, step->size_in, MSG_WAITALL) != step->size_in) return 1;
    }
    return 0;
}
"""


@dataclass(frozen=True, slots=True)
class Step:
    """What a rank does in one step of a short collective: it sends a message, or receives one, or sends and receives.

    Attributes
    ----------
    to, source
        The ranks that it sends to and receives from; None where it does not.
    outgoing, incoming
        The memory of the messages.
    """

    to: int | None
    source: int | None
    outgoing: memoryview
    incoming: memoryview


class _CStep(ctypes.Structure):
    _fields_ = (
        ("to", ctypes.c_int),
        ("size_out", ctypes.c_int),
        ("source", ctypes.c_int),
        ("size_in", ctypes.c_int),
        ("outgoing", ctypes.c_void_p),
        ("incoming", ctypes.c_void_p),
    )


class BareSockets:
    """One connection per pair of ranks, without headers or error handling. The number of ranks is a power of two.

    Large payloads use Direct's algorithms: binomial tree, ring, recursive halving and pairwise exchange. Nothing is
    combined: a reduction takes the time of the kernel's copies. Short ones are one blocking send and one blocking
    receive for each of Direct's messages: the least that a program can do.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    folder
        Where the ranks find each other's ports.
    in_c
        Whether one C function runs all steps of a short collective: the least that any program can do.
    receives_first
        Whether the lower rank of a pair receives before it sends, as in FMI's C++ library: two messages one after the
        other in each round of an allreduce.
    """

    def __init__(self, rank: int, size: int, folder: Path, *, in_c: bool = False, receives_first: bool = False) -> None:
        folder = folder / f"sockets-{in_c}-{receives_first}"
        folder.mkdir(exist_ok=True)
        self._compiled = _compiled_steps(folder) if in_c else None
        self._receives_first = receives_first
        self._in_use: list[list[Step]] = []  # the memory that the C function has addresses of
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
        if len(value) > _SHORT_BYTES:
            return {
                "allreduce": lambda: self._halve(value, out),
                "reduce": lambda: self._up(value),
                "bcast": lambda: self._down(value),
                "allgather": lambda: self._ring(out),
                "alltoall": lambda: self._spread(value, out),
            }
        received = memoryview(bytearray(value))
        return {
            "allreduce": self._call(self._doubling(value, received)),
            "barrier": self._call(self._doubling(value[:1], received[:1])),
            "reduce": self._call(self._climbing(value, received)),
            "bcast": self._call(self._descending(value)),
            "allgather": self._call(self._gathering(out)),
            "alltoall": self._call(self._spreading(value, out)),
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

    def _doubling(self, value: memoryview, received: memoryview) -> list[Step]:
        peers = [self._rank ^ 1 << bit for bit in range(self._size.bit_length() - 1)]
        if not self._receives_first:
            return [Step(peer, peer, value, received) for peer in peers]
        steps = []
        for peer in peers:
            sending, receiving = Step(peer, None, value, received), Step(None, peer, value, received)
            steps += [receiving, sending] if self._rank < peer else [sending, receiving]
        return steps

    def _climbing(self, value: memoryview, received: memoryview) -> list[Step]:
        place = position(self._rank, self._size, 0)
        steps = [Step(None, child.rank, value, received) for child in place.children]
        return steps if place.parent is None else [*steps, Step(place.parent, None, value, received)]

    def _descending(self, value: memoryview) -> list[Step]:
        place = position(self._rank, self._size, 0)
        steps = [Step(child.rank, None, value, value) for child in reversed(place.children)]
        return steps if place.parent is None else [Step(None, place.parent, value, value), *steps]

    def _gathering(self, out: memoryview) -> list[Step]:
        """Return Bruck's rounds; their rows are not brought into order."""
        part, steps, known = len(out) // self._size, [], 1
        while known < self._size:
            to, source = (self._rank - known) % self._size, (self._rank + known) % self._size
            steps.append(Step(to, source, out[: known * part], out[known * part : 2 * known * part]))
            known *= 2
        return steps

    def _spreading(self, value: memoryview, out: memoryview) -> list[Step]:
        """Return all sends, then all receives."""
        part, others = len(value) // self._size, [rank for rank in range(self._size) if rank != self._rank]
        sends = [Step(to, None, value[to * part :][:part], out) for to in others]
        return sends + [Step(None, source, value, out[source * part :][:part]) for source in others]

    def _call(self, steps: list[Step]) -> Callable[[], None]:
        """Return one call of a short collective."""
        if self._compiled is None:
            return functools.partial(self._run, steps)
        self._in_use.append(steps)
        compiled = (_CStep * len(steps))(*(self._in_c(step) for step in steps))
        return functools.partial(self._compiled, compiled, len(steps))

    def _run(self, steps: list[Step]) -> None:
        peers = self._peers
        for step in steps:
            if step.to is not None:
                peers[step.to].send(step.outgoing)
            if step.source is not None and peers[step.source].recv_into(step.incoming) != len(step.incoming):
                raise ConnectionError("a short message came in pieces")

    def _in_c(self, step: Step) -> _CStep:
        to, source = (-1 if peer is None else self._peers[peer].fileno() for peer in (step.to, step.source))
        outgoing, incoming = (_address(memory) for memory in (step.outgoing, step.incoming))
        return _CStep(to, len(step.outgoing), source, len(step.incoming), outgoing, incoming)

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


def _address(memory: memoryview) -> int:
    return ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))


def _compiled_steps(folder: Path) -> Callable[..., None]:
    """Compile `_STEPS` and return its function."""
    source, library = folder / f"steps-{os.getpid()}.c", folder / f"steps-{os.getpid()}.so"
    source.write_text(_STEPS)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    run: Callable[..., None] = ctypes.CDLL(str(library)).run
    return run
