"""The shared-memory channel: messages and collectives through a segment, for ranks on one host."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from fmi_shim.backoff import Deadline
from fmi_shim.channel import Pending, Schedule
from fmi_shim.config import DirectConfig
from fmi_shim.errors import ConfigError, MismatchError, PeerTimeoutError
from fmi_shim.frames import HEADER_BYTES, Call, Operation, decode_header, header, renumbered, signature
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.pairing.rendezvous_client import RendezvousClient
from fmi_shim.transports.shm import layout, schedules, semaphores
from fmi_shim.transports.shm.bootstrap import NAME_SUFFIX, open_segment
from fmi_shim.transports.shm.cma import PeerMemory
from fmi_shim.transports.shm.deadlock_report import DeadlockReporter, Event
from fmi_shim.transports.shm.ring import RingPair
from fmi_shim.transports.shm.rounds import CallTag, RoundArrival
from fmi_shim.transports.shm.rounds_tso import make_rounds
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel
from fmi_shim.transports.shm.segment import Segment
from fmi_shim.transports.shm.semaphores import Semaphore
from fmi_shim.transports.shm.waits import SegmentFraming
from fmi_shim.transports.transfers import Buffers, OnReceived, PendingTransfers, Transfer, advance
from rendezvous.protocol import pair_name

_MESSAGES = (Operation.send, Operation.send_object)
_EPOCHS = 2**32 - 1


class SharedMemoryChannel(SegmentFraming, SegmentChannel):
    """Implements `SegmentChannel` and `WaitHandler`.

    All ranks must open it, which their first collective does. A message is copied once into a ring and once out of it.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    comm_name
        Name of the communicator, the same on all ranks.
    config
        The rendezvous server, through which the ranks connect, and the longest wait.
    required
        Whether this system must support the channel. If not, a rank without support still connects to the others and
        reports it, so that all ranks get the same result.
    session
        The communicator's session with the server, if it has one: its errors are raised from every wait.
    deadline
        The instant by which it must be open, beside the longest wait.

    Raises
    ------
    ConfigError
        If this system does not support the channel, there are too many ranks, or they do not share memory.
    FmiError
        If the ranks cannot connect.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        comm_name: str,
        config: DirectConfig,
        required: bool = True,
        session: RendezvousClient | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        if required and not semaphores.AVAILABLE:
            raise ConfigError("FMI_CHANNEL is shm on this system: expected Linux; use the Direct channel")
        if size > layout.MAX_RANKS:
            raise ConfigError(
                f"FMI_CHANNEL is shm with {size} ranks: expected at most {layout.MAX_RANKS}; use the Direct channel"
            )
        name = comm_name + NAME_SUFFIX
        pair_name(name, size - 1, size - 1)  # the longest name needed
        segment = open_segment(rank, size, comm_name, config, required, session, deadline)
        reporter = DeadlockReporter(rank, size, name, config, session)
        super().__init__(rank, size, segment, config.max_timeout, reporter)
        self._process = os.getpid()
        self._layout, self._memory = segment.layout, segment.memory
        self._words = memoryview(segment.memory).cast("Q")
        self._pending: PendingTransfers[RingPair] = PendingTransfers()
        self._views: dict[np.dtype[Any], Array] = {}
        self._numbered: Call | None = None
        self.rounds = make_rounds(segment.memory, segment.layout, rank, self)
        self.peer_memory = PeerMemory(rank, self.rounds, self.slots(np.dtype(np.int64))[:, :size, :4])

    def prepare(self, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
        """Return the schedule of a collective in the segment."""
        return schedules.prepare(self, call, function, combine)

    def begin(self, call: Call, sequence: int) -> None:
        """Set the running call, which is compared with the other ranks' calls."""
        self._running = call
        self._numbered = None
        self.rounds.sequence = sequence
        if call.operation in _MESSAGES:
            self.expect_messages()
            self._check_errors()

    @property
    def _call(self) -> Call:
        """The running call. It is numbered only for messages and errors."""
        if self._numbered is None:
            self._numbered = self._running.numbered(self.rounds.sequence)
        return self._numbered

    @_call.setter
    def _call(self, call: Call) -> None:
        self._numbered = call

    def expect_messages(self) -> None:
        """Compare the headers of messages with the running call, too."""
        self._expect(self._call)

    def fail(self, error: BaseException) -> None:
        """Publish the error to all ranks, if it is the first one; then close."""
        if self._segment is not None and os.getpid() == self._process:
            self._abort_record.publish_error(self._as_abort(error))
            self._deadlock_reporter.close()
            self._release(self._segment)

    def close(self) -> None:
        """Close without an error."""
        segment = self._segment
        if segment is not None and os.getpid() == self._process:
            closed = Semaphore(segment.memory, segment.layout.closed(self.rank))
            for _ in range(self.size):  # one for each rank: several may look, and hold one, at the same time
                closed.post()
            self._deadlock_reporter.close()
            self._release(segment)

    def slots(self, dtype: np.dtype[Any]) -> Array:
        """Return all slots, shape (slot indices, size + 1, elements)."""
        view = self._views.get(dtype)
        if view is None:
            plan = self._layout
            strided = self._slot_bytes()[:, : (self.size + 1) * plan.slot_stride]
            slots = strided.reshape(layout.ROUNDS_IN_FLIGHT, -1, plan.slot_stride)
            view = self._views[dtype] = slots[:, :, : plan.slot].view(dtype)
        return view

    def rows(self, dtype: np.dtype[Any], count: int) -> Array:
        """Return a row for each rank and one for the result, shape (slot indices, size + 1, count).

        Long rows are in the slots; see `SegmentChannel.rows`.
        """
        plan, length, indices = self._layout, count * dtype.itemsize, layout.ROUNDS_IN_FLIGHT
        if length > layout.MAX_ROW_BYTES:
            return self.slots(dtype)[:, :, :count]
        all_bytes = np.frombuffer(self._memory, np.uint8)[plan.rows(0) : plan.rows(indices)].reshape(indices, -1)
        rows = all_bytes[:, : (self.size + 1) * plan.row_stride(length)].reshape(indices, self.size + 1, -1)
        return rows[:, :, :length].view(dtype)

    def windows(self, dtype: np.dtype[Any]) -> list[Array]:
        """Return the window of each slot index."""
        return [*self._slot_bytes()[:, : layout.WINDOW_BYTES].view(dtype)]

    def _slot_bytes(self) -> Array:
        """Return the bytes of all slots, shape (slot indices, bytes)."""
        assert self._segment is not None  # noqa: S101 - a call has begun
        plan = self._layout
        slots = np.frombuffer(self._segment.memory, np.uint8)[plan.slots : plan.total]
        return slots.reshape(layout.ROUNDS_IN_FLIGHT, plan.round_stride)

    def call_tag(self, call: Call) -> CallTag:
        """Return the tag of `call` for the rounds."""
        length = 0 if call.dtype is None else call.count * call.dtype.itemsize
        return CallTag.of(header(signature(call), length, call.shape))

    def allocate(self, head: bytes, src: int) -> tuple[Array, CallTag]:
        """Return a new array for what rank `src` has in the call of this header, and that call's tag."""
        found = self._accept(self._links[src], renumbered(head, self.rounds.sequence), b"")
        return self._allocated(src, found, head[HEADER_BYTES:]), CallTag.of(head)

    def wait_for(self, arrival: RoundArrival) -> None:
        """Wait until a rank has reached a round. Posted messages are moved meanwhile."""
        while not arrival.poll():
            if not self._pending.advance(self._links, self._move_posted):
                self._wait([*self._posted_events(), arrival], arrival.peer)

    def raise_mismatch(self, rank: int, head: bytes, call_tag: CallTag, sequence: int) -> NoReturn:
        """Raise: `rank` is in the call of `head` where this rank is, or was, in call `sequence`, `call_tag`."""
        self._call = decode_header(call_tag.header).call.numbered(sequence)
        raise self._mismatch_error(
            self._links[rank], renumbered(head, sequence), renumbered(call_tag.header, sequence), b""
        )

    def _link(self, peer: int) -> RingPair:
        return self._links[peer]

    def _move(
        self,
        target: RingPair | None,
        outgoing: Buffers,
        source: RingPair | None,
        incoming: Buffers,
        on_received: OnReceived | None = None,
    ) -> None:
        """Send and receive at the same time until both lists of buffers are empty. Posted messages are moved first."""
        advance(incoming, 0)
        label = 0 if target is None or not outgoing else self._label(target.peer)
        while outgoing or incoming:
            moved = bool(self._pending.transfers) and self._pending.advance(self._links, self._move_posted)
            events: list[Event] = []
            peer = -1
            if target is not None and outgoing:
                if not self._pending.has_pending(target.peer, sends=True):
                    pushed = target.writer.push(outgoing, label)
                    moved, label = moved or pushed > 0, 0 if pushed else label
                events, peer = [target.writer], target.peer
            if source is not None and incoming:
                if not self._pending.has_pending(source.peer, sends=False):
                    moved |= self._pull(source, incoming, on_received)
                    self._require_same_epoch(source)
                events, peer = [*events, source.reader], source.peer
            if not moved:
                try:
                    self._wait([*self._posted_events(), *events], peer)
                except PeerTimeoutError:
                    if label and target is not None:  # nothing was sent: the message is counted when it is sent again
                        self._words[self._layout.notifications(target.peer) // 8 + 1 + self.rank] -= 1
                    raise

    def withdraw_wait(self) -> None:
        """Withdraw what the server was told of the wait."""
        self._deadlock_reporter.withdraw()

    def _label(self, dst: int) -> int:
        """Count a message that its sender waits for; return its label, which is the epoch: the rounds begun so far."""
        self._words[self._layout.notifications(dst) // 8 + 1 + self.rank] += 1
        return self.rounds.number % _EPOCHS + 1

    def _require_same_epoch(self, source: RingPair) -> None:
        """Raise if a collective separates the calls that sent and that receive a message."""
        label = source.reader.label
        if label and label != self.rounds.number % _EPOCHS + 1:
            raise MismatchError(
                f"rank {source.peer} sent a message to rank {self.rank}, which receives it in "
                f"{self._call.made_by(self.rank)}, but a collective separates the two "
                "calls: all ranks must make the same calls in the same order",
                origin=self.rank,
            )
        source.reader.label = 0

    def check_notifications(self, known: bytes) -> bytes:
        """Raise for a rank that has failed, and for a message that should have been received before this collective.

        Returns
        -------
        bytes
            The notifications of a rank that has received all messages: no error, the messages received from each rank,
            and no sleepers.
        """
        self._check_errors()
        self._pending.advance(self._links, self._move_posted)
        counts = [link.reader.labelled for link in self._links.values()]
        for peer, link in self._links.items():
            label = 0 if self._pending.has_pending(peer, sends=False) else link.reader.peek()
            if label and (self.rounds.number - label) % _EPOCHS < _EPOCHS // 2:  # else it was sent after the round
                raise MismatchError(
                    f"{self._purpose} has not received a message that rank {peer} sent before: "
                    "all ranks must make the same calls in the same order",
                    origin=self.rank,
                )
        return struct.pack(f"={self.size + 1}Q{self.size}x", 0, *counts[: self.rank], 0, *counts[self.rank :])

    def _pull(self, source: RingPair, incoming: Buffers, on_received: OnReceived | None) -> bool:
        received = source.reader.pull(incoming)
        if received and on_received is not None:
            on_received(received)
        return received > 0

    def _post(self, transfer: Transfer[RingPair]) -> Transfer[RingPair]:
        self._pending.add(transfer)
        self._pending.advance(self._links, self._move_posted)
        return transfer

    def progress(self, pending: Sequence[Pending], wait: bool) -> bool:
        """Move posted messages, until one of `pending` is done if `wait` is true; return whether one is done."""
        moved = self._pending.advance(self._links, self._move_posted)
        while not (done := any(transfer.done for transfer in pending)) and wait:
            if not moved:
                self._wait(self._posted_events(), next(t.peer for t in pending if isinstance(t, Transfer)))
            moved = self._pending.advance(self._links, self._move_posted)
        return done

    def complete_posted(self) -> None:
        """Move all posted messages until they are done."""
        while self._pending.transfers:
            self.progress(self._pending.transfers[:1], wait=True)

    def _move_posted(self, transfer: Transfer[RingPair], link: RingPair) -> bool:
        if transfer.sends:
            return link.writer.push(transfer.message.buffers) > 0
        return self._pull(link, transfer.message.buffers, transfer.message.on_received)

    def _posted_events(self) -> list[Event]:
        """Return the ring ends that posted messages wait for."""
        return [link.writer if sends else link.reader for link, sends in self._pending.directions()]

    def _release(self, segment: Segment) -> None:
        """Release the lock, which shows the others that this rank is gone, and all views, which unmaps the memory."""
        segment.close()
        self._segment = None
        self.peer_memory = None
        self._links.clear()
        self._pending.clear()
        self._views.clear()
