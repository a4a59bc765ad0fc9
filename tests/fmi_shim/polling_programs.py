"""Programs that repeat a send or recv until it succeeds. They import no test tools, as in `programs`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fmi_shim as fmi
from fmi_shim.errors import PeerTimeoutError
from tests.fmi_shim.programs import INT

_LATE_SECONDS = 1.6


def poll(call: Callable[[], Any]) -> tuple[Any, int]:
    """Repeat `call` until it returns; return its result and the number of attempts."""
    for attempt in range(1, 20):
        try:
            return call(), attempt
        except Exception as error:  # noqa: BLE001 - as programs for the original FMI do
            last = error
    raise AssertionError(f"no value in 19 attempts: {last!r}")


def late_value(comm: fmi.Communicator, rank: int, size: int, connected: bool) -> int | None:
    """Rank 0 polls for values of rank 1, which is late."""
    if connected:
        comm.barrier()
    attempts = None
    if rank == 0:
        first, attempts = poll(lambda: comm.recv(1, INT))
        large, more = poll(lambda: comm.recv(1, fmi.types(fmi.datatypes.double_list, 100_000)))
        assert (first, large[-1]) == (7, 99_999.0), (first, large[-1])
        comm.send(first + 1, 1, INT)
        attempts += more
    elif rank == 1:
        time.sleep(_LATE_SECONDS)
        poll(lambda: comm.send(7, 0, INT))
        time.sleep(0.3)
        comm.send(np.arange(100_000.0).tolist(), 0, fmi.types(fmi.datatypes.double_list, 100_000))
        assert poll(lambda: comm.recv(0, INT))[0] == 8
    return attempts


def wait_the_other_way_round(comm: fmi.Communicator, rank: int, size: int) -> bool | None:
    """Rank 0 waits in vain for rank 1, which waits for rank 0 later."""
    if rank == 0:
        comm.send(1, 1, INT)
        try:
            comm.recv(1, INT)
        except PeerTimeoutError as error:
            late = error.repeatable
        time.sleep(1.5)
        comm.send(2, 1, INT)
        assert poll(lambda: comm.recv(1, INT))[0] == 3
        return late
    comm.recv(0, INT)
    time.sleep(0.8)
    assert poll(lambda: comm.recv(0, INT))[0] == 2
    comm.send(3, 0, INT)
    return None


def send_to_a_late_rank(comm: fmi.Communicator, rank: int, size: int) -> int | None:
    """Rank 0 sends to rank 1, which opens its connection late."""
    if rank == 0:
        return poll(lambda: comm.send(5, 1, INT))[1]
    time.sleep(_LATE_SECONDS)
    assert poll(lambda: comm.recv(0, INT))[0] == 5
    return None


def half_a_message(comm: fmi.Communicator, rank: int, size: int) -> list[Exception] | None:
    """Rank 0 receives two numbers without headers, of which rank 1 sends one."""
    two = fmi.types(fmi.datatypes.int_list, 2)
    if rank == 1:
        comm.send(1, 0, INT)
        time.sleep(_LATE_SECONDS)
        return None
    return [_error(lambda: comm.recv(1, two)), _error(lambda: comm.recv(1, two))]


def late_for_a_barrier(comm: fmi.Communicator, rank: int, size: int) -> list[Exception] | None:
    """Rank 1 never makes the call of rank 0."""
    if rank == 1:
        time.sleep(_LATE_SECONDS)
        return None
    return [_error(comm.barrier), _error(lambda: comm.recv(1, INT))]


def late_object(comm: fmi.Communicator, rank: int, size: int) -> int | None:
    """Rank 0 polls for a Python object with a large buffer."""
    if rank == 1:
        time.sleep(_LATE_SECONDS)
        poll(lambda: comm.send_object({"a": np.arange(50_000)}, 0))
        return None
    found, attempts = poll(lambda: comm.recv_object(1))
    assert found["a"][-1] == 49_999
    return attempts


def _error(call: Callable[[], Any]) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - the error is the result
        return error
    raise AssertionError("no error")
