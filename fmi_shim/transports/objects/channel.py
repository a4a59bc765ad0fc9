"""Channels through a store of objects, S3 or Redis: one object for each message, found by polling.

Names and contents are FMI's (src/comm/ClientServer.cpp), so that a rank of the C++ library may take part. The key is
``comm_name + writer + "_" + label + "_" + number``. The content is the raw payload; in framed mode, between ranks of
ours, a header of `frames` precedes it.

Deletion. FMI deletes a rank's objects when its communicator ends, read or not: a rank that closes right after a
reduce or a barrier makes the others wait for deleted objects. Here a rank that closes writes ``comm_name + rank +
"_left"``, and deletes its messages once every rank that may still read from it has written that object, too. In raw
mode a rank of the C++ library never writes it: its end shows when the last object that was read from it is deleted,
and one that never registered on Redis is waited for during `UNREGISTERED_READER_WAIT` alone. It
deletes ``_left`` once the ranks whose objects it has read have deleted them, which shows that they have seen it. Both
waits end after ``max_timeout``, at most `MAX_CLOSE_WAIT` seconds: a rank that was killed, failed or is of the C++
library never writes ``_left``. A rank that fails deletes its objects at once. A rank only deletes keys that it has
written itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fmi_shim.backoff import Deadline, PollBackoff
from fmi_shim.channel import Pending, Schedule
from fmi_shim.config import ObjectConfig
from fmi_shim.error_codec import make_abort
from fmi_shim.errors import MismatchError, PeerTimeoutError, StoreError
from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.pairing.rendezvous_client import ServerRegistration
from fmi_shim.transports.objects import schedules
from fmi_shim.transports.objects.codec import ReceivedObject, encode_object
from fmi_shim.transports.objects.liveness import Liveness
from fmi_shim.transports.objects.polling import ObjectPoller, describe
from fmi_shim.transports.objects.store import ObjectName, Store
from fmi_shim.transports.objects.timing import MAX_CLOSE_WAIT, UNREGISTERED_READER_WAIT


@dataclass(slots=True)
class _PendingObject:
    """A posted message; see `Pending`."""

    name: ObjectName | None
    call: Call
    array: Array | None
    done: bool = False


class ObjectChannel:
    """Messages as objects in a store. Implements `Channel` and, for the schedules, `ObjectMessages`.

    A message is copied once where it is received, and in framed mode once where it is sent.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    comm_name
        ObjectName of the communicator, the same on all ranks.
    store
        Where the objects are.
    config
        Pauses and time limits, and whether objects have headers.
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
        self._numbers: Counter[str] = Counter()
        self._written: list[str] = []
        self._readers: set[int] = set()
        self._liveness = Liveness(rank, comm_name, store, config.framed, registration)
        self._poller = ObjectPoller(rank, comm_name, store, config, self._liveness)
        self._call: Call
        self._closed = False
        self._process = os.getpid()

    @property
    def awaited(self) -> int | None:
        """The rank that this one waits for; see `Channel`."""
        return self._poller.awaited

    @property
    def call_deadline(self) -> Deadline:
        """The instant by which the running call must end."""
        return self._poller.call_deadline

    @call_deadline.setter
    def call_deadline(self, deadline: Deadline) -> None:
        self._poller.call_deadline = deadline

    def prepare(self, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
        """Return the schedule of a collective over objects."""
        return schedules.prepare(self, call, function, combine)

    def begin(self, call: Call, sequence: int) -> None:
        """Set the running call, which objects are written for and compared with."""
        self._call = call.numbered(sequence)
        if self.others:
            self._liveness.mark_present()

    def send(self, buffer: Array, dst: int) -> None:
        """Write one object."""
        self.put({self.outgoing(dst): buffer}, [dst])

    def recv(self, buffer: Array, src: int) -> Array:
        """Wait for one object and copy it into `buffer`; see `Channel.recv`."""
        with self._repeatable(src):
            (found,) = self.get([self.incoming(src)], buffer)
        if found.size < buffer.size:
            buffer = buffer[: found.size]
        buffer[...] = found.reshape(buffer.shape)
        return buffer

    def recv_new(self, src: int, parts: int | None = None) -> Array:
        """Return an array made from one object with a header."""
        with self._repeatable(src):
            return self.get_new(self.incoming(src), parts)

    @contextlib.contextmanager
    def _repeatable(self, src: int) -> Iterator[None]:
        """Let the object from rank `src` be read again after the block timed out: it is read whole or not at all."""
        try:
            yield
        except PeerTimeoutError as error:
            if error.reported_by is None:
                self._numbers[f"from {src}"] -= 1
                error.repeatable = True
            raise

    def withdraw_wait(self) -> None:
        """Withdraw what the server was told of the wait."""
        self._liveness.withdraw_wait()

    def sendrecv(self, outgoing: Array, dst: int, incoming: Array, src: int) -> None:
        """Write, then read."""
        self.send(outgoing, dst)
        self.recv(incoming, src)

    def isend(self, buffer: Array, dst: int) -> Pending:
        """Write one object, which completes the send."""
        self.send(buffer, dst)
        return _PendingObject(None, self._call, buffer, done=True)

    def irecv(self, buffer: Array | None, src: int) -> Pending:
        """Record the object to be read."""
        return _PendingObject(self.incoming(src), self._call, buffer)

    def progress(self, pending: Sequence[Pending], wait: bool) -> bool:
        """Read those of the objects that exist, and wait for one if `wait` is true; return whether one was read."""
        waiting = [m for m in pending if isinstance(m, _PendingObject) and not m.done]
        missing = {message.name: message for message in waiting if message.name is not None}
        wait = wait and len(waiting) == len(pending)
        contents = self._poller.read_some(list(missing), lambda: self._call, wait)
        running = self._call
        for name, content in contents.items():
            message = missing[name]
            self._call = message.call
            found = self._received(name, content)
            if message.array is None:
                message.array, _ = found.new_array()
            else:
                payload = found.payload(message.array, self._config.framed)
                message.array = message.array[: payload.size]
                message.array[...] = payload
            message.done = True
        self._call = running
        return any(message.done for message in pending)

    def outgoing(self, dst: int) -> ObjectName:
        """Return the name of the next message to rank `dst`."""
        return ObjectName(self.rank, str(dst), self.next_number(f"to {dst}"))

    def incoming(self, src: int) -> ObjectName:
        """Return the name of the next message from rank `src`."""
        return ObjectName(src, str(self.rank), self.next_number(f"from {src}"))

    def next_number(self, kind: str) -> int:
        """Return how many objects of `kind` there were before. Every rank counts every call, writer or not."""
        self._numbers[kind] += 1
        return self._numbers[kind] - 1

    def put(self, objects: Mapping[ObjectName, Array], readers: Iterable[int]) -> None:
        """Write objects that `readers` will read. Without readers nothing is written.

        Raises
        ------
        MismatchError
            If one of the objects exists already.
        """
        for_ranks = set(readers)
        if not for_ranks:
            return
        contents = {
            name.key(self.comm_name): encode_object(buffer, self._call, self._config.framed)
            for name, buffer in objects.items()
        }
        existing = self._store.put(contents)
        self._written += [key for key in contents if key not in existing]
        self._readers |= for_ranks
        if existing:
            raise MismatchError(
                f"{self._purpose}: {existing[0]!r} exists already in {self._store.name}: written by a run that was "
                f"killed, by a second process with rank {self.rank}, or by another communicator whose name and rank "
                "form the same key; delete it, or use another comm_name",
                origin=self.rank,
            )

    def get(self, names: Sequence[ObjectName], like: Array) -> list[Array]:
        """Wait for objects; return them as flat read-only arrays of the type and size of `like`, without copying.

        Raises
        ------
        PeerTimeoutError
            If no object appeared for ``max_timeout``.
        MismatchError
            If one does not match the running call.
        """
        contents = self._poller.read(names, lambda: self._call)
        return [self._received(name, content).payload(like, self._config.framed) for name, content in contents.items()]

    def get_new(self, name: ObjectName, parts: int | None = None) -> Array:
        """Wait for an object; return it as an array of its header's type and shape (see `Channel.recv_new`)."""
        if not self._config.framed:
            raise TypeError(
                "the type of a message without a header is unknown: pass fmi.types or an array to fill, or use framed "
                "mode"
            )
        content = self._poller.read([name], lambda: self._call)[name]
        array, self._call = self._received(name, content).new_array(parts)
        return array

    def wait_until_present(self, names: Sequence[ObjectName]) -> None:
        """Wait until all objects in `names` exist, without reading them, as FMI's barrier does.

        Raises
        ------
        PeerTimeoutError
            If none appeared for ``max_timeout``.
        """
        self._poller.wait_until_present(names, lambda: self._call)

    def complete_posted(self) -> None:
        """Do nothing: a posted message does not need this rank's calls to be sent."""

    def fail(self, error: BaseException) -> None:
        """Delete what this rank has written, publish the error to waiting ranks, and close."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        abort = make_abort(error, self.rank, self._purpose)
        self._liveness.report_failure(abort)
        try:
            self._delete_written()
            if self.others:
                self._liveness.record_failure(abort)
            self._store.close()
        except StoreError as store_error:
            error.add_note(f"objects of {self.comm_name!r} may not be deleted: {store_error}")

    def close(self) -> None:
        """Wait for the readers, delete what this rank has written, and close (see the module's docstring).

        Takes one write and at least two polls (on S3 listings); none if this rank wrote and read nothing.
        """
        if self._closed or os.getpid() != self._process:  # a forked child must not delete its parent's objects
            return
        self._closed = True
        try:
            if self._written or self._poller.last_read:
                self._leave()
        finally:
            self._delete_written()
            self._store.close()

    def _leave(self) -> None:
        left = self._left_key(self.rank)
        self._store.put({left: b""})
        began = time.monotonic()
        try:
            self._poll_until(lambda: self._readers_ended(time.monotonic() - began), needed=bool(self._readers))
            self._delete_written()
            writers = set(self._poller.last_read)
            if not self._config.framed:
                writers -= self._liveness.unregistered(writers)  # no C++ rank looks for this one's `_left`
            read = {self._poller.last_read[rank] for rank in writers}
            self._poll_until(lambda: not self._store.present(read, self.comm_name), needed=bool(read))
        finally:
            self._store.delete([left])

    def _readers_ended(self, waited: float) -> bool:
        """Return whether no reader is to be waited for any more, after `waited` seconds."""
        left = {self._left_key(rank): rank for rank in self._readers}
        known = set() if self._config.framed else self._readers & self._poller.last_read.keys()
        read = {self._poller.last_read[rank]: rank for rank in known}
        present = self._store.present(left.keys() | read.keys(), self.comm_name)
        awaited = self._readers - {rank for key, rank in left.items() if key in present}
        awaited -= {rank for key, rank in read.items() if key not in present}  # C++ ranks delete at their end
        if self._config.framed or waited < UNREGISTERED_READER_WAIT:
            return not awaited
        return awaited <= self._liveness.unregistered(awaited)

    def _left_key(self, rank: int) -> str:
        return f"{self.comm_name}{rank}_left"

    def _poll_until(self, done: Callable[[], bool], needed: bool) -> None:
        longest = MAX_CLOSE_WAIT if self._config.max_timeout is None else self._config.max_timeout
        backoff = PollBackoff(self._config.poll, min(longest, MAX_CLOSE_WAIT))
        self._liveness.start_wait()
        while needed and not done() and not self._liveness.readers_gone(self._readers) and backoff.pause():
            pass

    def _delete_written(self) -> None:
        keys, self._written = self._written, []
        if keys:
            self._store.delete(keys)

    def _received(self, name: ObjectName, content: bytes) -> ReceivedObject:
        description = describe(name, self.comm_name, self._store)
        return ReceivedObject(content, name.writer, description, self.rank, self._call)

    @property
    def _purpose(self) -> str:
        return f"rank {self.rank} in {self._call.made_by(self.rank)}"
