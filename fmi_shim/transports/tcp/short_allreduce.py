"""An allreduce of a short payload over TCP: recursive doubling in the buffers that are sent and received.

The time of a short allreduce is the interpreter's. The general algorithm builds a header, joins it with the payload and
cuts it off again in each round. Here header and payload are in one buffer, in which the result is computed: a round is
one send, one receive, one comparison of headers and one combination.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import numpy as np

from fmi_shim.channel import Schedule
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array, Combine, ReduceFunction

SHORT_BYTES = 4096
"""Largest payload. Such messages fit into every socket's buffers, so that both ranks of a pair may send first."""


class ShortChannel(Protocol):
    """A channel with connections that short messages are sent through at once."""

    rank: int
    size: int

    def short_head(self, length: int) -> bytes:
        """Return the header of a message of the running call, empty in raw mode."""

    def exchange_short(
        self, peer: int, head: bytes, outgoing: bytearray, incoming: bytearray, result: Array, received: Array
    ) -> None:
        """Send `outgoing` to rank `peer` and fill `incoming` with its message.

        Both hold `head` and the payload, which `result` and `received` are views of.
        """


def prepare(
    channel: ShortChannel, call: Call, function: ReduceFunction | None, combine: Combine | None, head_bytes: int
) -> Schedule | None:
    """Return the schedule of a short allreduce or barrier among 2^k ranks; None for other calls.

    Parameters
    ----------
    channel
        The channel.
    call, function, combine
        See `Channel.prepare`.
    head_bytes
        Length of the header of the call's messages.
    """
    if channel.size & (channel.size - 1) or call.dtype is None:
        return None
    if call.operation is Operation.barrier:
        byte = np.ones(1, np.uint8)
        return partial(ShortAllreduce(channel, byte.size, byte.dtype, None, head_bytes), byte, byte)
    is_short = call.count * call.dtype.itemsize <= SHORT_BYTES
    if call.operation is not Operation.allreduce or function is None or function.left_to_right or not is_short:
        return None
    return ShortAllreduce(channel, call.count, call.dtype, combine, head_bytes)


class ShortAllreduce:
    """The schedule of an allreduce; a barrier combines nothing.

    Copies: the value into the buffer, and the result out of it. Messages: those of `allreduce.recursive_doubling`,
    whose order of combinations it has, too.
    """

    __slots__ = ("_channel", "_combine", "_head_bytes", "_incoming", "_outgoing", "_peers", "_received", "_result")

    def __init__(
        self, channel: ShortChannel, count: int, dtype: np.dtype[np.generic], combine: Combine | None, head_bytes: int
    ) -> None:
        self._channel = channel
        self._combine = combine
        self._head_bytes = head_bytes
        self._peers = [channel.rank ^ 1 << bit for bit in range(channel.size.bit_length() - 1)]
        self._outgoing = bytearray(head_bytes + count * dtype.itemsize)
        self._incoming = bytearray(len(self._outgoing))
        self._result: Array = np.frombuffer(self._outgoing, dtype, count, head_bytes)
        self._received: Array = np.frombuffer(self._incoming, dtype, count, head_bytes)

    def __call__(self, value: Array, spare: Array | None) -> Array:
        """Return the result in `spare`, or in new memory where that is None."""
        channel, combine, outgoing, result, received = (
            self._channel,
            self._combine,
            self._outgoing,
            self._result,
            self._received,
        )
        head = channel.short_head(result.nbytes)
        outgoing[: self._head_bytes] = head
        result[...] = value
        for peer in self._peers:
            channel.exchange_short(peer, head, outgoing, self._incoming, result, received)
            if combine is not None:
                combine(result, received, result)
        if spare is None:
            return result.copy()
        spare[...] = result
        return spare
