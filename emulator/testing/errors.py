"""How the ranks of a world failed: the rank where it began first, with its traceback, the others in a line each."""

from __future__ import annotations

import bdb
from collections.abc import Sequence
from dataclasses import dataclass

from emulator.errors import EmulatorError

_MAX_LINE = 300


class WorldUsageError(EmulatorError):
    """A world was requested that cannot be started; nothing has run."""


@dataclass(frozen=True)
class RankFailure:
    """How one rank failed.

    Attributes
    ----------
    rank
        The rank.
    kind
        The exception's class, ``Killed`` or ``Exited`` for a process that ended without one, or ``Hung``.
    message
        The exception's text, or how the process ended.
    is_victim
        Whether the rank failed because another one had failed first.
    origin
        The rank where the failure began, if the error names it.
    traceback
        The traceback with the local variables, or the stacks of a rank that hung; empty if there is none.
    path, line
        Where it was raised; an empty path if unknown.
    failed_at
        The monotonic clock, s.
    error
        The exception itself; None if it cannot be pickled, or there was none.
    """

    rank: int
    kind: str
    message: str
    is_victim: bool
    origin: int | None
    traceback: str
    path: str
    line: int
    failed_at: float
    error: BaseException | None = None

    def __str__(self) -> str:
        """Return the failure in one line."""
        where = f" ({self.path}:{self.line})" if self.path else ""
        text = " ".join(self.message.split())
        return f"rank {self.rank}: {self.kind}: {text[:_MAX_LINE]}{where}"


class WorldError(EmulatorError):
    """At least one rank of a world failed. The text has the traceback of the rank where it began.

    Parameters
    ----------
    world_size
        Number of ranks.
    failures
        The failures, the one where it began first.
    output
        What each rank wrote to its standard output and standard error.
    faults
        The faults of the world with their seed, with which they happen again; empty without faults.
    """

    def __init__(
        self, world_size: int, failures: Sequence[RankFailure], output: Sequence[str], faults: str = ""
    ) -> None:
        super().__init__(world_size, failures, output, faults)
        self.faults = faults
        self.world_size = world_size
        self.failures = tuple(failures)
        self.output = tuple(output)

    @property
    def first(self) -> RankFailure:
        """The failure where it began."""
        return self.failures[0]

    @property
    def origin(self) -> int:
        """The rank where it began, as far as the errors tell."""
        named = self.first.origin if self.first.is_victim else None
        return self.first.rank if named is None else named

    def summary(self) -> str:
        """Return the failure in one line."""
        return f"{self.first} [{len(self.failures)} of {self.world_size} ranks failed]"

    def __str__(self) -> str:
        first, *others = self.failures
        heading = f"rank {first.rank} of {self.world_size} failed first"
        lines = [heading, "", first.traceback.rstrip() or str(first)]
        if others:
            lines += ["", "the other ranks:"]
            lines += [f"  {failure}" for failure in others]
        if self.faults:
            lines += ["", self.faults]
        return "\n".join(lines)


class WorldTimeoutError(WorldError, TimeoutError):
    """Some ranks did not end within the time limit. The text has the stacks of all ranks.

    Parameters
    ----------
    world_size, failures, output, faults
        See `WorldError`.
    limit_s
        The time limit, s.
    """

    def __init__(
        self, world_size: int, failures: Sequence[RankFailure], output: Sequence[str], faults: str, limit_s: float
    ) -> None:
        super().__init__(world_size, failures, output, faults)
        self.limit_s = limit_s

    def summary(self) -> str:
        """Return the failure in one line."""
        hung = [str(failure.rank) for failure in self.failures if failure.kind == HUNG]
        noun = "rank" if len(hung) == 1 else "ranks"
        return (
            f"{noun} {', '.join(hung)} of {self.world_size} did not end within {self.limit_s:g} s: check where each "
            "waits, or raise the time limit"
        )

    def __str__(self) -> str:
        lines = [self.summary()]
        for failure in self.failures:
            lines += ["", str(failure), failure.traceback.rstrip()]
        failed = {failure.rank for failure in self.failures}
        returned = [str(rank) for rank in range(self.world_size) if rank not in failed]
        if returned:
            lines += ["", f"returned in time: rank {', '.join(returned)}"]
        if self.faults:
            lines += ["", self.faults]
        return "\n".join(lines)


class DebuggedWorldError(WorldError, bdb.BdbQuit):
    """A rank failed, and the user has debugged it. pytest starts no debugger of its own for a `bdb.BdbQuit`."""


HUNG = "Hung"


def by_cause(failures: Sequence[RankFailure]) -> list[RankFailure]:
    """Return the failures with the one where it began first.

    Errors of ranks that were affected by another rank's failure come after the others; within both, the earliest first.
    A hung rank is a victim where another rank failed.
    """
    return sorted(failures, key=lambda failure: (failure.is_victim, failure.failed_at))
