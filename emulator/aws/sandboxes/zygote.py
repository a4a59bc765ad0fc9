"""The zygote: a process that has imported the modules that functions use, and forks workers.

A fork shares the imported modules' memory and takes milliseconds, where the imports take half a second. The zygote has
one thread: a fork of a process with several may deadlock, and the kernel refuses a user namespace to such a process.
"""

import contextlib
import gc
import importlib
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import boto3

from emulator.aws.limits import MIB, REGION
from emulator.aws.sandboxes.control_groups import ControlGroups
from emulator.aws.sandboxes.file_system import SharedFiles, covered, import_paths
from emulator.aws.sandboxes.memory import MemoryGauge, anonymous_memory, resident_memory
from emulator.aws.sandboxes.messages import (
    Exited,
    InitDone,
    Kill,
    MemoryPeak,
    Message,
    MessageDecoder,
    Spawn,
    Started,
    StartFailed,
    encode,
)
from emulator.aws.sandboxes.package_filter import PackageFilter
from emulator.aws.sandboxes.subreaper import become_subreaper, child_pids, kill_children
from emulator.aws.sandboxes.worker import run_worker

# Reading one worker's memory takes about 10 us: the checks take 1 % of a core at any number of workers.
_CHECK_INTERVAL_S = 0.01
_CHECK_INTERVAL_PER_WORKER_S = 0.001
# A peak that grows by less is not reported while a worker runs.
_PEAK_STEP_BYTES = 2 * MIB
_RECEIVE_BYTES = 65536
_MAX_DESCRIPTORS = 64


@dataclass
class _Worker:
    sandbox_id: str
    memory: MemoryGauge
    memory_bytes: int
    vcpus: float
    out_of_memory: bool = False
    reported_peak: int = 0
    resident_at_fork: int = 0


