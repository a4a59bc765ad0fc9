"""The file behind a segment: made, found, checked and unlinked; and who of its ranks still lives.

The file has a random name, which rank 0 hands to the others (see `meeting`), and loses it as soon as all have opened
it. From then on nothing of it is left when the last process ends, however that may be.
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

_FOLDER = Path("/dev/shm")  # noqa: S108 - names in it are random and opened exclusively
_PREFIX = "fmi-"
_MEETING_SECONDS = 60
"""Younger files are left alone: their maker may be about to take its lock."""
TOKEN_BYTES = 16


class Segment:
    """An open segment.

    Each process holds a record lock on the byte of the file that has its rank's number. The kernel frees it when the
    process ends, however it ends, so that trying the lock tells whether a rank lives: also for ranks that are
    nobody's children, and across containers that share the folder, where process numbers mean nothing.

    Attributes
    ----------
    memory
        The whole segment.
    layout
        Where things are.
    """

    def __init__(self, descriptor: int, size: int, rank: int) -> None:
        self.layout = layout.layout_for(size)
        self.memory = mmap.mmap(descriptor, self.layout.total)
        self._descriptor = descriptor
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)

    def alive(self, rank: int) -> bool:
        """Whether the process of another rank still has the segment open."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, rank)
        except BlockingIOError:
            return True
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, rank)
        return False

    def close(self) -> None:
        """Give up the lock. The memory is unmapped when the last view of it is gone."""
        os.close(self._descriptor)


def create(size: int) -> tuple[bytes, Segment]:
    """Return a token, and a new segment under the name it gives, with this process as rank 0.

    Memory is reserved at once: where there is too little, this is an error now and not a SIGBUS later.

    Raises
    ------
    ConfigError
        If there is no room.
    """
    sweep()
    token = secrets.token_bytes(TOKEN_BYTES)
    path = _path(token)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    plan = layout.layout_for(size)
    try:
        os.posix_fallocate(descriptor, 0, plan.total)
    except OSError as error:
        os.close(descriptor)
        unlink(token)
        if error.errno != errno.ENOSPC:
            raise
        raise ConfigError(
            f"FMI_CHANNEL is shm, but {_FOLDER} has no room for the {plan.total >> 20} MiB that {size} ranks share: "
            "make it larger (docker run --shm-size=256m), or use the Direct channel"
        ) from None
    segment = Segment(descriptor, size, 0)
    Semaphore(segment.memory, layout.CLAIM).initialise(1)
    Semaphore(segment.memory, layout.GATE).initialise()
    for rank in range(size):
        Semaphore(segment.memory, plan.farewell(rank)).initialise()
        Semaphore(segment.memory, plan.doorbell(rank)).initialise()
        for dst in range(size):
            for place in range(3):
                Semaphore(segment.memory, plan.lane_of(rank, dst) + place * layout.LINE).initialise()
    return token, segment


def attach(token: bytes, size: int, rank: int) -> Segment | None:
    """Return the segment that rank 0 made, None where it cannot be seen: on another host, or in another container.

    A file of that name which is not as long as a segment for so many ranks is not the one.
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
    """Take the name away; who has the segment open keeps it."""
    _path(token).unlink(missing_ok=True)


def sweep() -> None:
    """Unlink what is left of runs that were all killed while they met: this user's files that nobody has locked."""
    for path in _FOLDER.glob(_PREFIX + "*"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # another user's, or gone meanwhile
        try:
            if time.time() - os.fstat(descriptor).st_mtime > _MEETING_SECONDS:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # somebody lives
        finally:
            os.close(descriptor)


def _path(token: bytes) -> Path:
    return _FOLDER / f"{_PREFIX}{token.hex()}"
