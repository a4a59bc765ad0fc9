"""Direct TCP connections, one for each pair of ranks, opened at its first message, and the transfer of bytes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from fmi_shim import injection
from fmi_shim.backoff import Deadline, raise_limit
from fmi_shim.channel import Pending
from fmi_shim.config import DirectConfig
from fmi_shim.errors import FmiError, PeerLostError, PeerTimeoutError
from fmi_shim.frames import HEADER_BYTES, Call
from fmi_shim.pairing import tcpunch
from fmi_shim.pairing.handshake import PeerHello
from fmi_shim.pairing.rendezvous_client import deadlock_report_seconds
from fmi_shim.pairing.sockets import Poller
from fmi_shim.transports.tcp.shaped_link import shaped
from fmi_shim.transports.transfers import Buffers, OnReceived, PendingTransfers, Transfer, advance
from rendezvous.protocol import Endpoint, pair_name

T = TypeVar("T")

_DRAIN_BYTES = 1 << 16
_DRAIN_READS = 64

_TCP_INFO = struct.Struct("=24xI116xI")
"""``tcpi_unacked`` and ``tcpi_notsent_bytes`` of struct tcp_info (include/uapi/linux/tcp.h)."""

_RECEIVE_TIMEOUT = struct.pack("@ll", 0, 20_000)
"""``struct timeval`` of SO_RCVTIMEO: a rank that waits for one message notices after this time what else happened."""

_YIELDS = 5
"""How often a transfer yields the processor and retries before it sleeps. If ranks share cores, the awaited rank then
runs at once: an 8-byte allreduce at N = 4 on 2 cores took 0.18 ms instead of 0.30 ms."""

_LIGHT_BYTES = 1 << 18
"""A wait for a longer message sleeps at once. A rank that yields the processor yields it to other programs, too; a rank
that is woken is scheduled first: beside a load an allreduce took 0.7 to 0.9 of the time, and as long without one."""

_ATTEMPT_SECONDS = 2.0
"""If several connections are to be opened, each is attempted for this time before the next one."""

_REPORT_PAUSE_SECONDS = 1.0
"""A rank that has waited for `deadlock_report_seconds` reports its wait again after this time."""


def yields_spent(message: memoryview) -> int:
    """Return how many of `_YIELDS` a transfer of `message` skips: none, or all."""
    return 0 if len(message) <= _LIGHT_BYTES else _YIELDS


class Stream:
    """A non-blocking connection to rank `peer`.

    Attributes
    ----------
    peer
        Rank at the other end.
    descriptor
        The socket's file descriptor.
    send, recv_into
        The socket's methods: short messages look them up often.
    backlog
        Bytes that were read ahead when the other end closed; they precede anything from the socket.
    ended
        Whether the other end closed and everything it sent is in `backlog`.
    in_message
        Whether a message is partly sent, so that nothing else may be sent.
    sent, received
        In framed mode, the number of messages whose sending has begun, and of those completely received.
    notice
        The peer's notice that it waits for this rank: its call, how many messages it had received, and `received` when
        the notice arrived.
    notified
        `received` when the peer was last notified that this rank waits for it.
    """

    __slots__ = (
        "backlog",
        "descriptor",
        "ended",
        "in_message",
        "notice",
        "notified",
        "peer",
        "received",
        "recv_into",
        "send",
        "sent",
        "socket",
    )

    def __init__(self, connection: socket.socket, peer: int) -> None:
        # Receiving blocks in the kernel, with a time limit; all else says MSG_DONTWAIT.
        connection.setblocking(True)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)
        self.socket = connection
        self.send = connection.send
        self.recv_into = connection.recv_into
        self.peer = peer
        self.descriptor = connection.fileno()
        self.backlog = memoryview(b"")
        self.ended = False
        self.in_message = False
        self.sent = 0
        self.received = 0
        self.notice: tuple[Call, int, int] | None = None
        self.notified = -1

    def read_into(self, buffers: Sequence[memoryview]) -> int:
        """Fill `buffers` with the available bytes; return their number, 0 at the end of the stream.

        Raises
        ------
        BlockingIOError
            If no byte is available yet.
        ConnectionError
            If the connection broke.
        """
        if not self.ended and not self.backlog:
            return self.socket.recvmsg_into(buffers, 0, socket.MSG_DONTWAIT)[0]
        taken = 0
        for buffer in buffers:
            part = self.backlog[: len(buffer)]
            buffer[: len(part)] = part
            self.backlog = self.backlog[len(part) :]
            taken += len(part)
        return taken

    def push_back(self, data: bytes) -> None:
        """Return `data`, which was read too early, to the front of the stream."""
        self.backlog = memoryview(data + bytes(self.backlog))

    def peek(self) -> tuple[bytes, int]:
        """Return the first unread bytes, at most a header, and the number of all unread bytes."""
        try:
            first = self.socket.recv(HEADER_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:  # no data, or broken: then the next use raises
            return b"", 0
        count = fcntl.ioctl(self.descriptor, termios.FIONREAD, bytes(4))
        return first, int.from_bytes(count, sys.byteorder)

    @property
    def is_blocked(self) -> bool:
        """Whether the peer acknowledged all that it accepted, and accepts no more; False where that is unknown."""
        if sys.platform != "linux":
            return False
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        if len(info) < _TCP_INFO.size:
            return False
        unacknowledged, unsent = _TCP_INFO.unpack(info)
        return bool(unacknowledged == 0 and unsent > 0)

    def drain(self) -> None:
        """Read all available bytes, up to the end of the stream, into the backlog."""
        collected = bytearray(self.backlog)
        try:
            while data := self.socket.recv(_DRAIN_BYTES, socket.MSG_DONTWAIT):
                collected += data
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True  # reset: what was queued before it has been read
        self.backlog = memoryview(bytes(collected))

    @property
    def unsent_bytes(self) -> int:
        """How many bytes the kernel has accepted and not sent yet; 0 where that is unknown."""
        if sys.platform != "linux":
            return 0
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:  # closed, or no TCP connection
            return 0
        return int(_TCP_INFO.unpack(info)[1]) if len(info) == _TCP_INFO.size else 0

    def half_close(self) -> None:
        """Announce the end of what this rank sends."""
        with contextlib.suppress(OSError):  # closed by the other end
            self.socket.shutdown(socket.SHUT_WR)

    def discard(self) -> bool:
        """Discard what has arrived; return whether the other end has closed."""
        try:
            for _ in range(_DRAIN_READS):
                if not self.socket.recv(_DRAIN_BYTES, socket.MSG_DONTWAIT):
                    return True
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Close without a reset: with unread bytes, the kernel would discard what was sent last.

        After a partly sent message there is no termination frame to preserve, and nothing is read: a peer that still
        sends must get an error.
        """
        self.half_close()
        if not self.in_message:
            self.discard()
        self.socket.close()


