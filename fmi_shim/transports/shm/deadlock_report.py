"""Long waits in shared memory: the rendezvous server, where the ranks have met, finds those that have no end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fmi_shim.config import DirectConfig
from fmi_shim.errors import FmiError
from fmi_shim.pairing.control_connection import read_access
from fmi_shim.pairing.rendezvous_client import RendezvousClient
from fmi_shim.pairing.sockets import Poller
from fmi_shim.pairing.timing import DEADLOCK_REPORT
from fmi_shim.transports.shm.ring import Inlet, LanePair, Outlet
from fmi_shim.transports.shm.rounds import Arrival, Rounds
from rendezvous.protocol import Endpoint
from rendezvous.protocol.messages import Abort
from rendezvous.protocol.waiting import Awaited, Counts, Waiting, pack_counts

_AGAIN_SECONDS = 1.0

End = Inlet | Outlet | Arrival


class Suspicion:
    """Tells the server of a wait that lasts, and hears of circles.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    name
        What the ranks have met as.
    config
        The rendezvous server.
    """

    def __init__(self, rank: int, size: int, name: str, config: DirectConfig) -> None:
        server = Endpoint(config.host, config.port)
        self._rank = rank
        self._client = RendezvousClient(server, read_access(), name, rank, size, _aborted, Poller(lambda _: None))
        self._next = 0.0
        self._turn = 0

    def look(
        self, waited: float, end: End | None, links: Mapping[int, LanePair], rounds: Rounds, call: Callable[[], str]
    ) -> None:
        """Tell the server whom this rank waits for, if the time has come, and raise what it has to tell.

        Parameters
        ----------
        waited
            Seconds that this wait has lasted.
        end
            What is waited for; None if that is more than one thing.
        links, rounds
            What was exchanged so far.
        call
            Tells the running call.
        """
        if waited < DEADLOCK_REPORT:
            self._next = DEADLOCK_REPORT
            return
        if waited >= self._next and end is not None:
            self._turn += self._next == DEADLOCK_REPORT
            counts = [Counts(link.peer, link.sent, link.received) for link in links.values()]
            needed = end.number if isinstance(end, Arrival) else 0
            counts.append(Counts(self._rank, rounds.number, needed))
            awaited = _awaited(end)
            self._client.report_wait(Waiting(end.peer, awaited, self._turn, pack_counts(counts), call()))
            self._next = waited + _AGAIN_SECONDS
        self._client.check_errors(0.0)

    def close(self) -> None:
        """Leave the server."""
        self._client.close()

    def drop(self) -> None:
        """Leave it without a word, in a forked child."""
        self._client.disconnect()


def _awaited(end: End) -> Awaited:
    if isinstance(end, Arrival):
        return Awaited.round
    return Awaited.sending if isinstance(end, Inlet) else Awaited.receiving


def _aborted(abort: Abort) -> FmiError:
    return FmiError(abort.text, abort.origin, abort.reported_by)
