"""A container as a process, which ends with this one; its lines go to a log."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable

from emulator.aws.ecs.programs import Program

# The kernel ends the program when the endpoint is killed; see prctl(2).
_LAUNCHER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execvpe(sys.argv[2], sys.argv[2:], os.environ)
"""
_LINE_BYTES = 64 * 1024
# AWS's default stopTimeout.
STOP_S = 30.0


class ContainerProcess:
    """A running container.

    Parameters
    ----------
    program
        What it runs.
    on_line
        Receives each line of its standard output and error.

    Attributes
    ----------
    exited
        Resolves to the exit code; that of a signal is 128 plus its number.
    """

    def __init__(self, program: Program, on_line: Callable[[str], None]) -> None:
        self._program = program
        self._on_line = on_line
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start the process.

        Raises
        ------
        OSError
            When it cannot be started.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            "-c",
            _LAUNCHER,
            str(os.getpid()),
            *self._program.arguments,
            env=dict(self._program.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_BYTES,
            start_new_session=True,
        )
        self._follow = asyncio.get_running_loop().create_task(self._read())

    async def stop(self, timeout_s: float = STOP_S) -> None:
        """End the process: SIGTERM, and SIGKILL if it still runs after the time."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self.exited)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.shield(self.exited)

    def kill(self) -> None:
        """Kill the process, if it still runs."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _read(self) -> None:
        stream = self._process.stdout
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:
                # Longer than the limit: its rest follows as lines of their own.
                line = await stream.read(_LINE_BYTES)
            if not line:
                break
            self._on_line(line.decode(errors="replace").rstrip("\n"))
        code = await self._process.wait()
        if not self.exited.done():
            self.exited.set_result(code if code >= 0 else 128 - code)
