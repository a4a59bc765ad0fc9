"""What the Lambda service asks of a sandbox, whatever it is made of."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class SandboxSpec:
    """What a sandbox is made from.

    Parameters
    ----------
    sandbox_id
        A name no other sandbox has.
    environment
        The whole environment of the function's code; nothing else is seen there.
    task_root
        The folder with the function's code.
    memory_bytes
        Resident memory above which the sandbox is killed, bytes.
    ephemeral_storage_bytes
        Size of its private /tmp, bytes.
    vcpus
        CPU seconds a second that its processes get together once the init phase is over.
    command
        A program, with arguments, that serves the runtime API; empty for the sandbox's own client of it, which calls
        a Python handler.
    """

    sandbox_id: str
    environment: Mapping[str, str]
    task_root: Path
    memory_bytes: int
    ephemeral_storage_bytes: int
    vcpus: float
    command: tuple[str, ...] = ()


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
        True when it was killed for its memory.
    peak_memory_bytes
        The most resident memory it had, bytes.
    """

    exit_status: int | None
    signal: int | None
    out_of_memory: bool
    peak_memory_bytes: int


class Sandbox(Protocol):
    """One isolated place that runs one invocation at a time."""

    @property
    def exited(self) -> "asyncio.Future[SandboxExit]":
        """Resolves when the sandbox's process has ended, however that came about."""

    def init_done(self) -> None:
        """Take note that the init phase is over: the CPU share holds from now on."""

    def peak_memory(self) -> int:
        """Return the most resident memory the sandbox has had so far, bytes."""

    def drain_output(self) -> None:
        """Hand over all that the sandbox has written until now."""

    def kill(self) -> None:
        """End the sandbox and all its processes at once."""


class SandboxFactory(Protocol):
    """Makes sandboxes of one kind."""

    async def create(self, spec: SandboxSpec, on_output: Callable[[bytes], None]) -> Sandbox:
        """Start a sandbox; its standard output and error arrive at `on_output`, in order.

        Raises
        ------
        SandboxError
            When it cannot be started.
        """
