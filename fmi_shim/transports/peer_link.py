"""The way between two ranks, as far as messages with headers care."""

from __future__ import annotations

from typing import Protocol


class Link(Protocol):
    """The way to one rank and back.

    Attributes
    ----------
    peer
        Rank at the other end.
    ended
        Whether that rank sends and receives no more.
    sent, received
        Number of messages that were begun to be sent, and of those that have come whole.
    """

    peer: int
    ended: bool
    sent: int
    received: int

    def push_back(self, data: bytes) -> None:
        """Have `data`, which was read too early, read again."""
