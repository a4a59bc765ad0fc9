"""Reaching the rendezvous server, also when it is being restarted."""

from __future__ import annotations

import random
import socket
import time

from fmi_shim.errors import RendezvousError
from fmi_shim.pairing.connect_attempts import reusable_socket
from fmi_shim.pairing.deadline import Deadline
from fmi_shim.pairing.hole_punching import Wait
from rendezvous.protocol import Endpoint

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_STRANGER_SECONDS = 2.0
"""A server that never answered may be about to start; after this time it is taken for not being there."""
_ACQUAINTANCE_SECONDS = 60.0
"""A server that has answered before is believed to come back for so long."""


class ServerLostError(RendezvousError):
    """The server cannot be reached, or the connection to it broke: it may be worth another try."""


class Persistence:
    """Decides whether a lost server is tried again, and when: with pauses that double, each drawn anew.

    Parameters
    ----------
    deadline
        By which all must be over.
    known
        Whether the server has answered before.
    """

    def __init__(self, deadline: Deadline, known: bool = False) -> None:
        self._deadline = deadline
        self._known = known
        self._pause = _FIRST_PAUSE_SECONDS
        self._silent_since: float | None = None

    def answered(self) -> None:
        """Take note that the server is there."""
        self._known = True
        self._pause = _FIRST_PAUSE_SECONDS
        self._silent_since = None

    def pause(self, lost: ServerLostError, wait: Wait) -> None:
        """Wait before the next try.

        Raises
        ------
        ServerLostError
            `lost`, if there should not be one.
        """
        now = time.monotonic()
        self._silent_since = now if self._silent_since is None else self._silent_since
        patience = _ACQUAINTANCE_SECONDS if self._known else _STRANGER_SECONDS
        if self._deadline.passed or now - self._silent_since > patience:
            raise lost
        remaining = self._deadline.remaining()
        seconds = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        wait((), seconds if remaining is None else min(seconds, remaining))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)


def call_server(server: Endpoint, deadline: Deadline, port: int = 0, host: str = "") -> socket.socket:
    """Return a connection to the server from a local port that can be shared, with the deadline as its timeout.

    Raises
    ------
    ServerLostError
        If there is none.
    """
    connection = reusable_socket(port, host)
    try:
        connection.settimeout(deadline.remaining())
        connection.connect((server.host, server.port))
    except OSError as error:
        connection.close()
        raise ServerLostError(
            f"no rendezvous server at {server}: {error.strerror or error}; "
            "start one with fmi-rendezvous, or name it in fmi.json or FMI_RENDEZVOUS=host:port"
        ) from error
    return connection
