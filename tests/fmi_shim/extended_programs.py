"""Programs that use more than FMI's operations. They import no test tools, as in `programs`."""

from __future__ import annotations

import array
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import reduce as fold
from typing import Any

import numpy as np

import fmi_shim as fmi
from tests.fmi_shim.programs import INT, doubles, ints

SUM = fmi.func(fmi.op.sum)


def every_array_operation(comm: fmi.Communicator, rank: int, size: int) -> list[str]:
    """Call every operation with arrays of many types; return the names of the wrong results."""
    kinds = [
        ("float64", (3,)),
        ("uint8", (2, 3)),
        ("complex64", (2,)),
        ("float16", (1, 2)),
        ("int64", (0,)),
        ("float32", (9001,)),
        ("uint64", (40, 7)),
    ]
    wrong = [text for dtype, shape in kinds for text in operations_on(comm, rank, size, dtype, shape)]
    return wrong + arrays_of_one_shape(comm, rank, size)


def arrays_of_one_shape(comm: fmi.Communicator, rank: int, size: int) -> list[str]:
    """Reduce arrays in turns that differ in all but the shape, new and in place; return the wrong results."""
    wrong: list[str] = []
    locked = np.full((3, 3), 1.0)
    locked.flags.writeable = False
    once = [
        ("float64", lambda: np.full((3, 3), rank + 0.5), SUM, sum(r + 0.5 for r in range(size))),
        ("int64", lambda: np.full((3, 3), rank), SUM, sum(range(size))),
        ("greatest", lambda: np.full((3, 3), rank + 0.5), fmi.func(fmi.op.max), size - 0.5),
        ("every other", lambda: np.full((6, 3), 1.0)[::2], SUM, size),
        ("locked", lambda: locked, SUM, size),
    ]
    for name, make, f, expected in once * 2:
        own = make()
        result = comm.allreduce(own, f)
        wrong += [] if np.array_equal(result, np.full((3, 3), expected)) else [f"{name}: {result}"]
        try:
            comm.allreduce(own, f, out=own)
            wrong += [] if np.array_equal(own, np.full((3, 3), expected)) else [f"{name} in place: {own}"]
        except ValueError as error:
            refused = own is locked or not own.flags.c_contiguous
            wrong += [] if refused and "C-contiguous and writable" in str(error) else [f"{name}: {error}"]
    return wrong


def operations_on(comm: fmi.Communicator, rank: int, size: int, dtype: str, shape: tuple[int, ...]) -> list[str]:
    """Call every operation with and without `out`, and in place."""
    wrong: list[str] = []

    def check(name: str, got: Any, expected: Any) -> None:
        same = isinstance(got, np.ndarray) and got.dtype == expected.dtype and got.shape == expected.shape
        if not same or not np.array_equal(got, expected):
            wrong.append(f"{name} {dtype}{shape}: {got!r}, not {expected!r}")

    base = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 5
    arrays = [np.asarray(base + r, dtype) for r in range(size)]
    wides = [np.concatenate([a + r for r in range(size)]).astype(dtype) for a in arrays]
    own, wide, before = arrays[rank], wides[rank], arrays[(rank - 1) % size]
    rows = slice(rank * shape[0], (rank + 1) * shape[0])
    last = size - 1
    total = fold(np.add, arrays).astype(dtype)
    below = fold(np.add, [np.zeros_like(own), *arrays[:rank]]).astype(dtype)
    upto = (below + own).astype(dtype)
    joined = np.concatenate(arrays)
    turned = np.concatenate([w[rows] for w in wides])
    summed = fold(np.add, wides).astype(dtype)[rows]
    second = wides[-1][rows]
    add = fmi.func(fmi.op.custom, np.add, True, True)
    take_right = fmi.func(fmi.op.custom, lambda left, right: right, False, True)
    calls: list[tuple[str, Callable[[Any], Any], Any]] = [
        ("allgather", lambda out: comm.allgather(own, out=out), joined),
        ("alltoall", lambda out: comm.alltoall(wide, out=out), turned),
        ("reduce_scatter", lambda out: comm.reduce_scatter(wide, SUM, out=out), summed),
        ("reduce_scatter custom", lambda out: comm.reduce_scatter(wide, add, out=out), summed),
        ("reduce_scatter ordered", lambda out: comm.reduce_scatter(wide, take_right, out=out), second),
        ("allreduce", lambda out: comm.allreduce(own, SUM, out=out), total),
        ("scan", lambda out: comm.scan(own, SUM, out=out), upto),
        ("exscan", lambda out: comm.exscan(own, SUM, out=out), below if rank else None),
        ("exscan ordered", lambda out: comm.exscan(own, take_right, out=out), before if rank else None),
        ("reduce", lambda out: comm.reduce(own, last, SUM, out=out), total if rank == last else None),
        ("gather", lambda out: comm.gather(own, last, out=out), joined if rank == last else joined[:0]),
    ]
    for name, call, expected in calls:
        result = call(None)
        if expected is None:
            wrong += [] if result is None and call(own.copy()) is None else [f"{name} returned {result!r}"]
            continue
        check(name, result, expected)
        place = np.zeros_like(expected)
        returned = call(place)
        wrong += [] if returned is place or name == "gather" else [f"{name} returned another array than out"]
        check(f"{name} in out", returned, expected)
    in_place: list[tuple[str, Callable[[Any], Any], Any, Any]] = [
        ("allreduce", lambda a: comm.allreduce(a, SUM, out=a), own, total),
        ("scan", lambda a: comm.scan(a, SUM, out=a), own, upto),
        ("alltoall", lambda a: comm.alltoall(a, out=a), wide, turned),
    ]
    if size > 1:
        next_, previous = (rank + 1) % size, (rank - 1) % size
        in_place.append(("sendrecv", lambda a: comm.sendrecv(a, next_, previous, out=a), own, before))
    for name, call, given, expected in in_place:
        memory = given.copy()
        call(memory)
        check(f"{name} in place", memory, expected)
    check("own value", own, np.asarray(base + rank, dtype))
    return wrong


