"""FMI's Direct channel in the original wire format: raw payload bytes and nothing else.

A rank of the C++ library may be at the other end. `framed.FramedChannel` adds headers between ranks of ours.
"""

from __future__ import annotations

from fmi_shim.channel import Schedule
from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.transports.tcp import schedules
from fmi_shim.transports.tcp.connections import Connections, Stream
from fmi_shim.transports.transfers import Transfer, octets
from rendezvous.protocol import pair_name


class RawChannel(Connections):
    """Raw messages over direct connections. Implements `Channel`.

    A message is copied once into the kernel and once out of it, and never in between.
    """

    full_duplex = False

    def prepare(self, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
        """Return the schedule of a collective over point-to-point messages."""
        return schedules.prepare(self, call, function, combine)

    def begin(self, call: Call, sequence: int) -> None:
        """Remember the call, for the errors."""
        self._call = call.numbered(sequence)

    def send(self, buffer: Array, dst: int) -> None:
        """Send all of `buffer`, raw."""
        self._move(self._stream(dst, self._name_to(dst)), [octets(buffer)], None, [])

    def recv(self, buffer: Array, src: int) -> None:
        """Fill `buffer` with as many raw bytes."""
        self._move(None, [], self._stream(src, self._name_from(src)), [octets(buffer)])

    def recv_new(self, src: int, parts: int | None = None) -> Array:
        """Refuse: raw bytes do not tell what they are."""
        raise TypeError(
            "without a header (framed mode) a message does not tell its type: give fmi.types, or an array to fill"
        )

    def sendrecv(self, outgoing: Array, dst: int, incoming: Array, src: int) -> None:
        """Receive, then send, at the lower rank of a pair; the other way round at the higher one."""
        # This is also why FMI pairs an exchange under higher_lower.
        if dst != src:
            self._open({dst: self._name_to(dst), src: self._name_from(src)})
            self._move(self._streams[dst], [octets(outgoing)], self._streams[src], [octets(incoming)])
        elif self.rank < src:
            self.recv(incoming, src)
            self.send(outgoing, dst)
        else:
            self.send(outgoing, dst)
            self.recv(incoming, src)

    def isend(self, buffer: Array, dst: int) -> Transfer[Stream]:
        """Begin to send all of `buffer`, raw. Both ends of a first message must be posted, or neither."""
        return self._post(Transfer(dst, True, lambda stream: ([octets(buffer)], None)))

    def irecv(self, buffer: Array, src: int) -> Transfer[Stream]:
        """Begin to fill `buffer` with as many raw bytes. Both ends of a first message must be posted, or neither."""
        return self._post(Transfer(src, False, lambda stream: ([octets(buffer)], None)))

    def _name_to(self, dst: int) -> bytes:
        return pair_name(self.comm_name, self.rank, dst)

    def _name_from(self, src: int) -> bytes:
        return pair_name(self.comm_name, src, self.rank)

    def fail(self, error: BaseException) -> None:
        """Close: without frames there is no way to tell why."""
        self._close_streams()

    def close(self) -> None:
        """Close all connections."""
        self._close_streams()
