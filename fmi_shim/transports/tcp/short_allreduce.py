"""An allreduce of a short payload over TCP: recursive doubling in the buffers that are sent and received.

The time of a short allreduce is the interpreter's. The general algorithm builds a header, joins it with the payload and
cuts it off again in each round. Here header and payload are in one buffer, in which the result is computed: a round is
one send, one receive, one comparison of headers and one combination.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np

from fmi_shim.channel import Schedule
from fmi_shim.frames import Call, Operation, write_sequence
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.transports.tcp.connections import Stream
from fmi_shim.transports.transfers import PendingTransfers

SHORT_BYTES = 4096
"""Largest payload. Such messages fit into every socket's buffers, so that both ranks of a pair may send first."""

_TRIES = 3
"""How often a rank tries to receive before it blocks in the kernel, if each rank can have a core of its own: at N = 2
an 8-byte allreduce took 37 us instead of 46. If ranks share cores it blocks at once, so that the awaited rank runs: at
N = 4 on 2 cores, beside other programs, in half the time."""


class Exchange:
    """The message that is sent in a round, and the one that is expected: each a header and a payload in one buffer.

    Parameters
    ----------
    head
        The header of the call's messages, empty in raw mode.
    count, dtype
        Number and type of the payload's elements.

    Attributes
    ----------
    outgoing, incoming
        The buffers.
    result, received
        The payloads in them.
    """

    __slots__ = ("_head_bytes", "incoming", "outgoing", "received", "result")

    def __init__(self, head: bytes, count: int, dtype: np.dtype[Any]) -> None:
        self._head_bytes = len(head)
        self.outgoing = bytearray(head) + bytes(count * dtype.itemsize)
        self.incoming = bytearray(len(self.outgoing))
        self.result: Array = np.frombuffer(self.outgoing, dtype, count, len(head))
        self.received: Array = np.frombuffer(self.incoming, dtype, count, len(head))

    def begin(self, value: Array, sequence: int) -> None:
        """Write the payload and the number of the call."""
        if self._head_bytes:
            write_sequence(self.outgoing, sequence)
        self.result[...] = value

    @property
    def is_expected(self) -> bool:
        """Whether the received header is the sent one."""
        return self.incoming[: self._head_bytes] == self.outgoing[: self._head_bytes]


class ShortChannel(Protocol):
    """A channel that short messages are sent through.

    Attributes
    ----------
    rank, size
        This rank and the number of ranks.
    sequence
        The number of the running call.
    """

    rank: int
    size: int
    sequence: int

    def finish_exchange(self, exchange: Exchange, peer: int, sent: int | None, got: int | None) -> None:
        """Complete an exchange with rank `peer` that one send and one receive did not complete.

        Parameters
        ----------
        exchange
            The messages.
        peer
            The other rank.
        sent, got
            Bytes sent and received so far; None where nothing was tried or accepted, or the connection is broken.
        """


def prepare(
    channel: ShortChannel,
    streams: Mapping[int, Stream],
    pending: PendingTransfers[Stream],
    call: Call,
    head: bytes,
    function: ReduceFunction | None,
    combine: Combine | None,
) -> Schedule | None:
    """Return the schedule of a short allreduce or barrier among 2^k ranks; None for other calls.

    Parameters
    ----------
    channel
        The channel.
    streams, pending
        Its connections and posted messages, as they are when the schedule runs.
    call, function, combine
        See `Channel.prepare`.
    head
        The header of the call's messages.
    """
    if channel.size & (channel.size - 1) or call.dtype is None or call.count * call.dtype.itemsize > SHORT_BYTES:
        return None
    if call.operation is Operation.allreduce and function is not None and not function.left_to_right:
        return ShortAllreduce(channel, streams, pending, Exchange(head, call.count, call.dtype), combine)
    if call.operation is Operation.barrier:
        byte = np.ones(call.count, call.dtype)
        exchange = Exchange(head, call.count, call.dtype)
        return partial(ShortAllreduce(channel, streams, pending, exchange, None), byte, byte)
    return None


class ShortAllreduce:
    """The schedule of an allreduce; a barrier combines nothing.

    Copies: the value into the buffer, and the result out of it. Messages and the order of combinations are those of
    `allreduce.recursive_doubling`.
    """

    __slots__ = ("_channel", "_combine", "_exchange", "_flags", "_peers", "_pending", "_streams")

    def __init__(
        self,
        channel: ShortChannel,
        streams: Mapping[int, Stream],
        pending: PendingTransfers[Stream],
        exchange: Exchange,
        combine: Combine | None,
    ) -> None:
        self._channel = channel
        self._streams = streams
        self._pending = pending
        self._exchange = exchange
        self._combine = combine
        self._peers = [channel.rank ^ 1 << bit for bit in range(channel.size.bit_length() - 1)]
        tries = _TRIES if channel.size <= (os.cpu_count() or 1) else 0
        self._flags = (*[socket.MSG_DONTWAIT] * tries, 0)

    def __call__(self, value: Array, spare: Array | None) -> Array:
        """Return the result in `spare`, or in new memory where that is None."""
        exchange, combine, posted = self._exchange, self._combine, self._pending.transfers
        outgoing, incoming, result, received = exchange.outgoing, exchange.incoming, exchange.result, exchange.received
        whole = len(outgoing)
        exchange.begin(value, self._channel.sequence)
        for peer in self._peers:
            sent = got = None
            is_done = False
            stream = self._streams.get(peer)
            if stream is not None and not (posted or stream.backlog or stream.ended):
                try:
                    sent = stream.send(outgoing, socket.MSG_DONTWAIT)
                    for flags in self._flags if sent == whole else ():
                        try:
                            got = stream.recv_into(incoming, 0, flags)
                            break
                        except BlockingIOError:
                            os.sched_yield()
                except (BlockingIOError, ConnectionError):  # the next use of a broken connection raises, too
                    pass
                if got == whole and exchange.is_expected:
                    stream.sent += 1
                    stream.received += 1
                    is_done = True
            if not is_done:
                self._channel.finish_exchange(exchange, peer, sent, got)
            if combine is not None:
                combine(result, received, result)
        if spare is None:
            return result.copy()
        spare[...] = result
        return spare
