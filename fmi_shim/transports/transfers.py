"""Messages that were posted, to be moved while the program does something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from fmi_shim.operators import Array

Buffers = list[memoryview]
"""Bytes that are still to be moved; see `advance`."""

OnReceived = Callable[[int], None]
"""Is told the number of bytes after every successful read."""

L = TypeVar("L")
"""The way to one rank and back."""


def octets(buffer: Array) -> memoryview:
    """Return the bytes of a C-contiguous array, sharing its memory."""
    return buffer.reshape(-1).view(np.uint8).data


def advance(buffers: Buffers, moved: int) -> None:
    """Drop the first `moved` bytes from `buffers`."""
    while buffers and moved >= len(buffers[0]):
        moved -= len(buffers[0])
        del buffers[0]
    if moved:
        buffers[0] = buffers[0][moved:]


@dataclass(slots=True, eq=False)
class Transfer(Generic[L]):
    """One message on its way. Implements `Pending`.

    Attributes
    ----------
    peer
        Rank at the other end.
    sends
        Whether it goes there, or comes from there.
    attach
        Called when the message's turn has come; returns what is to be moved through the link, and who judges
        it as it comes.
    link
        The way that it takes, None until its turn has come.
    buffers
        What is still to be moved.
    """

    peer: int
    sends: bool
    attach: Callable[[L], tuple[Buffers, OnReceived | None]]
    link: L | None = None
    buffers: Buffers = field(default_factory=list)
    on_received: OnReceived | None = None

    @property
    def done(self) -> bool:
        """Whether all of it was moved."""
        return self.link is not None and not self.buffers

    def begin(self, link: L) -> None:
        """Take this way from now on."""
        self.link = link
        self.buffers, self.on_received = self.attach(link)
        advance(self.buffers, 0)


class Posts(Generic[L]):
    """The posted messages of a rank; those of one pair and direction move one after another."""

    def __init__(self) -> None:
        self._transfers: list[Transfer[L]] = []

    def __bool__(self) -> bool:
        return bool(self._transfers)

    def add(self, transfer: Transfer[L]) -> None:
        """Put a message behind those that are there."""
        self._transfers.append(transfer)

    def clear(self) -> None:
        """Give all messages up."""
        self._transfers.clear()

    @property
    def peers(self) -> set[int]:
        """The ranks that messages come from or go to."""
        return {transfer.peer for transfer in self._transfers}

    def hold(self, peer: int, sends: bool) -> bool:
        """Whether posted messages have to go first."""
        return any((transfer.peer, transfer.sends) == (peer, sends) for transfer in self._transfers)

    def rest(self, peer: int) -> int:
        """Return how many bytes the message that is coming from `peer` still lacks."""
        coming = (t for t in self._transfers if t.peer == peer and not t.sends and t.link is not None)
        return sum(len(part) for transfer in coming for part in transfer.buffers)

    def lanes(self) -> list[tuple[L, bool]]:
        """Return the open links that messages are on, each with whether they are sent."""
        found = {(t.peer, t.sends): (t.link, t.sends) for t in self._transfers if t.link is not None}
        return [(link, sends) for link, sends in found.values() if link is not None]

    def advance(self, links: Mapping[int, L], move: Callable[[Transfer[L], L], bool]) -> bool:
        """Have `move` try every message whose turn it is and whose link is open; return whether any went on."""
        moved = False
        held: set[tuple[int, bool]] = set()
        for transfer in list(self._transfers):
            link = links.get(transfer.peer)
            if link is None or (transfer.peer, transfer.sends) in held:
                continue
            if transfer.link is None:
                transfer.begin(link)
            if transfer.buffers:
                moved |= move(transfer, link)
            if transfer.buffers:
                held.add((transfer.peer, transfer.sends))
            else:
                self._transfers.remove(transfer)
                moved = True
        return moved
