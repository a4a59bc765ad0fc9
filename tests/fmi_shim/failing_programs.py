"""Programs in which a rank fails. They import no test tools, as in `programs`."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fmi_shim as fmi
from tests.fmi_shim.programs import DOUBLE, INT, ints, sum_of_ranks


def connect_all(comm: fmi.Communicator) -> None:
    """Open all connections of a barrier: a rank returns from the second one after all returned from the first."""
    comm.barrier()
    comm.barrier()


def die_before_second_call(comm: fmi.Communicator, rank: int, size: int, victim: int) -> None:
    connect_all(comm)
    if rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.barrier()


def die_while_awaited(comm: fmi.Communicator, rank: int, size: int, victim: int) -> None:
    """Kill the victim after the connected other ranks have waited for 0.6 s."""
    connect_all(comm)
    if rank == victim:
        time.sleep(0.6)
        os.kill(os.getpid(), signal.SIGKILL)
    comm.barrier()


def chain_of_waits(comm: fmi.Communicator, rank: int, size: int) -> None:
    """Rank 0 waits for 1, which waits for 2, and so on; the last, connected to one rank alone, is killed."""
    if rank > 0:
        comm.send(rank, rank - 1, INT)
    if rank < size - 1:
        comm.recv(rank + 1, INT)
    if rank == size - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.recv(rank + 1, INT)


def die_while_another_is_awaited(comm: fmi.Communicator, rank: int, size: int) -> None:
    """Rank 1, connected to rank 0 alone, is killed; rank 2 waits at the rendezvous server for rank 1."""
    if rank == 0:
        comm.send(0, 2, INT)
        comm.send(0, 1, INT)
        comm.recv(2, INT)
    elif rank == 1:
        comm.recv(0, INT)
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        comm.recv(0, INT)
        comm.recv(1, INT)


def end_before_others_connect(comm: fmi.Communicator, rank: int, size: int, how: str, there: Path) -> None:
    """Rank 1, connected to rank 3 alone, ends once ranks 0 and 2 have started, which then wait for it."""
    if rank == 1:
        comm.send(1, 3, INT)
        wait_for(there)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        comm.close()
    elif rank == 3:
        comm.recv(1, INT)
    else:
        comm.sendrecv(rank, 2 - rank, 2 - rank, INT)
        if rank == 2:
            there.touch()
        comm.recv(1, INT)


def keep_on(comm: fmi.Communicator, rank: int, size: int) -> None:
    """Call barriers for as long as another process may take to start."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        comm.barrier()
        time.sleep(0.01)


def never_connect(comm: fmi.Communicator, rank: int, size: int, absent: int) -> None:
    if rank != absent:
        comm.barrier()


def start_late(comm: fmi.Communicator, rank: int, size: int, late: int, given_up: Path) -> None:
    """The late rank calls the second barrier only after rank 0, which it exchanges with, has timed out.

    Before the first one, all ranks wait for each other without the communicator, so that starting takes none of
    `max_timeout`. In shared memory the others are in the second barrier, and the late rank may raise in the third.
    """
    wait_for_all(given_up.parent, rank, size)
    comm.barrier()
    if rank == late:
        wait_for(given_up)
    try:
        comm.barrier()
        comm.barrier()
    finally:
        if rank == 0:
            given_up.touch()


def close_early(comm: fmi.Communicator, rank: int, size: int, leaver: int) -> str:
    connect_all(comm)
    if rank != leaver:
        comm.barrier()
    return "closed"


def raise_in_own_code(comm: fmi.Communicator, rank: int, size: int, culprit: int) -> None:
    connect_all(comm)
    if rank == culprit:
        raise RuntimeError("a bug of the program")
    comm.barrier()


def fail_unseen(comm: fmi.Communicator, rank: int, size: int, over: Path) -> None:
    """Rank 0 fails and ends before rank 1 reads."""
    connect_all(comm)
    if rank == 0:
        try:
            with comm:
                raise RuntimeError("a bug of the program")
        finally:
            over.touch()
    wait_for(over)
    comm.barrier()


