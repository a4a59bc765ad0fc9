"""A container's /tmp of limited size: on disk where root may mount a file, else in memory.

As on AWS, what a function writes there does not count as its memory. A file system in a sparse file has that property:
its pages are page cache, which the kernel writes back instead of killing the container. Where a file cannot be mounted,
/tmp is a tmpfs, whose size the kernel's memory limit must then include.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Without a journal and with tables that are initialised later, an empty file system of 10 GB takes 4 MB and 20 ms.
_MAKE = ("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", "-E")
_MOUNT_OPTIONS = "loop,nosuid,nodev"
_TIMEOUT_S = 60


class TmpUnavailableError(OSError):
    """A file system in a file cannot be mounted here; the message says why."""


def check_mountable(folder: Path) -> str | None:
    """Return why a file cannot be mounted as /tmp on this machine; None when it can."""
    try:
        with mounted_tmp(folder, 16 << 20, 0, 0):
            return None
    except TmpUnavailableError as error:
        return str(error)


@contextlib.contextmanager
def mounted_tmp(folder: Path, size_bytes: int, uid: int, gid: int) -> Iterator[Path]:
    """Mount an empty file system of a size while the context lasts; yield its folder.

    A container that was started within the context keeps the file system until it ends. Then the kernel releases file
    and loop device, also after a kill of this process.

    Parameters
    ----------
    folder
        Where file and mount point are created, for the duration of the context.
    uid, gid
        The owner of the new /tmp.

    Raises
    ------
    TmpUnavailableError
        When this user may not mount, or there is no mkfs.ext4 or loop device.
    """
    if os.geteuid() != 0:
        raise TmpUnavailableError("only root may mount")
    here = Path(tempfile.mkdtemp(prefix="tmp-", dir=folder))
    image, mount_point = here / "image", here / "mount"
    try:
        mount_point.mkdir()
        with image.open("wb") as file:
            file.truncate(size_bytes)
        _run(*_MAKE, f"lazy_itable_init=1,nodiscard,root_owner={uid}:{gid}", str(image))
        _run("mount", "-o", _MOUNT_OPTIONS, str(image), str(mount_point))
        try:
            (mount_point / "lost+found").rmdir()
            mount_point.chmod(0o1777)
            yield mount_point
        finally:
            _run("umount", "--lazy", str(mount_point))
    finally:
        shutil.rmtree(here, ignore_errors=True)


def _run(*command: str) -> None:
    path = f"/usr/sbin:/sbin:{os.environ.get('PATH', os.defpath)}"
    try:
        subprocess.run(  # noqa: S603 - our own arguments
            command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S, env={"PATH": path}
        )
    except FileNotFoundError:
        raise TmpUnavailableError(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise TmpUnavailableError(f"{command[0]}: {error.stderr.strip()}") from None
