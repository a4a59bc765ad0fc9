"""A private /tmp of limited size and read-only code for one process, without containers or root privileges.

On Linux this is a mount namespace (and a user namespace when not root) with a tmpfs mounted on /tmp. The kernel
removes it with its last process. See mount_namespaces(7) and user_namespaces(7). Other systems have no mount
namespaces: the caller uses a separate directory instead.
"""

import ctypes
import functools
import importlib.metadata
import json
import os
import stat
import sys
import urllib.parse
from collections.abc import Iterable, Sequence
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_REMOUNT = 32
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_CAP_SYS_ADMIN = 21
_PR_CAPBSET_DROP = 24
# The version of capset(2)'s structures with 64 capabilities.
_CAPABILITY_VERSION = 0x20080522
TMP = Path("/tmp")  # noqa: S108 - the directory that is made private


class PrivateTmpUnavailableError(OSError):
    """A private /tmp is not available on this platform or for this user; the message says why."""


def mount_private_tmp(size_bytes: int, keep: Sequence[Path]) -> None:
    """Give the calling process and its future children an empty /tmp.

    The process must have one thread: the kernel refuses a user namespace to others.

    Parameters
    ----------
    size_bytes
        Writing more than this to /tmp fails with ENOSPC.
    keep
        Paths below the old /tmp that stay visible, as returned by `below_tmp`.

    Raises
    ------
    PrivateTmpUnavailableError
        When the platform has no mount namespaces, or does not permit them to this user.
    """
    if sys.platform != "linux":
        raise PrivateTmpUnavailableError(f"{sys.platform} has no mount namespaces")
    try:
        _enter_namespace()
        _cover_tmp(size_bytes, keep)
    except OSError as error:
        raise PrivateTmpUnavailableError(f"the kernel refused a private /tmp: {error}") from error


def protect_code(folder: Path) -> None:
    """Make a folder read-only for the calling process and its future children, which cannot undo it.

    The process must be in a mount namespace of its own, see `mount_private_tmp`. It loses the capability to mount.

    Raises
    ------
    OSError
        When the kernel refuses it.
    """
    _mount(str(folder), str(folder), None, _MS_BIND | _MS_REC)
    # In a user namespace the kernel refuses a remount that drops one of these.
    kept = os.statvfs(folder).f_flag & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("none", str(folder), None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)
    _drop_mount_capability()


def _drop_mount_capability() -> None:
    libc = _libc()
    _check("drop CAP_SYS_ADMIN", libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0))
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    # Effective, permitted and inheritable capabilities from 0 to 31, then those from 32.
    sets = (ctypes.c_uint32 * 6)()
    _check("capget", libc.capget(header, sets))
    for index in range(3):
        sets[index] &= ~(1 << _CAP_SYS_ADMIN)
    _check("capset", libc.capset(header, sets))


def _enter_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _check("unshare", _libc().unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if uid else 0)))
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)


def _cover_tmp(size_bytes: int, kept: Sequence[Path]) -> None:
    # A descriptor reaches a kept path after the new /tmp has covered it.
    descriptors = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in kept}
    _mount("tmpfs", str(TMP), "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={size_bytes},mode=1777")
    for path, descriptor in descriptors.items():
        _make_mount_point(path, descriptor)
        _mount(f"/proc/self/fd/{descriptor}", str(path), None, _MS_BIND | _MS_REC)
        os.close(descriptor)


def _make_mount_point(path: Path, descriptor: int) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        path.mkdir(parents=True, exist_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def below_tmp(paths: Iterable[Path]) -> list[Path]:
    """Return the existing paths below /tmp, resolved, without those that another one contains."""
    below = sorted({path.resolve() for path in paths if path.exists()})
    below = [path for path in below if path.is_relative_to(TMP) and path != TMP]
    return [path for path in below if not any(path.is_relative_to(other) for other in below if other != path)]


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    result = _libc().mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    _check(f"mount {source} on {target}", result)


def _check(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def import_paths() -> list[Path]:
    """Return the interpreter's folders, those on ``sys.path``, and those of editable installations.

    Editable installations that use an import hook are not on ``sys.path``; every installer records them in
    ``direct_url.json`` (PEP 610).
    """
    paths = [Path(entry) for entry in (sys.prefix, sys.base_prefix, *sys.path) if entry]
    for distribution in importlib.metadata.distributions():
        record = distribution.read_text("direct_url.json")
        origin = json.loads(record) if record else {}
        if origin.get("dir_info", {}).get("editable"):
            paths.append(Path(urllib.parse.unquote(urllib.parse.urlsplit(origin["url"]).path)))
    return paths
