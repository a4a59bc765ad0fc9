"""What a forked worker does: shut itself in, then serve invocations from the runtime API until it is ended."""

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
from emulator.aws.sandboxes.messages import Spawn
from emulator.aws.sandboxes.private_tmp import PrivateTmpUnavailableError, below_tmp, mount_private_tmp
from emulator.aws.sandboxes.runtime_client import flush_output, serve

_PR_SET_PDEATHSIG = 1


def run_worker(spawn: Spawn, output: int, zygote_pid: int, visible: Sequence[Path]) -> None:
    """Become the sandbox that `spawn` describes; never returns.

    Parameters
    ----------
    spawn
        The zygote's order.
    output
        Descriptor that becomes standard output and error.
    zygote_pid
        The parent: when it dies, so does this process.
    visible
        What stays visible under /tmp when that is private, as `below_tmp` returns it.
    """
    status = 1
    try:
        # A group of its own, so that whatever the function starts ends with it.
        os.setpgid(0, 0)
        _die_with_parent(zygote_pid)
        _redirect_output(output)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, _descriptor_limits())
        _replace_environment(spawn)
        _isolate_files(spawn, visible)
        if spawn.command:
            _exec(spawn.command)
        status = serve(Path(spawn.task_root))
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - the last frame of this process: whatever it is must reach the log
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
    # Lines appear in the log as they are written, and in order between the two streams.
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _descriptor_limits() -> tuple[int, int]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILE_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(FILE_DESCRIPTORS, hard)
    return most, most


def _exec(command: Sequence[str]) -> NoReturn:
    """Replace this process's program; what Python ignores, the new one must not find ignored."""
    for ignored in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    os.execve(command[0], list(command), os.environ)  # noqa: S606 - the function's own program


def _replace_environment(spawn: Spawn) -> None:
    os.environ.clear()
    os.environ.update(spawn.environment)
    time.tzset()


def _isolate_files(spawn: Spawn, visible: Sequence[Path]) -> None:
    try:
        mount_private_tmp(spawn.ephemeral_storage_bytes, [*visible, *below_tmp([Path(spawn.task_root)])])
    except PrivateTmpUnavailableError as error:
        # The next best: a directory of its own, removed with the cloud's state.
        own = Path(spawn.task_root).parent / "tmp" / spawn.sandbox_id
        own.mkdir(parents=True)
        os.environ["TMPDIR"] = str(own)
        print(f"emulator: {error}; TMPDIR is {own}, /tmp is shared and its size not limited", file=sys.stderr)
    tempfile.tempdir = None
    os.chdir(spawn.task_root)
