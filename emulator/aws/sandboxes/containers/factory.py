"""Creates containers as sandboxes: one network a cloud, one container an execution environment."""

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from emulator.aws import limits
from emulator.aws.sandboxes.base import ContainerImage, SandboxPlace, SandboxSpec
from emulator.aws.sandboxes.containers.bridge import make_bridge
from emulator.aws.sandboxes.containers.cgroups import ContainerGroups
from emulator.aws.sandboxes.containers.daemon import ContainerLimits, Daemon, DaemonError, Network
from emulator.aws.sandboxes.containers.output import OutputPipes
from emulator.aws.sandboxes.containers.ownership import Owner, remove_container, remove_leftovers
from emulator.aws.sandboxes.containers.sandbox import ContainerSandbox
from emulator.aws.sandboxes.containers.tmp_volume import TmpUnavailableError, check_mountable, mounted_tmp
from emulator.aws.sandboxes.nat import Nat, NatUnavailableError, Segment, check_nat_available, translate
from emulator.errors import SandboxError

# As on AWS, where /proc/self/status of a function shows them.
_UID, _GID = 993, 990
_TASK_ROOT, _OPT = "/var/task", "/opt"
_THREADS = 24
_SAMPLE_S = 0.02


class ContainerSandboxes:
    """Creates sandboxes as containers of a daemon on this machine, which is asked at the first use.

    Parameters
    ----------
    scratch
        Folder for the code and the /tmp of containers.
    code_image
        The image that runs archives; None if archives run elsewhere.
    shares_memory
        Whether containers share /dev/shm with each other and this machine. On AWS, functions have none.
    nat
        The NAT that each container is behind; None for the daemon's network alone.

    Attributes
    ----------
    notes
        One sentence for each feature that this machine or daemon does not support.
    """

    def __init__(
        self, scratch: Path, code_image: str | None = None, nat: Nat | None = None, *, shares_memory: bool = False
    ) -> None:
        self._scratch = scratch
        self._code_image = code_image
        self._nat = nat
        self._ipc_mode = "host" if shares_memory else "none"
        self._starting = asyncio.Lock()
        self._daemon: Daemon | None = None
        self._network: Network | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="containers")
        self._owner = Owner.of_this_process()
        self._sandboxes: dict[str, ContainerSandbox] = {}
        self._creating: set[asyncio.Task[ContainerSandbox]] = set()
        self._code: dict[Path, asyncio.Task[Path]] = {}
        self._images: dict[str, str] = {}
        self._tmp_on_disk = False
        self._sampling: asyncio.Task[None] | None = None
        self._closing = False
        self.notes: list[str] = []

    async def start(self) -> None:
        """Connect to the daemon, remove what killed emulators left, and create the network, once.

        Raises
        ------
        SandboxError
            When there is no daemon, or it cannot be used.
        """
        async with self._starting:
            if self._network is not None:
                return
            if self._closing:
                raise SandboxError("cannot start a container: the emulator is shutting down")
            if self._nat is not None:
                await self._in_thread(check_nat_available)
            self._daemon = daemon = await self._in_thread(Daemon)
            await self._in_thread(remove_leftovers, daemon)
            name = f"fmi-emulator-{uuid.uuid4().hex[:12]}"
            self._network = await self._in_thread(daemon.create_network, name, self._owner.labels())
            await self._in_thread(make_bridge, self._network)
            if (reason := await self._in_thread(check_mountable, self._scratch)) is not None:
                self.notes.append(
                    "the /tmp of containers is in memory; their other memory is measured, not fenced by the kernel: "
                    f"{reason}"
                )
            self._tmp_on_disk = reason is None
            self._sampling = asyncio.create_task(self._sample())

    async def place(self) -> SandboxPlace:
        """Return what containers see: the network's gateway, and the programs of their image.

        Raises
        ------
        SandboxError
            When there is no daemon, or it cannot be used.
        """
        await self.start()
        assert self._network is not None  # noqa: S101 - set by start
        return SandboxPlace(self._network.gateway, is_container=True)

    async def create(self, spec: SandboxSpec, on_output: Callable[[bytes], None]) -> ContainerSandbox:
        """Start a container.

        Raises
        ------
        SandboxError
            When the daemon cannot start it.
        InvalidEntrypointError
            When its program does not exist.
        """
        await self.start()
        task = asyncio.create_task(self._create(spec, on_output))
        self._creating.add(task)
        task.add_done_callback(self._creating.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_kill_created)
            raise

    def kill_all(self) -> None:
        """Kill every container."""
        for sandbox in list(self._sandboxes.values()):
            sandbox.kill()

    async def close(self) -> None:
        """Kill and remove every container and the network."""
        self._closing = True
        async with self._starting:
            if self._sampling is not None:
                self._sampling.cancel()
            await asyncio.gather(*self._creating, return_exceptions=True)
            self.kill_all()
            await asyncio.gather(*(sandbox.removed() for sandbox in list(self._sandboxes.values())))
            if self._daemon is not None:
                # A daemon that has ended: the next start removes what is left.
                with contextlib.suppress(DaemonError):
                    if self._network is not None:
                        await self._in_thread(self._daemon.remove_network, self._network.id)
                self._daemon.close()
            self._threads.shutdown()

    async def _create(self, spec: SandboxSpec, on_output: Callable[[bytes], None]) -> ContainerSandbox:
        mounts = {}
        for folder, target in ((spec.task_root, _TASK_ROOT), (spec.opt_root, _OPT)):
            if folder is not None:
                mounts[str(await self._readable_code(folder))] = f"{target}:ro"
        image = await self._image(spec)
        loop = asyncio.get_running_loop()
        made: asyncio.Future[ContainerSandbox] = loop.create_future()

        def attached(container: str, output: Any) -> None:
            assert self._daemon is not None  # noqa: S101 - set by start
            sandbox = ContainerSandbox(
                container, self._daemon, self._in_thread, output, on_output, spec.memory_bytes, spec.vcpus
            )
            made.set_result(sandbox)

        groups, pipes = await self._in_thread(
            self._start_container, spec, image, mounts, lambda *args: loop.call_soon_threadsafe(attached, *args)
        )
        sandbox = await made
        self._sandboxes[spec.sandbox_id] = sandbox
        sandbox.exited.add_done_callback(lambda _: loop.create_task(self._forget(spec.sandbox_id)))
        sandbox.started(groups, pipes)
        return sandbox

    async def _forget(self, sandbox_id: str) -> None:
        await self._sandboxes[sandbox_id].removed()
        del self._sandboxes[sandbox_id]

    async def _image(self, spec: SandboxSpec) -> ContainerImage:
        """Return what the container runs: the function's image, or the one for archives with the handler."""
        if spec.image is not None:
            await self._in_thread(self._check_image, spec.image.reference)
            return spec.image
        if self._code_image is None:
            raise SandboxError("no image runs archives here: start the emulator with the sandbox docker")
        command = tuple(_inside(part, spec) for part in spec.command)
        return ContainerImage(self._code_image, entry_point=command, working_directory=_TASK_ROOT)

    def _check_image(self, reference: str) -> None:
        if reference not in self._images:
            assert self._daemon is not None  # noqa: S101 - set by start
            self._images[reference] = self._daemon.image_id(reference)

    async def _readable_code(self, root: Path) -> Path:
        """Return a copy of a function's code that the user of a container may read; made once for each archive."""
        if root not in self._code:
            copied = self._scratch / f"code-{uuid.uuid4().hex}"
            self._code[root] = asyncio.ensure_future(self._in_thread(_copy_readable, root, copied))
        return await asyncio.shield(self._code[root])

    def _start_container(
        self, spec: SandboxSpec, image: ContainerImage, code: dict[str, str], attached: Callable[[str, Any], object]
    ) -> tuple[ContainerGroups | None, OutputPipes | None]:
        """Create, attach and start a container, in a thread; nothing of it is left after an error."""
        daemon, network = self._daemon, self._network
        assert daemon is not None  # noqa: S101 - set by start
        assert network is not None  # noqa: S101 - set by start
        with contextlib.ExitStack() as opened:
            memory = spec.memory_bytes
            mounts, tmpfs = dict(code), {}
            if self._tmp_on_disk:
                try:
                    folder = opened.enter_context(mounted_tmp(self._scratch, spec.ephemeral_storage_bytes, _UID, _GID))
                except TmpUnavailableError as error:
                    raise SandboxError(
                        f"cannot mount a container's /tmp: {error}; free loop devices or space"
                    ) from None
                mounts[str(folder)] = "/tmp:rw"  # noqa: S108 - the function's own
            else:
                tmpfs["/tmp"] = f"size={spec.ephemeral_storage_bytes},mode=1777,exec"  # noqa: S108 - the same
                memory += spec.ephemeral_storage_bytes
            container = daemon.create_container(
                f"fmi-emulator-{spec.sandbox_id}",
                image,
                spec.environment,
                network.id,
                ContainerLimits(memory, limits.PROCESSES, limits.FILE_DESCRIPTORS),
                self._owner.labels(),
                f"{_UID}:{_GID}",
                mounts,
                tmpfs,
                self._ipc_mode,
            )
            try:
                output = daemon.attach(container)
                try:
                    daemon.start(container, image.reference)
                    pid = daemon.state(container).pid
                    groups = ContainerGroups.of_process(pid, container)
                    # The groups prove that the process is one of this machine.
                    pipes = None if groups is None else OutputPipes.of_process(pid)
                    if self._nat is not None:
                        self._translate(pid, groups, self._nat)
                except BaseException:
                    output.close()
                    raise
            except BaseException:
                with contextlib.suppress(DaemonError):
                    remove_container(daemon, container)
                raise
            attached(container, output)
            return groups, pipes

    def _translate(self, pid: int, groups: ContainerGroups | None, nat: Nat) -> None:
        """Put a container behind a NAT, before it gets its first event."""
        assert self._network is not None  # noqa: S101 - set by start
        if pid == 0:
            return  # It has ended.
        if groups is None:
            raise NatUnavailableError(
                "--nat cannot reach the network of a container: expected a daemon whose containers are processes of "
                "this machine; leave it out"
            )
        try:
            translate(f"/proc/{pid}/ns/net", Segment(self._network.gateway, self._network.subnet), nat)
        except NatUnavailableError:
            # One that has ended meanwhile needs none; its end is reported.
            if Path(f"/proc/{pid}").exists():
                raise

    async def _sample(self) -> None:
        while True:
            for sandbox in list(self._sandboxes.values()):
                sandbox.sample_memory()
            await asyncio.sleep(_SAMPLE_S)

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*arguments))


def _inside(part: str, spec: SandboxSpec) -> str:
    """Return the path inside the container for one below the code's folders; anything else as it is."""
    for outside, inside in ((spec.task_root, _TASK_ROOT), (spec.opt_root, _OPT)):
        if outside is not None and part.startswith(f"{outside}/"):
            return inside + part.removeprefix(str(outside))
    return part


def _kill_created(task: "asyncio.Task[ContainerSandbox]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().kill()


def _copy_readable(root: Path, copied: Path) -> Path:
    shutil.copytree(root, copied)
    for path in (copied, *copied.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(0o755 if path.is_dir() or mode & 0o100 else 0o644)
    return copied