def buffers(comm: fmi.Communicator, rank: int, size: int) -> dict[str, Any]:
    """Pass buffers that are not arrays."""
    filled = bytearray(3) if rank else bytearray(b"abc")
    comm.bcast(filled, 0)
    doubled = array.array("d", [1.5, rank])
    comm.allreduce(doubled, SUM, out=doubled)
    flags = comm.allreduce(np.array([rank == 0, True, False]), fmi.func(fmi.op.max))
    return {
        "filled": bytes(filled),
        "joined": comm.allgather(b"xy" if rank else b"ab").tobytes(),
        "in place": doubled.tolist(),
        "view": comm.allreduce(memoryview(array.array("q", [rank, 2])), SUM).tolist(),
        "or": flags.tolist(),
    }


Twice = Callable[[int], tuple[Any, Any]]
"""Returns two objects with the memory of so many float64, which hold zeros."""


def _same_memory() -> dict[str, Twice]:
    def slices(count: int) -> tuple[Any, Any]:
        whole = np.zeros(count + 3)
        return whole[:count], whole[:count]

    def shapes(count: int) -> tuple[Any, Any]:
        matrix = np.zeros((count, 1))
        return matrix.ravel(), matrix.reshape(-1)

    def frozen(count: int) -> tuple[Any, Any]:
        whole = np.zeros(count)
        locked = whole[:]
        locked.flags.writeable = False
        return locked, whole

    def buffers_of_one(count: int) -> tuple[Any, Any]:
        numbers = array.array("d", bytes(8 * count))
        return memoryview(numbers), numbers

    def bytes_and_array(count: int) -> tuple[Any, Any]:
        memory = bytearray(8 * count)
        return np.frombuffer(memory), memoryview(memory).cast("d")

    def subclass(count: int) -> tuple[Any, Any]:
        matrix = np.zeros((1, count)).view(np.matrix)
        return matrix, matrix[:]

    return {f.__name__: f for f in (slices, shapes, frozen, buffers_of_one, bytes_and_array, subclass)}


