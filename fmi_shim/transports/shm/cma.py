"""Cross-memory attach (CMA): copies from another process's memory, and the ranks' agreement on whether to use them.

A copy with process_vm_readv(2) is one copy, where one through the segment is two.
"""

from __future__ import annotations

import ctypes
import os
import secrets
from typing import Any

import numpy as np

from fmi_shim.operators import Array
from fmi_shim.transports.shm.rounds import CallTag, Rounds

_LIBRARY = ctypes.CDLL(None, use_errno=True)
_process_vm_readv: Any = getattr(_LIBRARY, "process_vm_readv", None)

AVAILABLE = _process_vm_readv is not None
"""Whether the system has process_vm_readv(2): Linux has."""

_MAX_COPY_BYTES = 16 << 20
"""Bytes of one system call, during which no signal is handled."""

_TOKEN_BYTES = 16


class _IoVec(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))  # struct iovec


if _process_vm_readv is not None:
    _process_vm_readv.restype = ctypes.c_ssize_t


class PeerMemory:
    """The memory of the other ranks' processes.

    Parameters
    ----------
    rank
        This rank.
    rounds
        How this rank waits for the others.
    notes
        Memory in which each rank publishes a few int64, shape (slot indices, ranks, at least 4).
    """

    def __init__(self, rank: int, rounds: Rounds, notes: Array) -> None:
        self._rank = rank
        self._rounds = rounds
        self._notes = notes
        self._processes: list[int] | None = None
        self._readable: bool | None = None

    def all_readable(self, call_tag: CallTag) -> bool:
        """Return whether every rank may read every other's memory. The first time, all try, in two rounds of this call.

        Each rank draws a random number, and publishes its process number and the number's address. The others read the
        number from there. They try, since process numbers are meaningless across containers, and the system's settings
        decide who may read whom.
        """
        if self._readable is None:
            token = np.frombuffer(secrets.token_bytes(_TOKEN_BYTES), np.int64)
            found = self._exchange_notes(call_tag, [os.getpid(), token.ctypes.data, *token])
            readable = AVAILABLE and all(_has_token(row[0], row[1], row[2:]) for row in found)
            self._readable = bool(self._exchange_notes(call_tag, [readable])[:, 0].all())
            self._processes = found[:, 0].tolist()
        return self._readable

    def _exchange_notes(self, call_tag: CallTag, note: list[int]) -> Array:
        """Publish this rank's note in a round; return all ranks' notes."""
        notes = self._notes[self._rounds.begin(call_tag)]
        notes[self._rank, : len(note)] = note
        self._rounds.barrier()
        copied: Array = notes.copy()
        return copied

    def exchange_addresses(self, call_tag: CallTag, own: int) -> Array:
        """Begin a round and publish the address `own`; return the others', each valid once that rank is awaited."""
        notes = self._notes[self._rounds.begin(call_tag)]
        notes[self._rank, 0] = own
        self._rounds.publish()
        addresses: Array = notes[:, 0]
        return addresses

    def copy(self, call_tag: CallTag, rank: int, address: int, target: Array) -> None:
        """Fill `target` from `address` in the memory of `rank`, which must wait until the copy is done.

        Raises
        ------
        FmiError
            If its process has ended or failed.
        OSError
            If its memory cannot be read for another reason.
        """
        assert self._processes is not None  # noqa: S101 - their memory is readable
        try:
            copy_from_process(self._processes[rank], address, target)
        except OSError:
            for _ in range(2):  # the process may have reached the first of them before it ended
                self._rounds.begin(call_tag)
                self._rounds.publish()
                self._rounds.await_rank(rank)
            raise


def copy_from_process(process: int, address: int, target: Array) -> None:
    """Fill `target`, which is C-contiguous, from `address` in the memory of another process.

    Raises
    ------
    OSError
        If there is no such process (ESRCH), or no such memory (EFAULT), or this process may not trace it (EPERM):
        another user's, or any that is not its child where ``kernel.yama.ptrace_scope`` is 1 or more.
    """
    start, left = target.ctypes.data, target.nbytes
    while left:
        local, remote = _IoVec(start, min(left, _MAX_COPY_BYTES)), _IoVec(address, min(left, _MAX_COPY_BYTES))
        moved = _process_vm_readv(process, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        if moved <= 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot read memory of process {process}: {os.strerror(number)}")
        start, address, left = start + moved, address + moved, left - moved


def _has_token(process: int, address: int, token: Array) -> bool:
    """Return whether `token` is in the process's memory at `address`."""
    found = np.empty_like(token)
    try:
        copy_from_process(int(process), int(address), found)
    except OSError:
        return False
    return found.tobytes() == token.tobytes()
