"""A rank's registration with a rendezvous server of ours: one control connection for all of its meetings."""

from __future__ import annotations

import contextlib
import logging
import secrets
import select
import socket
from collections.abc import Callable

from fmi_shim.errors import FmiError, MismatchError, RendezvousError
from fmi_shim.log_lines import RelayNotice
from fmi_shim.pairing.connect_attempts import disable_pacing, reusable_socket
from fmi_shim.pairing.control_connection import ControlLink
from fmi_shim.pairing.deadline import Deadline
from fmi_shim.pairing.handshake import Hello
from fmi_shim.pairing.hole_punching import Punch
from fmi_shim.pairing.peer_connect import Meeting
from fmi_shim.pairing.poller import Watch
from fmi_shim.pairing.reconnect import Persistence, ServerLostError
from fmi_shim.pairing.run_access import Access
from rendezvous.protocol import Endpoint
from rendezvous.protocol.messages import Abort, Deadlock, Leave, Message, PeerEnded, Withdraw
from rendezvous.protocol.registration import INSTANCE_BYTES, Registration
from rendezvous.protocol.waiting import Waiting

_log = logging.getLogger("fmi_shim")

_REPORT_SECONDS = 0.5
"""How long the server is tried that a waiting rank has something to tell."""

_ATTEND_SECONDS = 5.0
"""How long a server that is not needed may take to answer; where none listens, that is known at once."""

OnAbort = Callable[[Abort], FmiError]
"""Makes the error that an abort of another rank is."""

OnGone = Callable[[PeerEnded], None]
"""Takes note that a rank is gone that this one waits for, but does not want to meet."""