def results_in_the_values_memory(comm: fmi.Communicator, rank: int, size: int, counts: list[int]) -> list[str]:
    """Pass another object with the memory of the value as `out`; return the names of the wrong results."""
    wrong: list[str] = []
    next_, previous, last = (rank + 1) % size, (rank - 1) % size, size - 1
    ordered = fmi.func(fmi.op.custom, np.add, True, False)
    operations: list[tuple[str, Callable[[Any, Any], Any], float | None]] = [
        ("allreduce", lambda v, out: comm.allreduce(v, SUM, out=out), sum(range(size))),
        ("allreduce ordered", lambda v, out: comm.allreduce(v, ordered, out=out), sum(range(size))),
        ("reduce", lambda v, out: comm.reduce(v, last, SUM, out=out), sum(range(size)) if rank == last else None),
        ("reduce ordered", lambda v, out: comm.reduce(v, 0, ordered, out=out), sum(range(size)) if not rank else None),
        ("scan", lambda v, out: comm.scan(v, SUM, out=out), sum(range(rank + 1))),
        ("exscan", lambda v, out: comm.exscan(v, SUM, out=out), sum(range(rank)) if rank else None),
        ("sendrecv", lambda v, out: comm.sendrecv(v, next_, previous, out=out), previous),
    ]
    for count in counts:
        for kind, make in _same_memory().items():
            for name, call, expected in operations:
                value, out = make(count)
                np.asarray(out)[...] = rank
                returned = call(value, out)
                if expected is not None and not (returned is out and (np.asarray(out) == expected).all()):
                    wrong.append(f"{name} of {kind}, {count}: {np.asarray(out)}, not {expected}")
            value, out = make(count * size)
            flat = np.asarray(out).reshape(-1)
            flat[...] = np.repeat(np.arange(size) * size + rank, count)
            if kind != "subclass":
                comm.alltoall(value, out=out)
                expected_slices = np.repeat(rank * size + np.arange(size), count)
                wrong += [] if (flat == expected_slices).all() else [f"alltoall of {kind}, {count}: {flat}"]
        wrong += _parts_of_joined_memory(comm, rank, size, count)
    return wrong


def _parts_of_joined_memory(comm: fmi.Communicator, rank: int, size: int, count: int) -> list[str]:
    """Pass this rank's part of the joined memory as the value or as `out`."""
    joined = np.zeros((size, count))
    own = slice(rank * count, (rank + 1) * count)
    numbers = np.repeat(np.arange(size), count)
    results = {}
    for name, call in (
        ("allgather", lambda: comm.allgather(joined.reshape(-1)[own], out=joined.reshape(-1))),
        ("gather", lambda: comm.gather(joined.reshape(-1)[own], 0, out=joined.reshape(-1) if not rank else None)),
    ):
        joined[...] = 0
        joined[rank] = rank
        call()
        results[name] = rank > 0 if name == "gather" and rank else bool((joined.reshape(-1) == numbers).all())
    flat = joined.reshape(-1)
    flat[...] = numbers
    root = size - 1
    scattered = comm.scatter(flat, root, out=flat[own] if rank == root else np.empty(count))
    results["scatter"] = bool((scattered == rank).all()) and bool((flat == numbers).all())
    comm.reduce_scatter(flat, SUM, out=flat[own])
    results["reduce_scatter"] = bool((flat[own] == rank * size).all())
    return [f"{name} in a part, {count}" for name, right in results.items() if not right]


def results_that_overlap_in_part(comm: fmi.Communicator, rank: int, size: int, counts: list[int]) -> list[str]:
    """Pass an `out` that overlaps the value in part, in every operation; return the calls that raised no error."""
    wrong: list[str] = []
    next_, previous = (rank + 1) % size, (rank - 1) % size
    for count in counts:
        many, whole = count * size, np.zeros((count + 2) * size)
        memory = bytearray(8 * (count + 1))
        low, high = whole[:count], whole[1 : count + 1]
        calls: dict[str, Callable[[], Any]] = {
            "allreduce": lambda low=low, high=high: comm.allreduce(low, SUM, out=high),
            "allreduce down": lambda low=low, high=high: comm.allreduce(high, SUM, out=low),
            "allreduce of buffers": lambda m=memory: comm.allreduce(
                memoryview(m)[8:].cast("d"), SUM, out=memoryview(m)[:-8].cast("d")
            ),
            "reduce": lambda low=low, high=high: comm.reduce(low, rank, SUM, out=high),
            "scan": lambda low=low, high=high: comm.scan(low, SUM, out=high),
            "exscan": lambda low=low, high=high: comm.exscan(low, SUM, out=high),
            "sendrecv": lambda low=low, high=high: comm.sendrecv(low, next_, previous, out=high),
            "sendrecv of another size": lambda low=low, w=whole: comm.sendrecv(low, next_, previous, out=w),
            "alltoall": lambda w=whole, n=many: comm.alltoall(w[:n], out=w[1 : n + 1]),
            "allgather": lambda w=whole, n=many, c=count: comm.allgather(w[1 : c + 1], out=w[:n]),
            "gather": lambda w=whole, n=many, c=count: comm.gather(w[1 : c + 1], rank, out=w[:n]),
            "scatter": lambda w=whole, n=many, c=count: comm.scatter(w[:n], rank, out=w[1 : c + 1]),
            "reduce_scatter": lambda w=whole, n=many, c=count: comm.reduce_scatter(w[:n], SUM, out=w[1 : c + 1]),
        }
        if count == 1:
            calls = {"sendrecv of another size": calls["sendrecv of another size"]}
        for name, call in calls.items():
            try:
                call()
                wrong.append(f"{name} of {count}")
            except ValueError as error:
                wrong += [] if "overlaps that of value" in str(error) else [f"{name} of {count}: {error}"]
        wrong += [] if comm.allreduce(rank, SUM, INT) == sum(range(size)) else [f"allreduce after {count}"]
    return wrong


