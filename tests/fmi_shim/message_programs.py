"""Programs of messages between two ranks, and of one rank to itself. They import no test tools, as in `programs`."""

from __future__ import annotations

import array
import time
from typing import Any

import numpy as np

import fmi_shim as fmi
from fmi_shim.errors import PeerTimeoutError

SUM = fmi.func(fmi.op.sum)
INTS = fmi.types(fmi.datatypes.int_list, 2)


def to_itself(comm: fmi.Communicator, rank: int, size: int) -> dict[str, Any]:
    """Send what only this rank receives, between collectives."""
    other = (rank + 1) % size
    comm.send([rank, 7], rank, INTS)
    comm.barrier()
    found: dict[str, Any] = {"typed": comm.recv(rank, INTS)}
    sent = np.arange(3) + rank
    comm.send(sent, rank)
    sent[:] = -1
    found["copied"] = comm.recv(rank, out=np.empty(3, int)).tolist()
    early = comm.irecv(rank, out=np.empty(2))
    found["early"] = early.test()
    comm.isend(np.full(2, 0.5), rank).wait()
    found["posted"] = early.wait().tolist()
    found["exchanged"] = comm.sendrecv([rank, other], rank, rank, INTS)
    place = np.full(4, rank)
    found["in place"] = comm.sendrecv(place, rank, rank, out=place) is place
    found["ring"] = comm.sendrecv([rank, 0], other, (rank - 1) % size, INTS)
    return found


def to_itself_framed(comm: fmi.Communicator, rank: int, size: int) -> dict[str, Any]:
    """Send what describes itself."""
    comm.send(np.ones((2, 3)), rank)
    unknown = comm.recv(rank)
    comm.send(np.arange(2), rank)
    shorter = comm.recv(rank, out=np.zeros(5, int))
    return {"unknown": unknown.shape, "shorter": shorter.tolist()}


def wait_for_itself(comm: fmi.Communicator, rank: int, size: int, posted: bool) -> None:
    """Receive what was never sent."""
    if posted:
        comm.irecv(rank, INTS).wait()
    comm.recv(rank, INTS)


def receive_another_type_from_itself(comm: fmi.Communicator, rank: int, size: int) -> None:
    comm.send([1, 2], rank, INTS)
    comm.recv(rank, out=np.empty(2, np.int32))


def larger_buffers(comm: fmi.Communicator, rank: int, size: int, rows: int, rounds: int) -> list[str]:
    """Receive arrays of some rows into memory for more, by every call; return what was wrong."""
    wrong: list[str] = []

    def check(name: str, got: Any, place: Any, expected: np.ndarray) -> None:
        whole = np.asarray(place).reshape(-1)
        if not np.array_equal(got, expected) or not np.shares_memory(got, whole):
            wrong.append(f"{name}: {got!r}")
        if not np.all(whole[expected.size :] == -1):
            wrong.append(f"{name} wrote behind the message: {whole}")

    message = np.arange(rows * 3, dtype=float).reshape(rows, 3)
    for turn in range(rounds):
        if rank == 0:
            for _ in range(4):
                comm.send(message + turn, 1)
            comm.isend(message + turn, 1).wait()
            comm.send(np.array([rows]), 1)
            continue
        place = np.full((rows + 2, 3), -1.0)
        check("recv", comm.recv(0, out=place), place, message + turn)
        exact = np.empty((rows, 3))
        if comm.recv(0, out=exact) is not exact:
            wrong.append("an exact receive returned another array")
        place = np.full((2 * rows + 1, 3), -1.0)
        request = comm.irecv(0, out=place)
        check("irecv", request.wait(), place, message + turn)
        unknown = comm.irecv(0)
        if not np.array_equal(unknown.wait(), message + turn):
            wrong.append("irecv of unknown size")
        place = np.full((9 * rows, 3), -1.0)
        check("recv of a posted message", comm.recv(0, out=place), place, message + turn)
        if comm.recv(0).tolist() != [rows]:
            wrong.append("the message after them")
    return wrong


