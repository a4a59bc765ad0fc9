"""One container as a sandbox: its output, its memory, its suspension and its end."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from emulator.aws.sandboxes.base import SandboxExit
from emulator.aws.sandboxes.containers.cgroups import ContainerGroups
from emulator.aws.sandboxes.containers.daemon import ContainerState, Daemon, DaemonError
from emulator.aws.sandboxes.containers.ownership import remove_container
from emulator.aws.sandboxes.cpu_groups import MIN_QUOTA_US, PERIOD_US

InThread = Callable[..., Awaitable[Any]]
_READ_BYTES = 65536
_HEADER_BYTES = 8
# The daemon passes output on a moment after the program has written it. After this time without any, all has arrived.
# With 2 ms, a line was lost on a busy machine.
_QUIET_S = 0.02
_LONGEST_DRAIN_S = 0.5
_SIGNALLED = 128


class OutputFrames:
    """Decodes the daemon's stream of a container's output: https://docs.docker.com/reference/api/engine/ (attach)."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the output in the next bytes of the stream, in pieces."""
        pieces = []
        while data:
            if self._left:
                pieces.append(data[: self._left])
                data = data[self._left :]
                self._left -= len(pieces[-1])
                continue
            missing = _HEADER_BYTES - len(self._header)
            self._header += data[:missing]
            data = data[missing:]
            if len(self._header) == _HEADER_BYTES:
                self._left = int.from_bytes(self._header[4:])
                self._header = b""
        return pieces


class ContainerSandbox:
    """A started container.

    Parameters
    ----------
    container
        Its id.
    daemon
        The daemon that runs it.
    in_thread
        Calls a blocking function in a thread.
    output
        The attached socket, which this object closes.
    on_output
        Receives the output.
    memory_bytes
        Limit of its anonymous memory, bytes.
    vcpus
        Its share of the CPU after the init phase, CPU seconds a second.

    Attributes
    ----------
    exited
        Resolves when the container has ended.
    """

    def __init__(
        self,
        container: str,
        daemon: Daemon,
        in_thread: InThread,
        output: socket.socket,
        on_output: Callable[[bytes], None],
        memory_bytes: int,
        vcpus: float,
    ) -> None:
        self.container = container
        self._daemon = daemon
        self._in_thread = in_thread
        self._output: socket.socket | None = output
        self._on_output = on_output
        self._memory_bytes = memory_bytes
        self._vcpus = vcpus
        self._frames = OutputFrames()
        self._groups: ContainerGroups | None = None
        self._peak_bytes = 0
        self._killed_for_memory = False
        self._suspended = False
        self._pausing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.exited: asyncio.Future[SandboxExit] = self._loop.create_future()
        self._removed: asyncio.Task[None] | None = None
        output.setblocking(False)
        self._loop.add_reader(output, self._read_output)

    def started(self, groups: ContainerGroups | None) -> None:
        """Note the control groups of the running container, if this process can reach them."""
        self._groups = groups
        self.sample_memory()

    def sample_memory(self) -> None:
        """Measure the anonymous memory; kill the container above its limit, where the kernel's must be higher."""
        if self._groups is None or self._suspended or self.exited.done():
            return
        found = self._groups.anonymous_bytes()
        self._peak_bytes = max(self._peak_bytes, found)
        if found > self._memory_bytes and not self._killed_for_memory:
            self._killed_for_memory = True
            self.kill()

    def peak_memory(self) -> int:
        """Return the peak of the anonymous memory so far, bytes."""
        self.sample_memory()
        return self._peak_bytes

    async def drain_output(self) -> None:
        """Wait until the daemon delivers no more output."""
        deadline = self._loop.time() + _LONGEST_DRAIN_S
        while self._output is not None and self._loop.time() < deadline:
            if not self._read_output():
                await asyncio.sleep(_QUIET_S)
                if not self._read_output():
                    return

    def init_done(self) -> None:
        """Limit its CPU time from now on, in the background."""
        if self._vcpus < (os.cpu_count() or 1):
            quota_us = max(MIN_QUOTA_US, round(self._vcpus * PERIOD_US))
            self._background(self._in_thread(self._daemon.limit_cpu, self.container, quota_us, PERIOD_US))

    def suspend(self) -> None:
        """Freeze the container, by its control group or else by the daemon, which takes 100 times as long."""
        if self.exited.done() or self._suspended:
            return
        self.sample_memory()
        self._suspended = True
        if self._groups is not None and self._groups.can_freeze:
            self._groups.freeze()
        else:
            self._pausing = self._background(self._in_thread(self._daemon.pause, self.container))

    async def resume(self) -> None:
        """Continue the container."""
        if not self._suspended:
            return
        if self._groups is not None and self._groups.can_freeze:
            self._groups.thaw()
        else:
            if self._pausing is not None:
                await self._pausing
            with contextlib.suppress(DaemonError):
                await self._in_thread(self._daemon.unpause, self.container)
        self._suspended = False

    def kill(self) -> None:
        """Kill the container."""
        if not self.exited.done():
            self._background(self._kill())

    async def removed(self) -> None:
        """Wait until the ended container is removed."""
        await self.exited
        if self._removed is not None:
            await asyncio.shield(self._removed)

    async def _kill(self) -> None:
        await self.resume()
        try:
            await self._in_thread(self._daemon.kill, self.container)
        except DaemonError as error:
            self._end(None, str(error))

    def _read_output(self) -> bool:
        """Deliver a piece of the output; return whether there may be more."""
        if self._output is None:
            return False
        data = b""
        with contextlib.suppress(ConnectionResetError):
            try:
                data = self._output.recv(_READ_BYTES)
            except BlockingIOError:
                return False
        for piece in self._frames.feed(data):
            self._on_output(piece)
        if not data:
            self._close_output()
            self._background(self._find_end())
        return bool(data)

    def _close_output(self) -> None:
        if self._output is not None:
            self._loop.remove_reader(self._output)
            self._output.close()
            self._output = None

    async def _find_end(self) -> None:
        """Find out how the container ended, after the end of its output."""
        try:
            state = await self._in_thread(self._daemon.state, self.container)
            if state.running:
                # It has closed its output, or the daemon has not noticed the end yet.
                await self._in_thread(self._daemon.wait, self.container)
                state = await self._in_thread(self._daemon.state, self.container)
        except DaemonError as error:
            self._end(None, str(error))
        else:
            self._end(state, None)

    def _end(self, state: ContainerState | None, reason: str | None) -> None:
        if self.exited.done():
            return
        self._close_output()
        self.exited.set_result(self._exit(state, reason))
        if state is not None:
            self._removed = self._background(self._in_thread(remove_container, self._daemon, self.container))

    def _exit(self, state: ContainerState | None, reason: str | None) -> SandboxExit:
        if state is None:
            return SandboxExit(None, None, out_of_memory=False, peak_memory_bytes=self._peak_bytes, reason=reason)
        killed = state.exit_status - _SIGNALLED if _is_signal(state.exit_status - _SIGNALLED) else None
        out_of_memory = self._killed_for_memory or (state.out_of_memory and killed == signal.SIGKILL)
        peak = self._memory_bytes if out_of_memory else self._peak_bytes
        return SandboxExit(None if killed else state.exit_status, killed, out_of_memory, peak)

    def _background(self, call: Awaitable[None]) -> asyncio.Task[None]:
        async def run() -> None:
            # The container or its daemon has ended: whoever waits for `exited` learns it.
            with contextlib.suppress(DaemonError):
                await call

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _is_signal(number: int) -> bool:
    return number in set(signal.Signals)
