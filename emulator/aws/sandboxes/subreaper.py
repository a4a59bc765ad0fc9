"""A process's children, and the orphans among its descendants.

The kernel hands orphans to the nearest ancestor that has asked for them (PR_SET_CHILD_SUBREAPER, see prctl(2)).
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Let orphaned descendants become this process's children. Elsewhere than on Linux they go to init."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def child_pids() -> list[int]:
    """Return this process's children; see proc_pid_children(5)."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except FileNotFoundError:
        # Elsewhere than on Linux, and where the kernel was built without CONFIG_PROC_CHILDREN.
        import psutil

        return [child.pid for child in psutil.Process().children()]


def kill_children() -> None:
    """Kill this process's children, and their orphans as they arrive, until there are none."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in child_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.wait()
