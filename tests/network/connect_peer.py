"""A rank that connects to another one, TIMES times, and prints how: ``connect_peer.py SERVER NAME RANK TIMES MODE``."""

from __future__ import annotations

import json
import logging
import secrets
import socket
import sys
import time

from fmi_shim.backoff import Deadline
from fmi_shim.errors import FmiError
from fmi_shim.pairing import tcpunch
from fmi_shim.pairing.control_connection import read_access
from fmi_shim.pairing.handshake import PeerHello
from fmi_shim.pairing.rendezvous_client import RendezvousClient
from fmi_shim.pairing.sockets import Poller
from rendezvous.protocol import Endpoint
from rendezvous.protocol.messages import Abort

_MAX_TIMEOUT = 30.0
_TOKEN_BYTES = 16


class Relayed(logging.Handler):
    """Counts the reports of relayed connections."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        self.count += "through the relay" in record.getMessage()


def _aborted(abort: Abort) -> FmiError:
    return FmiError(abort.text)


def _connect(server: Endpoint, name: str, rank: int, framed: bool) -> socket.socket:
    wait = Poller(lambda _: None).wait
    peer = 1 - rank
    if not framed:
        limit = Deadline(_MAX_TIMEOUT)
        request = tcpunch.ConnectRequest(server, name.encode(), peer, lambda: f"rank {rank}", None, limit)
        return tcpunch.connect(request, wait, tcpunch.Dialect())
    client = RendezvousClient(server, read_access(), name, rank, 2, _aborted, Poller(lambda _: None))
    try:
        return client.connect(PeerHello(name, 2, rank, peer), lambda: f"rank {rank}", Deadline(_MAX_TIMEOUT))
    finally:
        client.close()


def _exchange(connection: socket.socket) -> None:
    """Prove that bytes go both ways: each end gets its own token back."""
    connection.settimeout(_MAX_TIMEOUT)
    token = secrets.token_bytes(_TOKEN_BYTES)
    connection.sendall(token)
    connection.sendall(_receive(connection))
    assert _receive(connection) == token


def _receive(connection: socket.socket) -> bytes:
    data = b""
    while len(data) < _TOKEN_BYTES:
        part = connection.recv(_TOKEN_BYTES - len(data))
        assert part, "the connection ended"
        data += part
    return data


def main() -> None:
    """Connect, and print the result as JSON."""
    address, name, rank, times, mode = sys.argv[1:]
    host, _, port = address.rpartition(":")
    relayed = Relayed()
    logging.getLogger("fmi_shim").addHandler(relayed)
    seconds, peers = [], []
    for i in range(int(times)):
        began = time.monotonic()
        with _connect(Endpoint(host, int(port)), f"{name}-{i}-", int(rank), mode == "framed") as connection:
            seconds.append(time.monotonic() - began)
            peers.append(connection.getpeername()[0])
            _exchange(connection)
    print(json.dumps({"seconds": seconds, "peers": sorted(set(peers)), "relayed": relayed.count}))


if __name__ == "__main__":
    main()
