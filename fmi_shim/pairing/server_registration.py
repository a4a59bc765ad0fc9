"""The ranks that meet in a store, at the rendezvous server: who is there, who has failed, who waits for whom.

A store knows of nobody's end (S3), or not who waits for whom (Redis). Where a rendezvous server of ours is named, each
rank registers there, too, and so holds a connection whose end is its own: a rank that waits hears of it, of any rank's
failure, and of a circle that it waits in, without asking the store. Without a server, or with one of the original kind,
all that is left to the store.
"""

from __future__ import annotations

import logging
import time

from fmi_shim.error_codec import abort_error
from fmi_shim.errors import RendezvousError
from fmi_shim.frames import Call
from fmi_shim.pairing.poller import Watch
from fmi_shim.pairing.rendezvous_client import RendezvousClient
from fmi_shim.pairing.run_access import read_access
from rendezvous.protocol import Endpoint
from rendezvous.protocol.messages import Abort, PeerEnded
from rendezvous.protocol.waiting import Awaited, Waiting

_log = logging.getLogger("fmi_shim")


class Attendance:
    """A rank's registration with the rendezvous server.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    name
        The communicator's, told apart from what its other channels register as.
    server
        Where the server is; None where none is named.

    Attributes
    ----------
    gone
        Ranks that were there and are not any more, and whether they were lost: ended without a word.
    """

    def __init__(self, rank: int, size: int, name: str, server: Endpoint | None) -> None:
        self._rank = rank
        self._client: RendezvousClient | None = None
        if server is not None:
            watch = Watch(lambda _: None)
            self._client = RendezvousClient(server, read_access(), name, rank, size, abort_error, watch, self._heed)
        self._turn = 0
        self.gone: dict[int, bool] = {}

    def begin(self) -> None:
        """Register, or go without if the server does not answer.

        Raises
        ------
        MismatchError
            If another process has this rank, or another world size.
        """
        if self._client is not None:
            try:
                self._client.attend()
            except RendezvousError as error:
                _log.info("rank %d: nobody will hear of this rank's end but by the store: %s", self._rank, error)
                self._client = None

    def wait_begins(self) -> None:
        """Take note that this rank goes on to its next wait."""
        self._turn += 1

    def look(self, peer: int, call: Call) -> None:
        """Say that an object of `peer` was not there when this rank looked, and raise what the server has to tell."""
        if not self.listen():
            self.begin()
        if self._client is not None:
            self._client.report(Waiting(peer, Awaited.writing, self._turn, b"", str(call)))

    def listen(self) -> bool:
        """Raise what the server has told since; return False if it is not connected."""
        return self._client is not None and self._client.listen(0.0)

    def sleep(self, seconds: float) -> None:
        """Pause for so long, or until the server has something to tell, which is raised."""
        if self._client is None or not self._client.listen(seconds):
            time.sleep(seconds)

    def fail(self, abort: Abort) -> None:
        """Have all other ranks told, then leave."""
        if self._client is not None:
            self._client.abort(abort)
        self.close()

    def close(self) -> None:
        """Leave in peace."""
        if self._client is not None:
            self._client.close()

    def _heed(self, gone: PeerEnded) -> None:
        self.gone.setdefault(gone.peer, gone.lost)
