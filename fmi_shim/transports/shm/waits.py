"""How a rank waits in shared memory: it polls for a bounded time, then sleeps and checks the other ranks."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence

from fmi_shim.backoff import Deadline, poll_without_sleep, raise_limit
from fmi_shim.errors import FmiError, PeerLostError, PeerTimeoutError
from fmi_shim.transports.framing import Framing
from fmi_shim.transports.shm.abort_record import AbortRecord
from fmi_shim.transports.shm.deadlock_report import DeadlockReporter, Event
from fmi_shim.transports.shm.ring import RingPair
from fmi_shim.transports.shm.rounds import Rounds
from fmi_shim.transports.shm.segment import Segment
from fmi_shim.transports.shm.semaphores import Semaphore
from fmi_shim.transports.shm.timing import NAP_SECONDS, SHORT_NAP_SECONDS, WAIT_SPINS, YIELD_SECONDS


class SegmentFraming(Framing[RingPair]):
    """Messages through the rings of a segment: the waits for them and for rounds.

    Ranks poll for a millisecond, and then sleep on a semaphore. Every 20 ms they check whether the awaited rank's
    process is alive and whether any rank has failed.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    segment
        The shared memory.
    max_timeout
        The longest wait in seconds; None for no limit.
    deadlock_reporter
        Reports long waits.
    """

    reads_ahead = False  # a block has bytes of one message only
    rounds: Rounds

    def __init__(
        self, rank: int, size: int, segment: Segment, max_timeout: float | None, deadlock_reporter: DeadlockReporter
    ) -> None:
        self.rank = rank
        self.size = size
        self._max_timeout = max_timeout
        self._spins = WAIT_SPINS if size <= len(os.sched_getaffinity(0)) else 0
        self._segment: Segment | None = segment
        self._abort_record = AbortRecord(segment.memory, segment.layout)
        self._links = {
            peer: RingPair(segment.memory, segment.layout, rank, peer) for peer in range(size) if peer != rank
        }
        self._deadlock_reporter = deadlock_reporter
        self.call_deadline = Deadline(None)
        self._awaited: int | None = None

    @property
    def awaited(self) -> int | None:
        """The rank that this one waits for; see `Channel`."""
        return self._awaited

    def _wait(self, events: Sequence[Event], peer: int) -> None:
        """Wait until one of `events`, each of which depends on `peer` or a posted message, has occurred.

        Raises
        ------
        PeerLostError
            If the process of `peer` has ended.
        PeerTimeoutError
            If none occurred for ``max_timeout``.
        FmiError
            If any rank has failed.
        """
        start = time.monotonic()
        only = events[0] if len(events) == 1 else None
        occurred = functools.partial(_any_occurred, events) if only is None else only.poll
        if poll_without_sleep(occurred, self._spins, YIELD_SECONDS):
            return
        nap = SHORT_NAP_SECONDS if only is None else NAP_SECONDS
        deadline = self.call_deadline.within(self._max_timeout)
        self._awaited = peer
        while not occurred() and not events[-1].sleep(min(nap, deadline.end - time.monotonic())):
            self._check_errors()
            self._require_alive(events, peer)
            waited = time.monotonic() - start
            self._deadlock_reporter.check(waited, only, peer, self._links, self.rounds, self._own_call)
            if deadline.passed:
                cause = self._deadlock_reporter.find_cause(peer)
                chain = f"; the cause: {cause.text}" if cause is not None and cause.text else ""
                raise PeerTimeoutError(
                    f"{self._purpose}: no data from or to rank {peer} for {deadline.elapsed}: check that it is "
                    "not stopped, late, or in another call; "
                    f"{raise_limit(deadline, self.call_deadline, 'backends.Direct.max_timeout')}{chain}",
                    origin=peer if cause is None or cause.origin is None else cause.origin,
                )
        self._awaited = None
        self._deadlock_reporter.end_wait()

    def _own_call(self) -> str:
        """Return the text of the running call."""
        return self._call.made_by(self.rank)

    def _check_errors(self) -> None:
        """Raise the error that a rank has published, if any."""
        abort = self._abort_record.read_error()
        if abort is not None:
            raise self._abort_error(abort)

    def _require_alive(self, events: Sequence[Event], peer: int) -> None:
        """Raise if the process of `peer` has ended, and nothing that it sent before is left."""
        segment = self._segment
        assert segment is not None  # noqa: S101 - the channel is open while it waits
        if segment.alive(peer) or _any_occurred(events):
            return
        self._check_errors()
        raise self._peer_error(segment, peer)

    def _peer_error(self, segment: Segment, peer: int) -> FmiError:
        """Return the error for a peer whose process has ended, or has closed the communicator."""
        closed = Semaphore(segment.memory, segment.layout.closed(peer))
        if closed.try_wait():
            closed.post()
            return self._left_error(peer)
        return PeerLostError(f"{self._purpose}: lost rank {peer}, whose process ended", origin=peer)


def _any_occurred(events: Sequence[Event]) -> bool:
    return any(event.poll() for event in events)
