"""Messages and signals through memory that all ranks share: for ranks on one host."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fmi_shim.channels.base import Pending
from fmi_shim.channels.framing import Framing
from fmi_shim.channels.posting import OnReceived, Posts, Transfer
from fmi_shim.channels.stream import Buffers, advance
from fmi_shim.collectives.in_segment import SegmentChannel
from fmi_shim.config import DirectConfig
from fmi_shim.errors import ConfigError, FmiError, PeerLostError, PeerTimeoutError
from fmi_shim.frames import HEADER_BYTES, Call, abort_payload, decode_abort
from fmi_shim.operators import Array
from fmi_shim.shared_memory import layout, semaphores
from fmi_shim.shared_memory.lanes import Inlet, Outlet
from fmi_shim.shared_memory.meeting import SUFFIX, meet
from fmi_shim.shared_memory.segment import Segment
from fmi_shim.shared_memory.semaphores import Semaphore
from rendezvous.protocol import pair_name

_SPINS = 100
"""How often a waiting rank looks before it offers the processor to others, where each rank may have one of its own."""
_POLL_SECONDS = 1e-3
"""How long it then looks again and again, offering the processor in between, before it sleeps."""
_NAP_SECONDS = 0.02
"""How long a sleep without a post lasts: then the rank looks whether the awaited one lives, and anyone has failed."""
_SHORT_NAP_SECONDS = 0.001
"""The same while waiting to send and to receive, of which a rank can sleep on one only."""

_BLOCK_PREFIX = struct.Struct("<Q")
_ABORT_PREFIX = struct.Struct("<iI")  # the rank that tells, and the length of what follows


class LanePair:
    """The way to rank `peer` and back.

    Attributes
    ----------
    peer
        Rank at the other end.
    outlet, inlet
        The ends of the two lanes that are this rank's.
    owed
        Blocks that must come next, before anything that is to be received.
    sent, received
        Number of messages that were begun in each direction.
    ended
        Always False: that the other end left is seen only when it is waited for.
    """

    __slots__ = ("ended", "inlet", "outlet", "owed", "peer", "received", "sent")

    def __init__(self, segment: Segment, rank: int, peer: int) -> None:
        self.peer = peer
        self.outlet = Outlet(segment.memory, segment.layout, rank, peer)
        self.inlet = Inlet(segment.memory, segment.layout, peer, rank)
        self.owed: list[bytes] = []
        self.ended = False
        self.sent = 0
        self.received = 0

    def push_back(self, data: bytes) -> None:
        """Have no use for it: through lanes nobody says that it waits."""


class SharedMemoryChannel(Framing[LanePair], SegmentChannel):
    """Implements `collectives.in_segment.SegmentChannel`.

    The first call, of whatever kind, sets the segment up, for which all ranks must come. A message is copied once
    into a lane and once out of it. How ranks wait: they poll for a millisecond, and then sleep on a semaphore; every
    20 ms they look whether the awaited rank's process lives and whether any rank has failed.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    comm_name
        Name of the communicator, the same on all ranks.
    config
        The rendezvous server, where the ranks meet, and the longest wait.

    Raises
    ------
    ConfigError
        If there is no such channel on this system, or not for so many ranks.
    """

    _block: bytes

    def __init__(self, rank: int, size: int, comm_name: str, config: DirectConfig) -> None:
        if not semaphores.AVAILABLE:
            raise ConfigError("FMI_CHANNEL is shm, which needs Linux: use the Direct channel")
        if size > layout.MAX_RANKS:
            raise ConfigError(
                f"FMI_CHANNEL is shm, which {layout.MAX_RANKS} ranks may share, not {size}: use the Direct channel"
            )
        pair_name(comm_name + SUFFIX, size - 1, size - 1)  # the longest name needed
        self.rank = rank
        self.size = size
        self.comm_name = comm_name
        self._config = config
        self._max_timeout = config.max_timeout
        self._process = os.getpid()
        self._spins = _SPINS if size <= len(os.sched_getaffinity(0)) else 0
        self._segment: Segment | None = None
        self._links: dict[int, LanePair] = {}
        self._debtors: list[LanePair] = []
        self._posts: Posts[LanePair] = Posts()
        self._views: dict[np.dtype[Any], tuple[Array, Array]] = {}

    def begin(self, call: Call, sequence: int) -> None:
        """Make the call the one that messages are compared with, unless a rank has failed meanwhile."""
        self._expect(call.numbered(sequence))
        if self._segment is None:
            self._attach(meet(self.rank, self.size, self.comm_name, self._config))
        self._look()

    def fail(self, error: BaseException) -> None:
        """Tell all ranks of the error, if it is the first one; then leave."""
        segment = self._segment
        if segment is None or os.getpid() != self._process:
            return
        if self._claim.try_wait():
            record = abort_payload(self._as_abort(error))
            told = _ABORT_PREFIX.pack(self.rank, len(record)) + record
            segment.memory[layout.ABORT : layout.ABORT + len(told)] = told
            self._gate.post()
        self._release(segment)

    def close(self) -> None:
        """Leave in peace."""
        segment = self._segment
        if segment is not None and os.getpid() == self._process:
            Semaphore(segment.memory, segment.layout.farewell(self.rank)).post()
            self._release(segment)

    def slots(self, dtype: np.dtype[Any]) -> Array:
        """Return all slots, shape (2, size, elements)."""
        return self._areas(dtype)[0]

    def results(self, dtype: np.dtype[Any]) -> Array:
        """Return the two areas for results, shape (2, elements)."""
        return self._areas(dtype)[1]

    def signal(self, dst: int) -> None:
        """Send the running call's header and nothing else."""
        self._let_pass(dst, sends=True)
        outlet = self._links[dst].outlet
        if not outlet.ready:
            self._wait((outlet,), dst)
        outlet.put(self._block)

    def await_signal(self, src: int) -> None:
        """Take the next block of rank `src`, which must be its signal."""
        link = self._links[src]
        if link.owed:
            self._pay(link)
        self._let_pass(src, sends=False)
        if not link.inlet.poll():
            self._wait((link.inlet,), src)
        self._take(link, self._block)

    def await_announcement(self, src: int) -> Array:
        """Take a signal whose type and shape only the sender knows."""
        return self._announced(self._link(src))

    def owe(self, src: int, signals: int) -> None:
        """Leave signals of the running call for later; messages that were posted before come before them."""
        self._let_pass(src, sends=False)
        link = self._links[src]
        link.owed += [self._block] * signals
        self._debtors.append(link)

    def settle(self) -> None:
        """Await what was left for later."""
        for link in self._debtors:
            self._pay(link)
        self._debtors.clear()

    def _pay(self, link: LanePair) -> None:
        while not self._paid(link):
            self._wait((link.inlet,), link.peer)

    def _paid(self, link: LanePair) -> bool:
        """Take what has come of the blocks that must come first; return whether that is all of them."""
        while link.owed and link.inlet.poll():
            self._take(link, link.owed.pop(0))
        return not link.owed

    def _take(self, link: LanePair, block: bytes) -> None:
        """Take the next block, which has come, and must be `block`."""
        if not link.inlet.take(block):
            head = self._read(link, HEADER_BYTES)
            found = self._accept(link, head, b"")
            head += self._read(link, 8 * (found.dimensions or 0))
            raise self._unlike(link, head, block[_BLOCK_PREFIX.size :], b"")

    def _expect(self, call: Call) -> None:
        super()._expect(call)
        length = 0 if call.dtype is None else call.count * call.dtype.itemsize
        frame = self._head(length)
        self._block = _BLOCK_PREFIX.pack(len(frame)) + frame

    def _link(self, peer: int) -> LanePair:
        link = self._links[peer]
        if link.owed:
            self._pay(link)
        return link

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
        while outgoing or incoming:
            moved = bool(self._posts) and self._posts.advance(self._links, self._move_posted)
            ends: list[Inlet | Outlet] = []
            peer = -1
            if target is not None and outgoing:
                if not self._posts.hold(target.peer, sends=True):
                    moved |= target.outlet.push(outgoing) > 0
                ends, peer = [target.outlet], target.peer
            if source is not None and incoming:
                if not self._posts.hold(source.peer, sends=False):
                    moved |= self._pull(source, incoming, on_received)
                ends, peer = [*ends, source.inlet], source.peer
            if not moved:
                self._wait([*self._posted_ends(), *ends], peer)

    def _pull(self, source: LanePair, incoming: Buffers, on_received: OnReceived | None) -> bool:
        received = source.inlet.pull(incoming)
        if received and on_received is not None:
            on_received(received)
        return received > 0

    def _post(self, transfer: Transfer[LanePair]) -> Transfer[LanePair]:
        self._posts.add(transfer)
        self._posts.advance(self._links, self._move_posted)
        return transfer

    def progress(self, pending: Pending, wait: bool) -> bool:
        """Move what was posted, until `pending` is done if `wait` is true; return whether it is."""
        assert isinstance(pending, Transfer)  # noqa: S101 - made by this channel
        moved = self._posts.advance(self._links, self._move_posted)
        while wait and not pending.done:
            if not moved:
                self._wait(self._posted_ends(), pending.peer)
            moved = self._posts.advance(self._links, self._move_posted)
        return pending.done

    def _move_posted(self, transfer: Transfer[LanePair], link: LanePair) -> bool:
        if transfer.sends:
            return link.outlet.push(transfer.buffers) > 0
        return self._paid(link) and self._pull(link, transfer.buffers, transfer.on_received)

    def _posted_ends(self) -> list[Inlet | Outlet]:
        """Return the ends that posted messages wait for."""
        return [link.outlet if sends else link.inlet for link, sends in self._posts.lanes()]

    def _let_pass(self, peer: int, sends: bool) -> None:
        """Wait until the posted messages that have to go first are through."""
        while self._posts and self._posts.hold(peer, sends):
            if not self._posts.advance(self._links, self._move_posted):
                self._wait(self._posted_ends(), peer)

    def _wait(self, ends: Sequence[Inlet | Outlet], peer: int) -> None:
        """Wait until one of `ends`, which lead to or come from `peer`, may go on."""
        for _ in range(self._spins):
            for end in ends:
                if end.poll():
                    return
        start = time.monotonic()
        while time.monotonic() - start < _POLL_SECONDS:
            os.sched_yield()
            for end in ends:
                if end.poll():
                    return
        nap = _NAP_SECONDS if len(ends) == 1 else _SHORT_NAP_SECONDS
        while not any(end.poll() for end in ends) and not ends[-1].sleep(nap):
            self._look()
            self._require_alive(ends, peer)
            if self._max_timeout is not None and time.monotonic() - start >= self._max_timeout:
                raise PeerTimeoutError(
                    f"{self._purpose}: nothing came from or went to rank {peer} for {self._max_timeout:g} s: it is "
                    "late, stopped, or in another call; raise backends.Direct.max_timeout (ms, 0 for ever) if it needs "
                    "longer",
                    origin=peer,
                )

    def _look(self) -> None:
        """Raise the error that a rank has told all others, if there is one."""
        if not self._gate.try_wait():
            return
        self._gate.post()
        assert self._segment is not None  # noqa: S101 - there is a gate
        memory = self._segment.memory
        start = layout.ABORT + _ABORT_PREFIX.size
        teller, length = _ABORT_PREFIX.unpack(memory[layout.ABORT : start])
        raise self._told(teller, decode_abort(memory[start : start + length]))

    def _require_alive(self, ends: Sequence[Inlet | Outlet], peer: int) -> None:
        """Raise if `peer` has ended and nothing that it sent before is left."""
        segment = self._segment
        assert segment is not None  # noqa: S101 - somebody is waited for
        if segment.alive(peer) or any(end.poll() for end in ends):
            return
        self._look()
        raise self._ended(segment, peer)

    def _ended(self, segment: Segment, peer: int) -> FmiError:
        farewell = Semaphore(segment.memory, segment.layout.farewell(peer))
        if farewell.try_wait():
            farewell.post()
            return self._left(peer)
        return PeerLostError(f"{self._purpose}: lost rank {peer}, whose process ended", origin=peer)

    def _attach(self, segment: Segment) -> None:
        self._segment = segment
        self._claim = Semaphore(segment.memory, layout.CLAIM)
        self._gate = Semaphore(segment.memory, layout.GATE)
        self._links = {peer: LanePair(segment, self.rank, peer) for peer in range(self.size) if peer != self.rank}

    def _areas(self, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        areas = self._views.get(dtype)
        if areas is None:
            assert self._segment is not None  # noqa: S101 - a call has begun
            plan = self._segment.layout
            whole = np.frombuffer(self._segment.memory, np.uint8)
            slots = whole[plan.slots : plan.results].view(dtype).reshape(2, self.size, -1)
            areas = slots, whole[plan.results : plan.total].view(dtype).reshape(2, -1)
            self._views[dtype] = areas
        return areas

    def _release(self, segment: Segment) -> None:
        """Give up the lock, by which others see that this rank is gone, and the views, with which the memory goes."""
        segment.close()
        self._segment = None
        self._links.clear()
        self._debtors.clear()
        self._posts.clear()
        self._views.clear()
