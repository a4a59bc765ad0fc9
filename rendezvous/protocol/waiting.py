"""A rank's report that it waits: for which peer, and how many messages it has sent and received so far."""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rendezvous.protocol.endpoints import ProtocolError

MAX_TEXT_BYTES = 1000
MAX_COUNTS = 1024
"""The most peers whose message counts a report contains."""

_SHOWN = 6
"""The most ranks of a deadlock that its error describes."""

_WAITING = struct.Struct("!IBQH")
_COUNTS = struct.Struct("!IQQ")
MAX_WAITING_BYTES = _WAITING.size + MAX_TEXT_BYTES + MAX_COUNTS * _COUNTS.size


class Awaited(enum.IntEnum):
    """What the awaited rank must do before the waiting one continues."""

    connecting = 0
    """Open a connection with it."""
    sending = 1
    receiving = 2
    round = 3
    """Reach the same round of a collective of ranks that share memory."""
    writing = 4
    """Write an object, which the waiting rank has just looked for and not found."""


class Counts(NamedTuple):
    """How many messages a rank has started to send to `peer`, and how many it has received completely from it."""

    peer: int
    sent: int
    received: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rank to server: it only waits for `peer`; see `rendezvous.wait_for_graph`.

    Attributes
    ----------
    peer, awaited
        Which rank must do what before this one continues.
    turn
        Number of this rank's waits before this one; the same if the report is repeated.
    packed
        `pack_counts` of every rank that this one is connected to. With shared memory, this rank's own entry contains
        the round that it has reached, and the round that it waits for.
    text
        The call it is in, of which at most `MAX_TEXT_BYTES` are sent.
    """

    kind: ClassVar[int] = 9
    peer: int
    awaited: Awaited
    turn: int
    packed: bytes
    text: str

    def counts(self, peer: int) -> Counts | None:
        """Return the counts of a rank, None if this one is not connected to it."""
        each = map(Counts._make, _COUNTS.iter_unpack(self.packed))
        return next((counts for counts in each if counts.peer == peer), None)

    def encode(self) -> bytes:
        """Return the bytes of this report."""
        fixed = _WAITING.pack(self.peer, self.awaited, self.turn, len(self.packed) // _COUNTS.size)
        return fixed + self.packed + cut(self.text)


def pack_counts(counts: Sequence[Counts]) -> bytes:
    """Return the bytes of at most `MAX_COUNTS` counts."""
    return b"".join(_COUNTS.pack(*each) for each in counts)


def decode_waiting(body: bytes) -> Waiting:
    """Return the report in `body`.

    Raises
    ------
    ProtocolError
        If it is invalid.
    """
    peer, awaited, turn, counts = _WAITING.unpack_from(body)
    end = _WAITING.size + counts * _COUNTS.size
    if counts > MAX_COUNTS or end > len(body):
        raise ProtocolError(f"expected at most {MAX_COUNTS} counts, all of them sent, got {counts}")
    return Waiting(peer, Awaited(awaited), turn, body[_WAITING.size : end], body[end:].decode(errors="replace"))


def describe(cycle: Sequence[tuple[int, Waiting]]) -> str:
    """Return the error text for ranks that wait for each other, given in their order."""
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
    """Return the bytes of a text, cut to `MAX_TEXT_BYTES`."""
    return text.encode(errors="replace")[:MAX_TEXT_BYTES]
