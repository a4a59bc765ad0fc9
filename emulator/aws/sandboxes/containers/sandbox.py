"""One container as a sandbox: its output, its memory, its suspension and its end."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from emulator.aws.sandboxes.base import SandboxExit
from emulator.aws.sandboxes.containers.cgroups import ContainerGroups
from emulator.aws.sandboxes.containers.daemon import ContainerState, Daemon, DaemonError
from emulator.aws.sandboxes.containers.output import MarkedOutput, OutputPipes, WholeLines, new_mark
from emulator.aws.sandboxes.containers.ownership import remove_container
from emulator.aws.sandboxes.control_groups import MIN_QUOTA_US, PERIOD_US

InThread = Callable[..., Awaitable[Any]]
_READ_BYTES = 65536
# A program that has filled its pipes, and a daemon that does not read them, end the wait for their marks.
_LONGEST_DRAIN_S = 5.0
# Without marks, all output is taken to have arrived after this time without any.
_QUIET_S = 0.02
_LONGEST_QUIET_DRAIN_S = 0.5
_SIGNALLED = 128
# What can end a container's first process; the kernel drops other signals, see pid_namespaces(7). So a status above 128
# that is none of these is the program's own, as the 142 of AWS's entry point is.
_FATAL_SIGNALS = (
    signal.SIGKILL,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGSYS,
)
# A daemon that is stopped kills its containers, and ends only then.
_DAEMON_ENDS_S, _DAEMON_CHECK_S = 2.0, 0.1


@dataclass(frozen=True)
class _Drain:
    """A wait for marks: those that have not arrived yet, and what resolves when all have."""

    missing: set[bytes]
    done: "asyncio.Future[None]"


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
        self._received = MarkedOutput()
        self._lines = WholeLines()
        self._pipes: OutputPipes | None = None
        self._drains: list[_Drain] = []
        self._groups: ContainerGroups | None = None
        self._peak_bytes = 0
        self._killed_for_memory = False
        self._is_killed = False
        self._suspended = False
        self._pausing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.exited: asyncio.Future[SandboxExit] = self._loop.create_future()
        self._removed: asyncio.Task[None] | None = None
        output.setblocking(False)
        self._loop.add_reader(output, self._read_output)

    def started(self, groups: ContainerGroups | None, pipes: OutputPipes | None) -> None:
        """Note the control groups and the output pipes of the running container, if this process can reach them."""
        self._groups = groups
        self._pipes = pipes
        if self._output is None:
            self._close_pipes()
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
        if self.exited.done():
            return self.exited.result().peak_memory_bytes
        self.sample_memory()
        return self._peak_bytes

    async def drain_output(self) -> None:
        """Wait until the daemon has delivered all output that was written before this call.

        Where this process may not write to the container's pipes, until it has delivered none for a while.
        """
        if self._pipes is None:
            await self._drain_until_quiet()
        else:
            await self._drain_to_marks(self._pipes)
        self._deliver(self._lines.flush())

    async def _drain_to_marks(self, pipes: OutputPipes) -> None:
        marks = {descriptor: new_mark() for descriptor in pipes.descriptors}
        drain = _Drain(set(marks.values()), self._loop.create_future())
        self._drains.append(drain)
        for mark in marks.values():
            self._received.expect(mark)
        try:
            async with asyncio.timeout(_LONGEST_DRAIN_S):
                for descriptor, mark in marks.items():
                    if not await pipes.write(descriptor, mark):
                        drain.missing.discard(mark)
                if drain.missing and self._output is not None:
                    await drain.done
        except TimeoutError:
            pass
        finally:
            self._drains.remove(drain)
            for mark in marks.values():
                self._received.forget(mark)

    async def _drain_until_quiet(self) -> None:
        deadline = self._loop.time() + _LONGEST_QUIET_DRAIN_S
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
        self._is_killed = True
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
        pieces, arrived = self._received.feed(data) if data else (self._received.end(), set())
        for stream, piece in pieces:
            self._deliver(self._lines.feed(stream, piece))
        for drain in self._drains:
            drain.missing.difference_update(arrived)
            if not (drain.missing and data) and not drain.done.done():
                drain.done.set_result(None)
        if not data:
            self._deliver(self._lines.flush())
            self._close_output()
            self._background(self._find_end())
        return bool(data)

    def _deliver(self, text: bytes) -> None:
        if text:
            self._on_output(text)

    def _close_output(self) -> None:
        if self._output is not None:
            self._loop.remove_reader(self._output)
            self._output.close()
            self._output = None
            self._close_pipes()

    def _close_pipes(self) -> None:
        if self._pipes is not None:
            self._pipes.close()

    async def _find_end(self) -> None:
        """Find out how the container ended, after the end of its output."""
        try:
            state = await self._in_thread(self._daemon.state, self.container)
            if state.running:
                # It has closed its output, or the daemon has not noticed the end yet.
                await self._in_thread(self._daemon.wait, self.container)
                state = await self._in_thread(self._daemon.state, self.container)
            if self._was_killed_by_others(state):
                await self._check_daemon()
        except DaemonError as error:
            self._end(None, str(error))
        else:
            self._end(state, None)

    def _was_killed_by_others(self, state: ContainerState) -> bool:
        ended = state.exit_status - _SIGNALLED
        return ended in (signal.SIGKILL, signal.SIGTERM) and not (self._is_killed or state.out_of_memory)

    async def _check_daemon(self) -> None:
        """Raise `DaemonError` if the daemon ends soon, which is why it has killed the container."""
        until = self._loop.time() + _DAEMON_ENDS_S
        while self._loop.time() < until:
            await self._in_thread(self._daemon.check_running)
            await asyncio.sleep(_DAEMON_CHECK_S)

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
        ended = state.exit_status - _SIGNALLED
        killed = ended if ended in _FATAL_SIGNALS else None
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
