"""``/health`` and ``/metrics`` over HTTP, on a separate port."""

from __future__ import annotations

from aiohttp import web

from rendezvous import metrics
from rendezvous.server import RendezvousServer


class HealthEndpoint:
    """Answers ``GET /health`` (200, or 503 while draining) and ``GET /metrics``.

    Parameters
    ----------
    server
        The server to report on.
    host, port
        Address to bind to; port 0 takes a free one, which `port` then contains.
    """

    def __init__(self, server: RendezvousServer, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._server = server
        app = web.Application()
        app.add_routes([web.get("/health", self._health), web.get("/metrics", self._metrics)])
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Bind and listen.

        Raises
        ------
        OSError
            If the address cannot be bound.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.host, self.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.host, self.port = self._runner.addresses[0][:2]

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response(metrics.health(self._server), status=503 if self._server.draining else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=metrics.prometheus_text(self._server), headers={"Content-Type": metrics.CONTENT_TYPE})
