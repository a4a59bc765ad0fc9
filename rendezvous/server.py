"""The asyncio shell around the registry: sockets in, addresses out."""

from __future__ import annotations

import asyncio
import logging
import socket

from rendezvous.protocol import DEFAULT_PORT, Endpoint, ProtocolError, encode_record
from rendezvous.registry import Registry

_log = logging.getLogger(__name__)

SILENCE_SECONDS = 30.0
"""A client that has not sent a name by then is disconnected; one that has may wait as long as it lives."""

PUNCHING_SECONDS = 120.0
"""How long a paired client's connection is kept, since its NAT mapping must last while it punches."""

_BACKLOG = 4096

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Finds out within a minute about a waiter whose machine vanished without a word, where the options exist."""


class RendezvousServer:
    """Pairs clients that send the same name (TCPunch, version 1).

    It runs in the event loop that starts it, holds no thread and no state outside itself, and no client can
    hold up another: each has a connection, a timer and at most 99 bytes of its own.

    Parameters
    ----------
    host
        IPv4 address to bind to. The loopback default keeps strangers out.
    port
        TCP port; 0 takes a free one, which `port` then tells.
    silence_seconds, punching_seconds
        The two limits on a connection's life, see `SILENCE_SECONDS` and `PUNCHING_SECONDS`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        punching_seconds: float = PUNCHING_SECONDS,
    ) -> None:
        self.host = host
        self.port = port
        self.silence_seconds = silence_seconds
        self.punching_seconds = punching_seconds
        self.registry: Registry[_ClientConnection] = Registry()
        self.connections: set[_ClientConnection] = set()
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and listen; from its return on, clients can connect.

        Raises
        ------
        OSError
            If the address cannot be bound, e.g. ``EADDRINUSE``.
        """
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: _ClientConnection(self), self.host, self.port, family=socket.AF_INET, backlog=_BACKLOG
        )
        self.host, self.port = self._listener.sockets[0].getsockname()[:2]
        _log.info("rendezvous server listens on %s:%d", self.host, self.port)

    async def close(self) -> None:
        """Stop listening and disconnect every client."""
        if self._listener is None:
            return
        self._listener.close()
        for connection in tuple(self.connections):
            connection.disconnect()
        await self._listener.wait_closed()
        self._listener = None

    @property
    def waiting(self) -> int:
        """Number of clients that wait for a partner."""
        return len(self.registry)


class _ClientConnection(asyncio.Protocol):
    """One client, from its accept to its end: silent, then waiting, then paired."""

    def __init__(self, server: RendezvousServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._paired = False
        self._named = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio types it as the base class
        self._transport = transport
        _keep_alive(transport.get_extra_info("socket"))
        self._endpoint = Endpoint(*transport.get_extra_info("peername")[:2])
        self._limit = self._loop.call_later(self._server.silence_seconds, self.disconnect)
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._paired:
            return  # version 1 has nothing more to say; the bytes are dropped, the timer ends the connection
        try:
            pair = self._server.registry.receive(self, data)
        except ProtocolError as error:
            _log.warning("%s is disconnected: %s", self._endpoint, error)
            self.disconnect()
            return
        if not self._named:
            self._named = True
            self._limit.cancel()
            self._transport.write(encode_record(self._endpoint))
        if pair is not None:
            pair.first.introduce(pair.second)
            pair.second.introduce(pair.first)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit.cancel()
        self._server.registry.leave(self)
        self._server.connections.discard(self)

    def introduce(self, partner: _ClientConnection) -> None:
        """Tell this client where its partner is, and let it punch."""
        self._paired = True
        self._transport.write(encode_record(partner._endpoint))
        self._limit = self._loop.call_later(self._server.punching_seconds, self.disconnect)

    def disconnect(self) -> None:
        """Leave the registry at once and close the connection without waiting for the other side."""
        self._server.registry.leave(self)
        self._transport.abort()


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
