"""What the ranks of these tests run."""

from __future__ import annotations

import os
import time

import numpy as np

import fmi_shim as fmi
from fmi_shim import telemetry

SUM = fmi.func(fmi.op.sum)


def calls_of_every_kind(comm: fmi.Communicator, rank: int, size: int) -> int:
    """Make collectives, blocking and posted messages, in three communicators and in a thread beside; return dropped."""
    value = np.ones(100)
    for _ in range(3):
        comm.allreduce(value, SUM)
    after, before = (rank + 1) % size, (rank - 1) % size
    if rank % 2:
        comm.recv(before, out=value)
        comm.send(value, after)
    else:
        comm.send(value, after)
        comm.recv(before, out=value)
    incoming = comm.irecv(before, out=value)
    comm.isend(np.ones(100), after).wait()
    incoming.wait()
    comm.bcast(value, 0)
    half = comm.split(rank % 2)
    assert half is not None
    half.barrier()
    if half.size > 1:
        half.sendrecv(np.ones(3), 1 - half.rank, 1 - half.rank)
    comm.ibarrier().wait()
    comm.bcast_object({"rank": rank}, 0)
    half.close()
    comm.close()
    assert telemetry.recorder is not None
    return telemetry.recorder.dropped


def late_sender(comm: fmi.Communicator, rank: int, size: int) -> None:
    """Rank 1 receives a message that rank 0 sends late; then rank 2 enters a barrier late."""
    comm.barrier()
    if rank == 0:
        time.sleep(0.2)
        comm.send(np.ones(10), 1)
    elif rank == 1:
        comm.recv(0)
    if rank == 2:
        time.sleep(0.5)
    comm.barrier()
    comm.close()


def waits_in_a_chain(comm: fmi.Communicator, rank: int, size: int) -> None:
    """Rank 0 waits for rank 1, which waits for rank 2, which computes."""
    comm.barrier()
    if rank < size - 1:
        comm.recv(rank + 1)
    else:
        while True:
            time.sleep(0.01)


def many_short_calls(comm: fmi.Communicator, rank: int, size: int, count: int) -> int:
    """Make calls as fast as possible; return the dropped ones."""
    value = np.ones(1)
    for _ in range(count):
        comm.allreduce(value, SUM)
    comm.close()
    assert telemetry.recorder is not None
    return telemetry.recorder.dropped


def leaves_no_thread(comm: fmi.Communicator, rank: int, size: int) -> tuple[int, float]:
    """Make one call, and return the process and how long closing took."""
    comm.barrier()
    began = time.monotonic()
    comm.close()
    return os.getpid(), time.monotonic() - began
