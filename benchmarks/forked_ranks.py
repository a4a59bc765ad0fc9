"""Runs ranks as forks of one process after its imports, as `fmirun` does, whatever launcher starts them.

Forks share the memory of imported modules, and so the cache lines that ranks on one processor share. mpirun can only
start programs. So it starts a small *proxy* for each rank. The proxy sends its environment and its standard streams to
the process that has imported everything, which forks the rank; the proxy exits with the rank's exit code. If one of
them is killed, the others end, too: a rank ends with its proxy and with the forking process, a proxy with its rank, and
the forking process, with all ranks, when its standard input is closed.
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

PROXY_COMMAND = (sys.executable, "-IS", str(Path(__file__).with_name("rank_proxy.py")))
"""Command of a proxy without its last argument, the socket of the forking process."""

_PR_SET_PDEATHSIG = 1
_RECEIVE_BYTES = 1 << 16
_STREAMS = 3


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Run `command`, which calls `serve`, until the block ends. Then all its ranks have ended, too.

    It runs in a session of its own: Ctrl-C reaches only this process, which stops it.

    Raises
    ------
    SystemExit
        If it ends before it is ready.
    """
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit("the process that forks the ranks has failed, see above")
        yield


def serve(path: Path, modules: Sequence[str], run_rank: Callable[[], None]) -> None:
    """Import `modules`, then fork a rank for each proxy that connects to a socket at `path`. Print when ready."""
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # the collector skips these objects, so that its passes copy no shared page
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen(socket.SOMAXCONN)
        print("ready", flush=True)
        _ForkingServer(listener, run_rank).serve()


class _ForkingServer:
    """Forks a rank for each proxy that connects to `listener`; it calls `run_rank` in the proxy's environment."""

    def __init__(self, listener: socket.socket, run_rank: Callable[[], None]) -> None:
        self._listener = listener
        self._run_rank = run_rank
        self._proxies: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Serve until standard input is closed; then kill the ranks that still run, and wait for them."""
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
            for pid, proxy in self._proxies.items():
                if proxy in ready:  # it sends nothing more: it has ended
                    self._selector.unregister(proxy)
                    _kill(pid)
            if wake_read in ready:
                os.read(wake_read, _RECEIVE_BYTES)
                self._reap(os.WNOHANG)
        for pid in self._proxies:
            _kill(pid)
        self._reap(0)

    def _fork(self, proxy: socket.socket) -> None:
        received = _receive(proxy)
        if received is None:
            proxy.close()
            return
        environment, streams = received
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            for connection in (self._listener, proxy, *self._proxies.values()):
                connection.close()
            _run_rank(parent, environment, streams, self._run_rank)
        for stream in streams:
            os.close(stream)
        self._proxies[pid] = proxy
        self._selector.register(proxy, selectors.EVENT_READ)

    def _reap(self, options: int) -> None:
        """Send each ended rank's exit code to its proxy."""
        while self._proxies:
            pid, status = os.waitpid(-1, options)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            with self._proxies.pop(pid) as proxy, contextlib.suppress(OSError):
                if proxy in self._selector.get_map():
                    self._selector.unregister(proxy)
                proxy.sendall(bytes([code if code >= 0 else 128 - code]))


def _receive(proxy: socket.socket) -> tuple[dict[str, str], list[int]] | None:
    """Receive a proxy's environment and streams; return None if it ends before all is received."""
    data, streams, _, _ = socket.recv_fds(proxy, _RECEIVE_BYTES, _STREAMS)
    while not data.endswith(b"\n"):
        more = proxy.recv(_RECEIVE_BYTES)
        if not more:
            for stream in streams:
                os.close(stream)
            return None
        data += more
    return json.loads(data), streams


def _run_rank(
    parent: int, environment: dict[str, str], streams: Sequence[int], run_rank: Callable[[], None]
) -> NoReturn:
    """Run as a rank with its proxy's environment, and exit without the forking process's clean-up."""
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
    except BaseException:  # noqa: BLE001 - no exception may return into the forking process's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; Linux only, see prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
