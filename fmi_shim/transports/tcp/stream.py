"""A TCP connection to one rank, and messages on their way through it."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Sequence

import numpy as np

from fmi_shim.frames import HEADER_BYTES
from fmi_shim.operators import Array

Buffers = list[memoryview]
"""Bytes that are still to be moved, see `advance`."""

_DRAIN_BYTES = 1 << 16
_DRAIN_READS = 64

_TCP_INFO = struct.Struct("=24xI116xI")
"""``tcpi_unacked`` and ``tcpi_notsent_bytes`` of struct tcp_info (include/uapi/linux/tcp.h)."""


class Stream:
    """A non-blocking connection to rank `peer`.

    Attributes
    ----------
    peer
        Rank at the other end.
    descriptor
        The socket's file descriptor.
    backlog
        What was read ahead when the other end closed; it comes before anything from the socket.
    ended
        Whether the other end closed and everything it sent is in `backlog`.
    in_message
        Whether a message was begun and not sent to its end, so that nothing else may be sent.
    sent, received
        Number of messages that were begun to be sent, and of those that have come whole, in framed mode.
    """

    __slots__ = ("backlog", "descriptor", "ended", "in_message", "peer", "received", "sent", "socket")

    def __init__(self, connection: socket.socket, peer: int) -> None:
        self.socket = connection
        self.peer = peer
        self.descriptor = connection.fileno()
        self.backlog = memoryview(b"")
        self.ended = False
        self.in_message = False
        self.sent = 0
        self.received = 0

    def read_into(self, buffers: Sequence[memoryview]) -> int:
        """Fill `buffers` with what is there; return the number of bytes, 0 at the end of the stream.

        Raises
        ------
        BlockingIOError
            If nothing is there yet.
        ConnectionError
            If the connection broke.
        """
        if not self.ended and not self.backlog:
            return self.socket.recvmsg_into(buffers)[0]
        taken = 0
        for buffer in buffers:
            part = self.backlog[: len(buffer)]
            buffer[: len(part)] = part
            self.backlog = self.backlog[len(part) :]
            taken += len(part)
        return taken

    def push_back(self, data: bytes) -> None:
        """Have `data`, which was read too early, read again."""
        self.backlog = memoryview(data + bytes(self.backlog))

    def coming(self) -> tuple[bytes, int]:
        """Return the first bytes that wait to be read, at most a header's, and how many there are in all."""
        try:
            first = self.socket.recv(HEADER_BYTES, socket.MSG_PEEK)
        except OSError:  # nothing there, or broken, which the next use will tell
            return b"", 0
        count = fcntl.ioctl(self.descriptor, termios.FIONREAD, bytes(4))
        return first, int.from_bytes(count, sys.byteorder)

    @property
    def stuck(self) -> bool:
        """Whether the peer has acknowledged what it could take, and takes no more; False where that is not known."""
        if sys.platform != "linux":
            return False
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        if len(info) < _TCP_INFO.size:
            return False
        on_the_way, unsent = _TCP_INFO.unpack(info)
        return bool(on_the_way == 0 and unsent > 0)

    def drain(self) -> None:
        """Read everything up to the end, or until nothing more is there, into the backlog."""
        collected = bytearray(self.backlog)
        try:
            while data := self.socket.recv(_DRAIN_BYTES):
                collected += data
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True  # reset: what was queued before it has been read
        self.backlog = memoryview(bytes(collected))

    def close(self) -> None:
        """Close without resetting: unread bytes would make the kernel discard what was sent last.

        After half a message there is no last word to be saved, and a rank that still sends must not be led to
        believe that it is heard.
        """
        try:
            self.socket.shutdown(socket.SHUT_WR)
            for _ in range(0 if self.in_message else _DRAIN_READS):
                if not self.socket.recv(_DRAIN_BYTES):
                    break
        except OSError:
            pass  # nothing more to read, or gone already: closing is all that is left
        self.socket.close()


def octets(buffer: Array) -> memoryview:
    """Return the bytes of a C-contiguous array, sharing its memory."""
    return buffer.reshape(-1).view(np.uint8).data


def advance(buffers: Buffers, moved: int) -> None:
    """Drop the first `moved` bytes from `buffers`."""
    while buffers and moved >= len(buffers[0]):
        moved -= len(buffers[0])
        del buffers[0]
    if moved:
        buffers[0] = buffers[0][moved:]
