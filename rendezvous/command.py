"""``fmi-rendezvous``: the rendezvous server as a program."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import signal
import sys
from collections.abc import Awaitable, Callable

from rendezvous.health import HealthEndpoint
from rendezvous.json_log import JsonFormatter
from rendezvous.nonblocking_stream import NonBlockingStream
from rendezvous.options import OptionError, Options, parse
from rendezvous.server import RendezvousServer

_CANNOT_BIND = {
    errno.EADDRINUSE: "is in use: stop the other server or choose another --{what}port",
    errno.EACCES: "needs privileges: choose a --{what}port above 1023",
    errno.EADDRNOTAVAIL: "is not an address of this machine: choose another --{what}host",
}


class _BindError(Exception):
    """An address cannot be bound."""


async def _serve(options: Options) -> None:
    stop = asyncio.Event()
    stop_now = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(immediately: bool) -> None:
        if immediately or stop.is_set():
            stop_now.set()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, on_signal, False)
    loop.add_signal_handler(signal.SIGINT, on_signal, True)
    server = RendezvousServer(options.host, options.port, limits=options.limits, secret=options.secret, tls=options.tls)
    health = HealthEndpoint(server, options.health_host, options.health_port)
    await _bind(server.start, options.host, options.port, what="")
    try:
        await _bind(health.start, options.health_host, options.health_port, what="health-")
        print(f"fmi-rendezvous listens on {server.host}:{server.port}")
        health_host = f"[{health.host}]" if ":" in health.host else health.host
        print(f"health and metrics are on http://{health_host}:{health.port}", flush=True)
        await stop.wait()
        draining = loop.create_task(server.drain(options.drain_seconds))
        stopping_now = loop.create_task(stop_now.wait())
        await asyncio.wait([draining, stopping_now], return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        stopping_now.cancel()
        await asyncio.gather(draining, stopping_now, return_exceptions=True)
    finally:
        await health.close()
        await server.close()


async def _bind(start: Callable[[], Awaitable[None]], host: str, port: int, what: str) -> None:
    try:
        await start()
    except OSError as error:
        reason = _CANNOT_BIND.get(error.errno or 0, f"cannot be bound: {error.strerror or error}")
        raise _BindError(f"{host}:{port} {reason.format(what=what)}") from error


def _log_to_stderr(level: str) -> NonBlockingStream:
    # The server's loop is in the main thread.
    stream = NonBlockingStream(sys.stderr, may_block=lambda: False)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    return stream


def _raise_descriptor_limit() -> None:
    """Raise the descriptor limit as far as permitted: each client needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS says "unlimited" and means less
            logging.getLogger(__name__).info("descriptor limit stays", extra={"fields": {"limit": soft}})


def run() -> int:
    """Serve until SIGINT or SIGTERM; return 0, or 2 if the options are invalid or an address cannot be bound."""
    try:
        options = parse()
        log = _log_to_stderr(options.log_level)
        _raise_descriptor_limit()
        try:
            asyncio.run(_serve(options))
        finally:
            log.close()
    except (OptionError, _BindError) as error:
        print(f"fmi-rendezvous: {error}", file=sys.stderr)
        return 2
    return 0
