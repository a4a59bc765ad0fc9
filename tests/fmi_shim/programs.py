"""Programs that the ranks of the tests run. They import no test tools, so that ranks start quickly."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import reduce as fold
from typing import Any

import numpy as np

import fmi_shim as fmi
from fmi_shim.errors import FmiError

INT, DOUBLE = fmi.types(fmi.datatypes.int), fmi.types(fmi.datatypes.double)


def ints(count: int) -> fmi.types:
    return fmi.types(fmi.datatypes.int_list, count)


def doubles(count: int) -> fmi.types:
    return fmi.types(fmi.datatypes.double_list, count)


def subtract(left: Any, right: Any) -> Any:
    return left - right


def every_array_operation(comm: fmi.Communicator, rank: int, size: int, framed: bool) -> list[str]:
    """Call every method with arrays; return the names of the wrong results."""
    wrong: list[str] = []

    def check(name: str, got: Any, expected: np.ndarray) -> None:
        same = isinstance(got, np.ndarray) and got.dtype == expected.dtype and got.shape == expected.shape
        if not same or not np.array_equal(got, expected):
            wrong.append(f"{name}: {got!r}, not {expected!r}")

    kinds = [
        ("float64", (3,)),
        ("int32", (2, 3)),
        ("float32", ()),
        ("int64", (0,)),
        ("float64", (5, 4001)),
        ("int16", (7,)),
    ]
    for dtype, shape in kinds:
        base = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 5
        arrays = [np.asarray(base + r, dtype) for r in range(size)]
        own, kind = arrays[rank], f"{dtype}{shape}"
        check(f"sum {kind}", comm.allreduce(own, fmi.func(fmi.op.sum)), fold(np.add, arrays).astype(dtype))
        check(f"max {kind}", comm.allreduce(own, fmi.func(fmi.op.max)), fold(np.maximum, arrays))
        difference = comm.allreduce(own, fmi.func(fmi.op.custom, subtract, False, False))
        check(f"subtract {kind}", difference, fold(np.subtract, arrays).astype(dtype))
        check(f"scan {kind}", comm.scan(own, fmi.func(fmi.op.sum)), fold(np.add, arrays[: rank + 1]).astype(dtype))
        check(f"own unchanged {kind}", own, arrays[rank])
        for root in {0, size // 2, size - 1}:
            reduced = comm.reduce(own, root, fmi.func(fmi.op.min))
            if rank == root:
                check(f"min {kind} {root}", reduced, fold(np.minimum, arrays))
            elif reduced is not None:
                wrong.append(f"reduce {kind} {root} returned {reduced!r} away from the root")
            template = own.copy() if rank == root else np.zeros_like(own)
            filled = comm.bcast(template, root)
            check(f"bcast {kind} {root}", filled, arrays[root])
            if filled is not template:
                wrong.append(f"bcast {kind} {root} returned another array than it was given")
            if framed:
                check(f"bcast new {kind} {root}", comm.bcast(own if rank == root else None, root), arrays[root])
            if shape:
                joined = np.concatenate(arrays)
                gathered = comm.gather(own, root)
                check(f"gather {kind} {root}", gathered, joined if rank == root else joined[:0])
                piece = np.zeros_like(own)
                scattered = comm.scatter(joined if rank == root else piece, root)
                check(f"scatter {kind} {root}", scattered, own)
                if framed:
                    check(f"scatter new {kind} {root}", comm.scatter(joined if rank == root else None, root), own)
        if framed and size > 1:
            if rank == 0:
                comm.send(own, size - 1)
            elif rank == size - 1:
                check(f"recv {kind}", comm.recv(0), arrays[0])
    return wrong


def sum_of_ranks(comm: fmi.Communicator, rank: int, size: int) -> int:
    return comm.allreduce(rank, fmi.func(fmi.op.sum), INT)


def tensors(comm: fmi.Communicator, rank: int, size: int) -> dict[str, Any]:
    """Make some calls with torch tensors; return the results as (type's module, dtype, values)."""
    import torch

    own = torch.arange(6, dtype=torch.float32).reshape(2, 3) + rank
    view = torch.zeros(2, 3)
    given = comm.bcast(own if rank == 0 else view, 0)
    results = {
        "allreduce": comm.allreduce(own, fmi.func(fmi.op.sum)),
        "bcast": given,
        "gather": comm.gather(own.T, 0),
        "custom": comm.allreduce(own, fmi.func(fmi.op.custom, torch.maximum, False, False)),
        "own": own,
    }
    same = {"bcast filled the tensor": rank == 0 or given is view}
    return same | {name: (isinstance(r, torch.Tensor), str(r.dtype), r.tolist()) for name, r in results.items()}


def without_torch(comm: fmi.Communicator, rank: int, size: int) -> bool:
    comm.allreduce(np.ones(3), fmi.func(fmi.op.sum))
    return "torch" not in sys.modules


def big_exchange(comm: fmi.Communicator, rank: int, size: int, count: int) -> tuple[float, float]:
    total = comm.allreduce(np.full(count, float(rank)), fmi.func(fmi.op.sum))
    return float(total.min()), float(total.max())


def wrong_arguments(comm: fmi.Communicator, rank: int, size: int) -> tuple[list[tuple[str, str]], int]:
    """Make every kind of invalid call; return the errors, and a sum that shows that nothing was sent."""
    total = fmi.func(fmi.op.sum)
    calls: list[Callable[[], Any]] = [
        lambda: comm.send(1, size, INT),
        lambda: comm.recv(-1, INT),
        lambda: comm.recv("0", INT),  # type: ignore[arg-type]
        lambda: comm.bcast(1, 7, INT),
        lambda: comm.bcast(1, True, INT),
        lambda: comm.bcast(1.5, rank, INT),
        lambda: comm.bcast(2**31, rank, INT),
        lambda: comm.allreduce("1", total, DOUBLE),
        lambda: comm.allreduce([1, 2], total, ints(3)),
        lambda: comm.allreduce([1, 2.5], total, ints(2)),
        lambda: comm.allreduce([1, -(2**31) - 1], total, ints(2)),
        lambda: comm.allreduce(["1"], total, doubles(1)),
        lambda: comm.allreduce(5, total, ints(1)),
        lambda: comm.allreduce(1, total),
        lambda: comm.allreduce(1, max, INT),  # type: ignore[arg-type]
        lambda: comm.allreduce(1, total, int),  # type: ignore[arg-type]
        lambda: comm.allreduce(np.array(["a"]), total),
        lambda: comm.allreduce(np.array([True]), total),
        lambda: comm.scatter([0] * (size + 1), rank, ints(size + 1)),
        lambda: comm.scatter(1, rank, INT),
        lambda: comm.scatter(np.zeros(size + 1), rank),
        lambda: comm.bcast(np.zeros((4, 4))[:, 0], (rank + 1) % size),
        lambda: comm.hint("fast"),  # type: ignore[arg-type]
    ]
    errors = []
    for call in calls:
        try:
            call()
        except (TypeError, ValueError, OverflowError) as error:
            errors.append((type(error).__name__, str(error)))
        else:
            errors.append(("", "no error"))
    return errors, comm.allreduce(1, total, INT)


def fork_a_child(comm: fmi.Communicator, rank: int, size: int) -> int:
    """Fork a child that ends; its end must not close its parent's connections."""
    comm.barrier()
    child = os.fork()
    if child == 0:
        comm.close()
        os._exit(0)
    os.waitpid(child, 0)
    return sum_of_ranks(comm, rank, size)


def closed(comm: fmi.Communicator, rank: int, size: int) -> str:
    comm.barrier()
    comm.close()
    comm.close()
    try:
        comm.barrier()
    except FmiError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def channels_by_hint(comm: fmi.Communicator, rank: int, size: int) -> tuple[list[list[str]], int]:
    """Sum with each hint; return which channels were open after the fast one and after the cheap one, and a sum."""
    opened = []
    for hint in (fmi.hints.fast, fmi.hints.cheap):
        comm.hint(hint)
        total = sum_of_ranks(comm, rank, size)
        opened.append(sorted(name.value for name in comm._calls._channels._opened))
    return opened, total


def leave_after_writing(comm: fmi.Communicator, rank: int, size: int) -> int | None:
    """Reduce to a root that calls late; the other ranks end after their write."""
    if rank == 0:
        time.sleep(0.2)
    return comm.reduce(rank, 0, fmi.func(fmi.op.sum), INT)


def sum_and_connections(comm: fmi.Communicator, rank: int, size: int) -> tuple[int, int]:
    """Sum the ranks; return the sum, and how many other ranks this one is connected to."""
    total = sum_of_ranks(comm, rank, size)
    (channel,) = comm._calls._channels._opened.values()
    return total, len(channel._streams)  # type: ignore[attr-defined] # a Direct channel
