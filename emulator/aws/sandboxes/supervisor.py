"""The supervisor: the zygote's parent, which cleans up after a zygote that was killed.

The zygote adopts its workers' orphans; when it is killed, this process adopts them all and kills them. A zygote that a
function has stopped (SIGSTOP) is continued.
"""

import argparse
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path

from emulator.aws.sandboxes.control_groups import ControlGroups
from emulator.aws.sandboxes.subreaper import become_subreaper, kill_children

# How long the zygote may take to exit; it needs a fraction of this, even with a thousand workers.
_GRACE_MS = 3000
# When both are killed, the endpoint may end after the zygote, on a busy machine long after.
_ENDPOINT_EXIT_MS = 2000


def _supervise(zygote_pid: int, control: socket.socket, state: Path, groups: ControlGroups) -> int:
    """Wait until the zygote has exited and clean up after it; return the exit status for this process."""
    code = os.waitstatus_to_exitcode(_wait_for(zygote_pid, control))
    if code < 0:
        # The kernel has killed the workers with the zygote; those that are frozen die when they are thawed.
        groups.thaw_all()
        kill_children()
    # While the endpoint runs, it keeps the state: it starts another zygote, or reports why it cannot.
    if _is_hung_up(control, _ENDPOINT_EXIT_MS if code < 0 else 0):
        shutil.rmtree(state, ignore_errors=True)
    groups.remove()
    return code if code >= 0 else 128 - code


def _wait_for(zygote_pid: int, control: socket.socket) -> int:
    """Return the zygote's wait status. When the endpoint has ended and the zygote does not exit, it is killed.

    A zygote does not exit while it imports the modules of --preload, which may take any time.
    """
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(wake_read, select.POLLIN)
    # POLLHUP is reported in any case.
    poll.register(control, 0)
    grace_ms: int | None = None
    while True:
        pid, status = os.waitpid(zygote_pid, os.WNOHANG | os.WUNTRACED)
        if pid and not os.WIFSTOPPED(status):
            return status
        if pid:
            os.kill(zygote_pid, signal.SIGCONT)
        ready = {descriptor for descriptor, _ in poll.poll(grace_ms)}
        if wake_read in ready:
            os.read(wake_read, 4096)
        elif control.fileno() in ready:
            poll.unregister(control)
            grace_ms = _GRACE_MS
        else:
            os.kill(zygote_pid, signal.SIGKILL)
            grace_ms = None


def _is_hung_up(control: socket.socket, within_ms: int) -> bool:
    poll = select.poll()
    poll.register(control, 0)
    return bool(poll.poll(within_ms))


def main() -> None:
    """Fork and supervise the zygote; the endpoint starts this with its socket and its state folder."""
    parser = argparse.ArgumentParser(description="Forks sandboxes for the emulator, which starts this program itself.")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the socket to the endpoint")
    parser.add_argument("--state", type=Path, required=True, help="folder to remove at the end")
    parser.add_argument("--hosts", type=Path, required=True, help="the /etc/hosts of sandboxes")
    parser.add_argument("--preload", action="append", default=[], help="module to import before the first fork")
    parser.add_argument("--runtime-root", type=Path, help="folder with modules for every function")
    parser.add_argument("--hide-shared-memory", action="store_true", help="let functions create nothing in /dev/shm")
    parser.add_argument(
        "--packages", help="modules that functions may import besides AWS's, with commas; all if absent"
    )
    parser.add_argument("--cpu-groups", type=Path, help="parent of the cgroups that limit CPU time")
    parser.add_argument("--freezer", type=Path, help="parent of the cgroups that freeze sandboxes")
    arguments = parser.parse_args()
    # Shutdown is signalled by the socket; Ctrl-C is for the program at the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    become_subreaper()
    groups = ControlGroups(arguments.cpu_groups, arguments.freezer)
    control = socket.socket(fileno=arguments.control)
    zygote_pid = os.fork()
    if zygote_pid == 0:
        # Imported in the child only, so that this process stays small.
        from emulator.aws.sandboxes.file_system import SharedFiles
        from emulator.aws.sandboxes.zygote import run_zygote

        packages = None if arguments.packages is None else [name for name in arguments.packages.split(",") if name]
        shared = SharedFiles(arguments.runtime_root, arguments.hosts, arguments.hide_shared_memory)
        run_zygote(control, arguments.preload, groups, shared, packages)
    sys.exit(_supervise(zygote_pid, control, arguments.state, groups))


if __name__ == "__main__":
    main()
