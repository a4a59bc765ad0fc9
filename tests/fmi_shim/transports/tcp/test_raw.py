"""Raw mode on the wire: ranks of ours beside a few-line double of a C++ rank, written from the contract alone."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fmi_shim as fmi
from fmi_shim import errors as fmi_errors
from tests.fmi_shim.programs import DOUBLE, INT, doubles, ints
from tests.fmi_shim.world import World

SUM = fmi.func(fmi.op.sum)
IN_ORDER = fmi.func(fmi.op.custom, lambda a, b: a + b, True, False)
SUBTRACT = fmi.func(fmi.op.custom, lambda a, b: a - b, False, False)


class CppRank:
    """Pairs as tcpunch does (listen in the background, connect in the foreground) and moves raw bytes."""

    def __init__(self, address: str, comm_name: str, rank: int) -> None:
        host, _, port = address.rpartition(":")
        self.server, self.comm_name, self.rank = (host, int(port)), comm_name, rank
        self.peers: dict[int, socket.socket] = {}
        self.controls: list[socket.socket] = []

    def send(self, data: bytes, to: int) -> None:
        self.peer(to, f"{self.comm_name}{self.rank}_{to}").sendall(data)

    def recv(self, count: int, source: int) -> bytes:
        peer = self.peer(source, f"{self.comm_name}{source}_{self.rank}")
        data = b""
        while len(data) < count:
            piece = peer.recv(count - len(data))
            assert piece, "the other rank left"
            data += piece
        return data

    def peer(self, rank: int, name: str) -> socket.socket:
        if rank not in self.peers:
            self.peers[rank] = self.pair(name)
            self.peers[rank].settimeout(20)
        return self.peers[rank]

    def pair(self, name: str) -> socket.socket:
        control = self.reusable(0)
        control.settimeout(20)
        self.controls.append(control)
        control.connect(self.server)
        control.sendall(name.encode())
        records = b""
        while len(records) < 16:
            records += control.recv(16 - len(records))
        listener = self.reusable(control.getsockname()[1])
        listener.listen(1)
        accepted: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                accepted.append(listener.accept()[0])

        waiting = threading.Thread(target=accept, daemon=True)
        waiting.start()
        target = (socket.inet_ntoa(records[8:12]), struct.unpack("!H", records[12:14])[0])
        try:
            while not accepted:
                attempt = self.reusable(control.getsockname()[1])
                try:
                    attempt.connect(target)
                except OSError:
                    attempt.close()
                    waiting.join(0.05)
                else:
                    return attempt
            return accepted[0]
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            waiting.join()
            listener.close()

    def reusable(self, port: int) -> socket.socket:
        fresh = socket.socket()
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        fresh.bind(("", port))
        return fresh

    def close(self) -> None:
        for connection in (*self.peers.values(), *self.controls):
            connection.close()


@contextlib.contextmanager
def cpp_rank_beside(world: World, ours: Any, rank: int, size: int) -> Iterator[CppRank]:
    """Run `ours(comm, rank, results)` for all ranks but `rank` in threads, and give the double for that one."""
    name = f"{world.folder.name}-"
    config = world.config(framed=False)
    failures: list[BaseException] = []

    def run(own: int) -> None:
        try:
            comm = fmi.Communicator(own, size, config, name)
            ours(comm, own)
            comm.close()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(own,)) for own in range(size) if own != rank]
    for thread in threads:
        thread.start()
    double = CppRank(world.address, name, rank)
    try:
        yield double
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    finally:
        double.close()
        if failures:
            raise failures[0]


def i32(*values: int) -> bytes:
    return np.array(values, "<i4").tobytes()


SCHEDULES: dict[int, dict[str, str]] = {
    2: {
        "bcast 0": "0>1:all",
        "bcast 1": "1>0:all",
        "reduce 0": "1>0:1",
        "reduce 1": "0>1:0",
        "gather 0": "1>0:1",
        "gather 1": "0>1:0",
        "scatter 0": "0>1:1",
        "scatter 1": "1>0:0",
        "allreduce": "1>0:1 0>1:0",
        "barrier": "1>0 0>1",
        "ordered reduce 0": "1>0:1",
        "ordered reduce 1": "0>1:0",
        "ordered allreduce": "1>0:1 0>1:all",
        "scan": "0>1:0",
        "ordered scan": "0>1:0",
    },
    3: {
        "bcast 0": "0>2:all 0>1:all",
        "bcast 1": "1>0:all 1>2:all",
        "bcast 2": "2>1:all 2>0:all",
        "reduce 0": "1>0:1 2>0:2",
        "reduce 1": "2>1:2 0>1:0",
        "reduce 2": "0>2:0 1>2:1",
        "gather 0": "1>0:1 2>0:2",
        "gather 2": "0>2:0 1>2:1",
        "scatter 0": "0>2:2 0>1:1",
        "scatter 1": "1>0:0 1>2:2",
        "allreduce": "2>0:2 1>0:1 0>1:02 0>2:all",
        "barrier": "2>0 1>0 0>1 0>2",
        "ordered reduce 1": "2>1:2 0>1:0",
        "ordered allreduce": "1>0:1 2>0:2 0>2:all 0>1:all",
        "scan": "0>1:0 1>2:01",
        "ordered scan": "0>1:0 1>2:01",
    },
    4: {
        "bcast 0": "0>2:all 2>3:all 0>1:all",
        "bcast 1": "1>3:all 3>0:all 1>2:all",
        "reduce 0": "1>0:1 3>2:3 2>0:23",
        "reduce 3": "0>3:0 2>1:2 1>3:12",
        "gather 0": "1>0:1 3>2:3 2>0:23",
        "gather 1": "2>1:2 0>3:0 3>1:30",
        "scatter 0": "0>2:23 2>3:3 0>1:1",
        "scatter 1": "1>3:30 3>0:0 1>2:2",
        "allreduce": "1>0:1 0>1:0 3>2:3 2>3:2 2>0:23 0>2:01 3>1:23 1>3:01",
        "barrier": "1>0 0>1 3>2 2>3 2>0 0>2 3>1 1>3",
        "ordered reduce 2": "3>2:3 1>0:1 0>2:01",
        "ordered allreduce": "1>0:1 3>2:3 2>0:23 0>2:all 2>3:all 0>1:all",
        "scan": "0>1:0 2>3:2 1>3:01 1>2:01",
        "ordered scan": "0>1:0 1>2:01 2>3:012",
    },
    5: {
        "bcast 0": "0>4:all 0>2:all 2>3:all 0>1:all",
        "bcast 2": "2>1:all 2>4:all 4>0:all 2>3:all",
        "reduce 0": "1>0:1 3>2:3 2>0:23 4>0:4",
        "reduce 4": "0>4:0 2>1:2 1>4:12 3>4:3",
        "gather 0": "1>0:1 3>2:3 2>0:23 4>0:4",
        "gather 3": "4>3:4 1>0:1 0>3:01 2>3:2",
        "scatter 0": "0>4:4 0>2:23 2>3:3 0>1:1",
        "scatter 3": "3>2:2 3>0:01 0>1:1 3>4:4",
        "allreduce": "4>0:4 1>0:1 0>1:04 3>2:3 2>3:2 2>0:23 0>2:014 3>1:23 1>3:014 0>4:all",
        "barrier": "4>0 1>0 0>1 3>2 2>3 2>0 0>2 3>1 1>3 0>4",
        "ordered reduce 0": "1>0:1 3>2:3 2>0:23 4>0:4",
        "ordered allreduce": "1>0:1 3>2:3 2>0:23 4>0:4 0>4:all 0>2:all 2>3:all 0>1:all",
        "scan": "0>1:0 2>3:2 1>3:01 1>2:01 3>4:0123",
        "ordered scan": "0>1:0 1>2:01 2>3:012 3>4:0123",
    },
}
"""Contract 4.4 worked by hand: who sends to whom, and of which ranks' values, in the order of each rank. What a gather
or a scatter sends is these ranks' blocks, in this order; what a reduction sends is their sum."""


