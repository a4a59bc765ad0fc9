"""A server's counters as Prometheus metrics and as JSON for a health check."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from rendezvous.counters import Refused
from rendezvous.server import RendezvousServer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServerCollector:
    """Reads a server's counters on each scrape, so that counting costs the server one addition."""

    def __init__(self, server: RendezvousServer) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        server, counters, extension = self._server, self._server.counters, self._server.extension
        yield _gauge("connections", "Open connections", server.connections)
        yield _gauge("waiting_clients", "TCPunch clients that wait for a partner", len(server.registry))
        yield _gauge("resumable_waits", "Waits of TCPunch clients whose connection broke", server.registry.remembered)
        yield _gauge("ranks", "Ranks registered over the extension", len(extension.jobs))
        yield _gauge("jobs", "Jobs with a registered rank", extension.jobs.count)
        yield _gauge("running_relays", "Pairs relayed now", len(extension.relays))
        yield _gauge("draining", "1 while the server accepts no new connections", int(server.draining))
        yield _counter("accepted_connections", "Connections accepted", counters.connections)
        yield _counter("pairings", "Pairs of TCPunch clients", counters.pairings)
        yield _counter("introductions", "Introductions sent to ranks over the extension", counters.introductions)
        yield _counter("timeouts", "Clients whose partner did not connect in time", counters.timeouts)
        yield _counter("evicted_waits", "Resumable waits ended before their time, for a limit", counters.evicted)
        yield _counter("aborts", "Aborts of ranks, forwarded", counters.aborts)
        yield _counter("relays", "Pairs relayed", counters.relays)
        yield _counter("relayed_bytes", "Bytes relayed, both directions", counters.relayed_bytes)
        refused = CounterMetricFamily("fmi_rendezvous_refused", "Connections closed, by reason", labels=["reason"])
        for reason in Refused:
            refused.add_metric([reason.value], counters.refused[reason])
        yield refused


def prometheus_text(server: RendezvousServer) -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(ServerCollector(server))
    return generate_latest(registry)


def health(server: RendezvousServer) -> dict[str, str | int]:
    """Return the health report: a status, and counts without names or addresses."""
    return {
        "status": "draining" if server.draining else "ok",
        "connections": server.connections,
        "waiting": server.waiting,
        "pairings": server.counters.pairings,
        "introductions": server.counters.introductions,
        "relays": len(server.extension.relays),
    }


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"fmi_rendezvous_{name}", help_text, value=value)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(f"fmi_rendezvous_{name}", help_text, value=value)
