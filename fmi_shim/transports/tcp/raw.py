"""FMI's Direct channel in the original wire format: raw payload bytes without headers.

A rank of the C++ library may be at the other end. `framed.FramedChannel` adds headers between ranks of this library.
"""

from __future__ import annotations

import socket
from typing import NoReturn

from fmi_shim.backoff import Deadline
from fmi_shim.channel import Schedule
from fmi_shim.config import FRAMED_VARIABLE, DirectConfig
from fmi_shim.errors import ConfigError
from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.pairing.control_connection import SECRET_VARIABLE, read_access
from fmi_shim.transports.tcp import schedules, short_collectives
from fmi_shim.transports.tcp.connections import Connections, Stream
from fmi_shim.transports.tcp.short_messages import Frame, ShortMessages
from fmi_shim.transports.transfers import Transfer, UncheckedMessage, octets, repeatable_unless_moved
from rendezvous.protocol import pair_name


class RawChannel(Connections):
    """Raw messages over direct connections. Implements `Channel`.

    A message is copied once into the kernel and once out of it, and never in between.
    """

    full_duplex = False

    def __init__(self, rank: int, size: int, comm_name: str, config: DirectConfig) -> None:
        super().__init__(rank, size, comm_name, config)
        self._short = ShortMessages(self, size, self._streams, self._pending)

    def _connect(self, peer: int, name: bytes | None, deadline: Deadline) -> socket.socket:
        if read_access().secret:
            raise ConfigError(
                f"raw ranks cannot prove the secret in {SECRET_VARIABLE}: expected the framed mode on all ranks, or "
                f"neither a server nor ranks with a secret; {FRAMED_VARIABLE}=0 given to fmirun by -x starts a server "
                "without one"
            )
        return super()._connect(peer, name, deadline)

    def prepare(self, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
        """Return the schedule of a collective over point-to-point messages."""
        short = short_collectives.prepare(self._short, self.rank, self.size, call, function, combine, False)
        return short or schedules.prepare(self, call, function, combine)

    def begin(self, call: Call, sequence: int) -> None:
        """Start a call, which errors name."""
        self._planned, self.sequence, self._running = call, sequence, None

    def send(self, buffer: Array, dst: int) -> None:
        """Send all of `buffer`, raw."""
        target, message = self._stream(dst, self._name_to(dst)), [octets(buffer)]
        with repeatable_unless_moved(lambda: sum(map(len, message)) == buffer.nbytes):
            self._move(target, message, None, [])

    def recv(self, buffer: Array, src: int) -> Array:
        """Fill `buffer` with raw bytes."""
        source, message = self._stream(src, self._name_from(src)), [octets(buffer)]
        with repeatable_unless_moved(lambda: sum(map(len, message)) == buffer.nbytes):
            self._move(None, [], source, message)
        return buffer

    def recv_new(self, src: int, parts: int | None = None) -> NoReturn:
        """Raise TypeError: raw messages have no type and size."""
        raise TypeError(
            "missing t or array to fill: expected one of them, since only messages of the framed mode carry their type"
        )

    def sendrecv(self, outgoing: Array, dst: int, incoming: Array, src: int) -> None:
        """On the lower rank of a pair receive, then send; on the higher rank send, then receive."""
        # Therefore FMI pairs an exchange under the name higher_lower.
        if dst != src:
            self._open({dst: self._name_to(dst), src: self._name_from(src)})
            self._move(self._streams[dst], [octets(outgoing)], self._streams[src], [octets(incoming)])
        elif self.rank < src:
            self.recv(incoming, src)
            self.send(outgoing, dst)
        else:
            self.send(outgoing, dst)
            self.recv(incoming, src)

    def finish_send(self, frame: Frame, dst: int, sent: int | None) -> None:
        """Send the rest of a short message; see `MessageChannel`."""
        if sent is None:
            self.send(frame.payload, dst)
        else:
            self._move(self._streams[dst], [memoryview(frame.buffer)[sent:]], None, [])

    def finish_receive(self, frame: Frame, src: int, got: int | None) -> None:
        """Receive the rest of a short message; see `MessageChannel`."""
        if got is None:
            self.recv(frame.payload, src)
        elif not got:
            raise self._ended(self._streams[src])
        else:
            self._move(None, [], self._streams[src], [memoryview(frame.buffer)[got:]])

    def finish_exchange(
        self, outgoing: Frame, dst: int, incoming: Frame, src: int, sent: int | None, got: int | None
    ) -> None:
        """Complete an exchange of short messages; see `MessageChannel`. Its bytes are those of `sendrecv`."""
        if sent is None:
            self.sendrecv(outgoing.payload, dst, incoming.payload, src)
        elif sent == outgoing.size:
            self.finish_receive(incoming, src, got)
        else:
            source = self._stream(src, self._name_from(src))
            self._move(self._streams[dst], [memoryview(outgoing.buffer)[sent:]], source, [memoryview(incoming.buffer)])

    def isend(self, buffer: Array, dst: int) -> Transfer[Stream]:
        """Begin to send all of `buffer`, raw. Both ends of a first message must be posted, or neither."""
        return self._post(Transfer(dst, True, lambda stream: UncheckedMessage([octets(buffer)])))

    def irecv(self, buffer: Array | None, src: int) -> Transfer[Stream]:
        """Begin to fill `buffer` with raw bytes. Both ends of a first message must be posted, or neither."""
        if buffer is None:
            return self.recv_new(src)
        return self._post(Transfer(src, False, lambda stream: UncheckedMessage([octets(buffer)], buffer)))

    def _name_to(self, dst: int) -> bytes:
        return pair_name(self.comm_name, self.rank, dst)

    def _name_from(self, src: int) -> bytes:
        return pair_name(self.comm_name, src, self.rank)

    def fail(self, error: BaseException) -> None:
        """Close: without frames the error cannot be sent."""
        self._close_streams()

    def close(self) -> None:
        """Close all connections."""
        self._close_streams()
