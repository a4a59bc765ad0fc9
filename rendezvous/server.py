"""The rendezvous server: accepts connections in an asyncio event loop and hands them to their protocols."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import selectors
import socket
import ssl
import uuid
from collections import Counter

from rendezvous.control import Extension, Observer
from rendezvous.counters import Counters, Refused
from rendezvous.limits import Limits
from rendezvous.protocol import DEFAULT_PORT, Endpoint
from rendezvous.protocol.extension import MIN_SECRET_BYTES, decode_preamble
from rendezvous.registry import Registry
from rendezvous.tcpunch_client import TcpunchClient
from rendezvous.timer_queue import TimerQueue

_log = logging.getLogger(__name__)

_BACKLOG = 4096
_ACCEPTS_AT_ONCE = 64
_ACCEPT_PAUSE_SECONDS = 0.1
_MAX_OVER_LIMIT = 64
"""So many connections over the limit of their address are kept until they can be told of it."""
_TICK_SECONDS = 0.005
"""TimerQueue are looked at no more often than this, all that are reached at once."""

_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Detects within a minute that the machine of a waiting client vanished, if the options exist. They are set on the
listening socket, from which accepted ones inherit them."""


class RendezvousServer:
    """Pairs clients that send the same name (TCPunch), and ranks of a job (our extension), on one port.

    It runs in the event loop that starts it, without a thread or state outside itself, and no client can block
    another. A client of TCPunch costs no task and no stream, only a socket, a deadline and at most 141 bytes.

    Parameters
    ----------
    host
        IPv4 address to bind to. The default, loopback, admits this machine only.
    port
        TCP port; 0 takes a free one, which `port` then contains.
    limits
        Limits on connections, waits and relays.
    secret
        The secret that ranks must know, at least 16 bytes; empty for none. With a secret, clients of TCPunch, whose
        protocol has none, are refused.
    tls
        Certificate and key for the extension's control connections.
    observer
        Called, in the event loop, with a job's name and what the server has done for it; it must not block.

    Raises
    ------
    ValueError
        If the secret is shorter.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        secret: bytes = b"",
        tls: ssl.SSLContext | None = None,
        observer: Observer | None = None,
    ) -> None:
        if secret and len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"invalid secret: expected at least {MIN_SECRET_BYTES} random bytes, got {len(secret)}")
        self.host = host
        self.port = port
        self.limits = limits
        self.counters = Counters()
        self.registry: Registry[TcpunchClient] = Registry()
        self.draining = False
        self.secret_required = bool(secret)
        self._secret = secret
        self._observer = observer
        self._tls = tls
        self._clients: set[TcpunchClient] = set()
        self._addresses: Counter[str] = Counter()
        self._over_limit = 0
        self._deadlines: TimerQueue[TcpunchClient | uuid.UUID] = TimerQueue()
        self._tick: asyncio.TimerHandle | None = None
        self._listener: socket.socket | None = None
        self._emptied = asyncio.Event()

    async def start(self) -> None:
        """Bind and listen; when it returns, clients can connect.

        Raises
        ------
        OSError
            If the address cannot be bound, e.g. ``EADDRINUSE``.
        """
        self._loop = asyncio.get_running_loop()
        self.extension = Extension(self.limits, self.counters, self.registry, self._secret, self._tls, self._observer)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _keep_alive(listener)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setblocking(False)
            listener.bind((self.host, self.port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self.host, self.port = listener.getsockname()
        self._loop.add_reader(listener, self._accept)
        # The event loop watches this selector, and this selector the clients: of the 51 to 69 us of Python that a
        # pairing took with each client in the event loop's own, 42 to 49 were left.
        self._selector = selectors.DefaultSelector()
        self._loop.add_reader(self._selector.fileno(), self._dispatch)
        _log.info("listening", extra={"fields": {"host": self.host, "port": self.port}})

    async def drain(self, seconds: float) -> None:
        """Shut down gracefully: accept no connections, end waits, let punching and relayed pairs finish.

        Parameters
        ----------
        seconds
            After which those are closed, too.
        """
        self.draining = True
        self._stop_listening()
        for client in tuple(self._clients):
            if not client.punching:
                client.end_wait()
        self.extension.disconnect_ranks()
        if self.connections:
            with contextlib.suppress(TimeoutError):  # the rest is closed
                await asyncio.wait_for(self._emptied.wait(), seconds)
        await self.close()

    async def close(self) -> None:
        """Stop listening and disconnect every client."""
        if not hasattr(self, "extension"):
            return
        self._stop_listening()
        for client in tuple(self._clients):
            client.close()
        await self.extension.close()
        if self._tick is not None:
            self._tick.cancel()
        if self._selector.get_map() is not None:
            self._loop.remove_reader(self._selector.fileno())
            self._selector.close()

    @property
    def waiting(self) -> int:
        """Number of waiting clients, of registered ranks, and of waits that may be resumed."""
        return len(self.registry) + self.registry.remembered + len(self.extension.jobs)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return self._addresses.total()

    def clock(self) -> float:
        """Return the event loop's time."""
        return self._loop.time()

    def expire_at(self, item: TcpunchClient | uuid.UUID, at: float) -> None:
        """Expire `item` at time `at`."""
        self._deadlines.set(item, at)
        if self._tick is None or at < self._tick.when() - _TICK_SECONDS:
            self._schedule(at)

    def full(self) -> bool:
        """Return whether no further client may wait."""
        return self.extension.full()

    def switch_to_extension(self, client: TcpunchClient, hello: bytes) -> None:
        """Hand the socket of a client that has sent a preamble to the extension."""
        found = decode_preamble(hello)
        self._forget(client)

        def ended() -> None:
            self._release(client)

        self.extension.take(client.connection, client.endpoint, found, ended, client.refusal)

    def on_raw_name(self, name: bytes) -> None:
        """Refuse ranks that wait for a peer which waits under a name instead."""
        if len(self.extension.jobs):
            self.extension.deliver(self.extension.jobs.on_raw_client(name))

    def closed(self, client: TcpunchClient) -> None:
        """Remove a connection that ended."""
        self._forget(client)
        self._release(client)

    def _forget(self, client: TcpunchClient) -> None:
        self._selector.unregister(client.connection.fileno())
        self._deadlines.drop(client)
        self._clients.discard(client)

    def _release(self, client: TcpunchClient) -> None:
        address = client.endpoint.host
        self._over_limit -= bool(client.refusal)
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
            if not self._addresses:
                self._emptied.set()

    def _dispatch(self) -> None:
        # A client that was closed by the handling of another one finds its socket closed, and does nothing.
        for key, _ in self._selector.select(0):
            key.data()

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - called while it is registered
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                _log.error("cannot accept", extra={"fields": {"why": str(error), "connections": self.connections}})
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self._accept_again)
                return
            self._admit(connection, Endpoint(*address))

    def _accept_again(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept)

    def _admit(self, connection: socket.socket, endpoint: Endpoint) -> None:
        self.counters.connections += 1
        refusal, limit = "", self.limits.connections_per_address
        if self._addresses[endpoint.host] >= limit:
            self.counters.refused[Refused.address_limit] += 1
            if self._over_limit >= _MAX_OVER_LIMIT:
                connection.close()
                return
            self._over_limit += 1
            refusal = (
                f"{limit} connections from {endpoint.host} are open, as many as one address may have: "
                "raise --max-connections-per-address"
            )
        self._addresses[endpoint.host] += 1
        self._emptied.clear()
        connection.setblocking(False)
        client = TcpunchClient(self, connection, endpoint, refusal)
        self._clients.add(client)
        self._selector.register(connection.fileno(), selectors.EVENT_READ, client.readable)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _schedule(self, at: float) -> None:
        if self._tick is not None:
            self._tick.cancel()
        self._tick = self._loop.call_at(max(at, self.clock() + _TICK_SECONDS), self._expire)

    def _expire(self) -> None:
        self._tick = None
        for item in self._deadlines.reached(self.clock()):
            if isinstance(item, uuid.UUID):
                self.registry.forget(item)
            else:
                item.expired()
        at = self._deadlines.next()
        if at is not None:
            self._schedule(at)


def _keep_alive(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
