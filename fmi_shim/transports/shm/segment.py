"""The file behind a segment: create, open, check and unlink it, and test which ranks still have it open.

The file has a random name, which rank 0 sends to the other ranks (see `bootstrap`). The name is unlinked as soon as all
have opened the file. From then on nothing of it remains when the last process ends, for whatever reason.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import time
from pathlib import Path

from fmi_shim.errors import ConfigError
from fmi_shim.transports.shm import layout
from fmi_shim.transports.shm.semaphores import Semaphore
from fmi_shim.transports.shm.timing import ABANDONED_SECONDS

_DIRECTORY = Path("/dev/shm")  # noqa: S108 - names in it are random and opened exclusively
_PREFIX = "fmi-"
TOKEN_BYTES = 16


class Segment:
    """An open segment.

    Each process holds a record lock on the byte of the file at its rank's number. The kernel releases it when the
    process ends, for whatever reason, so a failed attempt to lock the byte proves that the rank is alive. This works
    for processes that are not children, and across containers that share the directory, where process numbers are
    meaningless.

    Attributes
    ----------
    memory
        The whole segment.
    layout
        Its offsets.

    Raises
    ------
    OSError
        If the file cannot be mapped, or another process has this rank.
    """

    def __init__(self, descriptor: int, size: int, rank: int) -> None:
        self.layout = layout.layout_for(size)
        self.memory = mmap.mmap(descriptor, self.layout.total)
        self._descriptor = descriptor
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)

    def alive(self, rank: int) -> bool:
        """Return whether the process of another rank still has the segment open."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, rank)
        except BlockingIOError:
            return True
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, rank)
        return False

    def close(self) -> None:
        """Release the lock. The memory is unmapped when the last view of it is deleted."""
        os.close(self._descriptor)


def create(size: int) -> tuple[bytes, Segment]:
    """Create a segment, with this process as rank 0; return the token that names it, and the segment.

    Memory is reserved at once: too little is an error here, instead of a SIGBUS later.

    Raises
    ------
    ConfigError
        If there is too little memory, or no folder for it.
    """
    remove_abandoned()
    token = secrets.token_bytes(TOKEN_BYTES)
    path = _path(token)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # A container without one, as Lambda's are, or one that its user may not write to.
        raise ConfigError(
            f"FMI_CHANNEL is shm, but {_DIRECTORY} cannot be used ({error.strerror}): expected a folder in memory that "
            "all ranks share (docker run --ipc=host; fmirun --backend docker --ipc), or use the Direct channel"
        ) from None
    plan = layout.layout_for(size)
    try:
        os.posix_fallocate(descriptor, 0, plan.total)
    except OSError as error:
        os.close(descriptor)
        unlink(token)
        if error.errno != errno.ENOSPC:
            raise
        raise ConfigError(
            f"FMI_CHANNEL is shm, but {_DIRECTORY} is full: expected room for the {plan.total >> 20} MiB that {size} "
            "ranks share; enlarge it (docker run --shm-size=256m), or use the Direct channel"
        ) from None
    segment = Segment(descriptor, size, 0)
    Semaphore(segment.memory, layout.ABORT_CLAIM).initialise(1)
    Semaphore(segment.memory, layout.ABORT_READY).initialise()
    for rank in range(size):
        Semaphore(segment.memory, plan.closed(rank)).initialise()
        Semaphore(segment.memory, plan.doorbell(rank)).initialise()
        for dst in range(size):
            for index in range(3):
                Semaphore(segment.memory, plan.ring(rank, dst) + index * layout.LINE).initialise()
    return token, segment


def attach(token: bytes, size: int, rank: int) -> Segment | None:
    """Open the segment that rank 0 created; return None if this process cannot see it (another host or container).

    A file of that name with another length than a segment for `size` ranks is not opened either.
    """
    try:
        descriptor = os.open(_path(token), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    if os.fstat(descriptor).st_size != layout.layout_for(size).total:
        os.close(descriptor)
        return None
    return Segment(descriptor, size, rank)


def unlink(token: bytes) -> None:
    """Remove the file's name, if it is there. Processes that have opened the segment keep it."""
    _path(token).unlink(missing_ok=True)


def remove_abandoned() -> None:
    """Unlink this user's unlocked segment files: those of runs whose ranks were all killed before the name was gone."""
    for path in _DIRECTORY.glob(_PREFIX + "*"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # another user's, or removed meanwhile
        try:
            if time.time() - os.fstat(descriptor).st_mtime > ABANDONED_SECONDS:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # a rank of that run is alive
        finally:
            os.close(descriptor)


def _path(token: bytes) -> Path:
    return _DIRECTORY / f"{_PREFIX}{token.hex()}"
