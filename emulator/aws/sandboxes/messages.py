"""The messages between endpoint and zygote: length-prefixed JSON on a Unix socket.

Each `Spawn` carries one file descriptor, the write end of the sandbox's output.
"""

import json
import struct
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Spawn:
    """To the zygote: fork a worker that polls the runtime API itself, or executes a command that does.

    Parameters
    ----------
    network
        The fields of an `Attachment`; None for the network of this machine.
    """

    sandbox_id: str
    environment: dict[str, str]
    task_root: str
    memory_bytes: int
    ephemeral_storage_bytes: int
    vcpus: float
    command: list[str]
    opt_root: str | None = None
    language_root: str | None = None
    network: dict[str, str | int] | None = None


@dataclass(frozen=True)
class InitDone:
    """To the zygote: the init phase of a worker is over, limit it to its share of the CPU."""

    sandbox_id: str


@dataclass(frozen=True)
class Kill:
    """To the zygote: kill a worker and its process group."""

    sandbox_id: str


@dataclass(frozen=True)
class Started:
    """From the zygote: the worker runs; it has inherited so many bytes of anonymous memory."""

    sandbox_id: str
    pid: int
    inherited_bytes: int


@dataclass(frozen=True)
class MemoryPeak:
    """From the zygote: the memory of a worker's processes has been so large, bytes."""

    sandbox_id: str
    peak_bytes: int


@dataclass(frozen=True)
class StartFailed:
    """From the zygote: the worker could not be forked."""

    sandbox_id: str
    reason: str


@dataclass(frozen=True)
class Exited:
    """From the zygote: the worker's process has ended."""

    sandbox_id: str
    exit_status: int | None
    signal: int | None
    out_of_memory: bool
    peak_memory_bytes: int


Message: TypeAlias = Spawn | InitDone | Kill | Started | MemoryPeak | StartFailed | Exited
_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Spawn, InitDone, Kill, Started, MemoryPeak, StartFailed, Exited)
}
_LENGTH = struct.Struct("!I")


def encode(message: Message) -> bytes:
    """Return the message's bytes on the socket."""
    body = json.dumps([type(message).__name__, vars(message)]).encode()
    return _LENGTH.pack(len(body)) + body


class MessageDecoder:
    """Decodes messages from a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Add received bytes; return the messages that are now complete."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            kind, fields = json.loads(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            messages.append(_KINDS[kind](**fields))
        return messages
