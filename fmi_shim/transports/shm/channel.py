"""Messages and signals through memory that all ranks share: for ranks on one host."""

from __future__ import annotations

import os
import struct
from typing import Any, NoReturn

import numpy as np

from fmi_shim.channel import Pending, Schedule
from fmi_shim.config import DirectConfig
from fmi_shim.errors import ConfigError, MismatchError
from fmi_shim.frames import HEADER_BYTES, Call, Operation, decode_header, header, renumbered, signature
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.transports.shm import layout, schedules, semaphores
from fmi_shim.transports.shm.bootstrap import SUFFIX, meet
from fmi_shim.transports.shm.cma import Neighbours
from fmi_shim.transports.shm.deadlock_report import End, Suspicion
from fmi_shim.transports.shm.ring import LanePair
from fmi_shim.transports.shm.rounds import Arrival, Mark
from fmi_shim.transports.shm.rounds_tso import rounds
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel
from fmi_shim.transports.shm.segment import Segment
from fmi_shim.transports.shm.semaphores import Semaphore
from fmi_shim.transports.shm.waits import PatientFraming
from fmi_shim.transports.transfers import Buffers, OnReceived, PendingTransfers, Transfer, advance
from rendezvous.protocol import pair_name

_SEND = Operation.send
_ERAS = 2**32 - 1


