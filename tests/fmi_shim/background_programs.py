"""Programs of non-blocking collectives and duplicates. They import no test tools, as in `programs`."""

from __future__ import annotations

import copy
import pickle
import time
from typing import Any

import numpy as np

import fmi_shim as fmi
from fmi_shim.errors import BrokenCommunicatorError, PeerTimeoutError

SUM = fmi.func(fmi.op.sum)
INTS = fmi.types(fmi.datatypes.int_list, 2)


def every_collective(comm: fmi.Communicator, rank: int, size: int) -> dict[str, Any]:
    """Begin all of them, make other calls, and wait in another order."""
    last = size - 1
    numbers = [rank, 1]
    given = np.full(3, rank, np.int64)
    requests = [
        comm.iallreduce(numbers, SUM, INTS),
        comm.ibarrier(),
        comm.ibcast([5, 6] if rank == last else None, last, INTS),
        comm.igather(np.array([rank]), 0),
        comm.iallreduce(given, SUM, out=given),
    ]
    numbers[0] = -100  # a list was copied
    if size > 1:
        comm.sendrecv([rank, 0], (rank + 1) % size, (rank - 1) % size, INTS)
    total = comm.allreduce(rank, SUM, fmi.types(fmi.datatypes.int))
    index, first = fmi.Request.waitany(requests)
    values = fmi.Request.waitall(requests)
    assert index is not None
    assert values[index] is first
    return {
        "total": total,
        "allreduce": values[0],
        "barrier": values[1],
        "bcast": values[2],
        "gather": values[3].tolist(),
        "in place": values[4] is given and given.tolist(),
        "tested": requests[4].test(),
        "none left": fmi.Request.testany(requests),
    }


def overlapped(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Compute while a collective moves: it ends without a call of this rank."""
    request = comm.iallreduce(np.full(300_000, rank, float), SUM)
    if rank == 0:
        started = time.monotonic()
        while not request.test() and time.monotonic() - started < 30:
            time.sleep(0.01)
    return bool(np.all(request.wait() == sum(range(size))))


def together_with_messages(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Wait for a message and a collective together."""
    if rank:
        comm.send([rank, 3], 0, INTS)
        comm.recv(0, INTS)
        return comm.ibarrier().wait()
    requests = [comm.ibarrier(), comm.irecv(1, INTS)]
    first = fmi.Request.waitany(requests)
    comm.send([0, 0], 1, INTS)
    return first, fmi.Request.waitany(requests)


def late_rank(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Wait for a collective that the other rank begins later."""
    if rank:
        comm.recv(0, INTS)
        return comm.ibarrier().wait()
    request = comm.ibarrier()
    try:
        request.wait(timeout=0.1)
    except PeerTimeoutError as error:
        comm.send([0, 0], 1, INTS)
        return str(error), request.wait()
    return "no error"


def mismatched(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Begin different collectives, and call the communicator after the error."""
    request = comm.ibarrier() if rank else comm.iallreduce(1.0, SUM, fmi.types(fmi.datatypes.double))
    try:
        request.wait()
    except Exception as error:  # noqa: BLE001 - its type is returned
        try:
            comm.barrier()
        except BrokenCommunicatorError:
            return type(error).__name__, str(error)
    return None


def raise_in_block(comm: fmi.Communicator, rank: int, size: int) -> None:
    """Fail in a block while the others wait for a collective."""
    with comm:
        comm.ibarrier().wait()
        if rank == 1:
            raise LookupError("no such galaxy")
        comm.ibarrier().wait()


def duplicates(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Use both communicators in turns; close the copy first."""
    copied = comm.dup()
    if rank == 0:
        comm.send([1, 1], size - 1, INTS)
        copied.send([2, 2], size - 1, INTS)
    found = []
    if rank == size - 1:
        found = [copied.recv(0, INTS), comm.recv(0, INTS)]
    copied.close()
    second = comm.dup(timeout=30)
    place = (second.rank, second.size, second.allreduce(rank, SUM, fmi.types(fmi.datatypes.int)))
    refused = []
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        try:
            attempt(comm)
        except TypeError as error:
            refused.append(str(error))
    return found, place, refused
