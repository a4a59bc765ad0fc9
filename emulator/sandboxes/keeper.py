"""The zygote's parent, which outlives it: when the zygote is killed, nothing of it is left behind.

The kernel hands orphans to the nearest ancestor that has asked for them (PR_SET_CHILD_SUBREAPER, see prctl(2)). The
zygote asks for its workers' orphans; if it dies itself, they all come here, where nothing else ever runs.
"""

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path

from emulator.sandboxes.cpu_groups import CpuGroups

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
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


def end_children() -> None:
    """Kill this process's children, and their orphans as they arrive, until there are none."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in child_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.wait()


def _keep(zygote_pid: int, control: socket.socket, state: Path, groups: CpuGroups | None) -> int:
    """Wait for the zygote's end, and clean up if it did not do so itself."""
    while True:
        pid, status = os.wait()
        if pid == zygote_pid:
            break
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        end_children()
        poll = select.poll()
        poll.register(control, 0)
        # The state stays for the next zygote unless the endpoint is gone as well.
        if poll.poll(0):
            shutil.rmtree(state, ignore_errors=True)
    if groups is not None:
        groups.remove()
    return code if code >= 0 else 128 - code


def main() -> None:
    """Fork the zygote and see to its end; the endpoint starts this with its socket and its state folder."""
    parser = argparse.ArgumentParser(description="Forks sandboxes for the emulator; not started by hand.")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the socket to the endpoint")
    parser.add_argument("--state", type=Path, required=True, help="folder to remove at the end")
    parser.add_argument("--preload", action="append", default=[], help="module to import before the first fork")
    parser.add_argument("--cpu-groups", help="cgroup in which every sandbox gets one of its own")
    arguments = parser.parse_args()
    # The end is told by the socket, and Ctrl-C belongs to the program at the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    adopt_orphans()
    groups = None if arguments.cpu_groups is None else CpuGroups(Path(arguments.cpu_groups))
    control = socket.socket(fileno=arguments.control)
    zygote_pid = os.fork()
    if zygote_pid == 0:
        # Imported here: this process stays small, and what the zygote forks has it all.
        from emulator.sandboxes.zygote import run_zygote

        run_zygote(control, arguments.state, arguments.preload, groups)
    sys.exit(_keep(zygote_pid, control, arguments.state, groups))


if __name__ == "__main__":
    main()
