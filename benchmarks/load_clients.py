"""Clients for a load test of the rendezvous server: pairing, relayed and misbehaving ones."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from itertools import count

from benchmarks.local_server import LocalServer
from rendezvous.protocol import Endpoint
from rendezvous.protocol.extension import CHALLENGE_BYTES, NO_PROOF, Preamble, Purpose
from rendezvous.protocol.messages import Decoder, Message, Register, Registration, Welcome, encode

SOURCES = 100
"""Number of loopback addresses of clients: a closed port of an address cannot be reused for a minute."""
_RECORDS = 16
_RESET = struct.pack("ii", 1, 0)
_TIMEOUT_SECONDS = 30.0
_names = count()
_sources = count()


def use_separate_counters() -> None:
    """Use separate names and addresses in this process: forked copies would otherwise use the same ones."""
    global _names, _sources
    _names, _sources = count(os.getpid() * 10_000_000), count(os.getpid())


def connect(server: LocalServer) -> socket.socket:
    """Return a client from one of many loopback addresses."""
    client = socket.socket()
    client.settimeout(_TIMEOUT_SECONDS)
    client.bind((f"127.0.1.{next(_sources) % SOURCES + 1}", 0))
    client.connect((server.host, server.port))
    return client


def fresh_name() -> bytes:
    """Return an unused pairing name."""
    return b"load%d_0" % next(_names)


def records(client: socket.socket) -> bytes:
    """Receive both records of a version 1 client."""
    data = client.recv(_RECORDS)
    while 0 < len(data) < _RECORDS:
        part = client.recv(_RECORDS - len(data))
        if not part:
            break
        data += part
    return data


def check_pair(first: socket.socket, second: socket.socket) -> bool:
    """Return whether both clients received their own and the other's address."""
    expected = [Endpoint(*client.getsockname()).encode() + bytes(2) for client in (first, second)]
    return records(first) == expected[0] + expected[1] and records(second) == expected[1] + expected[0]


class RelayedRank:
    """One of two ranks that connect through the relay."""

    def __init__(self, server: LocalServer, rank: int) -> None:
        self._socket = connect(server)
        self._decoder = Decoder()
        self._messages: list[Message] = []
        self._socket.sendall(Preamble(Purpose.control, bytes(32)).encode())
        assert len(self._socket.recv(CHALLENGE_BYTES, socket.MSG_WAITALL)) == CHALLENGE_BYTES
        local = Endpoint(*self._socket.getsockname())
        self.send(Register(Registration("load", "relay", rank, 2, bytes(16), local), NO_PROOF))
        assert isinstance(self.receive(), Welcome)

    def send(self, message: Message) -> None:
        """Send a message."""
        self._socket.sendall(encode(message))

    def receive(self) -> Message:
        """Return the next message."""
        while not self._messages:
            self._messages = self._decoder.feed(self._socket.recv(4096))
        return self._messages.pop(0)


def _silent(server: LocalServer) -> socket.socket:
    return connect(server)


def _half_a_name(server: LocalServer) -> socket.socket:
    client = connect(server)
    client.send(b"load")
    return client


def _reset(server: LocalServer) -> socket.socket:
    client = connect(server)
    client.send(fresh_name())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return client


def _garbage(server: LocalServer) -> socket.socket:
    client = connect(server)
    with contextlib.suppress(OSError):
        client.send(b"\0\xff" * 300 + b"GET / HTTP/1.1\r\n\r\n" * 20)
    return client


def _slow_reader(server: LocalServer) -> socket.socket:
    client = connect(server)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.send(fresh_name())
    return client


MISBEHAVIOURS: list[Callable[[LocalServer], socket.socket]] = [_silent, _half_a_name, _reset, _garbage, _slow_reader]
