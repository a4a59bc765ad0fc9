"""``fmi.Communicator``: each operation converts values to arrays, runs a schedule on a channel, and converts back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from numpy import array, concatenate, ndarray

from fmi_shim.config import Config, load
from fmi_shim.frames import Operation
from fmi_shim.injection import start_faults
from fmi_shim.log import configure_log
from fmi_shim.objects import ObjectOperations
from fmi_shim.operators import Array, ReduceFunction
from fmi_shim.payload import Payload, combine_of, cut, is_in_place, pack, pack_operand, pack_out, pack_template
from fmi_shim.requests import Posted, Request
from fmi_shim.telemetry import start_telemetry
from fmi_shim.validation import (
    require_counts,
    require_function,
    require_integer,
    require_name,
    require_rank,
    require_rows,
    require_type,
)
from fmi_shim.value_types import TypeDescriptor, ValueType, value_type_of, wrap_announced


def _value_type(payload: Payload | None) -> ValueType | None:
    return None if payload is None else payload.value_type


def _flat(payload: Payload | None) -> Array | None:
    return None if payload is None else payload.flat


class Communicator(ObjectOperations):
    """A group of ranks that exchange messages and run collective operations.

    All ranks make the same collective calls in the same order with the same arguments. A call blocks until this rank's
    part of it is done, or raises an error that names the rank at fault (see `fmi_shim.errors`). After an error the
    communicator is closed, and further calls raise `BrokenCommunicatorError`. In a ``with`` statement it is closed at
    the end; an exception in the block is reported to the other ranks.

    Values are described by ``t``, one of ``fmi.types``, or are arrays:

    - with ``t``: an int, a float, or a list of them; a new value of the same type is returned;
    - without ``t``: a numpy array or a torch CPU tensor of any numeric type and shape, or another buffer (bytes,
      bytearray, memoryview, array.array). The result is a tensor for tensors, else a numpy array.

    With ``out``, an array of the result's type and shape, the result is written there and ``out`` is returned. ``out``
    may be the value itself, or another object with the same memory (a view, a tensor's ``.data``); in `gather`,
    `allgather`, `scatter` and `reduce_scatter`, where one of the two is larger, this rank's part of it. Memory that
    overlaps otherwise raises a `ValueError` before anything is sent.

    With ``timeout`` a call must end within that number of seconds, or raises `PeerTimeoutError`; without it, only each
    wait for another rank is limited, by ``max_timeout``.

    Each method states how often a rank copies a large array over Direct, apart from the kernel's copies into and out of
    a socket, and how many messages it sends and receives among p ranks (lg is the logarithm to base 2, rounded up).
    `transports.objects.schedules` states the same for S3 and Redis, `transports.shm.schedules` and a table in
    docs/shared_memory.md for shared memory.

    Parameters
    ----------
    peer_id
        This rank, from 0 to ``num_peers - 1``.
    num_peers
        Number of ranks.
    config_path
        Path of an ``fmi.json``, or its content as `fmi_shim.config.parse` returns it.
    comm_name
        Name of the communicator: the same on all ranks, and not used by another communicator at the same time.
    faas_memory
        Memory of the function, MB: an input of the price model.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.
    ConfigError
        If the configuration cannot be read or is invalid.
    """

    def __init__(
        self,
        peer_id: int,
        num_peers: int,
        config_path: str | os.PathLike[str] | Config,
        comm_name: str,
        faas_memory: int = 128,
    ) -> None:
        require_integer("num_peers", num_peers, 1, 2**31 - 1)
        require_rank("peer_id", peer_id, num_peers)
        require_integer("faas_memory", faas_memory, 1, 2**31 - 1)
        require_name("comm_name", comm_name, num_peers)
        configure_log()
        start_faults(peer_id, num_peers)
        start_telemetry(peer_id, num_peers)
        config = config_path if isinstance(config_path, Config) else load(config_path)
        self._open(peer_id, num_peers, config, comm_name, faas_memory)

    def barrier(self, timeout: float | None = None) -> None:
        """Block until all ranks have called it.

        lg p messages sent and received.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                self.barrier()
            return
        plan = self._calls.barrier
        if plan is None:
            plan = self._calls.barrier = self._calls.collective(Operation.barrier)
        plan.run()

    def send(self, value: object, dst: int, t: TypeDescriptor | None = None, timeout: float | None = None) -> None:
        """Send `value` to rank `dst`, which must call `recv`.

        One message, no copies. `value` may be changed on return. To this rank itself: one copy, without waiting.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                self.send(value, dst, t)
            return
        require_rank("dst", dst, self._size)
        payload = pack(value, t)
        self._calls.sending(dst, payload.value_type).run(payload.flat)

    def recv(self, src: int, t: TypeDescriptor | None = None, out: object = None, timeout: float | None = None) -> Any:
        """Receive the next value that rank `src` sends.

        Without `t` the value is an array: it is received into `out`, or in framed mode into a new array if `out` is
        None. An array with fewer rows than `out` (a shorter first axis, the others equal) is received in framed mode,
        too: its rows in `out` are returned, ``out[:rows]``. One message, no copies; from this rank itself one copy.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.recv(src, t, out)
        require_rank("src", src, self._size)
        target = self._target(out, t, "out")
        received = self._calls.receiving(src, _value_type(target)).run(_flat(target))
        return wrap_announced(received) if target is None else target.restore_part(received)

    def isend(self, value: object, dst: int, t: TypeDescriptor | None = None) -> Request:
        """Begin to send `value` to rank `dst`, and return a request without waiting.

        An array must not be changed until the request is done. One message, no copies.
        """
        require_rank("dst", dst, self._size)
        payload = pack(value, t)
        return Request(Posted.begin(self._calls.sending(dst, payload.value_type, posted=True), payload, receives=False))

    def irecv(self, src: int, t: TypeDescriptor | None = None, out: object = None) -> Request:
        """Begin to receive from rank `src` what `recv` receives with these arguments; return a request at once.

        One message, no copies.
        """
        require_rank("src", src, self._size)
        target = self._target(out, t, "out")
        return Request(
            Posted.begin(self._calls.receiving(src, _value_type(target), posted=True), target, receives=True)
        )

    def sendrecv(
        self,
        value: object,
        dst: int,
        src: int,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Send `value` to rank `dst`, and receive a value from rank `src` at the same time.

        The received value has the type and shape of `out` where that is an array, else those of `value`; it may have
        fewer rows, as in `recv`. One message
        sent and one received; one copy if `value` and `out` share memory, else none.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.sendrecv(value, dst, src, t, out)
        require_rank("dst", dst, self._size)
        require_rank("src", src, self._size)
        payload = pack(value, t)
        if out is not None and t is None:
            target = pack_template(out, "out")
        else:
            target = pack_out(out, payload.value_type) or Payload.empty(payload.value_type)
        if out is not None:
            payload = payload.apart_from(target)
        incoming = Request(
            Posted.begin(self._calls.receiving(src, target.value_type, posted=True), target, receives=True)
        )
        outgoing = Request(
            Posted.begin(self._calls.sending(dst, payload.value_type, posted=True), payload, receives=False)
        )
        outgoing.wait()
        return incoming.wait()

    def bcast(self, value: object, root: int, t: TypeDescriptor | None = None, timeout: float | None = None) -> Any:
        """Broadcast the root's `value`; every rank returns it.

        On other ranks `value` is ignored if `t` is given. Without `t` it is the array to receive into, or in framed
        mode None for a new array. One message received, up to lg p sent; no copies.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.bcast(value, root, t)
        require_rank("root", root, self._size)
        payload = pack(value, t) if self._rank == root else self._target(value, t, "value")
        received = self._calls.collective(Operation.bcast, _value_type(payload), root).run(_flat(payload))
        return wrap_announced(received) if payload is None else payload.restore()

    def gather(
        self,
        value: object,
        root: int,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Gather all ranks' values on the root.

        The root returns one flat list in rank order, or arrays joined along the first axis, which must have the same
        shape on all ranks. Other ranks return an empty list, or an array without rows. Up to lg p messages received,
        one sent. One copy of this rank's value; at a root other than rank 0 one of the result, and one more into `out`.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.gather(value, root, t, out)
        require_rank("root", root, self._size)
        payload = pack(value, t)
        whole = payload.value_type.concatenated(self._size)
        place = pack_out(out, whole) if self._rank == root else None
        if place is not None:
            is_in_place(payload.flat, place.flat, self._own_part(place))
        parts = self._calls.collective(Operation.gather, payload.value_type, root).run(payload.flat, _flat(place))
        if self._rank != root:
            return payload.value_type.concatenated(0).restore(payload.flat[:0])
        return whole.restore(parts) if place is None else place.restore()

    def allgather(
        self, value: object, t: TypeDescriptor | None = None, out: object = None, timeout: float | None = None
    ) -> Any:
        """Gather all ranks' values on every rank, joined as in `gather`.

        p - 1 messages sent and received, and one copy of this rank's value. For results smaller than
        `SwitchPoints.allgather` lg p messages, and two more copies of the result.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.allgather(value, t, out)
        payload = pack(value, t)
        whole = payload.value_type.concatenated(self._size)
        place = pack_out(out, whole) or Payload.empty(whole)
        parts = place.flat.reshape(self._size, -1)
        if out is None or not is_in_place(payload.flat, place.flat, parts[self._rank]):
            parts[self._rank] = payload.flat
        self._calls.collective(Operation.allgather, payload.value_type).run(parts)
        return place.restore()

    def scatter(
        self,
        value: object,
        root: int,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Scatter the root's `value` in equal slices; each rank returns the slice of its number.

        The length of the list, which ``t`` counts, or of the array's first axis must be a multiple of p. Without `t`,
        the other ranks pass the array to receive into as `value` or as `out`, or in framed mode None for a new array.
        One message received, up to lg p sent. One copy of the slice on ranks that send; at a root other than rank 0 one
        of the whole value.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.scatter(value, root, t, out)
        require_rank("root", root, self._size)
        whole = pack(value, t) if self._rank == root else None
        own: Payload | None
        if whole is not None or t is not None:
            value_type = (whole.value_type if whole is not None else value_type_of(require_type(t))).slice(self._size)
            own = pack_out(out, value_type) or Payload.empty(value_type)
        else:
            own = self._target(value if out is None else out, None, "value" if out is None else "out")
        if whole is not None and own is not None and out is not None:
            is_in_place(whole.flat, own.flat, self._own_part(whole))
        plan = self._calls.collective(Operation.scatter, _value_type(own), root)
        received = plan.run(_flat(whole), _flat(own))
        return wrap_announced(received) if own is None else own.restore()

    def alltoall(
        self, value: object, t: TypeDescriptor | None = None, out: object = None, timeout: float | None = None
    ) -> Any:
        """Send slice i of `value` to rank i; slice i of the result is the slice received from rank i.

        Values are cut as in `scatter`; ``t`` counts the whole list. p - 1 messages sent and received, and one copy of
        one slice. Among more than 8 ranks and for values smaller than `SwitchPoints.alltoall` lg p messages, one copy
        of the whole value at the start and at the end, and one of half of it for each message. One more copy of the
        whole value where `out` is the value itself.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.alltoall(value, t, out)
        payload = pack(value, t)
        payload.value_type.slice(self._size)
        place = pack_out(out, payload.value_type) or Payload.empty(payload.value_type)
        if out is not None:
            payload = payload.apart_from(place)
        outgoing, incoming = (part.flat.reshape(self._size, -1) for part in (payload, place))
        self._calls.collective(Operation.alltoall, payload.value_type).run(outgoing, incoming)
        return place.restore()

    def reduce(
        self,
        value: object,
        root: int,
        f: ReduceFunction,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Combine all ranks' values with `f`; the root returns the result, other ranks return None.

        Up to lg p messages received, one sent; from `SwitchPoints.reduce` on that many for each MiB, and no copy unless
        `f` is custom. Otherwise one copy, or none where the root's `out` is its value.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.reduce(value, root, f, t, out)
        require_rank("root", root, self._size)
        value_type, flat, spare = pack_operand(value, t, out if self._rank == root else None)
        result = self._calls.collective(Operation.reduce, value_type, root, require_function(f)).run(flat, spare)
        if self._rank != root:
            return None
        return value_type.restore(result) if out is None else out

    def allreduce(
        self,
        value: object,
        f: ReduceFunction,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Combine all ranks' values with `f`; every rank returns the result.

        lg p messages sent and received, and one copy, or none where `out` is the value. From `SwitchPoints.allreduce`
        on, unless `f` is custom, twice as many messages of a half, a quarter and so on of the value, in segments of at
        most 1 MiB, and no copy.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.allreduce(value, f, t, out)
        if t is None and type(value) is ndarray and (out is None or out is value):
            known = self._calls.allreduces.get(value.shape)
            if known is not None and known[0] is f and known[1] is value.dtype and value.flags.carray:
                flat = value if value.ndim == 1 else value.reshape(-1)
                result = known[2].run(flat, None if out is None else flat)
                return result.reshape(value.shape) if out is None else out
        value_type, flat, spare = pack_operand(value, t, out)
        function = require_function(f)
        plan = self._calls.collective(Operation.allreduce, value_type, 0, function)
        if t is None and type(value) is ndarray and value.dtype.kind != "V":
            # The next time it is known above, which takes a third of the time.
            self._calls.allreduces[value_type.shape] = function, value.dtype, plan
        result = plan.run(flat, spare)
        return value_type.restore(result) if out is None else out

    def reduce_scatter(
        self,
        value: object,
        f: ReduceFunction,
        t: TypeDescriptor | None = None,
        out: object = None,
        counts: Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Combine all ranks' values with `f`; each rank returns its slice of the result, cut as in `scatter`.

        ``t`` counts the whole list. lg p messages sent and received if p is a power of two, else p - 1. One copy of an
        array, and one of the slice. With `counts`, the number of rows of each rank's slice, which are the same on all
        ranks: p - 1 messages and one copy of the slice, unless `f` is custom.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.reduce_scatter(value, f, t, out, counts)
        payload = pack(value, t)
        function = require_function(f)
        if counts is not None:
            return self._reduce_scatterv(payload, function, out, counts)
        value_type = payload.value_type.slice(self._size)
        own = pack_out(out, value_type) or Payload.empty(value_type)
        if out is not None:
            is_in_place(payload.flat, own.flat, self._own_part(payload))
        plan = self._calls.collective(Operation.reduce_scatter, payload.value_type, 0, function)
        plan.run(payload.flat, payload.spare, own.flat)
        return own.restore()

    def _reduce_scatterv(self, payload: Payload, f: ReduceFunction, out: object, counts: Sequence[int]) -> Any:
        value_type = payload.value_type
        row = value_type.row()
        counts = require_counts("counts", counts, self._size)
        require_rows("counts", counts, value_type.shape[0])
        for rows in {*counts}:
            combine_of(f, value_type.with_rows(rows))  # raises if a slice is not of whole pairs
        own_type = value_type.with_rows(counts[self._rank])
        own = pack_out(out, own_type) or Payload.empty(own_type)
        if out is not None:
            is_in_place(payload.flat, own.flat, cut(payload.flat, counts, row)[self._rank])
        plan = self._calls.collective(Operation.reduce_scatterv, value_type, 0, f)
        plan.run(payload.flat, payload.spare, [rows * row.count for rows in counts], own.flat)
        return own.restore()

    def gatherv(
        self,
        value: object,
        root: int,
        counts: Sequence[int] | None = None,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Gather values with different numbers of rows (of lists: elements) on the root, joined as in `gather`.

        The root passes `counts`, the rows of each rank, or for arrays in framed mode None, which costs one more copy of
        everything; on other ranks they are ignored. ``t`` counts this rank's list. p - 1 messages received by the root,
        one sent by the others. One copy of the root's value.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.gatherv(value, root, counts, t, out)
        require_rank("root", root, self._size)
        payload = pack(value, t)
        value_type, row = payload.value_type, payload.value_type.row()
        plan = self._calls.collective(Operation.gatherv, row, root)
        if self._rank != root:
            plan.run(payload.flat, None)
            return value_type.with_rows(0).restore(payload.flat[:0])
        if counts is None:
            self._require_described("counts", t)
            parts = [part.reshape(-1) for part in plan.run(payload.flat, None)]
            whole = value_type.with_rows(sum(part.size for part in parts) // max(1, row.count))
            place = pack_out(out, whole) or Payload.empty(whole)
            concatenate(parts, out=place.flat)
            return place.restore()
        counts = require_counts("counts", counts, self._size)
        require_rows("counts", counts, value_type.shape[0], root)
        place = self._joined(payload, value_type.with_rows(sum(counts)), counts, out)
        plan.run(payload.flat, cut(place.flat, counts, row))
        return place.restore()

    def allgatherv(
        self,
        value: object,
        counts: Sequence[int] | None = None,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Gather values with different numbers of rows on every rank, joined as in `gather`.

        `counts` are the rows of each rank. They are passed on all ranks or on none; then an allgather of one number
        determines them. ``t`` counts this rank's list. p - 1 messages sent and received, and one copy of this rank's
        value. For results smaller than `SwitchPoints.allgather` lg p messages, and two more copies of the result.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.allgatherv(value, counts, t, out)
        payload = pack(value, t)
        row, rows = payload.value_type.row(), payload.value_type.shape[0]
        counts = self.allgather(array([rows])).tolist() if counts is None else counts
        counts = require_counts("counts", counts, self._size)
        require_rows("counts", counts, rows, self._rank)
        place = self._joined(payload, payload.value_type.with_rows(sum(counts)), counts, out)
        parts = cut(place.flat, counts, row)
        parts[self._rank][...] = payload.flat
        self._calls.collective(Operation.allgatherv, row).run(parts)
        return place.restore()

    def scatterv(
        self,
        value: object,
        root: int,
        counts: Sequence[int] | None = None,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Scatter the root's `value` in slices of `counts` rows; each rank returns the slice of its number.

        The root passes `counts`, the rows of each rank; with `t`, which counts the whole list, all ranks do. Without
        `t`, the other ranks pass the array to receive into as `value` or as `out`, or in framed mode None for a new
        array. p - 1 messages sent by the root, one received by the others. One copy of the root's slice.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.scatterv(value, root, counts, t, out)
        require_rank("root", root, self._size)
        whole = pack(value, t) if self._rank == root else None
        whole_type = whole.value_type if whole is not None else None if t is None else value_type_of(require_type(t))
        row = None if whole_type is None else whole_type.row()
        parts: list[Array] | None = None
        own: Payload | None
        if whole_type is not None and row is not None:
            counts = require_counts("counts", counts, self._size)
            require_rows("counts", counts, whole_type.shape[0])
            own_type = whole_type.with_rows(counts[self._rank])
            own = pack_out(out, own_type)
            if whole is not None:
                parts = cut(whole.flat, counts, row)
                if own is not None:
                    is_in_place(whole.flat, own.flat, parts[root])
            own = own or Payload.empty(own_type)
        else:
            own = self._target(value if out is None else out, None, "value" if out is None else "out")
            row = None if own is None else own.value_type.row()
        received = self._calls.collective(Operation.scatterv, row, root).run(parts, _flat(own))
        return wrap_announced(received) if own is None else own.restore()

    def alltoallv(
        self,
        value: object,
        sendcounts: Sequence[int],
        recvcounts: Sequence[int] | None = None,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Send the next ``sendcounts[i]`` rows of `value` to rank i; the result has ``recvcounts[i]`` rows of rank i.

        `recvcounts` are passed on all ranks or on none; then an alltoall of one number determines them. ``t`` counts
        the whole list. p - 1 messages sent and received, and one copy of one slice; one more of the whole value where
        `out` is the value itself.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.alltoallv(value, sendcounts, recvcounts, t, out)
        payload = pack(value, t)
        row = payload.value_type.row()
        sends = require_counts("sendcounts", sendcounts, self._size)
        require_rows("sendcounts", sends, payload.value_type.shape[0])
        recvcounts = self.alltoall(array(sends)).tolist() if recvcounts is None else recvcounts
        receives = require_counts("recvcounts", recvcounts, self._size)
        require_rows("recvcounts", receives, sends[self._rank], self._rank)
        value_type = payload.value_type.with_rows(sum(receives))
        place = pack_out(out, value_type) or Payload.empty(value_type)
        if out is not None:
            payload = payload.apart_from(place)
        outgoing, incoming = cut(payload.flat, sends, row), cut(place.flat, receives, row)
        self._calls.collective(Operation.alltoallv, row).run(outgoing, incoming)
        return place.restore()

    def _joined(self, payload: Payload, whole: ValueType, counts: Sequence[int], out: object) -> Payload:
        """Return the memory for the joined values of all ranks."""
        place = pack_out(out, whole) or Payload.empty(whole)
        if out is not None:
            is_in_place(payload.flat, place.flat, cut(place.flat, counts, whole.row())[self._rank])
        return place

    def _require_described(self, name: str, t: TypeDescriptor | None) -> None:
        """Raise unless messages carry their number of rows."""
        if t is not None or not self._config.framed:
            raise TypeError(
                f"missing {name}: expected the rows of each rank, since only arrays in framed mode carry theirs"
            )

    def scan(
        self,
        value: object,
        f: ReduceFunction,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Combine the values of ranks 0 to this one with `f` (inclusive prefix reduction).

        Up to 2 lg p messages sent and received in all. One copy of an array, none where `out` is the value.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.scan(value, f, t, out)
        value_type, flat, spare = pack_operand(value, t, out)
        result = self._calls.collective(Operation.scan, value_type, 0, require_function(f)).run(flat, spare)
        return value_type.restore(result) if out is None else out

    def exscan(
        self,
        value: object,
        f: ReduceFunction,
        t: TypeDescriptor | None = None,
        out: object = None,
        timeout: float | None = None,
    ) -> Any:
        """Combine the values of all ranks below this one with `f` (exclusive prefix reduction); rank 0 returns None.

        lg p messages sent and received. One copy of an array.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.exscan(value, f, t, out)
        payload = pack(value, t)
        prefix = pack_out(out, payload.value_type) or Payload.empty(payload.value_type)
        if out is not None:
            is_in_place(payload.flat, prefix.flat)
        plan = self._calls.collective(Operation.exscan, payload.value_type, 0, require_function(f))
        plan.run(payload.flat, payload.spare, prefix.flat)
        return prefix.restore() if self._rank else None

    def ibarrier(self) -> Request:
        """Begin a barrier; the request is done when all ranks have begun it. Messages as in `barrier`.

        This and the other non-blocking collectives are run in their order by a thread of this rank, over connections of
        their own, so that they move while the program computes, and beside all other calls. All ranks begin the same
        ones in the same order. Values must not be changed until the request is done.
        """
        return self._begin("ibarrier", lambda comm: comm.barrier())

    def ibcast(self, value: object, root: int, t: TypeDescriptor | None = None) -> Request:
        """Begin a `bcast`, with its messages and copies; the request returns what it returns."""
        require_rank("root", root, self._size)
        if self._rank == root:
            value = _snapshot(value, t)
        else:
            self._target(value, t, "value")
        return self._begin("ibcast", lambda comm: comm.bcast(value, root, t))

    def igather(self, value: object, root: int, t: TypeDescriptor | None = None, out: object = None) -> Request:
        """Begin a `gather`, with its messages and copies; the request returns what it returns."""
        require_rank("root", root, self._size)
        value = _snapshot(value, t)
        if self._rank == root:
            payload = pack(value, t)
            place = pack_out(out, payload.value_type.concatenated(self._size))
            if place is not None:
                is_in_place(payload.flat, place.flat, self._own_part(place))
        return self._begin("igather", lambda comm: comm.gather(value, root, t, out))

    def iallreduce(
        self, value: object, f: ReduceFunction, t: TypeDescriptor | None = None, out: object = None
    ) -> Request:
        """Begin an `allreduce`, with its messages and copies; the request returns what it returns.

        A custom function is called in the thread.
        """
        value = _snapshot(value, t)
        value_type, _, _ = pack_operand(value, t, out)
        combine_of(require_function(f), value_type)
        return self._begin("iallreduce", lambda comm: comm.allreduce(value, f, t, out))

    def _own_part(self, joined: Payload) -> Array:
        """Return this rank's part of memory that holds one for each rank."""
        part: Array = joined.flat.reshape(self._size, -1)[self._rank]
        return part

    def _target(self, template: object, t: TypeDescriptor | None, name: str) -> Payload | None:
        """Return the memory to receive a value into; None when only the sender knows its type."""
        if t is not None:
            value_type = value_type_of(require_type(t))
            return (pack_out(template, value_type) if name == "out" else None) or Payload.empty(value_type)
        if template is not None:
            return pack_template(template, name)
        if not self._config.framed:
            raise TypeError(
                f"missing {name} and t: expected fmi.types or an array to fill, since only messages of the framed mode "
                "carry their type"
            )
        return None


def _snapshot(value: object, t: TypeDescriptor | None) -> object:
    """Return `value`, checked; a list is copied, so that it may be changed at once."""
    pack(value, t)
    return list(value) if t is not None and t.is_list and isinstance(value, Sequence) else value
