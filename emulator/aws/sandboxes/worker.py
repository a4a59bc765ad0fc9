"""A forked worker: it isolates itself, then serves invocations from the runtime API until it is killed."""

import ctypes
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from emulator.aws.limits import FILE_DESCRIPTORS
from emulator.aws.sandboxes import runtime_client
from emulator.aws.sandboxes.control_groups import ControlGroups
from emulator.aws.sandboxes.file_system import (
    OPT,
    RUNTIME,
    TASK,
    FilesUnavailableError,
    FunctionFiles,
    SharedFiles,
    covered,
    mount_files,
)
from emulator.aws.sandboxes.messages import Spawn
from emulator.aws.sandboxes.nat import Attachment, NatUnavailableError, enter
from emulator.aws.sandboxes.own_packages import brings_imported_package, package_folders
from emulator.aws.sandboxes.package_filter import PackageFilter
from emulator.aws.sandboxes.runtime_client import flush_output, serve

_PR_SET_PDEATHSIG = 1


def run_worker(
    spawn: Spawn,
    output: int,
    zygote_pid: int,
    groups: ControlGroups,
    visible: Sequence[Path],
    shared: SharedFiles,
    packages: PackageFilter | None,
) -> None:
    """Become the sandbox that `spawn` describes; never returns.

    Parameters
    ----------
    spawn
        The message from the endpoint.
    output
        Descriptor that becomes standard output and error.
    zygote_pid
        The parent: this process is killed when it ends.
    groups
        The control groups that it belongs to.
    visible
        Paths that stay visible in the function's files, as returned by `covered`.
    shared
        The files that every function sees.
    packages
        Which packages it may import; None for all.
    """
    status = 1
    try:
        # A process group of its own, so that the function's child processes are killed with it.
        os.setpgid(0, 0)
        _die_with_parent(zygote_pid)
        _redirect_output(output)
        # By itself, since no process that the function starts may be outside of them.
        groups.add(spawn.sandbox_id, os.getpid())
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, _descriptor_limits())
        _replace_environment(spawn)
        if spawn.network is not None:
            enter(Attachment.of_message(spawn.network))
        task_root, opt_root = _isolate_files(spawn, visible, shared)
        if spawn.command:
            _exec([_inside(part, spawn, task_root, opt_root) for part in spawn.command])
        if brings_imported_package((task_root, *package_folders(opt_root)), sys.modules):
            # One process cannot have two numpys: a new one imports the function's own.
            hidden = () if packages is None else (runtime_client.HIDE_PACKAGES, *packages.packages)
            _exec((sys.executable, "-P", "-m", runtime_client.__name__, *hidden))
        if packages is not None:
            packages.install()
        status = serve(task_root, opt_root)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except NatUnavailableError as error:
        print(f"emulator: {error}", file=sys.stderr)
    except BaseException:  # noqa: BLE001 - the outermost frame: every error must reach the log
        sys.excepthook(*sys.exc_info())
    finally:
        flush_output()
        # The zygote's own exit handlers must not run in its children.
        os._exit(status)


def _die_with_parent(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def _redirect_output(output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # Line buffering keeps the order of lines between the two streams.
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _descriptor_limits() -> tuple[int, int]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILE_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(FILE_DESCRIPTORS, hard)
    return most, most


def _exec(command: Sequence[str]) -> NoReturn:
    """Replace this process's program; reset the signals that Python ignores."""
    for ignored in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    os.execve(command[0], list(command), os.environ)  # noqa: S606 - the function's program


def _replace_environment(spawn: Spawn) -> None:
    os.environ.clear()
    os.environ.update(spawn.environment)
    time.tzset()


def _isolate_files(spawn: Spawn, visible: Sequence[Path], shared: SharedFiles) -> tuple[Path, Path]:
    """Give this process the files of its function; return the folders with its code and with its layers."""
    task_root = Path(spawn.task_root)
    opt_root = Path(spawn.opt_root) if spawn.opt_root is not None else None
    language_root = Path(spawn.language_root or sys.prefix)
    # An interpreter below /tmp or /opt stays where it is, too.
    visible = (*visible, *(path for path in covered([language_root]) if path not in visible))
    try:
        mount_files(FunctionFiles(spawn.ephemeral_storage_bytes, task_root, opt_root, language_root, shared, visible))
    except FilesUnavailableError as error:
        # Fall back to a separate directory, which is removed with the emulator's state.
        own = task_root.parent / "tmp" / spawn.sandbox_id
        own.mkdir(parents=True)
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        os.environ.update(TMPDIR=str(own), LAMBDA_TASK_ROOT=str(task_root), PWD=str(task_root), PATH=path)
        print(
            f"emulator: {error}: TMPDIR is {own} instead; /tmp is shared and its size is not limited, the function can "
            f"change its own code, which is in {task_root}, and its layers are in {opt_root}",
            file=sys.stderr,
        )
        folders = task_root, opt_root or OPT
        modules = shared.runtime_root
        if modules is not None and "PYTHONPATH" in os.environ:
            os.environ["PYTHONPATH"] = str(modules)
    else:
        folders = TASK, OPT
        modules = RUNTIME
    if modules is not None:
        sys.path.append(str(modules))
    tempfile.tempdir = None
    os.chdir(folders[0])
    return folders


def _inside(part: str, spawn: Spawn, task_root: Path, opt_root: Path) -> str:
    """Return a path of a command as the function sees it."""
    for outside, inside in ((spawn.task_root, task_root), (spawn.opt_root, opt_root)):
        if outside is not None and part.startswith(f"{outside}/"):
            return str(inside / part[len(outside) + 1 :])
    return part
