"""Reports of long waits to the rendezvous server, which detects deadlock cycles among the ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fmi_shim.config import DirectConfig
from fmi_shim.error_codec import abort_error
from fmi_shim.pairing.control_connection import read_access
from fmi_shim.pairing.rendezvous_client import RendezvousClient
from fmi_shim.pairing.sockets import Poller
from fmi_shim.pairing.timing import DEADLOCK_REPORT
from fmi_shim.transports.shm.ring import RingPair, RingReader, RingWriter
from fmi_shim.transports.shm.rounds import RoundArrival, Rounds
from fmi_shim.transports.shm.timing import REPORT_SECONDS
from rendezvous.protocol import Endpoint
from rendezvous.protocol.messages import Cause
from rendezvous.protocol.waiting import Awaited, Counts, Waiting, pack_counts

Event = RingReader | RingWriter | RoundArrival
"""What a rank can wait for: polled and slept on in the same way."""


class DeadlockReporter:
    """Reports this rank's long waits, and raises the deadlocks that the server finds.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    name
        The name under which the ranks connected.
    config
        The rendezvous server.
    session
        The communicator's session with the server, whose errors are raised, too.
    """

    def __init__(
        self, rank: int, size: int, name: str, config: DirectConfig, session: RendezvousClient | None = None
    ) -> None:
        server = Endpoint(config.host, config.port)
        self._rank = rank
        self._session = session
        self._wait: tuple[int, Callable[[], str]] | None = None
        if session is not None:
            session.waits.append(lambda: None if self._wait is None else (self._wait[0], self._wait[1]()))
        self._client = RendezvousClient(server, read_access(), name, rank, size, abort_error, Poller(lambda _: None))
        self._next = 0.0
        self._wait_number = 0

    def check(
        self,
        waited: float,
        event: Event | None,
        peer: int,
        links: Mapping[int, RingPair],
        rounds: Rounds,
        call: Callable[[], str],
    ) -> None:
        """Report the wait if it is due, and raise the error that the server has sent, if any.

        Parameters
        ----------
        waited
            Seconds that this wait has lasted.
        event
            What is waited for; None if it is more than one event.
        peer
            Rank that is waited for.
        links, rounds
            What was exchanged so far.
        call
            Returns a description of the running call.
        """
        self._wait = peer, call
        if self._session is not None:
            self._session.check_errors(0.0)
        if waited < DEADLOCK_REPORT:
            self._next = DEADLOCK_REPORT
            return
        if waited >= self._next and event is not None:
            self._wait_number += self._next == DEADLOCK_REPORT
            counts = [Counts(link.peer, link.sent, link.received) for link in links.values()]
            needed = event.number if isinstance(event, RoundArrival) else 0
            counts.append(Counts(self._rank, rounds.number, needed))
            self._client.report_wait(
                Waiting(event.peer, _awaited(event), self._wait_number, pack_counts(counts), call())
            )
            self._next = waited + REPORT_SECONDS
        self._client.check_errors(0.0)

    def end_wait(self) -> None:
        """Record that this rank waits for none."""
        self._wait = None

    def withdraw(self) -> None:
        """Report that this rank waits for none any more, after a wait that timed out."""
        self._wait = None
        self._wait_number += 1
        self._client.withdraw_wait(self._wait_number)

    def find_cause(self, peer: int) -> Cause | None:
        """Have the server find the rank that this one waits for in the end; None if that is not known."""
        return None if self._session is None else self._session.find_cause(peer)

    def close(self) -> None:
        """Deregister from the server."""
        self._client.close()


def _awaited(event: Event) -> Awaited:
    if isinstance(event, RoundArrival):
        return Awaited.round
    return Awaited.sending if isinstance(event, RingReader) else Awaited.receiving
