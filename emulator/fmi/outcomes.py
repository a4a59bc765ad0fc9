"""How a run ended: each rank's outcome and failure, and which of several failures is the cause."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from emulator.aws.lambda_.log_lines import Report
from fmi_shim.errors import VICTIM_ERRORS

_PROGRAMS = "/tmp/"  # noqa: S108 - where Lambda lets programs be put
_LIBRARY = "/fmi_shim/"
# What a rank's failure is called that did not fail, but was ended when another one had.
STOPPED = "Stopped"
_VICTIM_NAMES = {STOPPED, *(error.__name__ for error in VICTIM_ERRORS)}


@dataclass(frozen=True)
class FunctionFailure:
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
    failure: FunctionFailure | None


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


def is_victim(error_type: str | None) -> bool:
    """Return whether an error says that another rank failed first.

    Parameters
    ----------
    error_type
        The exception's class, or the platform's name for what it did.
    """
    return error_type in _VICTIM_NAMES


def failure_location(frames: Iterable[tuple[str, str]]) -> str:
    """Return where a program's error was raised, as ``file:line``; empty when that is not known.

    Parameters
    ----------
    frames
        File and line of each frame of the traceback, outermost first. The program's own are below /tmp; those of
        FMI, which may be there, too, tell the user nothing.
    """
    own = [f"{file}:{line}" for file, line in frames if file.startswith(_PROGRAMS) and _LIBRARY not in file]
    return own[-1] if own else ""