def values_of_subclasses(comm: fmi.Communicator, rank: int, size: int) -> list[str]:
    """Pass matrices, also empty ones, where arrays are expected, and arrays with a mask; return the wrong results."""
    wrong: list[str] = []
    for shape in [(2, 3), (0, 3), (1, 1)]:
        matrix = np.full(shape, rank + 1.0).view(np.matrix)
        plain = np.asarray(matrix)
        total = size * (size + 1) / 2
        if rank == 0:
            for other in range(1, size):
                comm.send(matrix, other)
        else:
            got = comm.recv(0, out=np.empty(shape).view(np.matrix))
            wrong += [] if got.shape == shape and (got == 1).all() else [f"recv: {got!r}"]
        results = {
            "allreduce": (comm.allreduce(matrix, SUM), np.full(shape, total)),
            "bcast": (comm.bcast(matrix if rank == 0 else np.empty(shape), 0), np.full(shape, 1.0)),
            "allgather": (comm.allgather(matrix), np.concatenate([np.full(shape, r + 1.0) for r in range(size)])),
            "scan": (comm.scan(matrix, SUM), np.full(shape, (rank + 1) * (rank + 2) / 2)),
            "alltoall": (
                comm.alltoall(np.full((size, shape[0]), rank).view(np.matrix)),
                np.repeat(np.arange(size), shape[0]).reshape(size, shape[0]),
            ),
        }
        wrong += [f"{n} {shape}: {got!r}" for n, (got, right) in results.items() if not np.array_equal(got, right)]
        wrong += [] if (plain == rank + 1).all() else [f"value {shape}"]
    for call in (
        lambda: comm.allreduce(np.ma.masked_equal(np.arange(3.0), 1), SUM),
        lambda: comm.allreduce(np.arange(3.0), SUM, out=np.ma.zeros(3)),
        lambda: comm.bcast(np.ma.ones(3), 0),
        lambda: comm.allgather(np.ma.ones(3), fmi.types(fmi.datatypes.double_list, 3)),
    ):
        try:
            call()
            wrong.append("an array with a mask was accepted")
        except TypeError as error:
            wrong += [] if "expected an array without a mask" in str(error) else [str(error)]
    return wrong if comm.allreduce(1, SUM, INT) == size else [*wrong, "unusable"]


def ring_of_requests(comm: fmi.Communicator, rank: int, size: int, count: int) -> list[bool]:
    """Post everything before the first connection is open, then wait; messages larger than any socket buffer."""
    after, before = (rank + 1) % size, (rank - 1) % size
    own = np.full(count, float(rank))
    coming = [np.empty(count), np.empty(count)]
    requests = [comm.irecv(before, out=place) for place in coming]
    requests += [comm.isend(own, after), comm.isend(own + 0.5, after)]
    results = [request.wait() for request in reversed(requests)]
    again = requests[0].wait() is coming[0] and requests[0].test()
    return [bool((coming[0] == before).all()), bool((coming[1] == before + 0.5).all()), results[0] is None, again]


