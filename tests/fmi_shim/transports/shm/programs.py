"""The programs of the ranks in the shared-memory tests. As in `programs`, no test tools are imported."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
from functools import reduce as fold
from pathlib import Path
from typing import Any

import numpy as np

import fmi_shim as fmi
from fmi_shim.operators import Array
from fmi_shim.transports.shm import cma, rounds_tso, segment
from tests.fmi_shim.programs import DOUBLE, INT, ints

SUM = fmi.func(fmi.op.sum)


def large_payloads(comm: fmi.Communicator, rank: int, size: int) -> list[str]:
    """Run operations around the limits of slots, windows, blocks and shares; return the names of wrong results."""
    wrong: list[str] = []
    for count in (1, 8192, 8193, 16_384, 16_385, 131_071, 131_072, 131_073, 700_001):
        arrays = [np.arange(count, dtype=np.float64) + r for r in range(size)]
        expected = fold(np.add, arrays)
        own = arrays[rank].copy()
        if not np.array_equal(comm.allreduce(own, SUM), expected):
            wrong.append(f"allreduce {count}")
        for root in (0, size - 1):
            reduced = comm.reduce(own, root, SUM)
            if rank == root and not np.array_equal(reduced, expected):
                wrong.append(f"reduce {count} {root}")
            if not np.array_equal(comm.bcast(own if rank == root else None, root), arrays[root]):
                wrong.append(f"bcast {count} {root}")
            gathered = comm.gather(own, root)
            if rank == root and not np.array_equal(gathered, np.concatenate(arrays)):
                wrong.append(f"gather {count} {root}")
        if not np.array_equal(comm.allgather(own), np.concatenate(arrays)):
            wrong.append(f"allgather {count}")
        slices = [array[: count // size * size].reshape(size, -1)[rank] for array in arrays]
        if not np.array_equal(comm.alltoall(own[: count // size * size]), np.concatenate(slices)):
            wrong.append(f"alltoall {count}")
        total = expected[: count // size * size].reshape(size, -1)[rank]
        if not np.array_equal(comm.reduce_scatter(own[: count // size * size], SUM), total):
            wrong.append(f"reduce_scatter {count}")
        if not np.array_equal(own, arrays[rank]):
            wrong.append(f"own {count}")
    return wrong


def mixture(comm: fmi.Communicator, rank: int, size: int, calls: int) -> list[str]:
    """Make calls in a random order, the same on all ranks; return the names of wrong results."""
    chance = random.Random(7)
    wrong: list[str] = []
    for number in range(calls):
        operation = chance.choice(["allreduce", "reduce", "bcast", "barrier", "send", "gather", "scatter", "scan"])
        count = chance.choice([1, 2, 100, 9000, 150_000])
        root, other = chance.sample(range(size), 2)
        arrays = [np.full(count, number * 10 + r, np.int64) for r in range(size)]
        own, total = arrays[rank], fold(np.add, arrays)
        got: Any = None
        expected: Any = None
        if operation == "allreduce":
            got, expected = comm.allreduce(own, SUM), total
        elif operation == "reduce":
            got, expected = comm.reduce(own, root, SUM), total if rank == root else None
        elif operation == "bcast":
            got, expected = comm.bcast(own if rank == root else None, root), arrays[root]
        elif operation == "gather":
            got, expected = comm.gather(own, root), np.concatenate(arrays) if rank == root else own[:0]
        elif operation == "scatter":
            got, expected = comm.scatter(np.concatenate(arrays) if rank == root else None, root), own
        elif operation == "scan":
            got, expected = comm.scan(own, SUM), fold(np.add, arrays[: rank + 1])
        elif operation == "send" and rank == root:
            comm.send(own, other)
        elif operation == "send" and rank == other:
            got, expected = comm.recv(root), arrays[root]
        elif operation == "barrier":
            comm.barrier()
        if not np.array_equal(got, expected):
            wrong.append(f"call {number}: {operation} of {count}, root {root}: {got}, not {expected}")
    return wrong


def payloads_around_the_segment(comm: fmi.Communicator, rank: int, size: int, readable: bool) -> list[str]:
    """Run collectives of large payloads where all ranks may read each other's memory, or where the last one may not."""
    cma.AVAILABLE = readable or rank < size - 1
    copied: list[int] = []
    copy = cma.copy_from_process

    def counted(process: int, address: int, target: Array) -> None:
        copied.append(target.nbytes)
        copy(process, address, target)

    cma.copy_from_process = counted
    wrong: list[str] = []
    for slice_count in (2**15 - 1, 2**15, 2**18, 2**18 + 1, 300_000):
        rows = np.arange(size)[:, None] * 1000 + np.linspace(0, 1, slice_count)
        for out in (None, np.empty_like(rows)):
            found = comm.alltoall(rows + rank * 0.5, out=out)
            if not np.array_equal(found, rows[rank] + np.arange(size)[:, None] * 0.5):
                wrong.append(f"alltoall {slice_count}")
        own = rows[rank : rank + 1].copy()
        if not np.array_equal(comm.allgather(own), rows):
            wrong.append(f"allgather {slice_count}")
        own[...] = 0  # no rank reads it any more
    if any(size_bytes >= 2**18 for size_bytes in copied) != readable:
        wrong.append(f"copied {copied}")
    return wrong


