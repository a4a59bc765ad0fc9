"""Which ranks wait for which, and whether they do so in a cycle: without any I/O.

A rank that nothing has come to for a while says for whom it waits. It does nothing else meanwhile, so that a cycle of
such ranks stays one, provided that none of the messages that are waited for is on its way. *Receiving* from a peer
therefore counts only where all that the peer has begun to send has come whole. Such statements may be old: the first
rank of the cycle to go on would need a message that its peer began after its own statement, which the peer could not
before it went on itself. *Meeting* a peer counts only where that is not connected with it. *Sending* to one, whose
buffers are full, counts only where it was said again after the peer had begun to wait, since one that had waited
earlier may have received from in between. *Writing*, too, counts only where it was said again after the peer had begun
to wait: the rank has looked in between, and would have found what the peer had written before.
(Resource deadlocks in the AND model: K. M. Chandy, J. Misra, L. M. Haas, "Distributed deadlock detection", ACM TOCS 1
(1983); a server that all are connected to needs no probes.)
"""

from __future__ import annotations

from dataclasses import dataclass

from rendezvous.protocol.waiting import Awaited, Waiting, describe


@dataclass(frozen=True, slots=True)
class _Statement:
    """What a rank says, when it first said so in this wait, and when it last did but once."""

    waiting: Waiting
    first: int
    before_last: int


class WaitForGraph:
    """What the ranks of one communicator have said; the newest statement of each counts."""

    def __init__(self) -> None:
        self._statements: dict[int, _Statement] = {}
        self._clock = 0
        self._last: dict[int, int] = {}

    def record(self, rank: int, waiting: Waiting) -> list[int] | None:
        """Take note; return the ranks of the cycle that `rank` waits in, from it on, if there is one."""
        self._clock += 1
        known = self._statements.get(rank)
        again = known is not None and known.waiting == waiting
        first = known.first if known is not None and again else self._clock
        self._statements[rank] = _Statement(waiting, first, self._last[rank] if again else 0)
        self._last[rank] = self._clock
        cycle = [rank]
        while True:
            following = self._statements[cycle[-1]].waiting.peer
            if not self._holds(cycle[-1], following):
                return None
            if following == rank:
                return cycle
            if following in cycle:
                return None  # another cycle, that this rank waits for
            cycle.append(following)

    def awaited(self, rank: int) -> int | None:
        """Return for whom `rank` said last that it waits, None if it said nothing."""
        statement = self._statements.get(rank)
        return None if statement is None else statement.waiting.peer

    def forget(self, rank: int) -> None:
        """Take note that a rank is gone."""
        self._statements.pop(rank, None)
        self._last.pop(rank, None)

    def describe(self, cycle: list[int]) -> str:
        """Return what the ranks of a cycle are to be told."""
        return describe([(rank, self._statements[rank].waiting) for rank in cycle])

    def _holds(self, rank: int, peer: int) -> bool:
        """Whether `rank` cannot go on before `peer`, which waits itself, does."""
        statement, other = self._statements[rank], self._statements.get(peer)
        if other is None:
            return False
        one = statement.waiting
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
                return not answers and statement.before_last > other.first
            case Awaited.writing:
                return statement.before_last > other.first


_ANSWERS = {
    Awaited.connecting: Awaited.connecting,
    Awaited.sending: Awaited.receiving,
    Awaited.receiving: Awaited.sending,
}
