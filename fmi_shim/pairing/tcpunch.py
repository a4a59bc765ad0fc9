"""Opens a direct TCP connection between two ranks with TCPunch's protocol, version 1.

Both ends connect to the rendezvous server from a local port and receive each other's public endpoint; `hole_punching`
then connects them on that port. The connection to the server stays open meanwhile, since it keeps the NAT's mapping.
"""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass

from fmi_shim.backoff import Deadline
from fmi_shim.errors import PeerTimeoutError, RendezvousError
from fmi_shim.pairing.control_connection import ReconnectBackoff, ServerLostError, connect_to_server
from fmi_shim.pairing.handshake import PeerHello
from fmi_shim.pairing.hole_punching import HolePunch
from fmi_shim.pairing.sockets import Wait, disable_pacing, reusable_socket
from rendezvous.protocol import Endpoint, ProtocolError, Replies

_log = logging.getLogger("fmi_shim")


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
    max_timeout
        Seconds for the whole connection, None for no limit.
    """

    server: Endpoint
    name: bytes
    peer: int
    purpose: Callable[[], str]
    hello: PeerHello | None
    max_timeout: float | None


def connect(request: ConnectRequest, wait: Wait) -> socket.socket:
    """Return a non-blocking TCP connection to the peer.

    A server that answered and then closed the connection is tried again, since it may have been restarted.

    Raises
    ------
    RendezvousError
        If the server cannot be reached, or speaks another protocol.
    PeerTimeoutError
        If the peer does not connect to the server, or cannot be reached, in time.
    MismatchError
        If another rank than the expected one is connected.
    """
    deadline = Deadline(request.max_timeout)
    backoff = ReconnectBackoff(deadline)
    while True:
        try:
            connection = _connect_once(request, wait, deadline, backoff)
        except ServerLostError as lost:
            backoff.pause(lost, wait)
        else:
            if _log.isEnabledFor(logging.INFO):
                _log.info("%s: connected to rank %d (direct, TCPunch)", request.purpose(), request.peer)
            return connection


def _connect_once(request: ConnectRequest, wait: Wait, deadline: Deadline, backoff: ReconnectBackoff) -> socket.socket:
    with (
        connect_to_server(request.server, deadline.remaining()) as control,
        reusable_socket(control.getsockname()[1]) as listener,
    ):
        control.setblocking(False)
        listener.setblocking(False)
        disable_pacing(listener, control.getsockname()[0])
        listener.listen()
        target = _await_peer(control, request, wait, deadline, backoff)
        punch = HolePunch(request.peer, request.purpose, request.hello, listener, wait, deadline)
        punch.connect_to([target])
        return punch.run().connection


def _await_peer(
    control: socket.socket, request: ConnectRequest, wait: Wait, deadline: Deadline, backoff: ReconnectBackoff
) -> Endpoint:
    """Send the pairing name, which fits any socket buffer at once, and wait for the peer's endpoint."""
    replies = Replies()
    try:
        control.send(request.name)
        while True:
            if not wait([(control.fileno(), select.POLLIN)], deadline.remaining()):
                break
            data = control.recv(64)
            replies.feed(data)
            if replies.own is not None:
                backoff.record_answer()
            if replies.peer is not None:
                return replies.peer
            if not data:
                raise ServerLostError(
                    f"the rendezvous server {request.server} closed the connection before the peer connected"
                )
    except ProtocolError as error:
        raise RendezvousError(
            f"{request.server} is not a rendezvous server of TCPunch's protocol, version 1: {error}"
        ) from error
    except (ConnectionResetError, BrokenPipeError) as error:
        raise ServerLostError(f"the connection to the rendezvous server {request.server} broke: {error}") from error
    raise PeerTimeoutError(
        f"{request.purpose()}: rank {request.peer} did not connect to the rendezvous server {request.server} within "
        f"{request.max_timeout:g} s (pairing name {request.name.decode()!r}): check that it was started with the same "
        "communicator name and world size",
        origin=request.peer,
    )