def raise_in_custom_function(comm: fmi.Communicator, rank: int, size: int) -> float:
    def fragile(left: float, right: float) -> float:
        if rank == 1:
            raise ZeroDivisionError("in the custom function")
        return left + right

    connect_all(comm)
    return comm.allreduce(1.0, fmi.func(fmi.op.custom, fragile, True, True), DOUBLE)


def overflow(comm: fmi.Communicator, rank: int, size: int) -> int:
    connect_all(comm)
    return comm.allreduce(2**30, fmi.func(fmi.op.sum), INT)


MISMATCHES = [
    ("operation", ["allreduce (call 1, 1 x int32, operator sum)", "barrier (call 1)"]),
    ("type", ["1 x int32", "1 x float64"]),
    ("count", ["1 x int32", "2 x int32"]),
    ("operator", ["operator sum", "operator max"]),
    ("shape", ["shape [2, 3]", "shape [3, 2]", "same on all ranks"]),
    ("dimensions", ["6 x float64", "an array of "]),
    ("described", ["typed values", "an array of "]),
]
"""How the ranks of `mismatched` differ, and what the error on each must contain."""


def mismatched(comm: fmi.Communicator, rank: int, size: int, how: str) -> Any:
    """Two ranks make calls that do not match."""
    total = fmi.func(fmi.op.sum)
    comm.barrier()
    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "operation": (lambda: comm.allreduce(1, total, INT), comm.barrier),
        "type": (lambda: comm.allreduce(1, total, INT), lambda: comm.allreduce(1.0, total, DOUBLE)),
        "count": (lambda: comm.allreduce([1], total, ints(1)), lambda: comm.allreduce([1, 2], total, ints(2))),
        "operator": (lambda: comm.allreduce(1, total, INT), lambda: comm.allreduce(1, fmi.func(fmi.op.max), INT)),
        "root": (lambda: comm.bcast(1, 0, INT) and comm.barrier(), lambda: comm.bcast(1, 1, INT) and comm.barrier()),
        "two receivers": (lambda: comm.gather(1, 0, INT), lambda: comm.gather(1, 1, INT)),
        "two recvs": (lambda: comm.recv(1, INT), lambda: comm.recv(0, INT)),
        "recv of anything": (lambda: comm.recv(1), lambda: comm.recv(0)),
        "two sends": (lambda: comm.send(np.ones(3_000_000), 1), lambda: comm.send(np.ones(3_000_000), 0)),
        "two roots": (lambda: comm.bcast(np.ones(3_000_000), 0), lambda: comm.bcast(np.ones(3_000_000), 1)),
        "shape": (lambda: comm.allreduce(np.ones((2, 3)), total), lambda: comm.allreduce(np.ones((3, 2)), total)),
        "dimensions": (lambda: comm.allreduce(np.ones((2, 3)), total), lambda: comm.allreduce(np.ones(6), total)),
        "described": (lambda: comm.allreduce(np.ones(1), total), lambda: comm.allreduce(1.0, total, DOUBLE)),
        "direction": (lambda: comm.send(1, 1, INT) or comm.barrier(), lambda: comm.send(1, 0, INT) or comm.barrier()),
        "open type": (lambda: comm.bcast([1, 2], 0, ints(2)) and comm.barrier(), lambda: comm.bcast(None, 0)),
        "order": (lambda: comm.send(1, 1, INT) or comm.barrier(), lambda: comm.barrier() or comm.recv(0, INT)),
    }
    return calls[how][rank]()


def deadlock_cycle(comm: fmi.Communicator, rank: int, size: int, how: str) -> None:
    """Every rank waits for the next one, the last one for the first."""
    after, before = (rank + 1) % size, (rank - 1) % size
    connect_all(comm)
    for peer in (min(after, before), max(after, before)):  # so that all ranks of the ring are connected, in any order
        comm.sendrecv(rank, peer, peer, INT) if how == "receive, after messages" else None
    if how == "one in a barrier" and rank == 0:
        comm.barrier()
    elif how.startswith(("receive", "one in")):
        comm.recv(after, INT)
    elif how == "send":
        comm.send(np.ones(3_000_000), after)
    elif how == "one sends":
        comm.send(np.ones(3_000_000), after) if rank == 0 else comm.recv(after, INT)
    elif how == "other collectives":
        comm.gather(1, after, INT) if rank else comm.bcast(1, 1, INT)


