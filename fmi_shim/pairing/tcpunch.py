"""Opens a direct TCP connection between two ranks with TCPunch's protocol, of the version that the server speaks.

Both ends connect to the rendezvous server from a local port and receive each other's public endpoint; `hole_punching`
then connects them on that port. The connection to the server stays open meanwhile, since it keeps the NAT's mapping.

A server of version 1 answers a name at once. One of version 2 waits for a whole request, which begins with the name: a
rank that receives no answer to its name sends the rest of the request, and from then on speaks version 2.
"""

from __future__ import annotations

import logging
import select
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from fmi_shim import telemetry
from fmi_shim.backoff import Deadline
from fmi_shim.errors import PeerTimeoutError, RendezvousError
from fmi_shim.pairing import timing
from fmi_shim.pairing.control_connection import ReconnectBackoff, ServerLostError, connect_to_server
from fmi_shim.pairing.handshake import PeerHello
from fmi_shim.pairing.hole_punching import HolePunch
from fmi_shim.pairing.sockets import Wait, disable_pacing, reusable_socket
from rendezvous.protocol import Endpoint, ProtocolError, Replies
from rendezvous.protocol.v2 import RESPONSE_BYTES, Request, Status, decode_response

_log = logging.getLogger("fmi_shim")

_READ_BYTES = 128


@dataclass(slots=True)
class Dialect:
    """What is known of a server of the original kinds.

    Attributes
    ----------
    version
        The version of TCPunch's protocol to begin with.
    confirmed
        Whether the server has answered in it.
    """

    version: int = 1
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """Which peer to connect to, through which server, and by when.

    Attributes
    ----------
    server
        The rendezvous server.
    name
        Pairing name, the same on both sides.
    peer
        Rank at the other end, for the errors.
    purpose
        Returns what this rank is doing, for the errors.
    hello
        What this rank sends first in framed mode; None sends nothing that the original FMI would not send.
    deadline
        By when the connection must be established.
    """

    server: Endpoint
    name: bytes
    peer: int
    purpose: Callable[[], str]
    hello: PeerHello | None
    deadline: Deadline


def connect(request: ConnectRequest, wait: Wait, dialect: Dialect) -> socket.socket:
    """Return a non-blocking TCP connection to the peer.

    A server that answered and then closed the connection is tried again, since it may have been restarted.

    Parameters
    ----------
    request
        The connection.
    wait
        How to wait.
    dialect
        What is known of the server, which is updated.

    Raises
    ------
    RendezvousError
        If the server cannot be reached, refuses the rank, or speaks another protocol.
    PeerTimeoutError
        If the peer does not connect to the server, or cannot be reached, in time.
    MismatchError
        If another rank than the expected one is connected.
    """
    backoff = ReconnectBackoff(request.deadline)
    pairing = _Pairing(request, wait, dialect, backoff)
    while True:
        try:
            connection = _connect_once(pairing)
        except ServerLostError as lost:
            backoff.pause(lost, wait)
        else:
            if _log.isEnabledFor(logging.INFO):
                _log.info("%s: connected to rank %d (direct, TCPunch)", request.purpose(), request.peer)
            if telemetry.recorder is not None:
                telemetry.recorder.connected(
                    "" if request.hello is None else request.hello.comm_name, request.peer, "direct"
                )
            return connection


def _connect_once(pairing: _Pairing) -> socket.socket:
    request = pairing.request
    with (
        connect_to_server(request.server, request.deadline) as control,
        reusable_socket(control.getsockname()[1]) as listener,
    ):
        control.setblocking(False)
        listener.setblocking(False)
        disable_pacing(listener, control.getsockname()[0])
        listener.listen()
        target = pairing.await_peer(control)
        punch = HolePunch(request.peer, request.purpose, request.hello, listener, pairing.wait, request.deadline)
        punch.connect_to([target])
        return punch.run().connection