class Connections:
    """Direct connections to other ranks, and the transfer of bytes through them.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    comm_name
        Name of the communicator, the same on all ranks.
    config
        The rendezvous server and the time-out.
    """

    def __init__(self, rank: int, size: int, comm_name: str, config: DirectConfig) -> None:
        self.rank = rank
        self.size = size
        self.comm_name = comm_name
        self._server = Endpoint(config.host, config.port)
        self._dialect = tcpunch.Dialect()
        self._max_timeout = config.max_timeout
        self._streams: dict[int, Stream] = {}
        self._by_descriptor: dict[int, Stream] = {}
        self._pending: PendingTransfers[Stream] = PendingTransfers()
        self._poller = Poller(self._on_disconnect)
        self._awaited: int | None = None
        self._process = os.getpid()
        self.call_deadline = Deadline(None)
        self._planned: Call | None = None
        self.sequence = 0
        self._running: Call | None = None

    @property
    def _call(self) -> Call:
        """The running call. It is numbered when it is needed, which is not so in a short call without a wait."""
        if self._running is None:
            assert self._planned is not None  # noqa: S101 - a call has begun
            self._running = self._planned.numbered(self.sequence)
        return self._running

    @_call.setter
    def _call(self, call: Call) -> None:
        self._running = call

    @property
    def awaited(self) -> int | None:
        """The rank that this one waits for; see `Channel`."""
        return self._awaited

    def _hello(self, peer: int) -> PeerHello | None:
        return None

    def _stream(self, peer: int, name: bytes | None = None) -> Stream:
        """Return the connection to `peer`, opened now if there is none; for `name` see `_open`."""
        if peer not in self._streams:
            self._open({peer: name})
        return self._streams[peer]

    def _open(self, names: Mapping[int, bytes | None]) -> None:
        """Open the connections to some ranks, given with the pairing names; None stands for `_name`.

        Both ends of a connection must open it at the same time. Ranks may wait for each other around a ring.
        Therefore the connections that posted messages need are opened, too, and all ranks follow one order. Where that
        order is not the program's, each connection is attempted for a short time in turn.
        """
        wanted = {transfer.peer: None for transfer in self._pending.transfers} | dict(names)
        deadline = self.call_deadline.within(self._max_timeout)
        while not self._streams.keys() >= names.keys():
            missing = sorted(wanted.keys() - self._streams.keys(), key=lambda p: (max(p, self.rank), min(p, self.rank)))
            for peer in missing:
                attempt = deadline
                if len(wanted) > 1:
                    attempt = deadline.shortened(_ATTEMPT_SECONDS)
                try:
                    connection = self._connect(peer, wanted[peer], attempt)
                except PeerTimeoutError as error:
                    if error.reported_by is not None:
                        raise  # another rank's time was over
                    if deadline.passed:
                        late = self._timeout_error(error.message, peer)
                        late.repeatable = True
                        raise late from None
                else:
                    if injection.current is not None:
                        connection = shaped(connection, injection.current.link(self.rank, self.size, peer))
                    stream = Stream(connection, peer)
                    self._streams[peer] = stream
                    self._by_descriptor[stream.descriptor] = stream
                    self._opened(stream)

    def _name(self, peer: int) -> bytes:
        """Return the pairing name that does not depend on which rank sends first."""
        return pair_name(self.comm_name, max(self.rank, peer), min(self.rank, peer))

    def _opened(self, stream: Stream) -> None:
        """Prepare a new connection; called once for each."""

    def _connect(self, peer: int, name: bytes | None, deadline: Deadline) -> socket.socket:
        name = self._name(peer) if name is None else name
        request = tcpunch.ConnectRequest(self._server, name, peer, lambda: self._purpose, self._hello(peer), deadline)
        return tcpunch.connect(request, self._poller.wait, self._dialect)

    def _post(self, transfer: Transfer[Stream]) -> Transfer[Stream]:
        """Begin a transfer; move as much as possible without waiting."""
        self._pending.add(transfer)
        self._advance_posted({})
        return transfer

    def progress(self, pending: Sequence[Pending], wait: bool) -> bool:
        """Move posted messages, until one of `pending` is done if `wait` is true; return whether one is done.

        Opens the connections, which blocks, if the two ranks have none yet.
        """
        peers = [transfer.peer for transfer in pending if isinstance(transfer, Transfer)]
        missing = [peer for peer in peers if peer not in self._streams]
        if missing and not any(transfer.done for transfer in pending):
            self._open(dict.fromkeys(missing))
        yields = 0
        while True:
            interest: dict[int, int] = {}
            moved = self._advance_posted(interest)
            done = any(transfer.done for transfer in pending)
            if done or not wait:
                return done
            if not moved:
                yields = self._pause(interest, yields)

    def complete_posted(self) -> None:
        """Move all posted messages until they are done."""
        while self._pending.transfers:
            self.progress(self._pending.transfers[:1], wait=True)

    def _move(
        self,
        target: Stream | None,
        outgoing: Buffers,
        source: Stream | None,
        incoming: Buffers,
        on_received: OnReceived | None = None,
    ) -> None:
        """Send and receive at the same time until both lists of buffers are used up; posted messages first."""
        yields = max(map(yields_spent, (*outgoing, *incoming)), default=0)
        while incoming and not incoming[0]:  # receiving into an empty buffer would look like the stream's end
            del incoming[0]
        while outgoing or incoming:
            interest: dict[int, int] = {}
            posted = bool(self._pending.transfers)
            moved = posted and self._advance_posted(interest)
            if target is not None and outgoing and not (posted and self._pending.has_pending(target.peer, sends=True)):
                moved |= self._send_some(target, outgoing, interest)
            if source is not None and incoming and not (posted and self._pending.has_pending(source.peer, sends=False)):
                moved |= self._receive_some(source, incoming, on_received, interest)
            if not moved:
                yields = self._pause(interest, yields)

    def _advance_posted(self, interest: dict[int, int]) -> bool:
        """Move as much of the posted messages as possible without waiting; return whether anything was moved."""

        def move(transfer: Transfer[Stream], stream: Stream) -> bool:
            if transfer.sends:
                return self._send_some(stream, transfer.message.buffers, interest)
            return self._receive_some(stream, transfer.message.buffers, transfer.message.on_received, interest)

        return self._pending.advance(self._streams, move)

    def _send_some(self, target: Stream, outgoing: Buffers, interest: dict[int, int]) -> bool:
        """Send as much as the connection accepts; if it accepts nothing, add to `interest` what to wait for."""
        try:
            advance(outgoing, target.socket.sendmsg(outgoing, (), socket.MSG_DONTWAIT))
        except BlockingIOError:
            interest[target.descriptor] = interest.get(target.descriptor, 0) | select.POLLOUT
            return False
        except ConnectionError:
            raise self._broken(target) from None
        target.in_message = bool(outgoing)
        return True

    def _receive_some(
        self, source: Stream, incoming: Buffers, on_received: OnReceived | None, interest: dict[int, int]
    ) -> bool:
        """Receive the available bytes; if there are none, add to `interest` what to wait for."""
        try:
            received = source.read_into(incoming)
        except BlockingIOError:
            interest[source.descriptor] = interest.get(source.descriptor, 0) | select.POLLIN
            return False
        except ConnectionError:
            raise self._broken(source) from None
        if received == 0:
            raise self._ended(source)
        advance(incoming, received)
        if on_received is not None:
            on_received(received)
        return True

    def _await(self, stream: Stream, receive: Callable[..., T], *arguments: object) -> T:
        """Return what `receive` returns as soon as data is available."""
        while True:
            try:
                return receive(*arguments)
            except BlockingIOError:
                self._await_first_byte(stream)
            except ConnectionError:
                raise self._broken(stream) from None

    def _await_first_byte(self, stream: Stream) -> None:
        try:
            self._wait({stream.descriptor: select.POLLIN})
        except PeerTimeoutError as error:
            error.repeatable = error.reported_by is None
            raise

    def _pause(self, interest: dict[int, int], yields: int) -> int:
        """Yield the processor, or after `_YIELDS` times wait until one of `interest` is ready; return the new count."""
        if yields < _YIELDS:
            os.sched_yield()
            return yields + 1
        self._wait(interest)
        return yields

    def _wait(self, interest: dict[int, int]) -> None:
        waits = list(interest.items())
        self._awaited = self._by_descriptor[waits[0][0]].peer
        deadline = self.call_deadline.within(self._max_timeout)
        pause, report = deadlock_report_seconds(self.size), 0
        while True:
            remaining = deadline.remaining()
            if self._poller.wait(waits, pause if remaining is None else min(pause, remaining)):
                self._awaited = None
                return
            if deadline.passed:
                break
            self._check_deadlock(interest, report)
            pause, report = _REPORT_PAUSE_SECONDS, report + 1
        peers = " and ".join(f"rank {self._by_descriptor[descriptor].peer}" for descriptor in interest)
        raise self._timeout_error(
            f"{self._purpose}: no data from or to {peers} for {deadline.elapsed}: check that it is not stopped, "
            f"late, or in another call; {raise_limit(deadline, self.call_deadline, 'backends.Direct.max_timeout')}",
            self._awaited,
        )

    def _timeout_error(self, message: str, peer: int) -> PeerTimeoutError:
        """Return the error for a wait for `peer`; it names the rank at the end of the chain of waiting ranks."""
        origin, chain = self._find_cause(peer)
        if origin is None:
            return PeerTimeoutError(f"{message}; {chain}" if chain else message, origin=peer)
        return PeerTimeoutError(f"{message}; the cause: {chain}", origin=origin)

    def _find_cause(self, peer: int) -> tuple[int | None, str]:
        """Return which rank `peer` waits for in the end, None if that is not known, and the text for the error."""
        return None, f"raw mode cannot tell whether rank {peer} itself waits for another rank"

    def withdraw_wait(self) -> None:
        """Do nothing: raw ranks report no wait."""
        self._awaited = None

    def _check_deadlock(self, interest: dict[int, int], report: int) -> None:
        """Check and report that this rank waits, if the channel can; `report` counts the reports of one wait."""

    @property
    def _purpose(self) -> str:
        return f"rank {self.rank} in {self._call.made_by(self.rank)}"

    def _ended(self, stream: Stream) -> FmiError:
        """Return the error for a stream that ended where a message was expected."""
        return PeerLostError(
            f"{self._purpose}: lost rank {stream.peer}, whose connection was closed: its process ended or failed",
            origin=stream.peer,
        )

    def _broken(self, stream: Stream) -> FmiError:
        """Return the error for a connection that broke during a transfer."""
        return self._ended(stream)

    def _on_disconnect(self, descriptor: int) -> None:
        """Ignore the end of a connection that is not waited for: a C++ rank closes without a message."""

    def _close_streams(self) -> None:
        inherited = os.getpid() != self._process
        for stream in self._streams.values():
            self._poller.remove(stream.descriptor)
            if inherited:
                stream.socket.close()  # a forked child must not shut down its parent's connections
            else:
                stream.close()
        self._streams.clear()
        self._pending.clear()
        self._by_descriptor.clear()
