"""Ranks that are forks of one process after its imports, as `fmirun` starts them, whoever starts them here.

Forks have what was imported, Python's own objects above all, in the same memory, and so in the same lines of the
caches that ranks on one processor share. mpirun can start programs only. So what it starts is a small *stand-in* for a
rank, which hands its environment and its standard streams to the process that has imported everything, and ends with
the exit code of the rank that this one forks. Who is killed takes the others along: a rank ends with its stand-in and
with the forking process, a stand-in with its rank, and the forking process, with all ranks, when its standard input is
closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

STAND_IN = (sys.executable, "-IS", str(Path(__file__).with_name("stand_in.py")))
"""Command of a stand-in, but for its last argument: the socket of the forking process."""

_PR_SET_PDEATHSIG = 1
_RECEIVE_BYTES = 1 << 16
_STREAMS = 3


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Run `command`, which calls `serve`, until the block ends; by then all its ranks have ended, too.

    It is out of the terminal's reach: Ctrl-C is for this process, which ends it.

    Raises
    ------
    SystemExit
        If it ends before it can serve.
    """
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit("the process that forks the ranks has failed, see above")
        yield


def serve(path: Path, modules: Sequence[str], run_rank: Callable[[], None]) -> None:
    """Import `modules`, then fork ranks for the stand-ins that come to a socket at `path`; say so in one line."""
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what lives for ever is out of the collector's sight, so that its passes copy no shared page
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen(socket.SOMAXCONN)
        print("ready", flush=True)
        _ForkingServer(listener, run_rank).serve()


class _ForkingServer:
    """Forks a rank, which does `run_rank` in the environment of its stand-in, for each that comes to `listener`."""

    def __init__(self, listener: socket.socket, run_rank: Callable[[], None]) -> None:
        self._listener = listener
        self._run_rank = run_rank
        self._stand_ins: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Serve until standard input is closed; then kill the ranks that still run, and wait for their ends."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (sys.stdin.fileno(), wake_read, self._listener):
            self._selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if sys.stdin.fileno() in ready:
                break
            if self._listener in ready:
                self._fork(self._listener.accept()[0])
            for pid, stand_in in self._stand_ins.items():
                if stand_in in ready:  # it has no more to say: it is gone
                    self._selector.unregister(stand_in)
                    _kill(pid)
            if wake_read in ready:
                os.read(wake_read, _RECEIVE_BYTES)
                self._reap(os.WNOHANG)
        for pid in self._stand_ins:
            _kill(pid)
        self._reap(0)

    def _fork(self, stand_in: socket.socket) -> None:
        handed = _received(stand_in)
        if handed is None:
            stand_in.close()
            return
        environment, streams = handed
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            for connection in (self._listener, stand_in, *self._stand_ins.values()):
                connection.close()
            _be_rank(parent, environment, streams, self._run_rank)
        for stream in streams:
            os.close(stream)
        self._stand_ins[pid] = stand_in
        self._selector.register(stand_in, selectors.EVENT_READ)

    def _reap(self, options: int) -> None:
        """Tell stand-ins how their ranks have ended."""
        while self._stand_ins:
            pid, status = os.waitpid(-1, options)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            with self._stand_ins.pop(pid) as stand_in, contextlib.suppress(OSError):
                if stand_in in self._selector.get_map():
                    self._selector.unregister(stand_in)
                stand_in.sendall(bytes([code if code >= 0 else 128 - code]))


def _received(stand_in: socket.socket) -> tuple[dict[str, str], list[int]] | None:
    """Return what a stand-in hands over, None if it is gone before all of it has come."""
    data, streams, _, _ = socket.recv_fds(stand_in, _RECEIVE_BYTES, _STREAMS)
    while not data.endswith(b"\n"):
        more = stand_in.recv(_RECEIVE_BYTES)
        if not more:
            for stream in streams:
                os.close(stream)
            return None
        data += more
    return json.loads(data), streams


def _be_rank(
    parent: int, environment: dict[str, str], streams: Sequence[int], run_rank: Callable[[], None]
) -> NoReturn:
    """Be a rank in the place of its stand-in, and end without what the forking process does at its end."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _end_with(parent)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(environment)
        run_rank()
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this must not go on as the forking process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends. Only Linux does, see prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
