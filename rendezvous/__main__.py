"""``fmi-rendezvous``: the pairing server as a program of its own."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import signal
import sys
from collections.abc import Sequence

from rendezvous.protocol import DEFAULT_PORT
from rendezvous.server import RendezvousServer

_CANNOT_BIND = {
    errno.EADDRINUSE: "is in use: stop the other server or choose another --port",
    errno.EACCES: "needs privileges: choose a --port above 1023",
    errno.EADDRNOTAVAIL: "is no address of this machine: choose another --host",
}


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is between 0 and 65535, not {port}")
    return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fmi-rendezvous",
        description="Pair FMI ranks by name, so that they can open direct TCP connections "
        "(TCPunch protocol, version 1).",
        epilog="Ranks find the server by backends.Direct.host and .port of fmi.json, or by "
        "FMI_RENDEZVOUS=HOST:PORT in their environment. SIGINT and SIGTERM end the server; connections "
        "between ranks are not affected.",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="IPv4 address to bind to (default: %(default)s, this machine only)",
    )
    parser.add_argument(
        "--port", default=DEFAULT_PORT, type=_port, help="TCP port, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument("--verbose", action="store_true", help="log every refused client to standard error")
    return parser


async def _serve(host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = RendezvousServer(host, port)
    await server.start()
    print(f"fmi-rendezvous listens on {server.host}:{server.port}", flush=True)
    await stop.wait()
    await server.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return 0, or 2 when the address cannot be bound."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.ERROR, format="%(levelname)s %(message)s")
    try:
        asyncio.run(_serve(options.host, options.port))
    except OSError as error:
        reason = _CANNOT_BIND.get(error.errno or 0, f"cannot be bound: {error.strerror or error}")
        print(f"fmi-rendezvous: {options.host}:{options.port} {reason}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
