"""Opens a direct TCP connection between two ranks: rendezvous first, then hole punching.

Both ends ask the rendezvous server from a local port and learn each other's public endpoint; what follows
on that port is in `punching`. The connection to the server stays open meanwhile, since it holds the NAT's
mapping.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass

from fmi_shim.errors import PeerTimeoutError, RendezvousError
from fmi_shim.pairing.connect_attempts import disable_pacing, reusable_socket
from fmi_shim.pairing.deadline import Deadline
from fmi_shim.pairing.handshake import Hello
from fmi_shim.pairing.hole_punching import Punch, Wait
from fmi_shim.pairing.reconnect import Persistence, ServerLostError, call_server
from rendezvous.protocol import Endpoint, ProtocolError, Replies


@dataclass(frozen=True, slots=True)
class Appointment:
    """Who is to be met, where, and by when.

    Attributes
    ----------
    server
        The rendezvous server.
    name
        Pairing name, the same on both sides.
    peer
        Rank at the other end, for the errors.
    purpose
        Tells what this rank is doing, for the errors.
    hello
        What this rank says first in framed mode; None sends nothing that the original FMI would not send.
    max_timeout
        Seconds for all of it, None for no limit.
    """

    server: Endpoint
    name: bytes
    peer: int
    purpose: Callable[[], str]
    hello: Hello | None
    max_timeout: float | None


def connect(appointment: Appointment, wait: Wait) -> socket.socket:
    """Return a non-blocking TCP connection to the peer.

    A server that answered and then went away is asked again, since it may have been restarted.

    Raises
    ------
    RendezvousError
        If the server cannot be reached, or is none.
    PeerTimeoutError
        If the peer does not come, or cannot be reached, in time.
    MismatchError
        If the rank that came is not the one expected.
    """
    deadline = Deadline(appointment.max_timeout)
    persistence = Persistence(deadline)
    while True:
        try:
            return _connect_once(appointment, wait, deadline, persistence)
        except ServerLostError as lost:
            persistence.pause(lost, wait)


def _connect_once(appointment: Appointment, wait: Wait, deadline: Deadline, persistence: Persistence) -> socket.socket:
    with call_server(appointment.server, deadline) as control, reusable_socket(_port(control)) as listener:
        control.setblocking(False)
        listener.setblocking(False)
        disable_pacing(listener, control.getsockname()[0])
        listener.listen()
        target = _await_peer(control, appointment, wait, deadline, persistence)
        punch = Punch(appointment.peer, appointment.purpose, appointment.hello, listener, wait, deadline)
        punch.aim([target])
        return punch.run().connection


def _port(connection: socket.socket) -> int:
    port: int = connection.getsockname()[1]
    return port


def _await_peer(
    control: socket.socket, appointment: Appointment, wait: Wait, deadline: Deadline, persistence: Persistence
) -> Endpoint:
    """Send the pairing name, which fits any socket buffer at once, and wait for the peer's endpoint."""
    replies = Replies()
    try:
        control.send(appointment.name)
        while True:
            if not wait([(control.fileno(), select.POLLIN)], deadline.remaining()):
                break
            data = control.recv(64)
            replies.feed(data)
            if replies.own is not None:
                persistence.answered()
            if replies.peer is not None:
                return replies.peer
            if not data:
                raise ServerLostError(f"the rendezvous server {appointment.server} left before the peer came")
    except ProtocolError as error:
        raise RendezvousError(f"{appointment.server} is no rendezvous server of protocol v1: {error}") from error
    except (ConnectionResetError, BrokenPipeError) as error:
        raise ServerLostError(f"the rendezvous server {appointment.server} broke off: {error}") from error
    raise PeerTimeoutError(
        f"{appointment.purpose()}: rank {appointment.peer} did not come to the rendezvous server "
        f"{appointment.server} within {appointment.max_timeout:g} s (pairing name "
        f"{appointment.name.decode()!r}): was it started, with the same communicator name and world size?",
        origin=appointment.peer,
    )
