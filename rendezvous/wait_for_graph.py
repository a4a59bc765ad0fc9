"""The wait-for graph of a communicator: finds ranks in a deadlock. No I/O.

A rank that has waited for a while reports the peer that it waits for. It does nothing else meanwhile. A cycle of such
ranks therefore never ends, provided that none of the awaited messages is in transit. A report of *receiving* from a
peer counts only if everything that the peer has started to send has arrived completely. Reports may be old: the first
rank of the cycle to continue would need a message that its peer started after its own report, which the peer could not
do before it continued itself. A report of *connecting* to a peer counts only if the peer is not connected to the rank.
A report of *sending* to a peer, whose buffers are full, counts only if it was repeated after the peer started to wait,
since a peer that waited earlier may have received from the rank in between. A report of *writing*, too, counts only if
it was repeated after the peer started to wait: the rank has looked in between, and would have found what the peer
wrote before.

(Resource deadlocks in the AND model: K. M. Chandy, J. Misra, L. M. Haas, "Distributed deadlock detection", ACM TOCS 1
(1983); a server that all are connected to needs no probes.)
"""

from __future__ import annotations

from dataclasses import dataclass

from rendezvous.protocol.waiting import Awaited, Waiting, describe


@dataclass(frozen=True, slots=True)
class _Report:
    """A rank's report, and when it was made in this wait: first, last, and the time before last, 0 if only once."""

    waiting: Waiting
    first: int
    last: int
    before_last: int


class WaitForGraph:
    """The reports of the ranks of one communicator, of which the newest of each counts."""

    def __init__(self) -> None:
        self._reports: dict[int, _Report] = {}
        self._clock = 0

    def record(self, rank: int, waiting: Waiting) -> list[int] | None:
        """Record the wait; return the deadlock cycle that contains `rank`, starting with it, if any."""
        self._clock += 1
        known = self._reports.get(rank)
        if known is None or known.waiting != waiting:
            self._reports[rank] = _Report(waiting, self._clock, self._clock, 0)
        else:
            self._reports[rank] = _Report(waiting, known.first, self._clock, known.last)
        cycle = [rank]
        while True:
            following = self._reports[cycle[-1]].waiting.peer
            if not self._holds(cycle[-1], following):
                return None
            if following == rank:
                return cycle
            if following in cycle:
                return None  # a cycle that this rank waits for, but is not in
            cycle.append(following)

    def awaited(self, rank: int) -> int | None:
        """Return the peer of the last report of `rank`, None without a report."""
        report = self._reports.get(rank)
        return None if report is None else report.waiting.peer

    def forget(self, rank: int) -> None:
        """Remove the reports of a rank."""
        self._reports.pop(rank, None)

    def describe(self, cycle: list[int]) -> str:
        """Return the error text for the ranks of a cycle."""
        return describe([(rank, self._reports[rank].waiting) for rank in cycle])

    def _holds(self, rank: int, peer: int) -> bool:
        """Return whether `rank` cannot continue before `peer`, which waits itself, does."""
        report, other = self._reports[rank], self._reports.get(peer)
        if other is None:
            return False
        one = report.waiting
        own, theirs = one.counts(peer), other.waiting.counts(rank)
        answers = other.waiting.peer == rank and other.waiting.awaited is _ANSWERS.get(one.awaited)
        match one.awaited:
            case Awaited.connecting:
                return theirs is None and not answers
            case Awaited.sending:
                return own is not None and theirs is not None and own.received == theirs.sent
            case Awaited.round:
                needs, has = one.counts(rank), other.waiting.counts(peer)
                return needs is not None and has is not None and has.sent < needs.received
            case Awaited.receiving:
                return not answers and report.before_last > other.first
            case Awaited.writing:
                return report.before_last > other.first


_ANSWERS = {
    Awaited.connecting: Awaited.connecting,
    Awaited.sending: Awaited.receiving,
    Awaited.receiving: Awaited.sending,
}
