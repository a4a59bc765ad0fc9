"""What a rank tells the server when it has waited for a while: for whom, and what it has sent and received so far."""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rendezvous.protocol.endpoints import ProtocolError

MAX_TEXT_BYTES = 1000
MAX_COUNTS = 1024
"""Peers of which a waiting rank may tell how many messages it has exchanged with them."""

_SHOWN = 6
"""So many ranks of a cycle are described in its error."""

_WAITING = struct.Struct("!IBQH")
_COUNTS = struct.Struct("!IQQ")
MAX_WAITING_BYTES = _WAITING.size + MAX_TEXT_BYTES + MAX_COUNTS * _COUNTS.size


class Awaited(enum.IntEnum):
    """What a rank must do before another one goes on."""

    connecting = 0
    """Open a connection with it."""
    sending = 1
    receiving = 2
    round = 3
    """Come as far in a collective of ranks that share memory."""
    writing = 4
    """Write an object, for which the waiting rank has just looked in vain."""


class Counts(NamedTuple):
    """How many messages a rank has begun to send to `peer`, and how many of `peer`'s have come whole."""

    peer: int
    sent: int
    received: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rank to server: it does nothing but wait for `peer`; see `rendezvous.wait_for_graph`.

    Attributes
    ----------
    peer, awaited
        Who must do what before this rank goes on.
    turn
        Number of this rank's waits before this one; the same when it is told again.
    packed
        `pack_counts` of every rank that this one is connected with, as small as that is kept. With shared memory, this
        rank's own entry has the rounds that it has come to, and the round that it waits for.
    text
        The call it is in; at most `MAX_TEXT_BYTES` travel.
    """

    kind: ClassVar[int] = 9
    peer: int
    awaited: Awaited
    turn: int
    packed: bytes
    text: str

    def counts(self, peer: int) -> Counts | None:
        """Return what was exchanged with a rank, None if this one is not connected with it."""
        each = map(Counts._make, _COUNTS.iter_unpack(self.packed))
        return next((counts for counts in each if counts.peer == peer), None)

    def encode(self) -> bytes:
        """Return the bytes of this statement."""
        fixed = _WAITING.pack(self.peer, self.awaited, self.turn, len(self.packed) // _COUNTS.size)
        return fixed + self.packed + cut(self.text)


def pack_counts(counts: Sequence[Counts]) -> bytes:
    """Return the bytes of at most `MAX_COUNTS` counts."""
    return b"".join(_COUNTS.pack(*each) for each in counts)


def decode_waiting(body: bytes) -> Waiting:
    """Return the statement in `body`.

    Raises
    ------
    ProtocolError
        If there is none.
    """
    peer, awaited, turn, counts = _WAITING.unpack_from(body)
    end = _WAITING.size + counts * _COUNTS.size
    if counts > MAX_COUNTS or end > len(body):
        raise ProtocolError(f"{counts} counts are announced, at most {MAX_COUNTS} that come are allowed")
    return Waiting(peer, Awaited(awaited), turn, body[_WAITING.size : end], body[end:].decode(errors="replace"))


def describe(cycle: Sequence[tuple[int, Waiting]]) -> str:
    """Return what ranks that wait for each other, given in their order, are to be told of it."""
    shown = [
        f"rank {rank} in {waiting.text} {'sends to' if waiting.awaited is Awaited.receiving else 'waits for'} "
        f"rank {waiting.peer}"
        for rank, waiting in cycle[:_SHOWN]
    ]
    more = [f"and {len(cycle) - _SHOWN} more ranks"] if len(cycle) > _SHOWN else []
    return (
        f"deadlock: {len(cycle)} ranks wait for each other: {', '.join([*shown, *more])}; "
        "make matching calls, or use sendrecv or isend"
    )


def cut(text: str) -> bytes:
    """Return the bytes of a text as they travel."""
    return text.encode(errors="replace")[:MAX_TEXT_BYTES]
