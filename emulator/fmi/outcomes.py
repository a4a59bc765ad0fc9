"""How a run ended: each rank's outcome and failure, and which of several failures is the cause."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from emulator.aws.lambda_.log_lines import Report
from fmi_shim.errors import VICTIM_ERRORS

_PROGRAMS = "/tmp/"  # noqa: S108 - where *execute* stores programs
_PICKLED_DATA = "Weights only load failed"
_LIBRARY = "/fmi_shim/"
# Error type of a rank that did not fail itself, but was stopped after another rank had failed.
STOPPED = "Stopped"
_VICTIM_NAMES = {STOPPED, *(error.__name__ for error in VICTIM_ERRORS)}


@dataclass(frozen=True)
class FunctionFailure:
    """Why a function failed.

    Parameters
    ----------
    error_type
        The exception's class, or a name for the platform's reason.
    message
        The exception's text.
    location
        ``file:line`` where it was raised; empty if unknown.
    exit_status
        The program's own exit status, if it ended with one other than 0.
    """

    error_type: str
    message: str
    location: str = ""
    exit_status: int | None = None

    def __str__(self) -> str:
        """Return the failure in one line."""
        where = f" ({self.location})" if self.location else ""
        return f"{self.error_type}: {' '.join(self.message.splitlines())}{where}"


STOPPED_FAILURE = FunctionFailure(STOPPED, "still running after another rank had failed")


def explained(failure: FunctionFailure) -> FunctionFailure:
    """Return a failure with what to do, if it is a known one whose message does not say so for runs."""
    if _PICKLED_DATA in failure.message:
        # torch's own message has several lines, for other cases.
        return replace(
            failure,
            message="torch.load refuses a pickled object since torch 2.6: if you trust the file, pass "
            f"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 with --env (fmirun: -x); {failure.message.splitlines()[0]}",
        )
    return failure


def timeout_failure(message: str) -> FunctionFailure:
    """Return the failure of a function that Lambda ended with this message after its timeout."""
    return FunctionFailure("Timeout", f"{message}: raise --timeout, or check for a deadlock")


def out_of_memory_failure(memory_mb: int) -> FunctionFailure:
    """Return the failure of a function that used more than its memory, MB."""
    return FunctionFailure("OutOfMemory", f"used more than {memory_mb} MB: raise --memory")


@dataclass(frozen=True)
class RankOutcome:
    """How one rank ended.

    Parameters
    ----------
    rank
        The rank.
    report
        The REPORT line; None if the rank was stopped before its end.
    failure
        Why it failed, or None.
    """

    rank: int
    report: Report | None
    failure: FunctionFailure | None


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Parameters
    ----------
    ranks
        One outcome per rank, in the order in which they ended.
    others
        The reports of *initialize* and, if it ran, *summarize*.
    rank_results
        The content of each ``<rank>.json`` that is a JSON object, by rank; empty if no results were requested or a rank
        failed.
    """

    ranks: tuple[RankOutcome, ...]
    others: tuple[Report, ...]
    rank_results: Mapping[int, Mapping[str, object]] = field(default_factory=dict)

    @property
    def failures(self) -> list[RankOutcome]:
        """The ranks that failed; the cause comes first.

        A rank that lost its peer, or was stopped, is a victim of another rank. The cause is the first rank to end among
        the others.
        """
        failed = [outcome for outcome in self.ranks if outcome.failure is not None]
        return sorted(failed, key=lambda outcome: outcome.failure is not None and is_victim(outcome.failure.error_type))


def is_victim(error_type: str | None) -> bool:
    """Return whether an error means that another rank failed first.

    Parameters
    ----------
    error_type
        The name of the exception's class, or of the platform's reason.
    """
    return error_type in _VICTIM_NAMES


def failure_location(frames: Iterable[tuple[str, str]]) -> str:
    """Return where a program raised an error, as ``file:line``; empty if unknown.

    Parameters
    ----------
    frames
        File and line of each frame of the traceback, outermost first. The program's own frames are below /tmp. Frames
        of fmi_shim, which may also be there, are skipped.
    """
    own = [f"{file}:{line}" for file, line in frames if file.startswith(_PROGRAMS) and _LIBRARY not in file]
    return own[-1] if own else ""
