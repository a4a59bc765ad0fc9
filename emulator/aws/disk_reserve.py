"""A reserve on the disk of the state folder: space that deletes and small writes use when the disk is full."""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from emulator.aws.limits import MIB
from emulator.errors import ApiError

_Result = TypeVar("_Result")
_FULL = (errno.ENOSPC, errno.EDQUOT)
# SQLite's log grows to 4 MiB before it is written back: writes may use that much, and deletes as much again.
RESERVE_BYTES = 8 * MIB
# A small disk is mostly for its content.
_SHARE_OF_DISK = 8
_STEP_BYTES = 128 * 1024
_PAGE_BYTES = 4096
# The space that a transaction may need in the database and in SQLite's log.
TRANSACTION_BYTES = 128 * 1024
# What counts as a small write.
SMALL_WRITE_BYTES = 256 * 1024


class DiskFullError(ApiError):
    """The disk of the state folder is full. Each service gives it the name of its own internal error."""

    def __init__(self) -> None:
        message = "no space left on the disk of the emulator's state; delete objects or use another disk"
        super().__init__("InternalError", HTTPStatus.INSUFFICIENT_STORAGE, message)

    def named(self, code: str) -> ApiError:
        """Return the error with a service's own name for it."""
        return ApiError(code, self.status, self.message)


def is_disk_full(error: OSError) -> bool:
    """Return whether an error says that the disk, or the user's quota of it, is full."""
    return error.errno in _FULL


def private_opener(path: str, flags: int) -> int:
    """Open a file for `open`, which only this user can read if it is new."""
    return os.open(path, flags, 0o600)


class DiskReserve:
    """A file that occupies space until a full disk makes it necessary to release it.

    Writes may use the upper half of the reserve, deletes all of it. While some of it is released, large writes must
    leave that much free, so that they do not take what was released for small ones.

    Parameters
    ----------
    path
        The file.
    size
        Its size, bytes; 0 for no reserve. On a small disk, it is an eighth of the disk.

    Attributes
    ----------
    missing
        Bytes that are released at present.
    is_held
        Whether there is a reserve, none of which is needed for a folder that does not last.
    """

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._folder = str(path.parent)
        self._lock = threading.Lock()
        disk = os.statvfs(path.parent)
        self._size = min(size, disk.f_blocks * disk.f_frsize // _SHARE_OF_DISK) // _PAGE_BYTES * _PAGE_BYTES
        self.is_held = self._size > 0
        held = path.stat().st_size if path.exists() else 0
        self.missing = max(0, self._size - held)

    def free_bytes(self) -> int:
        """Return the free space of the disk, bytes."""
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def release(self, *, for_delete: bool = False) -> bool:
        """Release a part of the reserve; return False if nothing is left for this purpose."""
        floor = 0 if for_delete else self._size // 2
        with self._lock:
            held = self._size - self.missing
            if held <= floor:
                return False
            left = max(floor, held - _STEP_BYTES)
            try:
                os.truncate(self._path, left)
            except OSError:
                return False
            self.missing = self._size - left
        return True

    def ensure(self, size: int, *, for_delete: bool = False) -> None:
        """Release what is necessary, and possible, to have `size` bytes free."""
        while self.missing < self._size:
            # Not by `free_bytes`: this is done before every transaction.
            disk = os.statvfs(self._folder)
            if disk.f_bavail * disk.f_frsize >= size or not self.release(for_delete=for_delete):
                return

    def refill(self) -> None:
        """Occupy released space again, as much of it as is free now."""
        if not self.missing:
            return
        with self._lock:
            taken = min(self.missing, self.free_bytes()) // _PAGE_BYTES * _PAGE_BYTES
            if taken > 0:
                held = self._size - self.missing
                with suppress(OSError):
                    _allocate(self._path, held, held + taken)
                    self.missing -= taken

    def leaves_room(self, size: int) -> bool:
        """Return whether a large write of `size` bytes leaves space for small ones."""
        return not self._size or self.free_bytes() >= self.missing + size + TRANSACTION_BYTES

    def write(self, write: Callable[[], _Result]) -> _Result:
        """Call a small write, again with a part of the reserve while the disk is full. It must undo what it fails in.

        Raises
        ------
        DiskFullError
            When the reserve is used up.
        """
        while True:
            try:
                result = write()
            except OSError as error:
                if not is_disk_full(error):
                    raise
                if not self.release():
                    self.refill()
                    raise DiskFullError from error
            else:
                self.refill()
                return result


def _allocate(path: Path, held: int, size: int) -> None:
    """Let a file of `held` bytes occupy `size` bytes; if that fails, it is unchanged."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            # A file that is only made longer has holes.
            os.pwrite(descriptor, bytes(size - held), held)
    except OSError:
        os.ftruncate(descriptor, held)
        raise
    finally:
        os.close(descriptor)
