"""The interface of sandboxes, for every kind of isolation."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emulator.errors import EmulatorError


class InvalidEntrypointError(EmulatorError):
    """A function's program cannot be started; the message is AWS's."""


@dataclass(frozen=True)
class SandboxPlace:
    """What a kind of sandbox sees of the machine that it runs on.

    Parameters
    ----------
    address
        The address under which sandboxes reach the endpoint's servers, and that these must listen on.
    is_container
        Whether programs and their search paths are those of an image, not of this machine.
    """

    address: str
    is_container: bool


@dataclass(frozen=True)
class ContainerImage:
    """An image to run, with the overrides of Lambda's ``ImageConfig``.

    Parameters
    ----------
    reference
        Name and tag, digest or id.
    entry_point, command, working_directory
        Replace the image's own; empty keeps those.
    """

    reference: str
    entry_point: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_directory: str = ""


@dataclass(frozen=True)
class SandboxSpec:
    """The specification of a sandbox.

    Parameters
    ----------
    sandbox_id
        A unique name.
    environment
        The complete environment of the function's process.
    task_root
        The folder with the function's code; None if the code is in the image.
    memory_bytes
        Limit of the memory of all its processes, bytes; above it the largest one is killed.
    ephemeral_storage_bytes
        Size of its private /tmp, bytes.
    vcpus
        CPU seconds a second that its processes share after the init phase.
    command
        A command that polls the runtime API; empty for the sandbox's own client, which calls a Python handler, and for
        an image. Paths in it are those outside of the sandbox.
    opt_root
        The folder with the files of the function's layers; None if it has none.
    language_root
        The folder with the interpreter that the command runs, which becomes /var/lang; None for the emulator's.
    image
        The image to run; None for an archive.
    """

    sandbox_id: str
    environment: Mapping[str, str]
    task_root: Path | None
    memory_bytes: int
    ephemeral_storage_bytes: int
    vcpus: float
    command: tuple[str, ...] = ()
    opt_root: Path | None = None
    language_root: Path | None = None
    image: ContainerImage | None = None


@dataclass(frozen=True)
class SandboxExit:
    """How a sandbox's process ended.

    Parameters
    ----------
    exit_status
        Its exit status, or None when a signal ended it.
    signal
        The signal that ended it, or None.
    out_of_memory
        True when it was killed because of its memory.
    peak_memory_bytes
        Peak memory of all its processes, bytes.
    reason
        Why it ended, where neither status nor signal is known; None otherwise.
    """

    exit_status: int | None
    signal: int | None
    out_of_memory: bool
    peak_memory_bytes: int
    reason: str | None = None


class Sandbox(Protocol):
    """An isolated process that runs one invocation at a time."""

    @property
    def exited(self) -> "asyncio.Future[SandboxExit]":
        """Resolves when the sandbox's process has ended, for any reason."""

    def init_done(self) -> None:
        """End the init phase: from now on the CPU share is enforced."""

    def peak_memory(self) -> int:
        """Return the peak memory of all its processes so far, bytes."""

    async def drain_output(self) -> None:
        """Deliver all output that the sandbox has written until now."""

    def suspend(self) -> None:
        """Stop its processes until `resume`, where sandboxes of this kind can: it waits for its next invocation."""

    async def resume(self) -> None:
        """Continue its processes."""

    def kill(self) -> None:
        """Kill the sandbox with all its processes."""


class SandboxFactory(Protocol):
    """Creates sandboxes of one kind."""

    async def place(self) -> SandboxPlace:
        """Return what the sandboxes see of this machine.

        Raises
        ------
        SandboxError
            When sandboxes of this kind cannot run here.
        """

    async def create(self, spec: SandboxSpec, on_output: Callable[[bytes], None]) -> Sandbox:
        """Start a sandbox; `on_output` receives its standard output and error, in order.

        Raises
        ------
        SandboxError
            When it cannot be started.
        InvalidEntrypointError
            When its program does not exist.
        """
