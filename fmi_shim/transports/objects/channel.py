"""Channels through a store of named objects, S3 or Redis: one object a message, found by polling.

Names and contents are FMI's (src/comm/ClientServer.cpp), so that a rank of the C++ library may be in the
world: ``comm_name + writer + "_" + label + "_" + number``, the raw payload, and in framed mode, between
ranks of ours, `frames`' header before it.

Deletion. FMI deletes a rank's objects when its communicator ends, read or not: a rank that leaves right
after a reduce or a barrier makes the others wait for what is gone. Here a rank that closes writes
``comm_name + rank + "_left"`` and deletes its messages once every rank that may still read from it has
written that too; the mark itself it deletes once the ranks it has read from have deleted theirs, which
says that they have seen it. Both waits end after ``max_timeout``, at most `LONGEST_FAREWELL` seconds, for
a rank that was killed, failed or is of the C++ library never writes the mark. A rank that fails deletes
its objects at once. Nothing but names that this rank has written is ever deleted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fmi_shim.backoff import PollBackoff
from fmi_shim.channel import Pending, Schedule
from fmi_shim.config import ObjectConfig
from fmi_shim.error_codec import make_abort
from fmi_shim.errors import MismatchError, StoreError
from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.pairing.rendezvous_client import ServerRegistration
from fmi_shim.transports.objects import schedules
from fmi_shim.transports.objects.codec import Found, content_of
from fmi_shim.transports.objects.liveness import Presence
from fmi_shim.transports.objects.polling import Arrivals, where
from fmi_shim.transports.objects.store import Name, Store

LONGEST_FAREWELL = 60.0
"""Seconds that a closing rank waits for its readers when ``max_timeout`` is longer, or for ever."""


@dataclass(slots=True)
class _Posted:
    """A message that was posted; see `Pending`."""

    names: list[Name]
    buffer: Array
    done: bool = False


class ObjectChannel:
    """Messages as objects in a store. Implements `Channel`; `collectives.objects` makes use of the rest.

    A message is copied once where it is received, and in framed mode once where it is sent.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    comm_name
        Name of the communicator, the same on all ranks.
    store
        Where the objects are.
    config
        How long to wait, and whether objects have headers.
    registration
        This rank's registration with the rendezvous server.
    """

    full_duplex = True

    def __init__(
        self, rank: int, size: int, comm_name: str, store: Store, config: ObjectConfig, registration: ServerRegistration
    ) -> None:
        self.rank = rank
        self.size = size
        self.comm_name = comm_name
        self.others = [other for other in range(size) if other != rank]
        self._store = store
        self._config = config
        self._turns: Counter[str] = Counter()
        self._written: list[str] = []
        self._readers: set[int] = set()
        self._presence = Presence(rank, comm_name, store, config.framed, registration)
        self._arrivals = Arrivals(rank, comm_name, store, config, self._presence)
        self._call: Call
        self._closed = False
        self._process = os.getpid()

    def prepare(self, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
        """Return the schedule of a collective over objects."""
        return schedules.prepare(self, call, function, combine)

    def begin(self, call: Call, sequence: int) -> None:
        """Make the call the one that objects are written for and compared with."""
        self._call = call.numbered(sequence)
        if self.others:
            self._presence.show()

    def send(self, buffer: Array, dst: int) -> None:
        """Write one object."""
        self.put({self.outgoing(dst): buffer}, [dst])

    def recv(self, buffer: Array, src: int) -> None:
        """Wait for one object and copy it into `buffer`."""
        (found,) = self.get([self.incoming(src)], buffer)
        buffer[...] = found.reshape(buffer.shape)

    def recv_new(self, src: int, parts: int | None = None) -> Array:
        """Return an array made from one object with a header."""
        return self.get_new(self.incoming(src), parts)

    def sendrecv(self, outgoing: Array, dst: int, incoming: Array, src: int) -> None:
        """Write, then read."""
        self.send(outgoing, dst)
        self.recv(incoming, src)

    def isend(self, buffer: Array, dst: int) -> Pending:
        """Write one object, which is all there is to it."""
        self.send(buffer, dst)
        return _Posted([], buffer, done=True)

    def irecv(self, buffer: Array, src: int) -> Pending:
        """Note which object is to be read."""
        return _Posted([self.incoming(src)], buffer)

    def progress(self, pending: Pending, wait: bool) -> bool:
        """Read the object, waiting for it if `wait` is true; return whether it was there."""
        assert isinstance(pending, _Posted)  # noqa: S101 - made by this channel
        if not pending.done and (wait or self._there(pending.names)):
            (found,) = self.get(pending.names, pending.buffer)
            pending.buffer[...] = found.reshape(pending.buffer.shape)
            pending.done = True
        return pending.done

    def _there(self, names: Sequence[Name]) -> bool:
        return None not in self._store.get([name.key(self.comm_name) for name in names])

    def outgoing(self, dst: int) -> Name:
        """Return the name of the next message to rank `dst`."""
        return Name(self.rank, str(dst), self.turn(f"to {dst}"))

    def incoming(self, src: int) -> Name:
        """Return the name of the next message from rank `src`."""
        return Name(src, str(self.rank), self.turn(f"from {src}"))

    def turn(self, kind: str) -> int:
        """Return how many of `kind` there were before; every rank counts every call, whether it writes or not."""
        self._turns[kind] += 1
        return self._turns[kind] - 1

    def put(self, objects: Mapping[Name, Array], readers: Iterable[int]) -> None:
        """Write objects that `readers` will read; without readers nothing is written.

        Raises
        ------
        MismatchError
            If there is such an object already.
        """
        for_ranks = set(readers)
        if not for_ranks:
            return
        contents = {
            name.key(self.comm_name): content_of(buffer, self._call, self._config.framed)
            for name, buffer in objects.items()
        }
        there = self._store.put(contents)
        self._written += [key for key in contents if key not in there]
        self._readers |= for_ranks
        if there:
            raise MismatchError(
                f"{self._purpose}: {there[0]!r} is in {self._store.name} already: left by a run that was killed, or "
                f"written by a second process with rank {self.rank}, or by another communicator whose name and rank "
                "read alike; delete it, or take another comm_name",
                origin=self.rank,
            )

    def get(self, names: Sequence[Name], like: Array) -> list[Array]:
        """Wait for objects; return them as flat read-only arrays of the type and size of `like`, without copying.

        Raises
        ------
        PeerTimeoutError
            If no object came for ``max_timeout``.
        MismatchError
            If one is not what the running call expects.
        """
        contents = self._arrivals.wait_for(names, lambda: self._call)
        return [self._found(name, content).payload(like, self._config.framed) for name, content in contents.items()]

    def get_new(self, name: Name, parts: int | None = None) -> Array:
        """Wait for an object; return it as what its header says it is (see `Channel.recv_new`)."""
        if not self._config.framed:
            raise TypeError(
                "without a header (framed mode) a message does not tell its type: give fmi.types, or an array to fill"
            )
        content = self._arrivals.wait_for([name], lambda: self._call)[name]
        array, self._call = self._found(name, content).new(parts)
        return array

    def meet(self, names: Sequence[Name]) -> None:
        """Wait until all of `names` exist, without reading them, as FMI's barrier does.

        Raises
        ------
        PeerTimeoutError
            If none came for ``max_timeout``.
        """
        self._arrivals.meet(names, lambda: self._call)

    def fail(self, error: BaseException) -> None:
        """Delete what this rank has written, leave word of the error for those who wait, and close."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        try:
            self._delete_written()
            if self.others:
                self._presence.fail(make_abort(error, self.rank, self._purpose))
            self._store.close()
        except StoreError as trouble:
            error.add_note(f"objects of {self.comm_name!r} may be left behind: {trouble}")

    def close(self) -> None:
        """Wait for the readers, delete what this rank has written, and close (see the module's text).

        Takes one write and from two looks (on S3 listings) on, none where this rank wrote and read nothing.
        """
        if self._closed or os.getpid() != self._process:  # a forked child must not delete its parent's objects
            return
        self._closed = True
        self._presence.close()
        try:
            if self._written or self._arrivals.last_read:
                self._part()
        finally:
            self._delete_written()
            self._store.close()

    def _part(self) -> None:
        left = self._left(self.rank)
        self._store.put({left: b""})
        try:
            readers = {self._left(rank) for rank in self._readers}
            self._look_until(lambda: self._store.present(readers, self.comm_name) == readers, needed=bool(readers))
            self._delete_written()
            read = set(self._arrivals.last_read.values())
            self._look_until(lambda: not self._store.present(read, self.comm_name), needed=bool(read))
        finally:
            self._store.delete([left])

    def _left(self, rank: int) -> str:
        return f"{self.comm_name}{rank}_left"

    def _look_until(self, done: Callable[[], bool], needed: bool) -> None:
        longest = LONGEST_FAREWELL if self._config.max_timeout is None else self._config.max_timeout
        patience = PollBackoff(self._config.poll, min(longest, LONGEST_FAREWELL))
        self._presence.wait_begins()
        while needed and not done() and not self._presence.over(self._readers) and patience.pause():
            pass

    def _delete_written(self) -> None:
        keys, self._written = self._written, []
        if keys:
            self._store.delete(keys)

    def _found(self, name: Name, content: bytes) -> Found:
        return Found(content, name.writer, where(name, self.comm_name, self._store), self.rank, self._call)

    @property
    def _purpose(self) -> str:
        return f"rank {self.rank} in {self._call}"
