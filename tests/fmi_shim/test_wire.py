"""Raw mode on the wire: ranks of ours beside a few-line double of a C++ rank, written from the contract alone."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fmi_shim as fmi
from fmi_shim import errors as fmi_errors
from tests.fmi_shim.programs import DOUBLE, INT, doubles, ints
from tests.fmi_shim.world import World

SUM = fmi.func(fmi.op.sum)
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


def f64(*values: float) -> bytes:
    return np.array(values, "<f8").tobytes()


def test_at_n_2_every_operation_is_raw_native_bytes_in_fmis_order_seen_from_rank_1(world: World) -> None:
    results: list[Any] = []

    def ours(comm: fmi.Communicator, rank: int) -> None:
        comm.send(42, 1, INT)
        comm.send([1.5, 2.5], 1, doubles(2))
        results.append(comm.recv(1, ints(3)))
        results.append(comm.bcast([7, 8], 0, ints(2)))
        results.append(comm.bcast(None, 1, DOUBLE))
        results.append(comm.gather([1, 2], 0, ints(2)))
        results.append(comm.gather(5, 1, INT))
        results.append(comm.scatter([1, 2, 3, 4], 0, ints(4)))
        results.append(comm.scatter(None, 1, ints(4)))
        results.append(comm.reduce(10, 0, SUM, INT))
        results.append(comm.reduce(10, 1, SUM, INT))
        results.append(comm.reduce(10, 0, SUBTRACT, INT))
        results.append(comm.allreduce([1.0, 2.0], SUM, doubles(2)))
        results.append(comm.allreduce(1.0, SUBTRACT, DOUBLE))
        results.append(comm.scan(3, SUM, INT))
        results.append(comm.scan(3, SUBTRACT, INT))
        comm.barrier()

    with cpp_rank_beside(world, ours, 1, 2) as peer:
        assert peer.recv(4, 0) == i32(42)
        assert peer.recv(16, 0) == f64(1.5, 2.5)
        peer.send(i32(1, -2, 3), 0)
        assert peer.recv(8, 0) == i32(7, 8)
        peer.send(f64(0.25), 0)
        peer.send(i32(3, 4), 0)  # gather to 0
        assert peer.recv(4, 0) == i32(5)  # gather to 1
        assert peer.recv(8, 0) == i32(3, 4)  # scatter from 0
        peer.send(i32(10, 20), 0)  # scatter from 1
        peer.send(i32(32), 0)  # reduce to 0
        assert peer.recv(4, 0) == i32(10)  # reduce to 1
        peer.send(i32(4), 0)  # left-to-right reduce to 0: a gather
        peer.send(f64(10.0, 20.0), 0)  # allreduce: the higher rank sends first
        assert peer.recv(16, 0) == f64(1.0, 2.0)
        peer.send(f64(0.5), 0)  # left-to-right allreduce: gather to 0, then bcast
        assert peer.recv(8, 0) == f64(0.5)
        assert peer.recv(4, 0) == i32(3)  # scan
        assert peer.recv(4, 0) == i32(3)  # left-to-right scan
        peer.send(b"\x01", 0)  # barrier: an allreduce of one byte
        assert len(peer.recv(1, 0)) == 1
    assert results == [
        [1, -2, 3], [7, 8], 0.25, [1, 2, 3, 4], [], [1, 2], [10, 20], 42, None, 6, [11.0, 22.0], 0.5, 3, 3,
    ]  # fmt: skip


def test_at_n_2_an_exchange_is_received_first_by_the_lower_rank(world: World) -> None:
    results: list[Any] = []

    def ours(comm: fmi.Communicator, rank: int) -> None:
        results.append(comm.allreduce([1, 2], SUM, ints(2)))
        results.append(comm.scan(5, SUM, INT))
        comm.barrier()

    with cpp_rank_beside(world, ours, 0, 2) as lower:
        assert lower.recv(8, 1) == i32(1, 2)  # rank 1 sends without having received anything
        lower.send(i32(10, 20), 1)
        lower.send(i32(1), 1)
        assert len(lower.recv(1, 1)) == 1
        lower.send(b"\x01", 1)
    assert results == [[11, 22], 6]


@pytest.mark.parametrize("size", [3, 4, 5])
def test_the_last_rank_of_a_larger_world_may_be_a_cpp_rank(world: World, size: int) -> None:
    """Rank N - 1 seen alone: a leaf of the trees at root 0, folded into N - 1 - 2^k when N is no power of two."""
    results: dict[int, list[Any]] = {}
    last = size - 1
    core = 4 if size >= 4 else 2

    def ours(comm: fmi.Communicator, rank: int) -> None:
        results[rank] = [
            comm.allreduce(2**rank, SUM, INT),
            comm.bcast(99 if rank == 0 else None, 0, INT),
            comm.reduce(2**rank, 0, SUM, INT),
            comm.gather(rank, 0, INT),
            comm.scatter(list(range(size)) if rank == 0 else None, 0, ints(size)),
        ]

    parent = last & (last - 1)
    with cpp_rank_beside(world, ours, last, size) as leaf:
        if last >= core:
            leaf.send(i32(2**last), last - core)
            assert leaf.recv(4, last - core) == i32(2**size - 1)
        else:
            leaf.send(i32(8), 2)
            assert leaf.recv(4, 2) == i32(4)
            leaf.send(i32(12), 1)
            assert leaf.recv(4, 1) == i32(3)
        assert leaf.recv(4, parent) == i32(99)
        leaf.send(i32(2**last), parent)
        leaf.send(i32(last), parent)
        assert leaf.recv(4, parent) == i32(last)
    for rank in range(last):
        everything = (2**size - 1, list(range(size))) if rank == 0 else (None, [])
        assert results[rank] == [2**size - 1, 99, everything[0], everything[1], [rank]]


def test_blocks_of_a_subtree_travel_in_rotated_order(world: World) -> None:
    """N = 4, root 1: rank 3 (virtually 2) passes on its own block and rank 0's (virtually 3), in this order."""
    results: dict[int, list[Any]] = {}

    def ours(comm: fmi.Communicator, rank: int) -> None:
        gathered = comm.gather([rank, rank * 10], 1, ints(2))
        results[rank] = [gathered, comm.scatter([0, 1, 2, 3] if rank == 1 else None, 1, ints(4))]

    with cpp_rank_beside(world, ours, 3, 4) as inner:
        assert inner.recv(8, 0) == i32(0, 0)
        inner.send(i32(3, 30, 0, 0), 1)
        assert inner.recv(8, 1) == i32(3, 0)
        inner.send(i32(0), 0)
    assert results == {0: [[], [0]], 1: [[0, 0, 1, 10, 2, 20, 3, 30], [1]], 2: [[], [2]]}


def test_a_framed_rank_tells_that_the_other_one_is_not_framed(world: World) -> None:
    name = f"{world.folder.name}-"
    comm = fmi.Communicator(0, 2, world.config(framed=True), name)
    host, _, port = world.address.rpartition(":")
    with socket.create_connection((host, int(port)), 20) as raw:
        raw.sendall(f"{name}1_0".encode())
        with pytest.raises(fmi_errors.MismatchError, match=r"rank 1 at .* does not run in framed mode as rank 0 does"):
            comm.recv(1, INT)


def test_raw_arrays_need_an_array_to_fill(world: World) -> None:
    comm = fmi.Communicator(0, 2, world.config(framed=False), "name")
    for call in (lambda: comm.recv(1), lambda: comm.bcast(None, 1), lambda: comm.scatter(None, 1)):
        with pytest.raises(TypeError, match="only in framed mode does a message tell its type"):
            call()