class RendezvousClient:
    """A rank's registration with the server, taken out at its first meeting and renewed when it is lost.

    Parameters
    ----------
    server
        The rendezvous server.
    access
        Job, secret and certificate.
    comm_name, rank, world_size
        The communicator's.
    on_abort
        See `OnAbort`.
    watch
        How to wait. It looks after the connection to the server, too: what comes there is raised from any wait.
    on_gone
        See `OnGone`.
    """

    def __init__(
        self,
        server: Endpoint,
        access: Access,
        comm_name: str,
        rank: int,
        world_size: int,
        on_abort: OnAbort,
        watch: Watch,
        on_gone: OnGone = lambda _: None,
    ) -> None:
        self._server = server
        self._access = access
        self._comm_name = comm_name
        self._rank = rank
        self._world_size = world_size
        self._on_abort = on_abort
        self._watch = watch
        self._on_gone = on_gone
        self._instance = secrets.token_bytes(INSTANCE_BYTES)
        self._link: ControlLink | None = None
        self._known = False

    def meet(
        self,
        hello: Hello,
        purpose: Callable[[], str],
        max_timeout: float | None,
        state: Callable[[], Waiting | None] = lambda: None,
    ) -> socket.socket:
        """Return a non-blocking connection to the rank that `hello` is for.

        Parameters
        ----------
        purpose
            Tells what this rank is doing, for the errors.
        max_timeout
            Seconds for all of it, None for no limit.
        state
            Tells that this rank does nothing but wait for the other, if that is so; see `rendezvous.wait_for_graph`.

        Raises
        ------
        RendezvousError
            If the server cannot be reached or refuses this rank; `ForeignServerError` if it is of another kind.
        PeerTimeoutError
            If the peer does not come, or cannot be reached, in time.
        PeerLostError
            If the peer has been there, and has left or was lost.
        MismatchError
            If the rank that came, or the job, is not the one expected.
        FmiError
            If another rank has given up.
        """
        deadline = Deadline(max_timeout)
        persistence = Persistence(deadline, self._known)
        link = self.link(deadline, persistence)
        with reusable_socket(0, link.local.host) as listener:
            listener.setblocking(False)
            disable_pacing(listener, link.local.host)
            listener.listen()
            punch = Punch(hello.receiver, purpose, hello, listener, self._watch.wait, deadline)
            meeting = Meeting(self, punch, deadline, persistence, state)
            try:
                connected = meeting.run(link)
            finally:
                meeting.close()
        if connected.relayed:
            report_relayed(self._rank, hello.receiver, str(self._server))
        return connected.connection

    @property
    def demanding(self) -> bool:
        """Whether a server of another kind will not do."""
        return bool(self._access.secret or self._access.certificate)

    def abort(self, abort: Abort) -> None:
        """Have the server tell all other ranks; without a server, those that are connected will have to do."""
        if self._link is not None:
            with contextlib.suppress(ServerLostError):
                self._link.send(abort)

    def attend(self) -> None:
        """Register, so that the others hear of this rank's end: one try, of `_ATTEND_SECONDS` at most.

        Raises
        ------
        RendezvousError
            If the server cannot be reached or refuses this rank; `ForeignServerError` if it is of another kind.
        MismatchError
            If the job is not the one expected.
        """
        self.link(Deadline(_ATTEND_SECONDS), Persistence(Deadline(0.0)))

    def report(self, waiting: Waiting) -> None:
        """Tell the server for whom this rank waits, so that it may find a circle; without a server nobody will."""
        deadline = Deadline(_REPORT_SECONDS)
        with contextlib.suppress(RendezvousError):
            self.link(deadline, Persistence(deadline)).send(waiting)

    def heed(self, message: Message) -> None:
        """Raise what the server has to tell, if it concerns no meeting."""
        if isinstance(message, Abort):
            raise self._on_abort(message)
        if isinstance(message, Deadlock):
            raise MismatchError(message.text, origin=self._rank)
        if isinstance(message, PeerEnded):
            self._on_gone(message)

    def close(self) -> None:
        """Leave the job in peace."""
        if self._link is not None:
            with contextlib.suppress(ServerLostError):
                self._link.send(Leave())
        self.drop()

    def drop(self) -> None:
        """Close the connection to the server, without a word."""
        if self._link is not None:
            self._watch.remove(self._link.fileno())
            self._link.close()
            self._link = None

    def link(self, deadline: Deadline, persistence: Persistence) -> ControlLink:
        """Return the control connection, opened anew if there is none that works."""
        while True:
            try:
                if self._link is None:
                    self._link = ControlLink(self._server, self._access, self._registration, deadline)
                    self._watch.add(self._link.fileno(), select.POLLIN, self._attend)
                    self._known = True
                    persistence.answered()
            except ServerLostError as lost:
                persistence.pause(lost, self._watch.wait)
            else:
                return self._link

    def listen(self, seconds: float) -> bool:
        """Raise what the server has to tell, waiting so long for it; return False, at once, without a server."""
        if self._link is None:
            return False
        poll = select.poll()
        poll.register(self._link.fileno(), select.POLLIN)
        if poll.poll(seconds * 1000):
            self._attend(self._link.fileno())
        return True

    def _attend(self, descriptor: int) -> None:
        """Read what the server says while this rank meets nobody; its end does not matter then."""
        assert self._link is not None  # noqa: S101 - it is watched
        try:
            messages = self._link.receive()
        except ServerLostError:
            self.drop()
            return
        for message in messages:
            self.heed(message)

    def withdraw(self, peer: int) -> None:
        """Tell the server that this rank listens for a peer no longer."""
        if self._link is not None:
            try:
                self._link.send(Withdraw(peer))
            except ServerLostError:
                self.drop()

    def _registration(self, local: Endpoint) -> Registration:
        return Registration(self._access.job, self._comm_name, self._rank, self._world_size, self._instance, local)


def report_relayed(rank: int, peer: int, server: str) -> None:
    """Log a warning that two ranks are connected through the relay. The emulator's summary reads this line."""
    _log.warning("%s", RelayNotice(rank, peer, server))
