"""What is asked of a run, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emulator.aws.lambda_.log_lines import Report
from emulator.aws.limits import MB_PER_VCPU, TIMEOUT_S
from emulator.fmi.rank_failures import is_victim


@dataclass(frozen=True)
class Job:
    """A program to be run as N functions.

    Parameters
    ----------
    script
        The program; its folder is uploaded with it.
    world_size
        Number of ranks.
    arguments
        The script's command-line arguments.
    memory_mb
        Memory of a rank, MB; the default buys one vCPU.
    timeout_s
        Longest time of a rank, seconds.
    data
        Folder of files to be dealt out to the ranks, or None.
    results
        Folder that gets the results once all ranks have succeeded, or None.
    batch_size
        For the script's environment, or None to leave the choice to the script.
    """

    script: Path
    world_size: int
    arguments: tuple[str, ...] = ()
    memory_mb: int = MB_PER_VCPU
    timeout_s: int = TIMEOUT_S[-1]
    data: Path | None = None
    results: Path | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Failure:
    """Why a function did not succeed.

    Parameters
    ----------
    error_type
        The exception's class, or AWS's name for what the platform did.
    message
        The exception's text.
    place
        ``file:line`` where it was raised, as far as known.
    """

    error_type: str
    message: str
    place: str = ""

    def __str__(self) -> str:
        """Return the failure in one line."""
        where = f" ({self.place})" if self.place else ""
        return f"{self.error_type}: {' '.join(self.message.splitlines())}{where}"


@dataclass(frozen=True)
class RankOutcome:
    """What came of one rank.

    Parameters
    ----------
    rank
        The rank.
    report
        What the platform says of it; None when it was stopped before its end.
    failure
        Why it did not succeed, or None.
    """

    rank: int
    report: Report | None
    failure: Failure | None


@dataclass(frozen=True)
class RunOutcome:
    """What came of a run.

    Parameters
    ----------
    ranks
        One outcome a rank, in the order of their ends.
    others
        The reports of *initialize* and, when it ran, *summarize*.
    rank_results
        The content of ``<rank>.json`` by rank, where that is a JSON object; empty when no results were asked for or a
        rank failed.
    """

    ranks: tuple[RankOutcome, ...]
    others: tuple[Report, ...]
    rank_results: Mapping[int, Mapping[str, object]] = field(default_factory=dict)

    @property
    def failures(self) -> list[RankOutcome]:
        """The ranks that failed, the cause of it all first.

        A rank that lost its peer, or was stopped, is the victim of another; among the others the first to end is named.
        """
        failed = [outcome for outcome in self.ranks if outcome.failure is not None]
        return sorted(failed, key=lambda outcome: outcome.failure is not None and is_victim(outcome.failure.error_type))
