"""The handshake by which two ranks identify each other on a new connection. No I/O.

A new connection may lead to another program, to a rank of another run, or be one of two that hole punching opened at
once. The lower rank sends a `PeerHello` on every connection it gets; the higher rank replies on one of them, and both
keep that one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rendezvous.protocol import MAX_NAME_BYTES

_MAGIC = b"FMI\x01"
_HELLO = struct.Struct(f"<4siii{MAX_NAME_BYTES + 1}s")
PEER_HELLO_BYTES = _HELLO.size


class InvalidHelloError(ValueError):
    """The received bytes cannot be the beginning of a hello."""


@dataclass(frozen=True, slots=True)
class PeerHello:
    """The sending rank, the receiving rank, and their communicator."""

    comm_name: str
    world_size: int
    sender: int
    receiver: int

    def encode(self) -> bytes:
        """Return the bytes of this hello."""
        return _HELLO.pack(_MAGIC, self.world_size, self.sender, self.receiver, self.comm_name.encode())

    def mismatch(self, reply: PeerHello) -> str | None:
        """Return why `reply` is not from the rank that this hello was sent to; None if it is."""
        if reply == PeerHello(self.comm_name, self.world_size, self.receiver, self.sender):
            return None
        if reply.comm_name != self.comm_name:
            return (
                f"rank {self.sender} of communicator {self.comm_name!r} was connected to rank {reply.sender} of "
                f"{reply.comm_name!r}: FMI's pairing names are ambiguous; choose names that do not end in a digit"
            )
        if reply.world_size != self.world_size:
            return (
                f"rank {self.sender} was started with {self.world_size} ranks, "
                f"rank {reply.sender} with {reply.world_size}: all must have the same number"
            )
        if reply.sender == self.sender:
            return f"two processes run as rank {self.sender}: each rank must be started once"
        return f"rank {self.sender} expected rank {self.receiver}, got rank {reply.sender}"


def decode_peer_hello(data: bytes) -> PeerHello | None:
    """Return the hello in `data`, None as long as it is incomplete.

    Raises
    ------
    InvalidHelloError
        As soon as `data` cannot become one.
    """
    if not _MAGIC.startswith(data[:4]) or len(data) > PEER_HELLO_BYTES:
        raise InvalidHelloError(f"expected a hello of the framed mode, got {data[:16].hex()}")
    if len(data) < PEER_HELLO_BYTES:
        return None
    _, world_size, sender, receiver, name = _HELLO.unpack(data)
    try:
        return PeerHello(name.rstrip(b"\0").decode(), world_size, sender, receiver)
    except UnicodeDecodeError:
        raise InvalidHelloError("expected a hello with a name in UTF-8") from None
