"""FMI's Direct channel in the original wire format: raw payload bytes and nothing else.

A rank of the C++ library may be at the other end. `framed.FramedChannel` adds headers between ranks of ours.
"""

from __future__ import annotations

from fmi_shim.channels.connections import Connections
from fmi_shim.channels.stream import octets
from fmi_shim.frames import Call
from fmi_shim.operators import Array
from rendezvous.protocol import pair_name


class DirectChannel(Connections):
    """Raw messages over direct connections. Implements `Channel`.

    A message is copied once into the kernel and once out of it, and never in between.
    """

    full_duplex = False

    def begin(self, call: Call) -> None:
        """Remember the call, for the errors."""
        self._call = call

    def send(self, buffer: Array, dst: int) -> None:
        """Send all of `buffer`, raw."""
        stream = self._stream(dst, pair_name(self.comm_name, self.rank, dst))
        self._move(stream, [octets(buffer)], None, [])

    def recv(self, buffer: Array, src: int) -> None:
        """Fill `buffer` with as many raw bytes."""
        stream = self._stream(src, pair_name(self.comm_name, src, self.rank))
        self._move(None, [], stream, [octets(buffer)])

    def recv_new(self, src: int, parts: int | None = None) -> Array:
        """Refuse: raw bytes do not tell what they are."""
        raise TypeError(
            "without a header (framed mode) a message does not tell its type: give fmi.types, or an array to fill"
        )

    def sendrecv(self, outgoing: Array, incoming: Array, peer: int) -> None:
        """Receive, then send, at the lower rank; the other way round at the higher one."""
        # This is also why FMI pairs an exchange under higher_lower.
        if self.rank < peer:
            self.recv(incoming, peer)
            self.send(outgoing, peer)
        else:
            self.send(outgoing, peer)
            self.recv(incoming, peer)

    def fail(self, error: BaseException) -> None:
        """Close: without frames there is no way to tell why."""
        self._close_streams()

    def close(self) -> None:
        """Close all connections."""
        self._close_streams()
