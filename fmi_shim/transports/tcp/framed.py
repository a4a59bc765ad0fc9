"""The Direct channel between ranks of this library: every message has a header, and every rank reports its end."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator

from fmi_shim.backoff import Deadline
from fmi_shim.channel import Schedule
from fmi_shim.config import DirectConfig
from fmi_shim.error_codec import abort_error, abort_frame, decode_termination, goodbye_frame
from fmi_shim.errors import FmiError, MismatchError
from fmi_shim.frames import (
    HEADER_BYTES,
    KIND_AT,
    NEVER_SENT,
    Call,
    FrameError,
    Kind,
    decode_header,
    renumbered,
    waiting_frame,
)
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.pairing.control_connection import ForeignServerError, read_access
from fmi_shim.pairing.handshake import PeerHello
from fmi_shim.pairing.rendezvous_client import RendezvousClient
from fmi_shim.transports.framing import ExpectedMessage, Framing
from fmi_shim.transports.tcp import schedules, short_collectives
from fmi_shim.transports.tcp.connections import Connections, Stream
from fmi_shim.transports.tcp.short_messages import Frame, ShortMessages
from fmi_shim.transports.transfers import Buffers, advance, octets
from rendezvous.protocol.messages import Abort
from rendezvous.protocol.waiting import MAX_COUNTS, Awaited, Counts, Waiting, describe, pack_counts

_SHORT_BYTES = 4096
"""Messages up to this size are copied into one buffer with their header: cheaper than a list of buffers."""

_CHECK_SECONDS = 0.001
"""Calls that do not wait look for failed ranks once in this time."""

_STILL_SECONDS = 0.05
"""Two ranks that send to each other are in a deadlock if no byte moves for this time."""
_ABORT_SECONDS = 0.5
"""How long a failed rank tries to send its error to a rank that does not read."""
_UNSENT_POLL_SECONDS = 0.01
"""How often it looks whether the kernel has sent all: nothing wakes it then."""
_SERVER_SECONDS = 0.1
"""How long to wait for the server's error if a rank closed that sent no message."""


