"""Adopting and killing orphaned descendants of a process.

The kernel makes orphans children of the nearest subreaper among their ancestors (PR_SET_CHILD_SUBREAPER, see prctl(2)).
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Make this process the parent of orphaned descendants; on other systems than Linux they go to init."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def child_pids() -> list[int]:
    """Return the pids of this process's children; see proc_pid_children(5)."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except FileNotFoundError:
        # On other systems, and on kernels without CONFIG_PROC_CHILDREN.
        import psutil

        return [child.pid for child in psutil.Process().children()]


def kill_children() -> None:
    """Kill this process's children, and the orphans that it then adopts, until none is left."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in child_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.wait()
