"""Buffers that are being moved, and posted messages, which move while the program does something else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from fmi_shim.errors import PeerTimeoutError
from fmi_shim.operators import Array

Buffers = list[memoryview]
"""The bytes that remain to be moved; see `advance`."""

OnReceived = Callable[[int], None]
"""Called with the number of bytes after every successful read."""

L = TypeVar("L")
"""The connection to one rank."""


class Message(Protocol):
    """A message that is being moved.

    Attributes
    ----------
    buffers
        The bytes that remain to be moved.
    on_received
        What checks them while they are received, if anything does.
    array
        The array that is received, as far as its type and size are known.
    """

    buffers: Buffers

    @property
    def on_received(self) -> OnReceived | None: ...  # noqa: D102 - see above

    @property
    def array(self) -> Array | None: ...  # noqa: D102 - see above

    def begun_header(self) -> bytes | None:
        """Return what was received of the header while it is incomplete, else None."""


@dataclass(slots=True, eq=False)
class UncheckedMessage:
    """A message that is sent, or received without a check. Implements `Message`."""

    buffers: Buffers
    array: Array | None = None
    on_received: OnReceived | None = None

    def begun_header(self) -> bytes | None:
        """Return None: there is no header to receive."""
        return None


def octets(buffer: Array) -> memoryview:
    """Return the bytes of a C-contiguous array, sharing its memory."""
    return buffer.reshape(-1).view(np.uint8).data


@contextlib.contextmanager
def repeatable_unless_moved(is_untouched: Callable[[], bool]) -> Iterator[None]:
    """Mark a time-out of this rank in the block as repeatable, or not, as `is_untouched` says of the message."""
    try:
        yield
    except PeerTimeoutError as error:
        error.repeatable = error.reported_by is None and is_untouched()
        raise


def advance(buffers: Buffers, moved: int) -> None:
    """Drop the first `moved` bytes from `buffers`."""
    while buffers and moved >= len(buffers[0]):
        moved -= len(buffers[0])
        del buffers[0]
    if moved:
        buffers[0] = buffers[0][moved:]


@dataclass(slots=True, eq=False)
class Transfer(Generic[L]):
    """A posted message. Implements `Pending`.

    Attributes
    ----------
    peer
        Rank at the other end.
    sends
        Whether it is sent to that rank; otherwise it is received from there.
    attach
        Called when all earlier messages of the pair and direction have been moved. Returns the message to move.
    link
        The connection that it uses, None until `attach` was called.
    message
        What is moved.
    """

    peer: int
    sends: bool
    attach: Callable[[L], Message]
    link: L | None = None
    message: Message = field(default_factory=lambda: UncheckedMessage([]))

    @property
    def done(self) -> bool:
        """Whether all of it was moved."""
        return self.link is not None and not self.message.buffers

    @property
    def array(self) -> Array | None:
        """What was received."""
        return self.message.array

    def begin(self, link: L) -> None:
        """Move through `link` from now on."""
        self.link = link
        self.message = self.attach(link)
        advance(self.message.buffers, 0)


@dataclass(slots=True, eq=False)
class PendingTransfers(Generic[L]):
    """The posted messages of a rank that are not done; those of one pair and direction move one after another.

    Attributes
    ----------
    transfers
        The messages, in the order in which they were posted. Only read it.
    """

    transfers: list[Transfer[L]] = field(default_factory=list)

    def add(self, transfer: Transfer[L]) -> None:
        """Append a message."""
        self.transfers.append(transfer)

    def clear(self) -> None:
        """Drop all messages."""
        self.transfers.clear()

    def has_pending(self, peer: int, sends: bool) -> bool:
        """Whether messages to (`sends`) or from rank `peer` are pending, which must be moved before any other one."""
        return any((transfer.peer, transfer.sends) == (peer, sends) for transfer in self.transfers)

    def whole_frames(self, peer: int, backlog: memoryview) -> memoryview:
        """Return `backlog`, what rank `peer` has sent last, from the beginning of a frame on.

        It begins in the middle of a message that is being received: without the rest of that one, or with the part of
        its header that was read before.
        """
        for transfer in self.transfers:
            if transfer.peer == peer and not transfer.sends and transfer.link is not None:
                head = transfer.message.begun_header()
                if head is not None:
                    return memoryview(head + bytes(backlog))
                return backlog[sum(map(len, transfer.message.buffers)) :]
        return backlog

    def directions(self) -> list[tuple[L, bool]]:
        """Return the links that messages have begun to move through, each with whether they are sent."""
        found = {(t.peer, t.sends): (t.link, t.sends) for t in self.transfers if t.link is not None}
        return [(link, sends) for link, sends in found.values() if link is not None]

    def advance(self, links: Mapping[int, L], move: Callable[[Transfer[L], L], bool]) -> bool:
        """Call `move` for every message that is the first of its pair and direction and whose link is open.

        Returns whether anything was moved.
        """
        moved = False
        held: set[tuple[int, bool]] = set()
        for transfer in list(self.transfers):
            link = links.get(transfer.peer)
            if link is None or (transfer.peer, transfer.sends) in held:
                continue
            if transfer.link is None:
                transfer.begin(link)
            if transfer.message.buffers:
                moved |= move(transfer, link)
            if transfer.message.buffers:
                held.add((transfer.peer, transfer.sends))
            else:
                self.transfers.remove(transfer)
                moved = True
        return moved