def value(rank: int) -> list[int]:
    """Sums of these tell whose they are."""
    return [10**rank, -(10**rank)]


def summed(ranks: Iterable[int]) -> list[int]:
    return [sum(column) for column in zip(*map(value, ranks), strict=True)]


def joined(ranks: Iterable[int]) -> list[int]:
    return [number for rank in ranks for number in value(rank)]


@dataclass(frozen=True)
class Entry:
    """A key of `SCHEDULES`. Ordered reductions are of numbers: FMI's Python binding uses its tree for all lists."""

    operation: str
    root: int | None
    ordered: bool

    @classmethod
    def of(cls, name: str) -> "Entry":
        words = name.removeprefix("ordered ").split()
        return cls(words[0], int(words[1]) if len(words) > 1 else None, name.startswith("ordered "))

    def call(self, comm: fmi.Communicator, rank: int, size: int) -> Any:
        if self.ordered:
            number = value(rank)[0]
            match self.operation:
                case "reduce":
                    return comm.reduce(number, self.root, IN_ORDER, INT)
                case "allreduce":
                    return comm.allreduce(number, IN_ORDER, INT)
                case _:
                    return comm.scan(number, IN_ORDER, INT)
        match self.operation:
            case "bcast":
                return comm.bcast(value(7) if rank == self.root else None, self.root, ints(2))
            case "reduce":
                return comm.reduce(value(rank), self.root, SUM, ints(2))
            case "gather":
                return comm.gather(value(rank), self.root, ints(2))
            case "scatter":
                return comm.scatter(joined(range(size)) if rank == self.root else None, self.root, ints(2 * size))
            case "allreduce":
                return comm.allreduce(value(rank), SUM, ints(2))
            case "scan":
                return comm.scan(value(rank), SUM, ints(2))
            case _:
                return comm.barrier()

    def result(self, rank: int, size: int) -> Any:
        """Return what `call` must return."""
        whole = self._whole_result(rank, size)
        return whole[0] if self.ordered and whole is not None else whole

    def _whole_result(self, rank: int, size: int) -> Any:
        match self.operation:
            case "bcast":
                return value(7)
            case "reduce":
                return summed(range(size)) if rank == self.root else None
            case "gather":
                return joined(range(size)) if rank == self.root else []
            case "scatter":
                return value(rank)
            case "allreduce":
                return summed(range(size))
            case "scan":
                return summed(range(rank + 1))
            case _:
                return None

    def content(self, ranks: str, size: int) -> bytes:
        """Return the bytes of a message; an ordered reduction gathers, then broadcasts the result."""
        if self.operation == "barrier":
            return b"\1"
        if self.operation == "bcast":
            return i32(*value(7))
        width = 1 if self.ordered else 2
        if ranks == "all":
            return i32(*summed(range(size))[:width])
        if self.operation in ("gather", "scatter") or (self.ordered and self.operation != "scan"):
            return i32(*(number for rank in ranks for number in value(int(rank))[:width]))
        return i32(*summed(map(int, ranks))[:width])