class _Pairing:
    """Asks the server for the peer's endpoint, over one connection after another until it is known."""

    def __init__(self, request: ConnectRequest, wait: Wait, dialect: Dialect, backoff: ReconnectBackoff) -> None:
        self.request = request
        self.wait = wait
        self._dialect = dialect
        self._backoff = backoff
        self._token: uuid.UUID | None = None
        self._received = b""

    def await_peer(self, control: socket.socket) -> Endpoint:
        """Send the pairing name, which fits any socket buffer at once, and wait for the peer's endpoint."""
        request, self._received = self.request, b""
        replies = Replies()
        try:
            whole = Request(request.name, self._token).encode()
            control.send(request.name if self._dialect.version == 1 else whole)
            unanswered = Deadline(None if self._dialect.confirmed or self._dialect.version == 2 else timing.V1_ANSWER)
            while not request.deadline.passed:
                left = min(unanswered.end, request.deadline.end) - time.monotonic()
                ready = self.wait([(control.fileno(), select.POLLIN)], None if left == float("inf") else max(0.0, left))
                if not ready:
                    if unanswered.passed and not request.deadline.passed:
                        control.send(whole[len(request.name) :])
                        self._dialect.version, unanswered = 2, Deadline(None)
                    continue
                data = control.recv(_READ_BYTES)
                unanswered = Deadline(None)
                if not data:
                    raise self._closed()
                peer = self._read_response(data) if self._speaks_v2(data) else self._read_records(replies, data)
                if peer is not None:
                    return peer
        except ProtocolError as error:
            raise RendezvousError(
                f"{request.server} is not a rendezvous server of TCPunch's protocol: {error}: check host and port"
            ) from error
        except (ConnectionResetError, BrokenPipeError):
            raise self._closed() from None
        raise PeerTimeoutError(
            f"{request.purpose()}: rank {request.peer} did not connect to the rendezvous server {request.server} "
            f"within {request.deadline.elapsed} (pairing name {request.name.decode()!r}): check that it was started "
            "with the same communicator name and world size",
            origin=request.peer,
        )

    def _speaks_v2(self, data: bytes) -> bool:
        """Return whether `data` is of version 2; a slow server of version 1 may answer after a whole request."""
        if not self._received and not self._dialect.confirmed:
            self._dialect.version = 2 if self._dialect.version == 2 and data[0] in tuple(Status) else 1
        self._received += data
        return self._dialect.version == 2

    def _read_records(self, replies: Replies, data: bytes) -> Endpoint | None:
        """Return the peer's endpoint from the two records of version 1."""
        replies.feed(data)
        if replies.own is not None:
            self._dialect.confirmed = True
            self._backoff.record_answer()
        return replies.peer

    def _read_response(self, data: bytes) -> Endpoint | None:
        """Return the peer's endpoint from the responses of version 2."""
        while len(self._received) >= RESPONSE_BYTES:
            response = decode_response(self._received[:RESPONSE_BYTES])
            self._received = self._received[RESPONSE_BYTES:]
            if response.status is Status.error:
                raise RendezvousError(
                    f"the rendezvous server {self.request.server} refused the name {self.request.name.decode()!r}: "
                    "see its log; it may be full, or require a secret, which TCPunch's protocol lacks"
                )
            self._dialect.confirmed = True
            self._backoff.record_answer()
            if response.status is Status.timeout:
                self._token = None
                raise ServerLostError(f"the rendezvous server {self.request.server} ended the wait at its own limit")
            self._token = response.token
            if response.status is Status.paired:
                if response.peer is None:
                    raise ProtocolError("expected the peer's address with the status paired")
                return response.peer
        return None

    def _closed(self) -> ServerLostError:
        """Return the error for a connection that the server closed."""
        if self._received:
            return ServerLostError(
                f"the rendezvous server {self.request.server} closed the connection before the peer connected"
            )
        return ServerLostError(
            f"the rendezvous server {self.request.server} closed the connection before the peer connected, without an "
            f"answer to the name {self.request.name.decode()!r}: it may accept only names that contain 'pair', as one "
            "of TCPunch's servers does: choose such a communicator name; it may be full: raise "
            "--max-connections-per-address or --max-waiters of fmi-rendezvous; or it may require a secret, which "
            "TCPunch's protocol lacks"
        )
