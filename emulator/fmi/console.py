"""The console of rank 0: the command's standard input, and the debugger's dialogue, over one TCP connection."""

import contextlib
import hmac
import os
import secrets
import socket
import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

_CHUNK_BYTES = 65536
# A connection that has not sent the token by then is not the rank's.
_TOKEN_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ConsoleAddress:
    """What rank 0 needs to connect.

    Parameters
    ----------
    host, port
        Where the command listens.
    token
        What the rank sends first: only this run's rank 0 knows it.
    debugger
        Whether ``breakpoint()`` uses the connection.
    """

    host: str
    port: int
    token: str
    debugger: bool

    def payload(self) -> dict[str, Any]:
        """Return the value of ``console`` in the event of *initialize*."""
        return {"host": self.host, "port": self.port, "token": self.token, "debugger": self.debugger}


class Console:
    """Sends this process's standard input to rank 0, and prints what its debugger answers; a context manager.

    Parameters
    ----------
    host
        The address that functions can reach.
    debugger
        Whether ``breakpoint()`` in rank 0 stops there and takes commands from standard input.
    """

    def __init__(self, host: str, debugger: bool) -> None:
        self._listener = socket.create_server((host, 0))
        self.address = ConsoleAddress(host, self._listener.getsockname()[1], secrets.token_hex(16), debugger)
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        """Wait for rank 0 in a thread."""
        threading.Thread(target=self._serve, name="console", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection."""
        # A blocked accept() or recv() returns after a shutdown, not after a close.
        for end in filter(None, (self._listener, self._connection)):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while self._connection is None:
                connection, _ = self._listener.accept()
                if self._has_token(connection):
                    self._connection = connection
                else:
                    connection.close()
            # It cannot be ended while it waits for the terminal: it ends with the process.
            threading.Thread(target=self._send_input, args=(self._connection,), name="stdin", daemon=True).start()
            while data := self._connection.recv(_CHUNK_BYTES):
                sys.stdout.write(data.decode(errors="backslashreplace"))
                sys.stdout.flush()

    def _has_token(self, connection: socket.socket) -> bool:
        expected = f"{self.address.token}\n".encode()
        received = b""
        connection.settimeout(_TOKEN_TIMEOUT_S)
        with contextlib.suppress(OSError):
            while len(received) < len(expected) and (data := connection.recv(len(expected) - len(received))):
                received += data
            connection.settimeout(None)
        return hmac.compare_digest(received, expected)

    @staticmethod
    def _send_input(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(sys.stdin.fileno(), _CHUNK_BYTES):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
