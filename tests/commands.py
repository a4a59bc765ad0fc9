"""The commands ``fmirun`` and ``fmi-emulator`` as processes of their own, forked from one that has imported them.

The imports of a command take most of its processor time. Whoever tests the start itself runs `installed`.
"""

import atexit
import contextlib
import io
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, NoReturn, Self

FMIRUN = "fmirun"
FMI_EMULATOR = "fmi-emulator"
_IMPORTED = ("emulator.cli.run", "emulator.cli.commands", "emulator.aws.gateway.app", "emulator.page.views")
_REQUEST_BYTES = 1 << 18
_STREAMS = 3
_STATUS_BYTES = 4


def installed(program: str) -> Path:
    """Return the path of an installed command."""
    return Path(sys.executable).with_name(program)


class Command:
    """A running command, with the attributes and methods of `subprocess.Popen` that tests use.

    Parameters
    ----------
    program
        ``fmirun`` or ``fmi-emulator``.
    arguments
        Its arguments.
    cwd
        Its folder; None for that of this process.
    environment
        Variables besides those of this process.
    stderr
        A descriptor for its standard error; None for a pipe, as the other streams have.
    open_files
        How many files it may have open; None for as many as this process.
    """

    def __init__(
        self,
        program: str,
        *arguments: object,
        cwd: Path | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
        stderr: int | None = None,
        open_files: int | None = None,
    ) -> None:
        (input_end, our_input), (our_output, output_end) = os.pipe(), os.pipe()
        our_errors, errors_end = (None, os.dup(stderr)) if stderr is not None else os.pipe()
        self.stdin = os.fdopen(our_input, "w")
        self.stdout = os.fdopen(our_output)
        self.stderr: IO[str] = io.StringIO() if our_errors is None else os.fdopen(our_errors)
        self.args = [program, *map(str, arguments)]
        self.returncode: int | None = None
        self._status, status_end = socket.socketpair()
        request = json.dumps([self.args, str(cwd or Path.cwd()), {**os.environ, **environment}, open_files])
        descriptors = [input_end, output_end, errors_end, status_end.fileno()]
        socket.send_fds(_server(), [request.encode()], descriptors)
        for descriptor in descriptors[:_STREAMS]:
            os.close(descriptor)
        status_end.close()
        self.pid = self._receive_number()

    def _receive_number(self) -> int:
        return int.from_bytes(self._status.recv(_STATUS_BYTES, socket.MSG_WAITALL), signed=True)

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = self._receive_number()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, standard_input: str = "", timeout: float = 50) -> tuple[str, str]:
        """Write its input, and return the rest of its output and errors once it has ended; it is killed if too slow."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(standard_input)
            self.stdin.close()
        with ThreadPoolExecutor(2) as readers:
            output, errors = readers.submit(self.stdout.read), readers.submit(self.stderr.read)
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return output.result(), errors.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self.wait()
        self._status.close()


def run(
    program: str,
    *arguments: object,
    cwd: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    standard_input: str = "",
    timeout: float = 50,
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, as `subprocess.run` does."""
    with Command(program, *arguments, cwd=cwd, environment=environment) as command:
        output, errors = command.communicate(standard_input, timeout)
        return subprocess.CompletedProcess(command.args, command.wait(), output, errors)


@cache
def _server() -> socket.socket:
    """Start the process that commands are forked from; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", __name__, str(theirs.fileno())]
    server = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=Path(__file__).parent.parent)
    theirs.close()

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


def _serve(control: socket.socket) -> None:
    """Fork a process for each request, until the tests' process has ended."""
    # Each is waited for by a process between.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _REQUEST_BYTES, _STREAMS + 1)
        if not request:
            return
        if os.fork() == 0:
            control.close()
            _run(*json.loads(request), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _run(
    arguments: list[str], folder: str, variables: dict[str, str], open_files: int | None, descriptors: list[int]
) -> NoReturn:
    """Fork the command, send its process id and then its exit status."""
    *streams, status_end = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = socket.socket(fileno=status_end)
    pid = os.fork()
    if pid != 0:
        # What ends the command, such as Ctrl-C at the terminal, must not end this process before.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for descriptor in streams:
            os.close(descriptor)
        with contextlib.suppress(BrokenPipeError):
            status.sendall(pid.to_bytes(_STATUS_BYTES))
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            status.sendall(code.to_bytes(_STATUS_BYTES, signed=True))
        os._exit(0)
    status.close()
    for target, descriptor in enumerate(streams):
        os.dup2(descriptor, target)
        os.close(descriptor)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0), errors="backslashreplace", write_through=True)
    if open_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    tempfile.tempdir = None
    sys.argv = [str(installed(arguments[0])), *arguments[1:]]
    # As the installed script, its folder is the first of sys.path.
    sys.path[0] = str(installed(arguments[0]).parent)
    from emulator import cli

    cli.fmirun() if arguments[0] == FMIRUN else cli.fmi_emulator()


if __name__ == "__main__":
    import gc
    import importlib

    for module in _IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
