"""POSIX semaphores in shared memory."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import time
from typing import Any

_BYTES = 64
"""Room for a ``sem_t``: 32 bytes in glibc and musl."""

_WITH_GIL = ctypes.PyDLL(None)
"""Calls that never block keep the interpreter's lock: releasing and taking it would cost more than the calls."""
_WITHOUT_GIL = ctypes.CDLL(None, use_errno=True)

AVAILABLE = sys.platform == "linux"
"""Whether semaphores can be in shared memory: macOS has only named ones."""

_Storage = ctypes.c_char * _BYTES
_post: Any = _WITH_GIL.sem_post
_try_wait: Any = _WITH_GIL.sem_trywait
_timed_wait: Any = getattr(_WITHOUT_GIL, "sem_timedwait", None)  # macOS has none; see AVAILABLE


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))  # time_t is long on 64-bit systems


class Semaphore:
    """The semaphore at `offset` in `memory`, which one process must have initialised."""

    __slots__ = ("_storage",)

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._storage = _Storage.from_buffer(memory, offset)

    def initialise(self, value: int = 0) -> None:
        """Initialise the semaphore to `value`: once, by one process, before others use it."""
        if _WITHOUT_GIL.sem_init(self._storage, 1, value):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def post(self) -> None:
        """Add a post. What this process wrote before is visible to the process that takes it."""
        _post(self._storage)

    def try_wait(self) -> bool:
        """Take a post if there is one; return whether there was."""
        taken: bool = _try_wait(self._storage) == 0
        return taken

    def wait(self, seconds: float) -> bool:
        """Sleep until a post can be taken, for at most `seconds`; return whether one was. A signal ends the sleep.

        `sem_timedwait` takes a time of day, which may be set meanwhile: keep `seconds` small.
        """
        deadline = time.time() + seconds
        whole = int(deadline)
        timespec = _Timespec(whole, int((deadline - whole) * 1e9))
        if _timed_wait(self._storage, ctypes.byref(timespec)) == 0:
            return True
        number = ctypes.get_errno()
        if number not in (errno.ETIMEDOUT, errno.EINTR):
            raise OSError(number, os.strerror(number))
        return False
