"""The memory of other processes on this host, copied straight into one's own: one copy, where a segment takes two."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from fmi_shim.operators import Array

_LIBRARY = ctypes.CDLL(None, use_errno=True)
_read: Any = getattr(_LIBRARY, "process_vm_readv", None)

AVAILABLE = _read is not None
"""Whether the system has such a call: Linux does (process_vm_readv(2))."""

_AT_ONCE = 16 << 20
"""Bytes of one call, in which no signal is heard."""


class _Span(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))  # struct iovec


if _read is not None:
    _read.restype = ctypes.c_ssize_t


def copy(process: int, address: int, target: Array) -> None:
    """Fill `target`, which is C-contiguous, with what another process has at `address`.

    Raises
    ------
    OSError
        If there is no such process (ESRCH), or no such memory (EFAULT), or this one may not trace it (EPERM): another
        user's, or any that is no child of this one where ``kernel.yama.ptrace_scope`` is 1 or more.
    """
    place, left = target.ctypes.data, target.nbytes
    while left:
        here, there = _Span(place, min(left, _AT_ONCE)), _Span(address, min(left, _AT_ONCE))
        moved = _read(process, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
        if moved <= 0:
            number = ctypes.get_errno()
            raise OSError(number, f"process {process} cannot be read: {os.strerror(number)}")
        place, address, left = place + moved, address + moved, left - moved
