"""Short messages of collectives over TCP: one system call to send one, and one to receive it, in memory made before.

The time of a short collective is the interpreter's, and that of caches which other ranks have filled meanwhile. The
general path builds a header, joins it with the payload and cuts it off again for each message. Here a plan has the
frames of all its messages from the beginning, and a call writes its number and its values into them. A receiver blocks
in the kernel. Whatever one send or one receive does not complete is left to the channel: a first message, a full
connection, a message in pieces or of another call, a lost rank, a time limit.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from fmi_shim.operators import Array
from fmi_shim.transports.tcp.connections import Stream
from fmi_shim.transports.transfers import PendingTransfers

SHORT_BYTES = 4096
"""Largest payload. Such messages fit into every socket's buffers, so that both ranks of a pair may send first."""

_NOT_BLOCKING = int(socket.MSG_DONTWAIT)
"""A plain integer: looking a member of an enumeration up takes longer."""

_TRIES = 3
"""How often a rank tries to receive before it blocks in the kernel, if each rank can have a core of its own: at N = 2
an 8-byte allreduce took 37 us instead of 46. If ranks share cores it blocks at once, so that the awaited rank runs: at
N = 4 on 2 cores, beside other programs, in half the time."""

_NUMBER = slice(12, 16)
"""Where a header has the call's number; see `fmi_shim.frames`."""


class Frame:
    """A message to send, or the memory to receive one: a header and a payload in one buffer.

    Parameters
    ----------
    head
        The header, empty in raw mode.
    count, dtype
        Number and type of the payload's elements.

    Attributes
    ----------
    buffer, size
        The buffer and its length in bytes.
    head
        The header in it, by 8 bytes: so it is compared and copied in the least time.
    number
        The number of the call in it, of one element, which must be below 2^32.
    payload
        The payload in it.
    """

    __slots__ = ("buffer", "head", "number", "payload", "size")

    def __init__(self, head: bytes, count: int, dtype: np.dtype[Any]) -> None:
        self.buffer = bytearray(head) + bytes(count * dtype.itemsize)
        self.size = len(self.buffer)
        memory = memoryview(self.buffer)
        self.head = memory[: len(head)].cast("Q")
        self.number = (memory[_NUMBER] if head else memoryview(bytearray(4))).cast("I")
        self.payload: Array = np.frombuffer(self.buffer, dtype, count, len(head))


class MessageChannel(Protocol):
    """A channel that short messages are sent through, with what completes those that the short path does not.

    Attributes
    ----------
    sequence
        The number of the running call.
    """

    sequence: int

    def finish_send(self, frame: Frame, dst: int, sent: int | None) -> None:
        """Send the rest of a message to rank `dst`.

        Parameters
        ----------
        sent
            Bytes that were sent; None where nothing was tried or accepted, or the connection is broken.
        """

    def finish_receive(self, frame: Frame, src: int, got: int | None) -> None:
        """Fill the payload of `frame` with the message of the running call from rank `src`.

        Parameters
        ----------
        got
            Bytes that were received into `frame`, of this message or another one, 0 at the end of the connection; None
            where nothing was received, or the connection is broken.
        """

    def finish_exchange(
        self, outgoing: Frame, dst: int, incoming: Frame, src: int, sent: int | None, got: int | None
    ) -> None:
        """Send the rest of a message, if there is one, while another is received, as the two methods above."""


class ShortMessages:
    """Sends and receives the short messages of a channel.

    Parameters
    ----------
    channel
        The channel.
    size
        Number of ranks.
    streams, pending
        Its connections and posted messages, as they are when a message is sent.
    """

    __slots__ = ("_pending", "_streams", "_tries", "channel")

    def __init__(
        self, channel: MessageChannel, size: int, streams: Mapping[int, Stream], pending: PendingTransfers[Stream]
    ) -> None:
        self.channel = channel
        self._streams = streams
        self._pending = pending
        tries = _TRIES if size <= (os.cpu_count() or 1) else 0
        self._tries = (*[_NOT_BLOCKING] * tries, 0)

    def send(self, frame: Frame, dst: int) -> None:
        """Send `frame` to rank `dst`."""
        stream = self._streams.get(dst)
        sent = None
        if stream is not None and not (self._pending.transfers or stream.ended):
            try:
                sent = stream.send(frame.buffer, _NOT_BLOCKING)
                if sent == frame.size:
                    stream.sent += 1
                    return
            except (BlockingIOError, ConnectionError):
                sent = None  # the next use of a broken connection raises, too
        self.channel.finish_send(frame, dst, sent)

    def receive(self, expected: Frame, incoming: Frame, src: int) -> None:
        """Receive the message of rank `src` into `incoming`. Its header must be that of `expected`."""
        stream = self._streams.get(src)
        got = None
        if stream is not None and not (self._pending.transfers or stream.backlog or stream.ended):
            for flags in self._tries:
                try:
                    got = stream.recv_into(incoming.buffer, 0, flags)
                except BlockingIOError:
                    if flags:
                        os.sched_yield()
                    continue
                except ConnectionError:
                    break
                if got == incoming.size and incoming.head == expected.head:
                    stream.received += 1
                    return
                break
        self.channel.finish_receive(incoming, src, got)
        incoming.head[:] = expected.head

    def exchange(self, outgoing: Frame, incoming: Frame, peer: int) -> None:
        """Send `outgoing` to rank `peer`, and receive a message with the same header from it into `incoming`.

        The statements of `shift` and `receive` are here once more: calling them takes a tenth of the time.
        """
        stream = self._streams.get(peer)
        sent = got = None
        if stream is not None and not (self._pending.transfers or stream.backlog or stream.ended):
            try:
                sent = stream.send(outgoing.buffer, _NOT_BLOCKING)
                for flags in self._tries if sent == outgoing.size else ():
                    try:
                        got = stream.recv_into(incoming.buffer, 0, flags)
                        break
                    except BlockingIOError:
                        if flags:
                            os.sched_yield()
                if got == outgoing.size and incoming.head == outgoing.head:
                    stream.sent += 1
                    stream.received += 1
                    return
            except (BlockingIOError, ConnectionError):
                got = None
        self.channel.finish_exchange(outgoing, peer, incoming, peer, sent, got)

    def shift(self, outgoing: Frame, dst: int, incoming: Frame, src: int) -> None:
        """Send `outgoing` to rank `dst`, and receive a message with the same header from rank `src`."""
        stream = self._streams.get(dst)
        sent = None
        if stream is not None and not (self._pending.transfers or stream.ended):
            try:
                sent = stream.send(outgoing.buffer, _NOT_BLOCKING)
            except (BlockingIOError, ConnectionError):
                sent = None
            if sent == outgoing.size:
                stream.sent += 1
                self.receive(outgoing, incoming, src)
                return
        self.channel.finish_exchange(outgoing, dst, incoming, src, sent, None)
