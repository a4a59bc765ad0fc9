"""How two ranks of ours make sure of each other before a connection counts, without any I/O.

A fresh connection may lead to a stranger, to a rank of another run, or be one of two that hole punching
opened at once. The lower rank says *hello* on every connection it gets; the higher rank answers on one, and
that one is kept by both.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rendezvous.protocol import MAX_NAME_BYTES

_MAGIC = b"FMI\x01"
_HELLO = struct.Struct(f"<4siii{MAX_NAME_BYTES + 1}s")
HELLO_BYTES = _HELLO.size


class NoHelloError(ValueError):
    """What came cannot be the beginning of a hello."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks, to whom, in which communicator."""

    comm_name: str
    world_size: int
    sender: int
    receiver: int

    def encode(self) -> bytes:
        """Return the bytes of this hello."""
        return _HELLO.pack(_MAGIC, self.world_size, self.sender, self.receiver, self.comm_name.encode())

    def answer(self) -> Hello:
        """Return the hello that is expected back."""
        return Hello(self.comm_name, self.world_size, self.receiver, self.sender)

    def objection(self, other: Hello) -> str | None:
        """Return why `other`, which came back, is not the rank this hello was for; None if it is."""
        if other == self.answer():
            return None
        if other.comm_name != self.comm_name:
            return (
                f"rank {self.sender} of communicator {self.comm_name!r} met rank {other.sender} of "
                f"{other.comm_name!r}, since FMI's pairing names run together: choose names that do not end in a digit"
            )
        if other.world_size != self.world_size:
            return (
                f"rank {self.sender} was started with {self.world_size} ranks, "
                f"rank {other.sender} with {other.world_size}: all must have the same number"
            )
        if other.sender == self.sender:
            return f"two processes run as rank {self.sender}: each rank must be started once"
        return f"rank {self.sender} expected rank {self.receiver} and met rank {other.sender}"


def decode_hello(data: bytes) -> Hello | None:
    """Return the hello in `data`, None as long as it is incomplete.

    Raises
    ------
    NoHelloError
        As soon as `data` cannot become one.
    """
    if not _MAGIC.startswith(data[:4]) or len(data) > HELLO_BYTES:
        raise NoHelloError(f"expected a hello of the framed mode, {data[:16].hex()} came")
    if len(data) < HELLO_BYTES:
        return None
    _, world_size, sender, receiver, name = _HELLO.unpack(data)
    try:
        return Hello(name.rstrip(b"\0").decode(), world_size, sender, receiver)
    except UnicodeDecodeError:
        raise NoHelloError("a hello with a name that is no UTF-8 came") from None
