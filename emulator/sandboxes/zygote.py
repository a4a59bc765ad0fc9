"""The zygote: a small process that has imported what functions need, and forks a worker on order.

A fork shares the imported modules' memory and takes milliseconds where an import takes half a second. It has one
thread: a forked copy of a process with several can deadlock, and the kernel gives no user namespace to it.
"""

import argparse
import contextlib
import ctypes
import gc
import importlib
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass

import boto3
import numpy as np  # noqa: F401 - for all workers to share
import psutil

import fmi_shim  # noqa: F401 - for all workers to share
from emulator.limits import REGION
from emulator.sandboxes.import_paths import import_paths
from emulator.sandboxes.memory import MemoryGauge
from emulator.sandboxes.messages import Decoder, Exited, Kill, Message, Spawn, Started, encode
from emulator.sandboxes.worker import run_worker

_PR_SET_CHILD_SUBREAPER = 36
# A look at one worker's memory costs about 10 us: the watch takes 1 % of a core at any number of workers.
_WATCH_INTERVAL_S = 0.01
_WATCH_INTERVAL_PER_WORKER_S = 0.001
_RECEIVE_BYTES = 65536
_MAX_DESCRIPTORS = 64


@dataclass
class _Worker:
    sandbox_id: str
    memory: MemoryGauge
    memory_bytes: int
    out_of_memory: bool = False


class Zygote:
    """Forks workers, watches their memory and reports their ends, until its socket is closed.

    Parameters
    ----------
    control
        The socket to the endpoint.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._decoder = Decoder()
        self._descriptors: list[int] = []
        self._workers: dict[int, _Worker] = {}
        self._next_watch = 0.0
        self._visible = import_paths()

    def run(self) -> None:
        """Serve until the endpoint is gone, then end every worker."""
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
                ready = {key.fileobj for key, _ in selector.select(self._watch())}
                if wake_read in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, _RECEIVE_BYTES)
                    self._reap()
                if self._control in ready:
                    connected = self._receive()
        signal.set_wakeup_fd(-1)
        self._end_all()

    def _receive(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _RECEIVE_BYTES, _MAX_DESCRIPTORS)
        except ConnectionResetError:
            return False
        self._descriptors += descriptors
        for message in self._decoder.feed(data):
            if isinstance(message, Spawn):
                self._fork(message)
            elif isinstance(message, Kill):
                self._kill(message.sandbox_id)
        return bool(data)

    def _send(self, message: Message) -> None:
        # An endpoint that is gone is noticed, and acted on, by the next receive.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(encode(message))

    def _fork(self, spawn: Spawn) -> None:
        output = self._descriptors.pop(0)
        zygote_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            run_worker(spawn, output, zygote_pid, self._visible)
        os.close(output)
        # The child does the same: whoever comes first, the group exists before anybody signals it.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        self._workers[pid] = _Worker(spawn.sandbox_id, MemoryGauge(pid), spawn.memory_bytes)
        self._send(Started(spawn.sandbox_id, pid))

    def _kill(self, sandbox_id: str) -> None:
        for pid, worker in self._workers.items():
            if worker.sandbox_id == sandbox_id:
                _kill_group(pid)

    def _watch(self) -> float | None:
        """Kill workers above their memory when it is time to look; return the seconds until the next look."""
        if not self._workers:
            return None
        now = time.monotonic()
        if now >= self._next_watch:
            for pid, worker in self._workers.items():
                if worker.memory.resident() > worker.memory_bytes:
                    worker.out_of_memory = True
                    _kill_group(pid)
            interval = max(_WATCH_INTERVAL_S, _WATCH_INTERVAL_PER_WORKER_S * len(self._workers))
            self._next_watch = time.monotonic() + interval
        return max(0.0, self._next_watch - time.monotonic())

    def _reap(self) -> None:
        while self._workers:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            # Anything else is an orphan of a worker's that this subreaper inherited.
            if worker is None:
                continue
            _kill_group(pid)
            code = os.waitstatus_to_exitcode(status)
            # ru_maxrss is in KiB, on macOS in bytes: getrusage(2) of either.
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            self._send(
                Exited(
                    worker.sandbox_id,
                    exit_status=code if code >= 0 else None,
                    signal=-code if code < 0 else None,
                    out_of_memory=worker.out_of_memory,
                    peak_memory_bytes=max(peak, worker.memory_bytes) if worker.out_of_memory else peak,
                )
            )

    def _end_all(self) -> None:
        for pid in self._workers:
            _kill_group(pid)
        # As the subreaper this process inherits whatever the workers left, so no process escapes it.
        with contextlib.suppress(ChildProcessError):
            while True:
                for child in psutil.Process().children():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
                os.wait()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _warm_up(preload: list[str]) -> None:
    # What botocore reads for the first client of a kind stays in the default session, for all forks to share.
    # The client itself is thrown away: a worker's has other credentials and another endpoint.
    boto3.client("s3", region_name=REGION, aws_access_key_id="-", aws_secret_access_key="-")  # noqa: S106 - a placeholder
    for module in preload:
        importlib.import_module(module)
    # What lives for ever is taken out of the collector's sight, so that its passes copy no shared page.
    gc.collect()
    gc.freeze()


def main() -> None:
    """Run the zygote; the endpoint starts it with its socket and its state folder."""
    parser = argparse.ArgumentParser(description="Forks sandboxes for the emulator; not started by hand.")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the socket to the endpoint")
    parser.add_argument("--state", required=True, help="folder to remove at the end")
    parser.add_argument("--preload", action="append", default=[], help="module to import before the first fork")
    arguments = parser.parse_args()
    # The end is told by the socket, and Ctrl-C belongs to the program at the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with socket.socket(fileno=arguments.control) as control:
            _warm_up(arguments.preload)
            Zygote(control).run()
    except ImportError as error:
        sys.exit(f"the sandboxes cannot start: --preload: {error}")
    finally:
        shutil.rmtree(arguments.state, ignore_errors=True)


if __name__ == "__main__":
    main()