class Zygote:
    """Forks workers, enforces their memory limits and reports their exits, until its socket is closed.

    Parameters
    ----------
    control
        The socket to the endpoint.
    groups
        The control groups of the workers.
    shared
        The files that every function sees.
    packages
        Which packages functions may import; None for all.
    """

    def __init__(
        self,
        control: socket.socket,
        groups: ControlGroups,
        shared: SharedFiles,
        packages: PackageFilter | None,
    ) -> None:
        self._shared = shared
        self._packages = packages
        self._groups = groups
        self._control = control
        self._decoder = MessageDecoder()
        self._descriptors: list[int] = []
        self._workers: dict[int, _Worker] = {}
        self._pids: dict[str, int] = {}
        self._next_check = 0.0
        self._visible = covered(import_paths())

    def run(self) -> None:
        """Serve until the endpoint has closed the connection, then kill every worker."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            connected = True
            while connected:
                ready = {key.fileobj for key, _ in selector.select(self._check_memory())}
                if wake_read in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, _RECEIVE_BYTES)
                    self._reap()
                if self._control in ready:
                    connected = self._receive()
        signal.set_wakeup_fd(-1)
        self._kill_all()

    def _receive(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _RECEIVE_BYTES, _MAX_DESCRIPTORS)
        except ConnectionResetError:
            return False
        self._descriptors += descriptors
        for message in self._decoder.feed(data):
            if isinstance(message, Spawn):
                self._fork(message)
            elif isinstance(message, InitDone):
                self._limit_cpu(message.sandbox_id)
            elif isinstance(message, Kill):
                self._kill(message.sandbox_id)
        return bool(data)

    def _send(self, message: Message) -> None:
        # The next receive notices an endpoint that has ended.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(encode(message))

    def _fork(self, spawn: Spawn) -> None:
        output = self._descriptors.pop(0)
        zygote_pid, inherited, resident = os.getpid(), anonymous_memory(), resident_memory()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(output)
            self._send(StartFailed(spawn.sandbox_id, f"cannot fork a sandbox: {error.strerror}"))
            return
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            run_worker(spawn, output, zygote_pid, self._groups, self._visible, self._shared, self._packages)
        os.close(output)
        # The child does the same, so that the group exists before anyone signals it.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        self._workers[pid] = _Worker(
            spawn.sandbox_id, MemoryGauge(pid, inherited), spawn.memory_bytes, spawn.vcpus, resident_at_fork=resident
        )
        self._pids[spawn.sandbox_id] = pid
        self._send(Started(spawn.sandbox_id, pid, inherited))

    def _limit_cpu(self, sandbox_id: str) -> None:
        if sandbox_id in self._pids:
            self._groups.limit(sandbox_id, self._workers[self._pids[sandbox_id]].vcpus)

    def _kill(self, sandbox_id: str) -> None:
        if sandbox_id in self._pids:
            self._kill_worker(self._pids[sandbox_id])

    def _kill_worker(self, pid: int) -> None:
        """Kill a worker and its process group: a frozen process dies when it is thawed."""
        _kill_group(pid)
        self._groups.thaw(self._workers[pid].sandbox_id)

    def _check_memory(self) -> float | None:
        """Kill workers above their memory limit, if a check is due; return the seconds until the next check."""
        if not self._workers:
            return None
        now = time.monotonic()
        if now >= self._next_check:
            for pid, worker in self._workers.items():
                used = worker.memory.estimate()
                if used > worker.memory_bytes:
                    self._enforce_memory(pid, worker)
                elif used > worker.reported_peak + _PEAK_STEP_BYTES:
                    worker.reported_peak = used
                    self._send(MemoryPeak(worker.sandbox_id, used))
            interval = max(_CHECK_INTERVAL_S, _CHECK_INTERVAL_PER_WORKER_S * len(self._workers))
            self._next_check = time.monotonic() + interval
        return max(0.0, self._next_check - time.monotonic())

    def _enforce_memory(self, pid: int, worker: _Worker) -> None:
        """Kill the largest process of a worker above its limit; of the worker itself, the whole group."""
        charges = worker.memory.charges()
        if sum(found.charged for found in charges) <= worker.memory_bytes:
            return
        largest = max(charges, key=lambda found: found.charged)
        if largest.pid == pid:
            worker.out_of_memory = True
            self._kill_worker(pid)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(largest.pid, signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                # Any other process is an adopted orphan of a worker.
                if pid in self._workers:
                    self._report_exit(pid, status, usage)
        self._kill_orphans()

    def _report_exit(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        worker = self._workers.pop(pid)
        del self._pids[worker.sandbox_id]
        _kill_group(pid)
        self._groups.discard(worker.sandbox_id)
        code = os.waitstatus_to_exitcode(status)
        # A worker may have lived for less time than there is between two checks. ru_maxrss is in KiB, on macOS in
        # bytes: getrusage(2) of either.
        largest = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        peak = max(worker.memory.peak(), largest - worker.resident_at_fork)
        self._send(
            Exited(
                worker.sandbox_id,
                exit_status=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                out_of_memory=worker.out_of_memory,
                peak_memory_bytes=max(peak, worker.memory_bytes) if worker.out_of_memory else peak,
            )
        )

    def _kill_orphans(self) -> None:
        """Kill the processes that ended workers have left running in other sessions.

        Their mount namespaces identify them: an orphan in the namespace of a running worker belongs to that worker and
        is kept. Where sandboxes have no private /tmp, all orphans are kept until the zygote ends.
        """
        orphans = set(child_pids()) - self._workers.keys() if sys.platform == "linux" else set()
        if not orphans:
            return
        namespaces_in_use = {_mount_namespace(pid) for pid in self._workers} | {_mount_namespace(os.getpid()), None}
        for pid in orphans:
            if _mount_namespace(pid) not in namespaces_in_use:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        for pid in self._workers:
            self._kill_worker(pid)
        # This process is the subreaper, so it has adopted every process that the workers have left.
        kill_children()


def _mount_namespace(pid: int) -> int | None:
    """Return the mount namespace of a process; None when it has ended; see namespaces(7)."""
    try:
        return Path(f"/proc/{pid}/ns/mnt").stat().st_ino
    except OSError:
        return None


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _import_modules(preload: Sequence[str]) -> None:
    # The data that botocore loads for the first client stays in the default session, which all forks share. The
    # client itself is dropped: a worker's has other credentials and another endpoint.
    boto3.client("s3", region_name=REGION, aws_access_key_id="-", aws_secret_access_key="-")  # noqa: S106 - a placeholder
    # Every connection uses this codec, which is imported with its tables at the first use.
    "localhost".encode("idna")
    for module in preload:
        importlib.import_module(module)
    # Permanent objects are excluded from garbage collection, whose passes would copy the shared pages.
    gc.collect()
    gc.freeze()


def run_zygote(
    control: socket.socket,
    preload: Sequence[str],
    groups: ControlGroups,
    shared: SharedFiles,
    packages: Sequence[str] | None,
) -> NoReturn:
    """Run the zygote until the endpoint closes the connection, then exit.

    Parameters
    ----------
    control
        The socket to the endpoint.
    preload
        Modules to import before the first fork.
    groups
        The control groups of the workers.
    shared
        The files that every function sees.
    packages
        Modules that functions may import besides AWS's and their own; None for all that are installed.
    """
    status = 0
    try:
        become_subreaper()
        with control:
            _import_modules(preload)
            Zygote(control, groups, shared, None if packages is None else PackageFilter(packages)).run()
    except ImportError as error:
        print(f"cannot start the sandboxes: --preload: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)