class FramedChannel(Connections, Framing[Stream]):
    """Messages with headers over direct connections. Implements `Channel`.

    Unlike `raw.RawChannel` it compares every message with the call that receives it, detects the end of any connected
    rank at once, and forwards the first error to all connected ranks.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        comm_name: str,
        config: DirectConfig,
        session: RendezvousClient | None = None,
        server_known: bool = False,
    ) -> None:
        super().__init__(rank, size, comm_name, config)
        if session is None:
            session = RendezvousClient(
                self._server, read_access(), comm_name, rank, size, abort_error, self._poller, known=server_known
            )
        else:
            session.use(self._poller)
        self._client: RendezvousClient | None = session
        self._session = session
        session.waits.append(self._current_wait)
        self._waits = 0
        self._notified: Stream | None = None
        self._check_due = 0.0
        self._templates: dict[int, bytes] = {}
        self._heads = {}
        self._short = ShortMessages(self, size, self._streams, self._pending)

    @contextlib.contextmanager
    def monitoring(self, session: RendezvousClient) -> Iterator[None]:
        """Raise the errors of the communicator's session from this channel's waits, too, while this lasts."""
        own, self._session = self._session, session
        session.waits.append(self._current_wait)
        try:
            with session.monitored_by(self._poller):
                yield
        finally:
            session.waits.remove(self._current_wait)
            self._session = own

    def prepare(self, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
        """Return the schedule of a collective over point-to-point messages."""
        short = short_collectives.prepare(self._short, self.rank, self.size, call, function, combine, True)
        return short or schedules.prepare(self, call, function, combine)

    def begin(self, call: Call, sequence: int) -> None:
        """Start a call, which messages are compared with; raise if a connected rank has failed meanwhile."""
        self.sequence, self._running = sequence, None
        if self._heads:
            self._heads = {}
        if call is not self._planned:
            self._planned, self._templates = call, {}
        now = time.monotonic()
        if now >= self._check_due:
            self._check_due = now + _CHECK_SECONDS
            self._poller.check()

    def _send_now(self, buffer: Array, dst: int, src: int | None = None, posted: bool = False) -> Buffers | None:
        stream = self._streams.get(dst)
        if stream is None or stream.ended or self._pending.transfers or (src is not None and src not in self._streams):
            return None
        size = buffer.nbytes
        try:
            if size <= _SHORT_BYTES:
                head = self._heads.get(size) or self._head(size)
                message: Buffers = [memoryview(head + buffer.tobytes())]
                sent = stream.socket.send(message[0], socket.MSG_DONTWAIT)
            else:
                head = self._head(size, Kind.posted if posted else Kind.data)
                message = [memoryview(head), octets(buffer)]
                sent = stream.socket.sendmsg(message, (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionError:
            raise self._broken(stream) from None
        stream.sent += 1
        if sent == len(head) + size:
            return []
        advance(message, sent)
        stream.in_message = True
        return message

    def _receive_now(self, buffer: Array, src: int) -> bool:
        stream = self._streams.get(src)
        if stream is None or stream.backlog or stream.ended or self._pending.transfers:
            return False
        size = buffer.nbytes
        head = self._heads.get(size) or self._head(size)
        if size <= _SHORT_BYTES:
            return self._receive_short(stream, head, buffer)
        return self._receive_long(stream, head, octets(buffer))

    def _receive_short(self, stream: Stream, head: bytes, buffer: Array) -> bool:
        whole = len(head) + buffer.nbytes
        message = self._await(stream, stream.socket.recv, whole)
        if len(message) != whole or not message.startswith(head):
            stream.push_back(message)
            return False
        octets(buffer)[:] = memoryview(message)[len(head) :]
        stream.received += 1
        return True

    def _receive_long(self, stream: Stream, head: bytes, payload: memoryview) -> bool:
        found = bytearray(len(head))
        # A shorter message could be followed by the next one, which must not be received into the program's memory.
        space = [memoryview(found)] if self._call.takes_shorter else [memoryview(found), payload]
        received = self._await(stream, stream.socket.recvmsg_into, space, 0)[0]
        seen = received - len(head)
        if found[KIND_AT] == Kind.posted:
            found[KIND_AT] = Kind.data
        if seen < 0 or found != head:
            stream.push_back(bytes(found + payload[: max(0, seen)])[:received])
            return False
        if seen < len(payload):
            self._move(None, [], stream, [payload[seen:]])
        stream.received += 1
        return True

    def _expect(self, call: Call) -> None:
        super()._expect(call)
        self._planned, self._templates = None, {}

    def _head(self, length: int, kind: Kind = Kind.data) -> bytes:
        if self._running is not None and self._planned is None:
            return super()._head(length, kind)
        key = length if kind is Kind.data else ~length
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = super()._head(length, kind)
        head = self._heads[key] = renumbered(template, self.sequence)
        return head

    def finish_send(self, frame: Frame, dst: int, sent: int | None) -> None:
        """Send the rest of a short message; see `MessageChannel`."""
        if sent is None:
            self.send(frame.payload, dst)
        else:
            self._move(*self._rest(frame, dst, sent), None, [])

    def finish_receive(self, frame: Frame, src: int, got: int | None) -> None:
        """Receive a short message; see `MessageChannel`."""
        if got is not None:
            self._streams[src].push_back(bytes(frame.buffer[:got]))
        self.recv(frame.payload, src)

    def finish_exchange(
        self, outgoing: Frame, dst: int, incoming: Frame, src: int, sent: int | None, got: int | None
    ) -> None:
        """Send the rest of a short message while one is received; see `MessageChannel`."""
        if sent is None:
            self.sendrecv(outgoing.payload, dst, incoming.payload, src)
            return
        if sent == outgoing.size:
            self._streams[dst].sent += 1
            self.finish_receive(incoming, src, got)
            return
        source = self._link(src)
        message = ExpectedMessage(self, source, incoming.payload)
        self._move(*self._rest(outgoing, dst, sent), source, message.buffers, message.on_received)

    def _rest(self, frame: Frame, dst: int, sent: int) -> tuple[Stream, Buffers]:
        """Return the connection on which a message is partly sent, and the rest of the message."""
        stream = self._streams[dst]
        stream.sent += 1
        stream.in_message = True
        return stream, [memoryview(frame.buffer)[sent:]]

    def fail(self, error: BaseException) -> None:
        """Send the error to connected ranks, and through the rendezvous server to the others; then close."""
        abort = self._as_abort(error)
        if self._client is not None and os.getpid() == self._process:
            self._client.abort(abort)
        self._leave(abort_frame(abort), _ABORT_SECONDS)

    def close(self) -> None:
        """Send a goodbye frame to every connected rank, then close."""
        self._leave(goodbye_frame(), 0.0)

    def _hello(self, peer: int) -> PeerHello | None:
        return PeerHello(self.comm_name, self.size, self.rank, peer)

    def _connect(self, peer: int, name: bytes | None, deadline: Deadline) -> socket.socket:
        if self._client is not None:
            hello = PeerHello(self.comm_name, self.size, self.rank, peer)
            try:
                session = None if self._session is self._client else self._session
                self._awaited = peer
                connection = self._client.connect(
                    hello, lambda: self._purpose, deadline, lambda: self._connect_report(peer), session
                )
            except ForeignServerError as foreign:
                if self._client.requires_extension:
                    raise
                self._dialect.version = foreign.tcpunch_version
                self._client = None  # a server of the original kind connects framed ranks, too
            else:
                self._awaited = None
                return connection
        return super()._connect(peer, name, deadline)

    def _current_wait(self) -> tuple[int, str] | None:
        return None if self._awaited is None else (self._awaited, self._call.made_by(self.rank))

    def _find_cause(self, peer: int) -> tuple[int | None, str]:
        self._awaited = peer
        cause = None if self._client is None else self._session.find_cause(peer)
        self._awaited = None
        return (None, "") if cause is None else (cause.origin, cause.text)

    def _link(self, peer: int) -> Stream:
        stream = self._streams.get(peer)
        # The pairing name does not depend on the call: two ranks in different calls connect and get an error for it.
        return self._stream(peer) if stream is None else stream

    def _opened(self, stream: Stream) -> None:
        self._poller.add(stream.descriptor)

    def _check_deadlock(self, interest: dict[int, int], report: int) -> None:
        """If this rank waits for one other, check whether that one waits for this rank, and report the wait."""
        if len(interest) > 1 or self._pending.transfers:
            return
        ((descriptor, events),) = interest.items()
        stream = self._by_descriptor[descriptor]
        if events == select.POLLOUT:
            before = stream.peek()
            if self._poller.wait([(descriptor, events)], _STILL_SECONDS):
                return
            if before == stream.peek():
                self._require_receiver(stream, *before)
            if stream.is_blocked:
                self._report_wait(stream.peer, Awaited.receiving, report)
            return
        if stream.notice is not None:
            call, received, then = stream.notice
            if received == stream.sent and then == stream.received:
                raise self._deadlock(stream, call, Awaited.sending)
        if report == 0 and not stream.in_message:
            if stream.notified != stream.received:  # else a wait for the same message has timed out before
                stream.notified = stream.received
                self._notify(stream, stream.received)
                self._notified = stream
            self._report_wait(stream.peer, Awaited.sending, report)

    def _notify(self, stream: Stream, received: int) -> None:
        with contextlib.suppress(OSError):  # broken: the next use raises
            stream.socket.send(waiting_frame(self._call, received), socket.MSG_DONTWAIT)

    def withdraw_wait(self) -> None:
        """Withdraw what the server and the peer were notified of."""
        self._awaited = None
        if self._notified is not None and not self._notified.in_message:
            self._notify(self._notified, NEVER_SENT)
        self._notified = None
        self._waits += 1
        if self._client is not None:
            with contextlib.suppress(ForeignServerError):
                self._client.withdraw_wait(self._waits)

    def _report_wait(self, peer: int, awaited: Awaited, report: int) -> None:
        """Report the wait to the server, which looks for a deadlock cycle."""
        self._waits += report == 0
        waiting = self._waiting(peer, awaited)
        if self._client is not None and waiting is not None:
            with contextlib.suppress(ForeignServerError):
                self._client.report_wait(waiting)

    def _connect_report(self, peer: int) -> Waiting | None:
        """Return the report that this rank waits for a connection; None if it also has posted messages."""
        self._waits += 1
        return None if self._pending.transfers else self._waiting(peer, Awaited.connecting)

    def _waiting(self, peer: int, awaited: Awaited) -> Waiting | None:
        if len(self._streams) > MAX_COUNTS:
            return None
        counts = [Counts(other, way.sent, way.received) for other, way in self._streams.items()]
        return Waiting(peer, awaited, self._waits, pack_counts(counts), self._call.made_by(self.rank))

    def _require_receiver(self, stream: Stream, head: bytes, count: int) -> None:
        """Raise if the receiving rank is itself blocked in sending a message to this one."""
        if len(head) < HEADER_BYTES:
            return
        try:
            found = decode_header(head)
        except FrameError:
            return  # reported when it is received
        if found.kind is Kind.data and count < HEADER_BYTES + 8 * (found.dimensions or 0) + found.length:
            raise self._deadlock(stream, found.call, Awaited.receiving)

    def _on_wait_notice(self, source: Stream, call: Call, received: int, blocking: bool) -> None:
        """Record that `source` waits: if this rank waits for it as well, they wait for each other.

        That is raised when this rank has waited for a while, since `source` may have withdrawn the notice, which is
        received next.
        """
        if blocking:
            source.notice = call, received, source.received

    def _deadlock(self, stream: Stream, call: Call, awaited: Awaited) -> MismatchError:
        cycle = [
            (stream.peer, Waiting(self.rank, awaited, 0, b"", call.made_by(stream.peer))),
            (self.rank, Waiting(stream.peer, awaited, 0, b"", self._call.made_by(self.rank))),
        ]
        return MismatchError(describe(cycle), origin=self.rank)

    def _on_disconnect(self, descriptor: int) -> None:
        """Raise the error for a connection that ended, unless its last frame was a goodbye."""
        stream = self._by_descriptor[descriptor]
        self._poller.remove(descriptor)
        stream.drain()
        end = decode_termination(self._pending.whole_frames(stream.peer, stream.backlog), stream.peer)
        if isinstance(end, Abort):
            raise self._abort_error(end)
        if end is None:
            raise self._ended(stream)

    def _ended(self, stream: Stream) -> FmiError:
        """Return the error that the server has, which a rank may have reported only there, or `PeerLostError`."""
        if self._client is not None:
            try:
                self._client.check_errors(0.0 if stream.received else _SERVER_SECONDS)
            except FmiError as reported:
                return reported
        return super()._ended(stream)

    def _broken(self, stream: Stream) -> FmiError:
        """Return the error that was received before the connection broke, if any."""
        stream.drain()
        end = decode_termination(self._pending.whole_frames(stream.peer, stream.backlog), stream.peer)
        if isinstance(end, Abort):
            return self._abort_error(end)
        if stream.in_message:
            try:
                self._require_receiver(stream, bytes(stream.backlog[:HEADER_BYTES]), len(stream.backlog))
            except MismatchError as deadlock:  # the other rank detected it first, and could not report it
                return deadlock
        return self._ended(stream)

    def _leave(self, last_frame: bytes, seconds: float) -> None:
        """Send a termination frame on each connection without a partly sent message, then close.

        If a frame cannot be sent at once, it is tried for so many `seconds`.
        """
        if os.getpid() == self._process:
            self._send_last(last_frame, Deadline(seconds))
        self._close_streams()
        if self._client is not None:
            if os.getpid() == self._process:
                self._client.close()
            else:
                self._client.disconnect()

    def _send_last(self, frame: bytes, deadline: Deadline) -> None:
        """Send a frame on each connection, end what this rank sends, and discard what arrives until the frame is sent.

        A connection that is closed while its peer still sends is reset, and the kernel then discards what it has not
        sent yet. A rank that ended, or does not read, detects the end of the connection.
        """
        unsent = {stream: memoryview(frame) for stream in self._streams.values() if not stream.in_message}
        while unsent:
            poll = select.poll()
            for stream, rest in list(unsent.items()):
                try:
                    while rest:
                        rest = rest[stream.socket.send(rest, socket.MSG_DONTWAIT) :]
                    stream.half_close()
                except BlockingIOError:
                    pass
                except OSError:
                    rest = memoryview(b"")
                if stream.discard() or not (rest or stream.unsent_bytes):
                    del unsent[stream]
                else:
                    unsent[stream] = rest
                    poll.register(stream.descriptor, select.POLLIN | (select.POLLOUT if rest else 0))
            if deadline.passed:
                break
            if unsent:
                poll.poll(1000 * min(_UNSENT_POLL_SECONDS, deadline.remaining() or 0.0))
