"""A rendezvous server in a process of its own, which ends when the process that started it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from typing import IO

from emulator.errors import EmulatorError
from rendezvous.options import SECRET_VARIABLE
from rendezvous.server import RendezvousServer

_HOST = "127.0.0.1"
_END_S = 5.0


async def _serve(port: int) -> None:
    """Serve until standard input ends; write the port first."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(0, ended.set)
    server = RendezvousServer(_HOST, port, secret=os.environ[SECRET_VARIABLE].encode())
    await server.start()
    print(server.port, flush=True)
    await ended.wait()
    await server.close()


class RendezvousProcess:
    """A running rendezvous server.

    Parameters
    ----------
    secret
        The secret that ranks must prove; empty for none, as raw ranks need.

    Attributes
    ----------
    secret
        As given.
    address
        Its ``host:port``.

    Raises
    ------
    EmulatorError
        If it does not start.
    """

    def __init__(self, secret: str = "") -> None:
        self.secret = secret
        self._process = self._start(0)

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, this module
            [sys.executable, "-m", __name__, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # FMI_RENDEZVOUS_* would configure it. It imports from the same folders as this process.
            env={name: value for name, value in os.environ.items() if not name.startswith("FMI_")}
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), SECRET_VARIABLE: self.secret},
            # Ctrl-C in a terminal is sent to its group; this server ends with its parent.
            start_new_session=True,
        )
        line = _stream(process.stdout).readline().strip()
        if not line:
            status = process.wait()
            raise EmulatorError(f"the rendezvous server ended with status {status} before it listened: see its error")
        self.port = int(line)
        self.address = f"{_HOST}:{self.port}"
        return process

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def kill(self) -> None:
        """End the server as a crash does."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start it again on the same port."""
        self.close()
        self._process = self._start(self.port)

    def close(self) -> None:
        """End the server."""
        with contextlib.suppress(BrokenPipeError):
            _stream(self._process.stdin).close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _stream(self._process.stdout).close()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - a pipe was asked for
    return stream


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