class SharedMemoryChannel(PatientFraming, SegmentChannel):
    """Implements `collectives.in_segment.SegmentChannel`.

    To open it, which the first call of whatever kind does, all ranks must come. A message is copied once into a
    lane and once out of it.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    comm_name
        Name of the communicator, the same on all ranks.
    config
        The rendezvous server, where the ranks meet, and the longest wait.
    required
        Whether there must be such a channel; otherwise a rank for which there is none, too, meets the others and tells
        them, so that all come to the same result.

    Raises
    ------
    ConfigError
        If there is no such channel on this system, or not for so many ranks, or the ranks share no memory.
    FmiError
        If they do not come together.
    """

    def __init__(self, rank: int, size: int, comm_name: str, config: DirectConfig, required: bool = True) -> None:
        if required and not semaphores.AVAILABLE:
            raise ConfigError("FMI_CHANNEL is shm, which needs Linux: use the Direct channel")
        if size > layout.MAX_RANKS:
            raise ConfigError(
                f"FMI_CHANNEL is shm, which {layout.MAX_RANKS} ranks may share, not {size}: use the Direct channel"
            )
        pair_name(comm_name + SUFFIX, size - 1, size - 1)  # the longest name needed
        segment = meet(rank, size, comm_name, config, required)
        super().__init__(rank, size, segment, config.max_timeout, Suspicion(rank, size, comm_name + SUFFIX, config))
        self._process = os.getpid()
        self._layout, self._memory = segment.layout, segment.memory
        self._words = memoryview(segment.memory).cast("Q")
        self._pending: PendingTransfers[LanePair] = PendingTransfers()
        self._views: dict[np.dtype[Any], Array] = {}
        self._numbered: Call | None = None
        self.rounds = rounds(segment.memory, segment.layout, rank, self)
        self.neighbours = Neighbours(rank, self.rounds, self.slots(np.dtype(np.int64))[:, :size, :4])

    def prepare(self, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
        """Return the schedule of a collective in the segment."""
        return schedules.prepare(self, call, function, combine)

    def begin(self, call: Call, sequence: int) -> None:
        """Make the call the one that is compared with the others'."""
        self._running = call
        self._numbered = None
        self.rounds.sequence = sequence
        if call.operation is _SEND:
            self.sign()
            self._look()

    @property
    def _call(self) -> Call:
        """The running call, which is numbered only for messages and errors."""
        if self._numbered is None:
            self._numbered = self._running.numbered(self.rounds.sequence)
        return self._numbered

    @_call.setter
    def _call(self, call: Call) -> None:
        self._numbered = call

    def sign(self) -> None:
        """Compare messages, too, with the running call."""
        self._expect(self._call)

    def fail(self, error: BaseException) -> None:
        """Tell all ranks of the error, if it is the first one; then leave."""
        if self._segment is not None and os.getpid() == self._process:
            self._alarm.ring(self._as_abort(error))
            self._suspicion.close()
            self._release(self._segment)

    def close(self) -> None:
        """Leave in peace."""
        segment = self._segment
        if segment is not None and os.getpid() == self._process:
            Semaphore(segment.memory, segment.layout.farewell(self.rank)).post()
            self._suspicion.close()
            self._release(segment)

    def slots(self, dtype: np.dtype[Any]) -> Array:
        """Return all slots, shape (turns, size + 1, elements)."""
        view = self._views.get(dtype)
        if view is None:
            plan = self._layout
            rows = self._turns()[:, : (self.size + 1) * plan.stride].reshape(layout.TURNS, -1, plan.stride)
            view = self._views[dtype] = rows[:, :, : plan.slot].view(dtype)
        return view

    def rows(self, dtype: np.dtype[Any], count: int) -> Array:
        """Return a row for each rank and one for the result, shape (turns, size + 1, count): in slots if they are long.

        See `SegmentChannel.rows`.
        """
        plan, length = self._layout, count * dtype.itemsize
        if length > layout.ROW_BYTES:
            return self.slots(dtype)[:, :, :count]
        turns = np.frombuffer(self._memory, np.uint8)[plan.rows(0) : plan.rows(layout.TURNS)].reshape(layout.TURNS, -1)
        rows = turns[:, : (self.size + 1) * plan.row(length)].reshape(layout.TURNS, self.size + 1, -1)
        return rows[:, :, :length].view(dtype)

    def windows(self, dtype: np.dtype[Any]) -> list[Array]:
        """Return the window of each turn."""
        return [*self._turns()[:, : layout.WINDOW_BYTES].view(dtype)]

    def _turns(self) -> Array:
        assert self._segment is not None  # noqa: S101 - a call has begun
        plan = self._layout
        return np.frombuffer(self._segment.memory, np.uint8)[plan.slots : plan.total].reshape(layout.TURNS, plan.turn)

    def mark(self, call: Call) -> Mark:
        """Return how the rounds know `call`."""
        length = 0 if call.dtype is None else call.count * call.dtype.itemsize
        return Mark.of(header(signature(call), length, call.shape))

    def announced(self, head: bytes, src: int) -> tuple[Array, Mark]:
        """Return an array for what rank `src` has in the call of this header, and that call's mark."""
        found = self._accept(self._links[src], renumbered(head, self.rounds.sequence), b"")
        return self._allocated(src, found, head[HEADER_BYTES:]), Mark.of(head)

    def wait_for(self, arrival: Arrival) -> None:
        """Wait until a rank has come to a round; posted messages move meanwhile."""
        while not arrival.poll():
            if not self._pending.advance(self._links, self._move_posted):
                self._wait([*self._posted_ends(), arrival], arrival.peer)

    def differ(self, rank: int, head: bytes, mark: Mark, sequence: int) -> NoReturn:
        """Raise for a rank that is in the call of `head` where this one is, or was, in that of `mark`."""
        self._call = decode_header(mark.header).call.numbered(sequence)
        raise self._mismatch_error(
            self._links[rank], renumbered(head, sequence), renumbered(mark.header, sequence), b""
        )

    def _link(self, peer: int) -> LanePair:
        return self._links[peer]

    def _move(
        self,
        target: LanePair | None,
        outgoing: Buffers,
        source: LanePair | None,
        incoming: Buffers,
        on_received: OnReceived | None = None,
    ) -> None:
        """Send and receive at the same time until both lists of buffers are used up; posted messages go first."""
        advance(incoming, 0)
        label = 0 if target is None or not outgoing else self._label(target.peer)
        while outgoing or incoming:
            moved = bool(self._pending.transfers) and self._pending.advance(self._links, self._move_posted)
            ends: list[End] = []
            peer = -1
            if target is not None and outgoing:
                if not self._pending.has_pending(target.peer, sends=True):
                    pushed = target.outlet.push(outgoing, label)
                    moved, label = moved or pushed > 0, 0 if pushed else label
                ends, peer = [target.outlet], target.peer
            if source is not None and incoming:
                if not self._pending.has_pending(source.peer, sends=False):
                    moved |= self._pull(source, incoming, on_received)
                    self._require_same_era(source)
                ends, peer = [*ends, source.inlet], source.peer
            if not moved:
                self._wait([*self._posted_ends(), *ends], peer)

    def _label(self, dst: int) -> int:
        """Count a message that its sender waits for, and return a label that tells between which rounds it is sent."""
        self._words[self._layout.news(dst) // 8 + 1 + self.rank] += 1
        return self.rounds.number % _ERAS + 1

    def _require_same_era(self, source: LanePair) -> None:
        """Raise for a message that was sent before a collective, and is received after it, or the other way round."""
        label = source.inlet.label
        if label and label != self.rounds.number % _ERAS + 1:
            raise MismatchError(
                f"rank {source.peer} sent a message to rank {self.rank}, which receives it in {self._call}, and a "
                "collective is between the two: all ranks must make the same calls in the same order",
                origin=self.rank,
            )
        source.inlet.label = 0

    def hear(self, known: bytes) -> bytes:
        """Raise for a rank that has failed, and for a message that its sender wants received before the running call.

        That is a collective, whose round has begun. Return the news of a rank that has read all, as far as it has.
        """
        self._look()
        self._pending.advance(self._links, self._move_posted)
        counts = [link.inlet.labels for link in self._links.values()]
        for peer, link in self._links.items():
            label = 0 if self._pending.has_pending(peer, sends=False) else link.inlet.peek()
            if label and (self.rounds.number - label) % _ERAS < _ERAS // 2:  # else it is from after the round
                raise MismatchError(
                    f"rank {peer} has sent a message that rank {self.rank} in {self._call} has not received before: "
                    "all ranks must make the same calls in the same order",
                    origin=self.rank,
                )
        return struct.pack(f"={self.size + 1}Q{self.size}x", 0, *counts[: self.rank], 0, *counts[self.rank :])

    def _pull(self, source: LanePair, incoming: Buffers, on_received: OnReceived | None) -> bool:
        received = source.inlet.pull(incoming)
        if received and on_received is not None:
            on_received(received)
        return received > 0

    def _post(self, transfer: Transfer[LanePair]) -> Transfer[LanePair]:
        self._pending.add(transfer)
        self._pending.advance(self._links, self._move_posted)
        return transfer

    def progress(self, pending: Pending, wait: bool) -> bool:
        """Move what was posted, until `pending` is done if `wait` is true; return whether it is."""
        assert isinstance(pending, Transfer)  # noqa: S101 - made by this channel
        moved = self._pending.advance(self._links, self._move_posted)
        while wait and not pending.done:
            if not moved:
                self._wait(self._posted_ends(), pending.peer)
            moved = self._pending.advance(self._links, self._move_posted)
        return pending.done

    def _move_posted(self, transfer: Transfer[LanePair], link: LanePair) -> bool:
        if transfer.sends:
            return link.outlet.push(transfer.buffers) > 0
        return self._pull(link, transfer.buffers, transfer.on_received)

    def _posted_ends(self) -> list[End]:
        """Return the ends that posted messages wait for."""
        return [link.outlet if sends else link.inlet for link, sends in self._pending.directions()]

    def _release(self, segment: Segment) -> None:
        """Give up the lock, by which others see that this rank is gone, and the views, with which the memory goes."""
        segment.close()
        self._segment = None
        self.neighbours = None
        self._links.clear()
        self._pending.clear()
        self._views.clear()
