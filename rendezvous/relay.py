"""Forwards bytes between two ranks that cannot reach each other, with limits on bandwidth and lifetime."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

from rendezvous.counters import Counters, Refused
from rendezvous.job_state import RelayEndpoint
from rendezvous.limits import Limits

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 17
_BURST_SECONDS = 0.1
"""The burst of a relay with a bandwidth, in seconds of that bandwidth."""


@dataclass(frozen=True, slots=True)
class RelayClient:
    """A relay connection; `ended` is called once it is closed."""

    connection: socket.socket
    ended: Callable[[], None]

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
        self.ended()


class Relays:
    """Joins the two connections of each relayed pair and forwards their bytes.

    Parameters
    ----------
    limits, counters
        The server's.
    """

    def __init__(self, limits: Limits, counters: Counters) -> None:
        self._limits = limits
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[RelayEndpoint, tuple[RelayClient, asyncio.TimerHandle]] = {}
        self._running: set[_Relay] = set()

    def __len__(self) -> int:
        """Return the number of pairs relayed now."""
        return len(self._running)

    def join(self, relay_endpoint: RelayEndpoint, client: RelayClient) -> None:
        """Add one end of a relayed connection. Its bytes wait in the kernel until the other end arrives."""
        former = self._waiting.pop(relay_endpoint, None)
        if former is not None:
            _dismiss(former)
        other = self._waiting.pop(relay_endpoint.other(), None)
        if len(self._running) >= self._limits.relays:
            self._counters.refused[Refused.relay_limit] += 1
            _log.warning("relay refused", extra={"fields": {"relays": len(self._running)}})
            client.close()
            if other is not None:
                _dismiss(other)
        elif other is None:
            timer = self._loop.call_later(self._limits.punching_seconds, self._give_up, relay_endpoint)
            self._waiting[relay_endpoint] = (client, timer)
        else:
            other[1].cancel()
            self._counters.relays += 1
            _log.info("relay started", extra={"fields": {"ranks": sorted((relay_endpoint.rank, relay_endpoint.peer))}})
            self._running.add(_Relay(client, other[0], self._limits, self._counters, self._running.discard))

    def close(self) -> None:
        """End all relayed connections."""
        for waiting in self._waiting.values():
            _dismiss(waiting)
        self._waiting.clear()
        for relay in tuple(self._running):
            relay.close()

    def _give_up(self, relay_endpoint: RelayEndpoint) -> None:
        self._waiting.pop(relay_endpoint)[0].close()


def _dismiss(waiting: tuple[RelayClient, asyncio.TimerHandle]) -> None:
    client, timer = waiting
    timer.cancel()
    client.close()


class _Relay:
    """Two connections and the bytes in transit between them."""

    def __init__(
        self, one: RelayClient, other: RelayClient, limits: Limits, counters: Counters, ended: Callable[[_Relay], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clients = (one, other)
        self._ended = ended
        self._counters = counters
        self._rate = limits.relay_bytes_per_second
        self._budget_until = self._loop.time()
        self._closed = False
        self._lifetime = self._loop.call_later(limits.relay_seconds, self.close)
        self._directions = [
            _Direction(self, one.connection, other.connection),
            _Direction(self, other.connection, one.connection),
        ]

    def moved(self, count: int) -> float:
        """Count forwarded bytes; return how long to pause to keep the bandwidth."""
        self._counters.relayed_bytes += count
        if not self._rate:
            return 0.0
        now = self._loop.time()
        self._budget_until = max(self._budget_until, now - _BURST_SECONDS) + count / self._rate
        return max(0.0, self._budget_until - now)

    def finished(self) -> None:
        """Close if both directions have ended."""
        if all(direction.finished for direction in self._directions):
            self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._lifetime.cancel()
        for direction in self._directions:
            direction.stop()
        for client in self._clients:
            client.close()
        self._ended(self)


class _Direction:
    """Forwards bytes from `source` to `target`, one chunk at a time, so that a slow reader slows the writer down."""

    def __init__(self, relay: _Relay, source: socket.socket, target: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._relay = relay
        self._source = source
        self._target = target
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))
        self._remaining = self._chunk[:0]
        self._pause: asyncio.TimerHandle | None = None
        self._reading_paused = False
        self.finished = False
        self._loop.add_reader(source, self._read)

    def stop(self) -> None:
        """Forward nothing more."""
        self.finished = True
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._target)
        if self._pause is not None:
            self._pause.cancel()

    def _read(self) -> None:
        try:
            count = self._source.recv_into(self._chunk)
        except BlockingIOError:
            return
        except OSError:
            self._relay.close()
            return
        if count == 0:
            self.stop()
            try:
                self._target.shutdown(socket.SHUT_WR)
            except OSError:
                self._relay.close()
            self._relay.finished()
            return
        self._remaining = self._chunk[:count]
        pause = self._relay.moved(count)
        if pause:
            self._pause_reading()
            self._pause = self._loop.call_later(pause, self._write)
        else:
            self._write()

    def _write(self) -> None:
        try:
            sent = self._target.send(self._remaining)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._relay.close()
            return
        self._remaining = self._remaining[sent:]
        if self._remaining:
            self._pause_reading()
            self._loop.add_writer(self._target, self._write)
        elif self._reading_paused:
            self._reading_paused = False
            self._loop.remove_writer(self._target)
            self._loop.add_reader(self._source, self._read)

    def _pause_reading(self) -> None:
        """Pause reading."""
        self._reading_paused = True
        self._loop.remove_reader(self._source)
