"""Receives the events of ranks over ZeroMQ, and sends them commands.

Events come in over a PULL socket, commands leave over a ROUTER socket. Both accept only clients with the key pair of
this collector (CURVE), which it makes at random, and which the ranks get in their environment.
"""

import errno
import itertools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import zmq
from zmq.auth.thread import ThreadAuthenticator

from emulator.errors import EmulatorError
from fmi_shim.telemetry.bus import BusAddress, rank_identity
from fmi_shim.telemetry.events import MAX_MESSAGE_BYTES, Command, EventError, Message, decode, encode_command

_POLL_MS = 100
_BACKLOG = 4096
_MOST_REPORTED = 20
_CHECK_S = 1.0


class CommandError(EmulatorError):
    """A command cannot reach its rank."""


class _OneClientKey:
    """Accepts the ranks' key alone, as `ThreadAuthenticator` asks for it."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether a client with this key may connect."""
        return key == self._key


class Collector:
    """Receives events in a thread of its own, as a context manager.

    Parameters
    ----------
    host
        The IPv4 address to listen on.
    advertised
        The address under which the ranks reach it.
    on_message
        Called with each message, in that thread.
    on_error
        Called in that thread with what is wrong with messages: once for each text.
    on_check
        Called in that thread about once a second.

    Attributes
    ----------
    address
        For FMI_TELEMETRY_BUS.
    """

    def __init__(
        self,
        host: str,
        advertised: str,
        on_message: Callable[[Message], None],
        on_error: Callable[[str], None],
        on_check: Callable[[], None],
    ) -> None:
        self._host = host
        self._advertised = advertised
        self._on_message = on_message
        self._on_error = on_error
        self._on_check = on_check
        self._reported: set[str] = set()
        self._requests = itertools.count(1)
        self._sending = threading.Lock()
        self._stopping = threading.Event()
        self.address: BusAddress

    def __enter__(self) -> Self:
        """Listen on two free ports."""
        server_key, server_secret = zmq.curve_keypair()
        client_key, client_secret = zmq.curve_keypair()
        self._context = zmq.Context()
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(credentials_provider=_OneClientKey(client_key))
        self._events, events_port = self._listen(zmq.PULL, server_secret)
        self._commands, commands_port = self._listen(zmq.ROUTER, server_secret)
        self.address = BusAddress(
            f"tcp://{self._advertised}:{events_port}",
            f"tcp://{self._advertised}:{commands_port}",
            server_key.decode(),
            client_key.decode(),
            client_secret.decode(),
        )
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening."""
        self._stopping.set()
        self._thread.join()
        self._authenticator.stop()
        self._context.destroy(linger=0)

    def command(self, job: str, rank: int, action: str, text: str = "") -> int:
        """Send a command to a rank, and return the number of the request.

        Raises
        ------
        CommandError
            If the rank is not connected.
        """
        request = next(self._requests)
        try:
            self._send(job, rank, Command(request, action, text))
        except zmq.ZMQError:
            raise CommandError(
                f"rank {rank} receives no commands: expected a running rank: it has not started, or has ended"
            ) from None
        return request

    def is_connected(self, job: str, rank: int) -> bool:
        """Return whether a rank's process is connected; one that is stopped is."""
        try:
            self._send(job, rank, Command(next(self._requests), "ping"))
        except zmq.ZMQError as error:
            return error.errno != errno.EHOSTUNREACH
        return True

    def _send(self, job: str, rank: int, command: Command) -> None:
        with self._sending:
            self._commands.send_multipart([rank_identity(job, rank), encode_command(command)], zmq.DONTWAIT)

    def _listen(self, kind: int, secret: bytes) -> tuple["zmq.Socket[bytes]", int]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.BACKLOG, _BACKLOG)
        if kind == zmq.ROUTER:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        return socket, socket.bind_to_random_port(f"tcp://{self._host}")

    def _run(self) -> None:
        due = time.monotonic() + _CHECK_S
        while not self._stopping.is_set():
            if self._events.poll(_POLL_MS):
                self._receive()
            if time.monotonic() >= due:
                due = time.monotonic() + _CHECK_S
                self._on_check()

    def _receive(self) -> None:
        while True:
            try:
                data = self._events.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                self._on_message(decode(data))
            except EventError as error:
                if str(error) not in self._reported and len(self._reported) < _MOST_REPORTED:
                    self._reported.add(str(error))
                    self._on_error(str(error))