def slow_ring(comm: fmi.Communicator, rank: int, size: int) -> float:
    """Send a message around a ring; each rank keeps it for longer than `deadlock_report_seconds`."""
    after, before = (rank + 1) % size, (rank - 1) % size
    total = np.zeros(300_000)
    for turn in range(2):
        if rank or turn:
            total = comm.recv(before)
        time.sleep(0.35)
        comm.send(total + 1, after)
    return float(comm.recv(before)[0]) if rank == 0 else float(total[0])


def wait_after_report(comm: fmi.Communicator, rank: int, size: int) -> int:
    """Delay the other rank until it reports its wait; then wait with its notices still unread."""
    comm.barrier()
    peer, received = 1 - rank, 0
    for turn in range(3):
        if rank == turn % 2:
            time.sleep(0.5)
            comm.send(np.arange(turn + 1), peer)
        else:
            received = comm.recv(peer).size if turn else comm.recv(peer, out=np.empty(1, np.int64)).size
    comm.barrier()
    return received


def errors_of_two_calls(comm: fmi.Communicator, rank: int, size: int, how: str) -> list[BaseException | None]:
    errors: list[BaseException | None] = []
    for call in (lambda: mismatched(comm, rank, size, how), comm.barrier):
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the error is the result
            errors.append(error)
        else:
            errors.append(None)
    return errors


def interrupted(comm: fmi.Communicator, rank: int, size: int) -> None:
    """Rank 0 gets a Ctrl-C during a receive that does not end."""
    comm.barrier()
    if rank == 0:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    else:
        time.sleep(1)
    comm.recv(1 - rank, INT)


def sum_after_start(comm: fmi.Communicator, rank: int, size: int, started: Path) -> int:
    """Create the file `started`, then sum."""
    started.touch()
    return sum_of_ranks(comm, rank, size)


def wait_for_all(folder: Path, rank: int, size: int) -> None:
    """Wait until all ranks' processes run."""
    (folder / f"rank-{rank}-runs").touch()
    for other in range(size):
        wait_for(folder / f"rank-{other}-runs")


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.001)


def interrupted_in(comm: fmi.Communicator, rank: int, size: int, wait: str, over: Path) -> None:
    """Rank 0 gets a Ctrl-C while it waits: for a connection, for a message, or in a collective.

    The other rank waits for the end of that, and then exits without closing, which would take time on a store.
    """
    if wait != "meeting":
        comm.barrier()
    if rank:
        wait_for(over)
        os._exit(0)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        comm.barrier() if wait == "collective" else comm.recv(1, INT)
    finally:
        over.touch()


def fail_in_a_split(comm: fmi.Communicator, rank: int, size: int, how: str) -> None:
    """Of the odd ranks, 1 waits for 3, which is killed, raises, or is in a call of the world, as all others are."""
    with comm:
        part = comm.split(rank % 2)
        assert part is not None
        part.barrier()
        connect_all(comm)
        if rank == 3 and how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 1:
            part.barrier(timeout=0.5 if how == "late" else None)
        elif rank == 3 and how == "raises":
            with part:
                raise LookupError("no such galaxy")
        else:
            comm.barrier()


def chain_through_a_split(comm: fmi.Communicator, rank: int, size: int, over: Path) -> None:
    """Rank 0 waits for 1, which waits in another communicator for 2, which is in its own code."""
    part = comm.split(0 if rank else None)
    if part is not None:
        part.barrier()
    connect_all(comm)
    if rank == 0:
        try:
            comm.recv(1, INT, timeout=0.5)
        finally:
            over.touch()
    assert part is not None
    if rank == 1:
        part.recv(1, INT)
    else:
        wait_for(over)
        part.send(2, 0, INT)
