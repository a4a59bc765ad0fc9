"""Direct TCP connections, one a pair of ranks, opened at its first message; no notion of what is sent."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable

from fmi_shim import pairing
from fmi_shim.channels.stream import Buffers, Stream, advance
from fmi_shim.channels.watch import Watch
from fmi_shim.config import DirectConfig
from fmi_shim.errors import FmiError, PeerLostError, PeerTimeoutError
from fmi_shim.frames import Call
from fmi_shim.handshake import Hello
from rendezvous.protocol import Endpoint

_YIELDS = 5
"""How often a transfer offers the processor to others and looks again before it sleeps. Where ranks share cores, the
awaited one then runs at once: an 8-byte allreduce at N = 4 on 2 cores took 0.18 ms instead of 0.30 ms."""


class Connections:
    """Direct connections to other ranks, and bytes moved through them.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    comm_name
        Name of the communicator, the same on all ranks.
    config
        The rendezvous server and the longest wait.
    """

    _call: Call  # the running one, for the errors

    def __init__(self, rank: int, size: int, comm_name: str, config: DirectConfig) -> None:
        self.rank = rank
        self.size = size
        self.comm_name = comm_name
        self._server = Endpoint(config.host, config.port)
        self._max_timeout = config.max_timeout
        self._streams: dict[int, Stream] = {}
        self._by_descriptor: dict[int, Stream] = {}
        self._watch = Watch(self._hung_up)
        self._process = os.getpid()

    def _hello(self, peer: int) -> Hello | None:
        return None

    def _stream(self, peer: int, name: bytes) -> Stream:
        """Return the connection to `peer`, opened now if there is none."""
        stream = self._streams.get(peer)
        if stream is None:
            stream = Stream(self._connect(peer, name), peer)
            self._streams[peer] = stream
            self._by_descriptor[stream.descriptor] = stream
        return stream

    def _connect(self, peer: int, name: bytes) -> socket.socket:
        appointment = pairing.Appointment(self._server, name, peer, self._purpose, self._hello(peer), self._max_timeout)
        return pairing.connect(appointment, self._watch.wait)

    def _move(
        self,
        target: Stream | None,
        outgoing: Buffers,
        source: Stream | None,
        incoming: Buffers,
        on_received: Callable[[int], None] | None = None,
    ) -> None:
        """Send and receive at the same time until both lists of buffers are used up.

        `on_received` is told the number of bytes after every successful read.
        """
        yields = 0
        advance(incoming, 0)
        while outgoing or incoming:
            interest: dict[int, int] = {}
            if target is not None and outgoing:
                try:
                    advance(outgoing, target.socket.sendmsg(outgoing))
                except BlockingIOError:
                    interest[target.descriptor] = select.POLLOUT
                except ConnectionError:
                    raise self._broken(target) from None
                else:
                    target.in_message = bool(outgoing)
            if source is not None and incoming:
                try:
                    received = source.read_into(incoming)
                except BlockingIOError:
                    interest[source.descriptor] = interest.get(source.descriptor, 0) | select.POLLIN
                except ConnectionError:
                    raise self._broken(source) from None
                else:
                    if received == 0:
                        raise self._ended(source)
                    interest.clear()  # there may be more
                    advance(incoming, received)
                    if on_received is not None:
                        on_received(received)
            if not interest:
                continue
            if yields < _YIELDS:
                yields += 1
                os.sched_yield()
            else:
                self._wait(interest)

    def _wait(self, interest: dict[int, int]) -> None:
        if not self._watch.wait(list(interest.items()), self._max_timeout):
            peers = " and ".join(f"rank {self._by_descriptor[descriptor].peer}" for descriptor in interest)
            raise PeerTimeoutError(
                f"{self._purpose}: nothing came from or went to {peers} for {self._max_timeout:g} s: it is late, "
                "stopped, or in another call; raise backends.Direct.max_timeout (ms, 0 for ever) if it needs longer",
                origin=self._by_descriptor[next(iter(interest))].peer,
            )

    @property
    def _purpose(self) -> str:
        return f"rank {self.rank} in {self._call}"

    def _ended(self, stream: Stream) -> FmiError:
        """Return the error for a stream that ended where a message was expected."""
        return PeerLostError(
            f"{self._purpose}: lost rank {stream.peer}, whose connection was closed: its process ended or failed",
            origin=stream.peer,
        )

    def _broken(self, stream: Stream) -> FmiError:
        """Return the error for a connection that broke in the middle of a transfer."""
        return self._ended(stream)

    def _hung_up(self, descriptor: int) -> None:
        """Ignore the end of a connection that is not waited for: a C++ rank leaves without a word."""

    def _close_streams(self) -> None:
        inherited = os.getpid() != self._process
        for stream in self._streams.values():
            self._watch.remove(stream.descriptor)
            if inherited:
                stream.socket.close()  # a forked child must not end its parent's connections
            else:
                stream.close()
        self._streams.clear()
        self._by_descriptor.clear()