def mixture_with_semaphores(comm: fmi.Communicator, rank: int, size: int, calls: int) -> list[str]:
    """Run both as on a machine without total store order."""
    rounds_tso.TSO = False
    return mixture(comm, rank, size, calls) + large_payloads(comm, rank, size)


def posted_around_a_barrier(comm: fmi.Communicator, rank: int, size: int) -> list[int]:
    """Post one end of each message, so that none blocks: collectives may be between the two ends."""
    got: list[int] = []
    for turn in range(3):
        if rank == 0:
            comm.send(turn, 1, INT)
            comm.barrier()
            posted = comm.isend(turn + 10, 1, INT)
            comm.barrier()
            posted.wait()
        else:
            expected = comm.irecv(0, INT)
            comm.barrier()
            comm.barrier()
            got += [expected.wait(), comm.recv(0, INT)]
    return got


def sums_of_thirds(comm: fmi.Communicator, rank: int, size: int) -> list[bytes]:
    """Return the bytes of sums whose bits depend on the order of addition."""
    return [comm.allreduce(np.arange(1, count + 1) / (3.0 + rank), SUM).tobytes() for count in (1, 100, 9000, 400_000)]


def names_in_use(comm: fmi.Communicator, rank: int, size: int) -> list[str]:
    """Return the names that this run's segment still has, after all ranks have opened it."""
    comm.barrier()
    mapped = Path("/proc/self/maps").read_text()
    return [path.name for path in Path("/dev/shm").glob("fmi-*") if f"{path}\n" in mapped]


def die(comm: fmi.Communicator, rank: int, size: int, victim: int, moment: str) -> None:
    """Kill the victim at one moment, while all others depend on it."""
    data = np.ones(1_000_000)
    comm.barrier()
    if rank == victim:
        if moment == "asleep":
            time.sleep(0.1)  # the others stop polling, and sleep
        if moment in ("in a large allreduce", "in a large alltoall"):
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    if moment == "in a receive":
        comm.recv(victim, DOUBLE)
    while True:
        if moment == "in a large alltoall":
            comm.alltoall(data)
        else:
            comm.allreduce(data, SUM)


def die_all_together(comm: fmi.Communicator, rank: int, size: int) -> None:
    comm.barrier()
    os.kill(os.getpid(), signal.SIGKILL)


def raise_in_custom_function(comm: fmi.Communicator, rank: int, size: int) -> float:
    def fragile(left: float, right: float) -> float:
        raise ZeroDivisionError("in the custom function")

    return comm.allreduce(1.0, fmi.func(fmi.op.custom, fragile, True, True), DOUBLE)


def overflow(comm: fmi.Communicator, rank: int, size: int, count: int) -> list[int]:
    return comm.allreduce([2**30] * count, SUM, ints(count))


def processor_time_of_a_wait(comm: fmi.Communicator, rank: int, size: int) -> tuple[float, float]:
    comm.barrier()
    if rank == 1:
        time.sleep(0.5)
    start, used = time.monotonic(), time.process_time()
    comm.barrier()
    return time.monotonic() - start, time.process_time() - used


def hint_fast(comm: fmi.Communicator, rank: int, size: int, trouble: str) -> tuple[list[list[str]], list[int]]:
    """Return which channels were open after each call with a hint, and the results."""
    if trouble == "blind" and rank == size - 1:
        segment._DIRECTORY = Path("/nonexistent")
    if trouble == "full":
        os.posix_fallocate = full
    opened, came = [], []
    comm.hint(fmi.hints.fast)
    for hint in (fmi.hints.fast, fmi.hints.fast, fmi.hints.cheap, fmi.hints.fast):
        comm.hint(hint)
        if size > 1:
            came.append(comm.sendrecv(rank, (rank + 1) % size, (rank - 1) % size, INT))
        opened.append(sorted(name.value for name in comm._calls._channels._opened))
        came.append(comm.allreduce(rank, SUM, INT))
    return opened, came


def see_another_folder(comm: fmi.Communicator, rank: int, size: int, blind: int) -> None:
    """Let one rank look in an empty directory, as in a container with a /dev/shm of its own."""
    if rank == blind:
        segment._DIRECTORY = Path("/nonexistent")
    comm.barrier()


def reserve_too_much(comm: fmi.Communicator, rank: int, size: int) -> None:
    """Let the allocation of the segment fail, as on a full /dev/shm."""
    os.posix_fallocate = full
    comm.barrier()


def full(descriptor: int, start: int, length: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
