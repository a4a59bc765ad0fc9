"""Who waited for whom: derived from when the ranks began and ended the calls that belong together. No I/O.

The patterns are those of Scalasca ("Wait states", scalasca.org): a late sender or receiver of a message, the last rank
of a collective that needs all, a late root that gives, and what a root waits for that takes.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from emulator.fmi.telemetry.history import Call, History, collectives, messages

_FROM_ROOT = frozenset(("bcast", "scatter", "scatterv", "bcast_object", "scatter_object"))
_TO_ROOT = frozenset(("reduce", "gather", "gatherv", "gather_object"))
_PREFIX = frozenset(("scan", "exscan"))


class Cause(Enum):
    """Why a rank waited."""

    LATE_SENDER = "late sender"
    LATE_RECEIVER = "late receiver"
    LATE_ROOT = "late root"
    LAST_RANK = "last rank"


@dataclass(frozen=True, slots=True)
class Wait:
    """A time in which a rank could not continue, since another one had not begun its part.

    Parameters
    ----------
    waiting
        The call that waited.
    late
        The call that it waited for.
    cause
        Why it waited.
    """

    waiting: Call
    late: Call
    cause: Cause

    @property
    def released(self) -> int:
        """When the late call began, or the waiting one ended without it, ns since 1970."""
        return min(self.late.began, self.waiting.ended)

    @property
    def duration(self) -> int:
        """How long it waited, ns."""
        return self.released - self.waiting.began


def waits(history: History) -> list[Wait]:
    """Return all waits of a run."""
    found = [*_of_messages(history)]
    for calls in collectives(history).values():
        found += _of_collective(history, calls)
    return [wait for wait in found if wait.duration > 0]


def _of_messages(history: History) -> Iterator[Wait]:
    for send, receipt in messages(history):
        if receipt.began < send.began:
            yield Wait(receipt, send, Cause.LATE_SENDER)
        elif send.ended > receipt.began:
            yield Wait(send, receipt, Cause.LATE_RECEIVER)


def _of_collective(history: History, calls: Mapping[int, Call]) -> Iterator[Wait]:
    """Return the waits in one collective; `calls` has those of the ranks that are known."""
    last = max(calls.values(), key=lambda call: call.began)
    operation = last.plan.operation
    if operation in _FROM_ROOT or operation in _TO_ROOT:
        root = history.peer(last.rank, last.plan, last.plan.root)
        if root is None or root not in calls:
            return
        if operation in _FROM_ROOT:
            yield from _for_one(calls.values(), calls[root], Cause.LATE_ROOT)
        elif last.rank != root:
            yield Wait(calls[root], last, Cause.LATE_SENDER)
    elif operation in _PREFIX:
        yield from _of_prefix(history, calls)
    else:
        yield from _for_one(calls.values(), last, Cause.LAST_RANK)


def _for_one(calls: Iterable[Call], late: Call, cause: Cause) -> Iterator[Wait]:
    return (Wait(call, late, cause) for call in calls if call.rank != late.rank)


def _of_prefix(history: History, calls: Mapping[int, Call]) -> Iterator[Wait]:
    """Each rank needs those below it in the communicator."""

    def own(call: Call) -> int:
        return history.ranks[call.rank].communicators[call.plan.communicator][1]

    latest: Call | None = None
    for call in sorted(calls.values(), key=own):
        if latest is not None and latest.began > call.began:
            yield Wait(call, latest, Cause.LATE_SENDER)
        latest = call if latest is None or call.began > latest.began else latest


def by_pair(found: Iterable[Wait]) -> dict[tuple[int, int, Cause], int]:
    """Return the nanoseconds that ranks waited for others: by waiting rank, late rank and cause."""
    sums: defaultdict[tuple[int, int, Cause], int] = defaultdict(int)
    for wait in found:
        sums[wait.waiting.rank, wait.late.rank, wait.cause] += wait.duration
    return dict(sums)
