"""Sandboxes that are processes, forked by the zygote: the endpoint's side of it."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from emulator.errors import SandboxError
from emulator.sandboxes.base import SandboxExit, SandboxSpec
from emulator.sandboxes.memory import MemoryGauge
from emulator.sandboxes.messages import Decoder, Exited, Kill, Spawn, Started, encode

_READ_BYTES = 65536


class ProcessSandbox:
    """One forked worker."""

    def __init__(self, output: int, on_output: Callable[[bytes], None], kill: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[SandboxExit] = self._loop.create_future()
        self._output = output
        self._on_output = on_output
        self._kill = kill
        self._memory: MemoryGauge | None = None
        self.started: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(output, False)
        self._loop.add_reader(output, self.drain_output)

    @property
    def exited(self) -> asyncio.Future[SandboxExit]:
        """Resolves when the worker's process has ended."""
        return self._exited

    def peak_memory(self) -> int:
        """Return the most resident memory so far, bytes."""
        if self._exited.done():
            return self._exited.result().peak_memory_bytes
        return self._memory.peak() if self._memory is not None else 0

    def drain_output(self) -> None:
        """Hand over all that the worker has written until now."""
        if self._output < 0:
            return
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._output, _READ_BYTES):
                self._on_output(data)
            self._close_output()

    def kill(self) -> None:
        """End the worker and its process group at once."""
        if not self._exited.done():
            self._kill()

    def on_started(self, pid: int) -> None:
        """Take note that the worker runs."""
        self._memory = MemoryGauge(pid)
        if not self.started.done():
            self.started.set_result(None)

    def on_exited(self, end: SandboxExit) -> None:
        """Take note that the worker has ended; its last output is handed over first."""
        self.drain_output()
        self._close_output()
        if not self._exited.done():
            self._exited.set_result(end)

    def _close_output(self) -> None:
        if self._output >= 0:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = -1


class ProcessSandboxes:
    """Makes sandboxes by ordering forks from a zygote of its own.

    Parameters
    ----------
    state
        Folder of the emulator's files; the zygote removes it when it ends, even if this process was killed.
    preload
        Modules that the zygote imports besides numpy, boto3 and fmi_shim.
    """

    def __init__(self, state: Path, preload: Sequence[str] = ()) -> None:
        self._state = state
        self._preload = preload
        self._sandboxes: dict[str, ProcessSandbox] = {}
        self._decoder = Decoder()
        self._control: socket.socket | None = None
        self._zygote: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the zygote; returns before it has imported anything."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._zygote = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "emulator.sandboxes.zygote"),
                *("--control", str(theirs.fileno()), "--state", str(self._state)),
                *(f"--preload={module}" for module in self._preload),
                pass_fds=[theirs.fileno()],
                # Out of the terminal's reach: Ctrl-C is for the command in front of it.
                start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL,
                env=_zygote_environment(),
            )
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._receive)

    async def create(self, spec: SandboxSpec, on_output: Callable[[bytes], None]) -> ProcessSandbox:
        """Fork a worker.

        Raises
        ------
        SandboxError
            When the zygote is gone.
        """
        if self._control is None:
            raise SandboxError("the sandboxes' zygote has ended; restart the emulator")
        read_end, write_end = os.pipe()
        sandbox = ProcessSandbox(read_end, on_output, lambda: self._order_kill(spec.sandbox_id))
        self._sandboxes[spec.sandbox_id] = sandbox
        order = Spawn(**{**asdict(spec), "environment": dict(spec.environment), "task_root": str(spec.task_root)})
        try:
            self._send(encode(order), write_end)
        finally:
            os.close(write_end)
        try:
            await asyncio.shield(sandbox.started)
        except asyncio.CancelledError:
            sandbox.kill()
            raise
        return sandbox

    def kill_all(self) -> None:
        """End every sandbox at once."""
        for sandbox in list(self._sandboxes.values()):
            sandbox.kill()

    async def close(self) -> None:
        """End every sandbox and the zygote, and wait until they are gone."""
        self._hang_up()
        if self._zygote is not None:
            await self._zygote.wait()

    def _order_kill(self, sandbox_id: str) -> None:
        if self._control is not None:
            self._send(encode(Kill(sandbox_id)))

    def _send(self, data: bytes, *descriptors: int) -> None:
        # Orders are short and the zygote always reads: blocking here is a matter of microseconds.
        if self._control is None:
            raise SandboxError("the sandboxes' zygote has ended; restart the emulator")
        self._control.setblocking(True)
        try:
            sent = socket.send_fds(self._control, [data], descriptors) if descriptors else 0
            self._control.sendall(memoryview(data)[sent:])
        except (BrokenPipeError, ConnectionResetError) as error:
            raise SandboxError("the sandboxes' zygote has ended; restart the emulator") from error
        finally:
            self._control.setblocking(False)

    def _receive(self) -> None:
        if self._control is None:
            return
        try:
            data = self._control.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        for message in self._decoder.feed(data):
            if isinstance(message, Started):
                self._sandboxes[message.sandbox_id].on_started(message.pid)
            elif isinstance(message, Exited):
                end = SandboxExit(message.exit_status, message.signal, message.out_of_memory, message.peak_memory_bytes)
                self._sandboxes.pop(message.sandbox_id).on_exited(end)
        if not data:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._control is None:
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None
        for sandbox in self._sandboxes.values():
            if not sandbox.started.done():
                sandbox.started.set_exception(SandboxError("the sandboxes' zygote has ended; its reason stands above"))
            sandbox.on_exited(SandboxExit(None, 9, out_of_memory=False, peak_memory_bytes=0))
        self._sandboxes.clear()


def _zygote_environment() -> dict[str, str]:
    """Keep the user's AWS configuration out of the zygote, and its numerical libraries to one thread."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    return {
        **kept,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        # macOS forbids some frameworks after a fork unless told that the fork was meant.
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
    }
