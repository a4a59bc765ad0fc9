"""The files that a function sees: its code in /var/task, its layers in /opt, an empty /tmp, without containers or root.

On Linux this is a mount namespace (and a user namespace when not root). The kernel removes it with its last process.
See mount_namespaces(7) and user_namespaces(7). Other systems have no mount namespaces: the caller uses the folders
themselves instead.
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
from dataclasses import dataclass
from pathlib import Path

from emulator.aws.sandboxes.hosts_file import HOSTS

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
OPT = Path("/opt")
_VAR = Path("/var")
TASK = _VAR / "task"
# As on AWS, the interpreter and the runtime client are there.
_LANG = _VAR / "lang"
RUNTIME = _VAR / "runtime"
_SHM = Path("/dev/shm")  # noqa: S108 - the directory of shm_overview(7) and sem_overview(7)


class FilesUnavailableError(OSError):
    """Files cannot be isolated on this platform or for this user; the message says why."""


@dataclass(frozen=True)
class SharedFiles:
    """The files that all functions of an emulator see.

    Parameters
    ----------
    runtime_root
        The folder that becomes /var/runtime, with modules for every function; None for an empty one.
    hosts
        The file that becomes /etc/hosts; None for that of this machine.
    hides_shared_memory
        Whether nothing can be created in /dev/shm, so that there are no POSIX semaphores and shared memory, as on AWS.
    """

    runtime_root: Path | None = None
    hosts: Path | None = None
    hides_shared_memory: bool = False


@dataclass(frozen=True)
class FunctionFiles:
    """What a function sees.

    Parameters
    ----------
    tmp_bytes
        Writing more than this to /tmp fails with ENOSPC.
    task_root
        The folder that becomes /var/task.
    opt_root
        The folder whose files are in /opt; None for an empty /opt.
    language_root
        The folder that becomes /var/lang.
    shared
        What every function sees.
    visible
        Paths below the old /tmp and /opt that stay visible, read-only, as returned by `covered`: the interpreter may be
        there.
    """

    tmp_bytes: int
    task_root: Path
    opt_root: Path | None
    language_root: Path
    shared: SharedFiles
    visible: Sequence[Path]


def mount_files(files: FunctionFiles) -> None:
    """Give the calling process and its future children the files of a function.

    The process must have one thread: the kernel refuses a user namespace to others. It loses the capability to mount.

    Raises
    ------
    FilesUnavailableError
        When the platform has no mount namespaces, or does not permit them to this user.
    """
    if sys.platform != "linux":
        raise FilesUnavailableError(f"{sys.platform} has no mount namespaces")
    try:
        _enter_namespace()
        _mount_all(files)
        _drop_mount_capability()
    except OSError as error:
        raise FilesUnavailableError(f"the kernel refused private files: {error}") from error


def _mount_all(files: FunctionFiles) -> None:
    # A descriptor reaches a folder after a new one has covered it.
    task, prefix = _path_descriptor(files.task_root), _path_descriptor(files.language_root)
    layers = (
        [] if files.opt_root is None else [(path.name, _path_descriptor(path)) for path in files.opt_root.iterdir()]
    )
    shared = files.shared
    runtime = None if shared.runtime_root is None else _path_descriptor(shared.runtime_root)
    if shared.hosts is not None and HOSTS.exists():
        hosts = _path_descriptor(shared.hosts)
        _bind(hosts, HOSTS)
        os.close(hosts)
    if shared.hides_shared_memory and _SHM.is_dir():
        _mount("tmpfs", str(_SHM), "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    kept = {path: _path_descriptor(path) for path in files.visible}
    _cover(TMP, f"size={files.tmp_bytes},mode=1777", {path: kept[path] for path in kept if path.is_relative_to(TMP)})
    _rebuild_var(task, prefix, runtime)
    if OPT.is_dir():
        _cover(OPT, "mode=755", {path: kept[path] for path in kept if path.is_relative_to(OPT)})
        for name, descriptor in layers:
            if not (OPT / name).exists():
                _bind(descriptor, OPT / name)
        _make_read_only(OPT)
    # Where the stored code is still visible, that of all functions.
    if (code := files.task_root.parent).exists() and files.task_root.exists():
        _bind(_path_descriptor(code), code)
    for descriptor in (task, prefix, *kept.values(), *(layer[1] for layer in layers)):
        os.close(descriptor)


def _rebuild_var(task: int, prefix: int, runtime: int | None) -> None:
    """Replace /var by a folder with the same entries and those of AWS: hosts have no /var/task to mount on."""
    entries = [(entry.name, entry.is_symlink(), _path_descriptor(Path(entry.path))) for entry in os.scandir(_VAR)]
    links = {name: (_VAR / name).readlink() for name, is_link, _ in entries if is_link}
    _mount("tmpfs", str(_VAR), "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    for name, target in links.items():
        (_VAR / name).symlink_to(target)
    for name, is_link, descriptor in entries:
        if not is_link and name not in (TASK.name, _LANG.name, RUNTIME.name):
            _make_mount_point(_VAR / name, descriptor)
            _mount(f"/proc/self/fd/{descriptor}", str(_VAR / name), None, _MS_BIND | _MS_REC)
        os.close(descriptor)
    _bind(task, TASK)
    _bind(prefix, _LANG)
    if runtime is None:
        RUNTIME.mkdir()
    else:
        _bind(runtime, RUNTIME)
        os.close(runtime)
    _make_read_only(_VAR)


def _cover(folder: Path, options: str, kept: dict[Path, int]) -> None:
    """Mount an empty folder over another one, whose kept paths stay visible, read-only."""
    _mount("tmpfs", str(folder), "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    for path, descriptor in kept.items():
        _bind(descriptor, path)


def _bind(descriptor: int, path: Path) -> None:
    """Show a file or folder at another path, which is created, read-only."""
    _make_mount_point(path, descriptor)
    _mount(f"/proc/self/fd/{descriptor}", str(path), None, _MS_BIND | _MS_REC)
    _make_read_only(path)


def _make_read_only(path: Path) -> None:
    # In a user namespace the kernel refuses a remount that drops one of these.
    kept = os.statvfs(path).f_flag & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("none", str(path), None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)


def _path_descriptor(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


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


def _make_mount_point(path: Path, descriptor: int) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        path.mkdir(parents=True, exist_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def covered(paths: Iterable[Path]) -> list[Path]:
    """Return the existing paths below /tmp and /opt, resolved, without those that another one contains."""
    resolved = sorted({path.resolve() for path in paths if path.exists()})
    below = [path for path in resolved if any(path.is_relative_to(root) and path != root for root in (TMP, OPT))]
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
