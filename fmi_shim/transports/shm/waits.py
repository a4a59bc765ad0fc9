"""How a rank waits for others in shared memory: it polls for a bounded time, then sleeps, and looks who still lives."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from fmi_shim.errors import FmiError, PeerLostError, PeerTimeoutError
from fmi_shim.transports.framing import Framing
from fmi_shim.transports.shm.abort_record import Alarm
from fmi_shim.transports.shm.deadlock_report import End, Suspicion
from fmi_shim.transports.shm.ring import LanePair
from fmi_shim.transports.shm.rounds import Rounds
from fmi_shim.transports.shm.segment import Segment
from fmi_shim.transports.shm.semaphores import Semaphore

_SPINS = 100
"""How often a waiting rank looks before it offers the processor to others, where each rank may have one of its own."""
_POLL_SECONDS = 1e-3
"""How long it then looks again and again, offering the processor in between, before it sleeps."""
_NAP_SECONDS = 0.02
"""How long a sleep without a post lasts: then the rank looks whether the awaited one lives, and anyone has failed."""
_SHORT_NAP_SECONDS = 0.001
"""The same while waiting to send and to receive, of which a rank can sleep on one only."""


class PatientFraming(Framing[LanePair]):
    """Messages through the lanes of a segment, as far as waiting for them, and for rounds, goes.

    Ranks poll for a millisecond, and then sleep on a semaphore; every 20 ms they look whether the awaited rank's
    process lives and whether any rank has failed.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    segment
        What they share.
    max_timeout
        The longest wait in seconds; None for ever.
    suspicion
        Tells of long waits.
    """

    rounds: Rounds

    def __init__(self, rank: int, size: int, segment: Segment, max_timeout: float | None, suspicion: Suspicion) -> None:
        self.rank = rank
        self.size = size
        self._max_timeout = max_timeout
        self._spins = _SPINS if size <= len(os.sched_getaffinity(0)) else 0
        self._segment: Segment | None = segment
        self._alarm = Alarm(segment.memory, segment.layout)
        self._links = {
            peer: LanePair(segment.memory, segment.layout, rank, peer) for peer in range(size) if peer != rank
        }
        self._suspicion = suspicion

    def _wait(self, ends: Sequence[End], peer: int) -> None:
        """Wait until one of `ends`, which lead to or come from `peer`, may go on."""
        for _ in range(self._spins):
            for end in ends:
                if end.poll():
                    return
        start = time.monotonic()
        while time.monotonic() - start < _POLL_SECONDS:
            os.sched_yield()
            for end in ends:
                if end.poll():
                    return
        nap = _NAP_SECONDS if len(ends) == 1 else _SHORT_NAP_SECONDS
        while not any(end.poll() for end in ends) and not ends[-1].sleep(nap):
            self._look()
            self._require_alive(ends, peer)
            only = ends[0] if len(ends) == 1 else None
            self._suspicion.look(time.monotonic() - start, only, self._links, self.rounds, lambda: str(self._call))
            if self._max_timeout is not None and time.monotonic() - start >= self._max_timeout:
                raise PeerTimeoutError(
                    f"{self._purpose}: nothing came from or went to rank {peer} for {self._max_timeout:g} s: it is "
                    "late, stopped, or in another call; raise backends.Direct.max_timeout (ms, 0 for ever) if it needs "
                    "longer",
                    origin=peer,
                )

    def _look(self) -> None:
        """Raise the error that a rank has told all others, if there is one."""
        heard = self._alarm.heard()
        if heard is not None:
            raise self._abort_error(heard)

    def _require_alive(self, ends: Sequence[End], peer: int) -> None:
        """Raise if `peer` has ended and nothing that it sent before is left."""
        segment = self._segment
        assert segment is not None  # noqa: S101 - somebody is waited for
        if segment.alive(peer) or any(end.poll() for end in ends):
            return
        self._look()
        raise self._ended(segment, peer)

    def _ended(self, segment: Segment, peer: int) -> FmiError:
        farewell = Semaphore(segment.memory, segment.layout.farewell(peer))
        if farewell.try_wait():
            farewell.post()
            return self._left_error(peer)
        return PeerLostError(f"{self._purpose}: lost rank {peer}, whose process ended", origin=peer)
