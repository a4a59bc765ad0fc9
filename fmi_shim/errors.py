"""The exceptions that a communicator raises.

Invalid arguments raise Python's own `TypeError`, `ValueError` and `OverflowError` before anything is sent. The errors
in this module have their cause outside the calling rank. After any of them, and after an exception in the middle of an
operation, the streams of messages are inconsistent: the communicator is closed, and every further call raises
`BrokenCommunicatorError` with the first error as its ``__cause__``. Only a `PeerTimeoutError` of a ``send`` or ``recv``
of which nothing was moved leaves it open.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_RANK = re.compile(r"\brank (\d+)")


@dataclass(frozen=True, slots=True)
class SplitGroup:
    """A communicator that was split from the world, and which of the world's ranks are its ranks.

    Attributes
    ----------
    name
        The communicator's name.
    world_ranks
        The world's rank of each of its ranks.
    """

    name: str
    world_ranks: tuple[int, ...]

    def legend(self, text: str, ranks: Sequence[int | None] = ()) -> str:
        """Return which ranks of the world those in `text`, and these `ranks`, are."""
        named = {int(rank) for rank in _RANK.findall(text)} | {rank for rank in ranks if rank is not None}
        known = [
            f"rank {rank} is world rank {self.world_ranks[rank]}"
            for rank in sorted(named)
            if rank < len(self.world_ranks)
        ]
        return f"in communicator {self.name!r}" + (f", {', '.join(known)}" if known else "")

    def rank_of(self, world_rank: int | None) -> int | None:
        """Return the rank here of a rank of the world; None if it is not a member."""
        return self.world_ranks.index(world_rank) if world_rank in self.world_ranks else None


class FmiError(RuntimeError):
    """Base of all errors of this package. It is a `RuntimeError`, which the original library raises.

    Parameters
    ----------
    message
        One line that names the ranks.
    origin
        The rank where the failure began, if that is known.
    reported_by
        The rank that reported the error, if this rank did not detect it itself.

    Attributes
    ----------
    split_group
        The communicator that it was raised in, if that was split from the world; the ranks above are its ranks.
    """

    split_group: SplitGroup | None = None

    def __init__(self, message: str, origin: int | None = None, reported_by: int | None = None) -> None:
        super().__init__(message, origin, reported_by)
        self.message = message
        self.origin = origin
        self.reported_by = reported_by

    def __str__(self) -> str:
        text = self.message if self.reported_by is None else f"{self.message} (reported by rank {self.reported_by})"
        if self.split_group is None or repr(self.split_group.name) in text:
            return text
        return f"{text}; {self.split_group.legend(text, (self.origin, self.reported_by))}"

    @property
    def world_origin(self) -> int | None:
        """The rank of the world where the failure began, if that is known: `origin`, unless it is of a split."""
        return self.origin if self.split_group is None or self.origin is None else self._of_world(self.origin)

    @property
    def communicator(self) -> str | None:
        """The name of the communicator that it was raised in, if that was split from the world."""
        return None if self.split_group is None else self.split_group.name

    def within(self, split_group: SplitGroup | None) -> FmiError:
        """Return this error as the ranks of another communicator know it; the text says what its ranks are there."""
        if self.split_group == split_group:
            return self
        origin = self.world_origin
        if split_group is not None:
            origin = split_group.rank_of(origin)
        moved = type(self)(str(self), origin)
        moved.split_group = split_group
        return moved

    def _of_world(self, rank: int) -> int | None:
        assert self.split_group is not None  # noqa: S101 - the caller has looked
        return self.split_group.world_ranks[rank] if rank < len(self.split_group.world_ranks) else None


class ConfigError(FmiError, ValueError):
    """The configuration is missing, is not valid JSON, or has an invalid value."""


class RendezvousError(FmiError, ConnectionError):
    """The rendezvous server cannot be reached, closed the connection, or speaks another protocol."""


class StoreError(FmiError, ConnectionError):
    """S3 or Redis cannot be reached, or refused a request."""


class PeerTimeoutError(FmiError, TimeoutError):
    """A rank did not connect, or made no progress, within a time limit.

    Attributes
    ----------
    repeatable
        Whether nothing of the awaited message was sent or received. A ``send`` or ``recv`` that raised it may then be
        called again; the communicator stays open.
    """

    repeatable = False


class PeerLostError(FmiError, ConnectionError):
    """A rank's process ended, or its connection broke, while other ranks still depended on it."""


class MismatchError(FmiError):
    """Two ranks are in different calls, or in the same call with different arguments."""


class PeerFailedError(FmiError):
    """Another rank raised an exception in the middle of an operation."""


class PeerOverflowError(PeerFailedError, OverflowError):
    """A reduction on another rank overflowed its integer type."""


class ConcurrentCallError(FmiError):
    """A call began while another one was running in the same communicator; both raise it."""


class BrokenCommunicatorError(FmiError):
    """An earlier call on this communicator failed, or it was closed; ``__cause__`` is the first error."""


VICTIM_ERRORS: tuple[type[FmiError], ...] = (
    PeerLostError,
    PeerTimeoutError,
    PeerFailedError,
    PeerOverflowError,
    BrokenCommunicatorError,
)
"""The errors that a rank raises because another rank failed first. They are never the cause of a run's failure."""
