"""POSIX semaphores at a place in shared memory."""

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

_HELD = ctypes.PyDLL(None)
"""Calls that never block keep the interpreter's lock: giving it up and taking it back would cost more than they do."""
_FREED = ctypes.CDLL(None, use_errno=True)

AVAILABLE = sys.platform == "linux"
"""Whether semaphores can lie in shared memory: macOS has none without a name."""

_Storage = ctypes.c_char * _BYTES
_post: Any = _HELD.sem_post
_try_wait: Any = _HELD.sem_trywait
_timed_wait: Any = getattr(_FREED, "sem_timedwait", None)  # macOS has none; see AVAILABLE


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))  # time_t is long on 64-bit systems


class Semaphore:
    """A semaphore in `memory` at `offset`, where one has been initialised."""

    __slots__ = ("_storage",)

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._storage = _Storage.from_buffer(memory, offset)

    def initialise(self, value: int = 0) -> None:
        """Make the memory a semaphore; done once, by one process, before others know of it."""
        if _FREED.sem_init(self._storage, 1, value):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def post(self) -> None:
        """Publish what this process has written so far, and let one waiter through."""
        _post(self._storage)

    def try_wait(self) -> bool:
        """Take a post if there is one; if so, what the poster wrote before is visible."""
        taken: bool = _try_wait(self._storage) == 0
        return taken

    def wait(self, seconds: float) -> bool:
        """Take a post, sleeping for at most `seconds` until there is one; a signal ends the sleep early.

        The deadline is one of the clock of the day, which `sem_timedwait` knows alone: keep it short.
        """
        fraction, whole = _modf(time.time() + seconds)
        deadline = _Timespec(whole, fraction)
        if _timed_wait(self._storage, ctypes.byref(deadline)) == 0:
            return True
        number = ctypes.get_errno()
        if number not in (errno.ETIMEDOUT, errno.EINTR):
            raise OSError(number, os.strerror(number))
        return False


def _modf(moment: float) -> tuple[int, int]:
    whole = int(moment)
    return int((moment - whole) * 1e9), whole