def blocking_beside_posted(comm: fmi.Communicator, rank: int, size: int, count: int) -> list[float]:
    """Two common uses: isend, then a blocking receive; and irecv, then a blocking send."""
    after, before = (rank + 1) % size, (rank - 1) % size
    sent = comm.isend([float(rank)] * count, after, doubles(count))
    first = comm.recv(before, doubles(count))
    sent.wait()
    coming = comm.irecv(before, doubles(count))
    comm.send([rank + 0.5] * count, after, doubles(count))
    return [first[-1], coming.wait()[-1]]


def tested_until_done(comm: fmi.Communicator, rank: int, size: int) -> tuple[bool, int]:
    if rank == 0:
        request = comm.irecv(1, INT)
        early = request.test()
        comm.send(1, 1, INT)
        while not request.test():
            pass
        return early, request.wait()
    comm.recv(0, INT) if comm.isend(0, 0, INT) is None else None
    comm.recv(0, INT)
    return False, 0


def rows_and_columns(comm: fmi.Communicator, rank: int, size: int) -> dict[str, Any]:
    """Split six ranks into rows and columns, one of the rows backwards, and that row again."""
    row = comm.split(rank // 3, key=-rank if rank < 3 else rank)
    column = comm.split(rank % 3 if rank != 5 else None)
    result: dict[str, Any] = {
        "row": (row.rank, row.size, row.allgather(rank, INT)),
        "column": None if column is None else (column.rank, column.size, column.allreduce(rank, SUM, INT)),
        "whole": comm.allreduce(rank, SUM, INT),
    }
    part = row.split(row.rank // 2)
    with part:
        result["part"] = part.allgather([rank], ints(1))
    row.close()
    result["whole again"] = comm.allreduce(rank, SUM, INT)
    return result


def _run_in_thread(call: Callable[[], Any]) -> Future[Any]:
    result: Future[Any] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the caller sees what it raised
            result.set_exception(error)

    threading.Thread(target=run).start()
    return result


def call_during_a_call(comm: fmi.Communicator, rank: int, size: int, what: str) -> list[str]:
    """On rank 0 make a call, or close, while another thread waits for a message; return all errors of this rank."""
    comm.send(1, 0, INT) if rank else comm.recv(1, INT)
    if rank:
        time.sleep(0.2)
        return [_error_of(lambda: (comm.send(7, 0, INT), comm.barrier()))]
    waiting = _run_in_thread(lambda: comm.recv(1, INT))
    while comm._calls.running is None:
        time.sleep(0.001)
    call = {"barrier": comm.barrier, "send": lambda: comm.send(1, 1, INT), "close": comm.close}[what]
    return [_error_of(call), _error_of(waiting.result), _error_of(comm.barrier)]


def _error_of(call: Callable[[], Any]) -> str:
    try:
        return f"no error but {call()}"
    except Exception as error:  # noqa: BLE001 - compared by the caller
        return f"{type(error).__name__}: {error}"


def call_in_a_custom_function(comm: fmi.Communicator, rank: int, size: int) -> list[str]:
    def nested(left: int, right: int) -> int:
        comm.barrier()
        return left + right

    return [_error_of(lambda: comm.allreduce(rank, fmi.func(fmi.op.custom, nested, True, True), INT))]


def calls_from_threads_in_turn(comm: fmi.Communicator, rank: int, size: int) -> list[int]:
    """Make each call in a thread of its own, one after another."""
    return [_run_in_thread(lambda i=i: comm.allreduce(i, SUM, INT)).result() for i in range(5)]


def two_communicators_in_two_threads(comm: fmi.Communicator, rank: int, size: int) -> list[bool]:
    parts = [comm.split(0), comm.split(0)]

    def repeat(part: fmi.Communicator, factor: int) -> bool:
        results = [part.allreduce(factor * i, SUM, INT) for i in range(100)]
        return results == [factor * i * size for i in range(100)]

    running = [_run_in_thread(lambda p=part, f=i + 1: repeat(p, f)) for i, part in enumerate(parts)]
    return [each.result() for each in running]


def raise_in_with_block(comm: fmi.Communicator, rank: int, size: int) -> None:
    with comm:
        comm.barrier()
        comm.barrier()
        if rank == 1:
            raise LookupError("no such galaxy")
        comm.barrier()