def larger_buffer_of_another_kind(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Receive into a bytearray."""
    if rank == 0:
        comm.send(b"abc", 1)
        return None
    return comm.recv(0, out=bytearray(8)).tobytes()


def too_small(comm: fmi.Communicator, rank: int, size: int, out_shape: tuple[int, ...]) -> None:
    """Receive an array of another shape that is not one with fewer rows."""
    if rank == 0:
        comm.send(np.zeros((4, 2)), 1)
    else:
        comm.recv(0, out=np.zeros(out_shape))


def many_requests(comm: fmi.Communicator, rank: int, size: int) -> dict[str, Any]:
    """Wait for several messages in the order in which they come."""
    if rank:
        if rank == 1:
            comm.recv(0, INTS)  # the last one to send
        comm.send(np.full(rank, rank), 0)
        comm.send([rank, 5], 0, INTS)
        return {}
    requests = [comm.irecv(src) for src in range(1, size)]
    found: dict[str, Any] = {"tested": fmi.Request.testany([requests[0]]), "order": []}
    for _ in range(size - 2):
        index, value = fmi.Request.waitany(requests)
        assert index is not None
        found["order"].append((index, value.tolist()))
    comm.send([0, 0], 1, INTS)
    index, value = fmi.Request.waitany(requests, timeout=30)
    found["last"] = (index, value.tolist())
    found["none left"] = fmi.Request.waitany(requests)
    found["order"].sort()
    rest = [comm.irecv(src, INTS) for src in range(1, size)] + [comm.isend(np.zeros(1), 0), comm.irecv(0)]
    found["all"] = [v.tolist() if isinstance(v, np.ndarray) else v for v in fmi.Request.waitall(rest)]
    found["tested after"] = fmi.Request.testany(rest)
    return found


def requests_of_two_channels(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Wait for messages of two communicators together: what comes in the second must not wait for the first."""
    part = comm.split(0)
    assert part is not None
    if rank:
        part.send(np.array([8]), 0)
        comm.recv(0, INTS)
        comm.send(np.array([9]), 0)
        return None
    requests = [comm.irecv(1), part.irecv(1)]
    first = fmi.Request.waitany(requests)
    comm.send([0, 0], 1, INTS)
    return first[0], [value.tolist() for value in fmi.Request.waitall(requests)]


def limited(comm: fmi.Communicator, rank: int, size: int, operation: str) -> str:
    """Make a call that rank 1 never makes; return the error of rank 0."""
    comm.barrier()
    if rank:
        time.sleep(1.5)
        return ""
    calls: dict[str, Any] = {
        "recv": lambda: comm.recv(1, INTS, timeout=0.3),
        "sendrecv": lambda: comm.sendrecv([0, 0], 1, 1, INTS, timeout=0.3),
        "barrier": lambda: comm.barrier(timeout=0.3),
        "allreduce": lambda: comm.allreduce(1.0, SUM, fmi.types(fmi.datatypes.double), timeout=0.3),
        "gather": lambda: comm.gather(np.zeros(2), 0, timeout=0.3),
    }
    start = time.monotonic()
    try:
        calls[operation]()
    except PeerTimeoutError as error:
        return str(error) if time.monotonic() - start < 1.4 else f"late: {error}"
    return "no error"


def before_the_others(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Exchange messages between two ranks, and with the others only if they come."""
    if rank == 0:
        request = comm.irecv(1, INTS)
        comm.send([1, 2], 1, INTS)
        return request.wait()
    received = comm.recv(0, INTS)
    comm.send([3, 4], 0, INTS)
    return received


def messages_before_and_after(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Exchange messages before and after the first collective; one is posted before and waited for after."""
    other = 1 - rank
    request = comm.irecv(other, INTS)
    comm.isend([rank, 0], other, INTS).wait()
    total = comm.allreduce(rank, SUM, fmi.types(fmi.datatypes.int))
    return total, comm.sendrecv([rank, 1], other, other, INTS), request.wait()


def late_sender(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Wait for a message in vain, then again."""
    comm.barrier()
    if rank:
        comm.recv(0, INTS)
        comm.send([3, 4], 0, INTS)
        return None
    request = comm.irecv(1, INTS)
    errors = 0
    for wait in (request.wait, lambda timeout: fmi.Request.waitany([request], timeout)):
        try:
            wait(timeout=0.1)
        except PeerTimeoutError as error:
            errors += "raise timeout if it needs longer" in str(error)
    comm.send([1, 2], 1, INTS)
    return errors, request.wait(timeout=20), array.array("i", request.wait()).tolist()


def rows_of_arrays(comm: fmi.Communicator, rank: int, size: int) -> list[str]:
    """Join and cut arrays of several axes, without counts, in place, and of no rows; return what was wrong."""
    wrong: list[str] = []

    def check(name: str, got: Any, expected: np.ndarray) -> None:
        if got.shape != expected.shape or got.dtype != expected.dtype or not np.array_equal(got, expected):
            wrong.append(f"{name}: {got!r}, not {expected!r}")

    counts = [0, 3, 1][:size]
    parts = [np.full((n, 2), r, np.float32) for r, n in enumerate(counts)]
    own, joined = parts[rank], np.concatenate(parts)
    check("gatherv", comm.gatherv(own, 1), joined if rank == 1 else own[:0])
    place = np.empty_like(joined)
    start = sum(counts[:rank])
    mine = place[start : start + counts[rank]]
    mine[...] = own
    check("allgatherv in place", comm.allgatherv(mine, counts, out=place), joined)
    check("allgatherv without counts", comm.allgatherv(own), joined)
    whole = np.arange(8.0).reshape(4, 2)
    received = comm.scatterv(whole if rank == 2 else None, 2, counts if rank == 2 else None)
    check("scatterv", received, whole[start : start + counts[rank]])
    turned = comm.alltoallv(np.full((2 * size, 2), rank), [2] * size)
    check("alltoallv", turned, np.repeat(np.arange(size), 2)[:, None].repeat(2, 1))
    total = comm.reduce_scatter(whole * rank, SUM, counts=counts)
    check("reduce_scatter", total, 3 * whole[start : start + counts[rank]])
    joined_all = comm.allgatherv(np.full(50_000 * (rank + 1), rank), [50_000 * (r + 1) for r in range(size)])
    check("large allgatherv", joined_all, np.repeat(np.arange(size), [50_000 * (r + 1) for r in range(size)]))
    return wrong


def other_counts(comm: fmi.Communicator, rank: int, size: int, operation: str) -> None:
    """Call with counts that the other rank does not have."""
    own = np.zeros((rank + 1, 2))
    if operation == "gatherv":
        comm.gatherv(own, 0, [1, 3])
    elif operation == "allgatherv":
        comm.allgatherv(own, [1, 2] if rank else [1, 4])
    else:
        comm.alltoallv(np.zeros((3, 2)), [1, 2], [1, 2])