@pytest.mark.parametrize(("size", "rank"), [(size, rank) for size in SCHEDULES for rank in range(size)])
def test_any_rank_may_be_a_cpp_rank_that_sends_and_gets_the_bytes_of_fmis_schedules(
    world: World, size: int, rank: int
) -> None:
    schedules = {Entry.of(name): schedule.split() for name, schedule in SCHEDULES[size].items()}
    results: dict[int, list[Any]] = {}

    def ours(comm: fmi.Communicator, own: int) -> None:
        results[own] = [entry.call(comm, own, size) for entry in schedules]

    with cpp_rank_beside(world, ours, rank, size) as double:
        for entry, messages in schedules.items():
            for message in messages:
                source, to, ranks = int(message[0]), int(message[2]), message[4:]
                if source == rank:
                    double.send(entry.content(ranks, size), to)
                elif to == rank:
                    expected = entry.content(ranks, size)
                    came = double.recv(len(expected), source)
                    assert came == expected or entry.operation == "barrier", (entry, message)
    assert results == {own: [entry.result(own, size) for entry in schedules] for own in range(size) if own != rank}


def test_numbers_are_little_endian_int32_and_float64(world: World) -> None:
    results: list[Any] = []

    def ours(comm: fmi.Communicator, rank: int) -> None:
        comm.send(42, 1, INT)
        comm.send([1.5, 2.5], 1, doubles(2))
        results.append(comm.recv(1, ints(3)))
        results.append(comm.recv(1, DOUBLE))
        results.append(comm.reduce(10, 0, SUBTRACT, INT))
        results.append(comm.scan(3.0, SUBTRACT, DOUBLE))

    with cpp_rank_beside(world, ours, 1, 2) as peer:
        assert peer.recv(4, 0) == b"\x2a\0\0\0"
        assert peer.recv(16, 0) == struct.pack("<2d", 1.5, 2.5)
        peer.send(i32(1, -2, 3), 0)
        peer.send(struct.pack("<d", 0.25), 0)
        peer.send(i32(4), 0)
        assert peer.recv(8, 0) == struct.pack("<d", 3.0)
    assert results == [[1, -2, 3], 0.25, 6, 3.0]


def test_a_message_is_sent_before_the_receiver_calls(world: World) -> None:
    """In an exchange the lower rank receives first, and the higher one sends without having received anything."""

    def ours(comm: fmi.Communicator, rank: int) -> None:
        assert comm.allreduce([1, 2], SUM, ints(2)) == [11, 22]

    with cpp_rank_beside(world, ours, 0, 2) as lower:
        assert lower.recv(8, 1) == i32(1, 2)
        lower.send(i32(10, 20), 1)


def test_a_framed_rank_reports_that_the_other_rank_is_not_framed(world: World) -> None:
    name = f"{world.folder.name}-"
    comm = fmi.Communicator(0, 2, world.config(framed=True), name)
    host, _, port = world.address.rpartition(":")
    with socket.create_connection((host, int(port)), 20) as raw:
        raw.sendall(f"{name}1_0".encode())
        with pytest.raises(fmi_errors.MismatchError, match=r"rank 1 at .* does not run in framed mode as rank 0 does"):
            comm.recv(1, INT)


def test_an_array_is_received_in_raw_mode_only_into_an_array(world: World) -> None:
    comm = fmi.Communicator(0, 2, world.config(framed=False), "name")
    for call in (lambda: comm.recv(1), lambda: comm.bcast(None, 1), lambda: comm.scatter(None, 1)):
        with pytest.raises(TypeError, match=r"expected .* or an array to fill"):
            call()
