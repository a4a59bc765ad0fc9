"""Sandboxes that are processes: the endpoint's connection to the zygote that forks them."""

import asyncio
import contextlib
import functools
import os
import resource
import signal
import socket
import sys
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from emulator.aws.sandboxes.base import SandboxExit, SandboxPlace, SandboxSpec
from emulator.aws.sandboxes.control_groups import ControlGroups, make_control_groups
from emulator.aws.sandboxes.hosts_file import HostsFile
from emulator.aws.sandboxes.memory import MemoryGauge, process_tree
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
from emulator.aws.sandboxes.nat import Attachment, Nat, PublicSegment
from emulator.errors import SandboxError

_READ_BYTES = 65536
# The most that /proc/sys/fs/pipe-max-size lets a pipe hold without privileges; see pipe(7).
_PIPE_BYTES = 1024 * 1024
# How often the supervisor is continued in case that a function has stopped it. It continues a stopped zygote itself.
_CONTINUE_S = 1.0
# From this exit status on, the supervisor reports 128 + the signal that ended the zygote.
_KILLED_STATUS = 128
_ZYGOTE_EXITED = "cannot start a sandbox: the process that forks sandboxes has exited; see its message above"


class ZygoteConnection:
    """Sends messages to the zygote and receives its messages, in the running event loop.

    Neither direction waits for the other. The zygote reads nothing while it forks; an endpoint that waited for it would
    block, and would deadlock when the zygote's own messages had filled the other direction.

    Parameters
    ----------
    control
        The connected socket, which this object closes.
    on_message
        Called with each message from the zygote.
    on_closed
        Called once, when the zygote has closed the connection or has ended.
    """

    def __init__(
        self, control: socket.socket, on_message: Callable[[Message], None], on_closed: Callable[[], None]
    ) -> None:
        self._control = control
        self._on_message = on_message
        self._on_closed = on_closed
        self._decoder = MessageDecoder()
        self._unsent: deque[tuple[memoryview, int | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self.closed = False
        control.setblocking(False)
        self._loop.add_reader(control, self._receive)

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message when the socket is writable, with a descriptor, which is closed here afterwards."""
        self._unsent.append((memoryview(encode(message)), descriptor))
        if len(self._unsent) == 1:
            self._flush()

    def close(self) -> None:
        """Close the connection; unsent messages are dropped."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        for _, descriptor in self._unsent:
            if descriptor is not None:
                os.close(descriptor)
        self._unsent.clear()

    def _flush(self) -> None:
        try:
            while self._unsent:
                data, descriptor = self._unsent[0]
                sent = socket.send_fds(self._control, [data], [] if descriptor is None else [descriptor])
                if descriptor is not None:
                    os.close(descriptor)
                if sent < len(data):
                    self._unsent[0] = data[sent:], None
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._control, self._flush)
        except (BrokenPipeError, ConnectionResetError):
            # The reader reports the end, after the last message of the zygote.
            self._loop.remove_writer(self._control)
        else:
            self._loop.remove_writer(self._control)

    def _receive(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionResetError):
            try:
                data = self._control.recv(_READ_BYTES)
            except BlockingIOError:
                return
        for message in self._decoder.feed(data):
            self._on_message(message)
        if not data and not self.closed:
            self.close()
            self._on_closed()


class ProcessSandbox:
    """One forked worker.

    Attributes
    ----------
    exited
        Resolves when the worker's process has ended.
    started
        Resolves when the worker runs; fails with `SandboxError` when it cannot be started.
    """

    def __init__(
        self,
        sandbox_id: str,
        output: int,
        on_output: Callable[[bytes], None],
        connection: ZygoteConnection,
        groups: ControlGroups,
        hosts: HostsFile,
    ) -> None:
        self._id = sandbox_id
        self._hosts = hosts
        self._groups = groups
        self._pid: int | None = None
        self._killed = False
        self._suspended = False
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[SandboxExit] = self._loop.create_future()
        self._output = output
        self._on_output = on_output
        self._memory: MemoryGauge | None = None
        self.started: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(output, False)
        self._loop.add_reader(output, self._read_output)

    def peak_memory(self) -> int:
        """Return the peak memory of its processes so far, bytes."""
        if self.exited.done():
            return self.exited.result().peak_memory_bytes
        return self._memory.peak() if self._memory is not None else 0

    async def drain_output(self) -> None:
        """Deliver all output that the worker has written until now."""
        self._drain()

    def suspend(self) -> None:
        """Freeze the worker and its children by their control group, or else by a signal to each."""
        # A frozen process does not die: one that is to be killed must not be frozen again.
        if self._suspended or self._killed or self.exited.done():
            return
        self._suspended = True
        if self._groups.freezer is not None:
            self._groups.freeze(self._id)
        else:
            self._signal_all(signal.SIGSTOP)

    async def resume(self) -> None:
        """Continue the worker and its children, which see the names of now."""
        self._hosts.refresh()
        if not self._suspended or self.exited.done():
            return
        self._suspended = False
        if self._groups.freezer is not None:
            self._groups.thaw(self._id)
        else:
            self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        for pid in () if self._pid is None else process_tree(self._pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _drain(self) -> None:
        # A pipe holds no more than this; anything else was written later.
        for _ in range(_PIPE_BYTES // _READ_BYTES):
            if not self._read_output():
                return

    def init_done(self) -> None:
        """End the init phase: from now on the CPU share is enforced."""
        if not self.exited.done() and not self._connection.closed:
            self._connection.send(InitDone(self._id))

    def kill(self) -> None:
        """Kill the worker and its process group."""
        self._killed = True
        if not self.exited.done() and not self._connection.closed:
            self._connection.send(Kill(self._id))

    def on_started(self, pid: int, inherited_bytes: int) -> None:
        """Mark the worker as running."""
        self._pid = pid
        self._memory = MemoryGauge(pid, inherited_bytes)
        if not self.started.done():
            self.started.set_result(None)

    def on_memory_peak(self, peak_bytes: int) -> None:
        """Take a peak that the zygote has read."""
        if self._memory is not None:
            self._memory.raise_peak(peak_bytes)

    def on_start_failed(self, reason: str) -> None:
        """Mark the worker as failed to start."""
        self._close_output()
        # It never ran: nobody waits for its end but what is released then.
        self.exited.cancel()
        if not self.started.done():
            self.started.set_exception(SandboxError(reason))

    def on_exited(self, end: SandboxExit) -> None:
        """Mark the worker as ended, after delivering the rest of its output."""
        self._drain()
        self._close_output()
        if not self.exited.done():
            self.exited.set_result(end)

    def _read_output(self) -> bool:
        """Deliver a piece of the output; return whether there may be more."""
        if self._output < 0:
            return False
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._on_output(data)
        else:
            self._close_output()
        return bool(data)

    def _close_output(self) -> None:
        if self._output >= 0:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = -1


class ProcessSandboxes:
    """Creates sandboxes as forks of a zygote; a zygote that was killed is replaced.

    Parameters
    ----------
    state
        Folder of the emulator's files; the supervisor removes it when this process has ended, even by SIGKILL.
    preload
        Modules that the zygote imports, besides boto3, before it forks.
    runtime_root
        A folder with modules for every function, which is their /var/runtime; None if there is none.
    packages
        Modules that functions may import besides AWS's and their own; None for all that are installed.
    hide_shared_memory
        Whether functions have no POSIX semaphores and shared memory.
    nat
        The NAT that each sandbox is behind; None for the network of this machine.

    Attributes
    ----------
    hosts
        The /etc/hosts of the sandboxes.
    cpu_shares_missing
        Why CPU shares are not enforced on this machine; None when they are.
    """

    def __init__(
        self,
        state: Path,
        preload: Sequence[str] = (),
        runtime_root: Path | None = None,
        nat: Nat | None = None,
        *,
        packages: Sequence[str] | None = None,
        hide_shared_memory: bool = False,
    ) -> None:
        self._state = state
        self._packages = packages
        self._hide_shared_memory = hide_shared_memory
        self._runtime_root = runtime_root
        self._preload = preload
        self._nat = nat
        self._segment: PublicSegment | None = None
        self._sandboxes: dict[str, ProcessSandbox] = {}
        self._connection: ZygoteConnection | None = None
        self._supervisor: asyncio.subprocess.Process | None = None
        self._closing = False
        self._starting = asyncio.Lock()
        self.hosts = HostsFile(state / "hosts")
        self._groups = ControlGroups(None, None)
        self.cpu_shares_missing: str | None = None

    async def start(self) -> None:
        """Start the zygote; return before it has imported its modules.

        Raises
        ------
        NatUnavailableError
            When there is to be a NAT and cannot be.
        """
        _raise_descriptor_limit()
        if self._nat is not None and self._segment is None:
            self._segment = await asyncio.to_thread(PublicSegment)
        self._groups = groups = make_control_groups(f"fmi-emulator-{uuid.uuid4().hex[:12]}")
        self.cpu_shares_missing = groups.cpu_missing
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._supervisor = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "emulator.aws.sandboxes.supervisor"),
                *("--control", str(theirs.fileno()), "--state", str(self._state), "--hosts", str(self.hosts.path)),
                *(f"--preload={module}" for module in self._preload),
                *(() if self._packages is None else (f"--packages={','.join(self._packages)}",)),
                *(("--hide-shared-memory",) if self._hide_shared_memory else ()),
                *(() if self._runtime_root is None else ("--runtime-root", str(self._runtime_root))),
                *(() if groups.cpu is None else ("--cpu-groups", str(groups.cpu))),
                *(() if groups.freezer is None else ("--freezer", str(groups.freezer))),
                pass_fds=[theirs.fileno()],
                # In a session of its own, so that Ctrl-C reaches only the command in the terminal.
                start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL,
                env=_zygote_environment(),
            )
        self._connection = ZygoteConnection(ours, self._on_message, self._on_zygote_closed)
        self._continue(self._supervisor)

    async def place(self) -> SandboxPlace:
        """Return what processes of this machine see: the loopback or, behind a NAT, its gateway; and its programs."""
        address = "127.0.0.1" if self._segment is None else self._segment.segment.gateway
        return SandboxPlace(address, is_container=False)

    async def create(self, spec: SandboxSpec, on_output: Callable[[bytes], None]) -> ProcessSandbox:
        """Fork a worker.

        Raises
        ------
        SandboxError
            When the zygote has ended and a new one cannot be started, or when it cannot fork.
        """
        connection = await self._open_connection()
        attachment = None
        if self._segment is not None and self._nat is not None:
            attachment = self._segment.attach(self._nat)
        self.hosts.refresh()
        read_end, write_end = os.pipe()
        sandbox = ProcessSandbox(spec.sandbox_id, read_end, on_output, connection, self._groups, self.hosts)
        self._sandboxes[spec.sandbox_id] = sandbox
        if attachment is not None:
            sandbox.exited.add_done_callback(functools.partial(self._detach, attachment))
        message = Spawn(
            spec.sandbox_id,
            dict(spec.environment),
            str(spec.task_root),
            spec.memory_bytes,
            spec.ephemeral_storage_bytes,
            spec.vcpus,
            list(spec.command),
            None if spec.opt_root is None else str(spec.opt_root),
            None if spec.language_root is None else str(spec.language_root),
            None if attachment is None else attachment.message(),
        )
        connection.send(message, write_end)
        try:
            await asyncio.shield(sandbox.started)
        except asyncio.CancelledError:
            sandbox.kill()
            raise
        return sandbox

    def kill_all(self) -> None:
        """Kill every sandbox."""
        for sandbox in list(self._sandboxes.values()):
            sandbox.kill()

    async def close(self) -> None:
        """Kill every sandbox and the zygote, and wait until they have ended."""
        self._closing = True
        if self._connection is not None:
            self._connection.close()
            self._fail_all()
        if self._supervisor is not None:
            await self._supervisor.wait()
        if self._segment is not None:
            await asyncio.to_thread(self._segment.close)

    def _detach(self, attachment: Attachment, _: "asyncio.Future[SandboxExit]") -> None:
        if self._segment is not None:
            self._segment.detach(attachment)

    def _continue(self, supervisor: asyncio.subprocess.Process) -> None:
        """Continue the supervisor until it has ended, also while this object closes."""
        if supervisor.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                supervisor.send_signal(signal.SIGCONT)
            asyncio.get_running_loop().call_later(_CONTINUE_S, self._continue, supervisor)

    async def _open_connection(self) -> ZygoteConnection:
        """Return the connection to the zygote; start a new zygote if it was killed."""
        async with self._starting:
            if self._connection is None or self._connection.closed:
                if self._closing or self._supervisor is None:
                    raise SandboxError("cannot start a sandbox: the emulator is shutting down")
                # The supervisor exits after all processes of the zygote. One that could not start would fail again.
                status = await self._supervisor.wait()
                if status < _KILLED_STATUS:
                    raise SandboxError(_ZYGOTE_EXITED)
                await self.start()
            assert self._connection is not None  # noqa: S101 - set by start
            return self._connection

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Started):
            self._sandboxes[message.sandbox_id].on_started(message.pid, message.inherited_bytes)
        elif isinstance(message, MemoryPeak):
            self._sandboxes[message.sandbox_id].on_memory_peak(message.peak_bytes)
        elif isinstance(message, StartFailed):
            self._sandboxes.pop(message.sandbox_id).on_start_failed(message.reason)
        elif isinstance(message, Exited):
            end = SandboxExit(message.exit_status, message.signal, message.out_of_memory, message.peak_memory_bytes)
            self._sandboxes.pop(message.sandbox_id).on_exited(end)

    def _on_zygote_closed(self) -> None:
        if not self._closing:
            print("emulator: the process that forks sandboxes has exited, and all sandboxes with it", file=sys.stderr)
        self._fail_all()

    def _fail_all(self) -> None:
        for sandbox in self._sandboxes.values():
            if not sandbox.started.done():
                sandbox.started.set_exception(SandboxError(_ZYGOTE_EXITED))
            sandbox.on_exited(SandboxExit(None, signal.SIGKILL, out_of_memory=False, peak_memory_bytes=0))
        self._sandboxes.clear()


def _raise_descriptor_limit() -> None:
    """Raise the limit of descriptors to the maximum: a thousand sandboxes take four thousand."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS reports "infinity" but accepts no more than OPEN_MAX.
    most = 10_240 if hard == resource.RLIM_INFINITY else hard
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _zygote_environment() -> dict[str, str]:
    """Return the zygote's environment: no AWS configuration of the user, numerical libraries with one thread."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    return {
        **kept,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        # Without it, macOS aborts some frameworks in a forked process.
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
    }
