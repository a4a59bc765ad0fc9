"""``fmi.Communicator``: one operation is payload -> collective over the channel -> payload."""

from __future__ import annotations

import os
from typing import Any

from numpy import ndarray

from fmi_shim.config import load
from fmi_shim.frames import Operation
from fmi_shim.lifecycle import Membership
from fmi_shim.log import configure_log
from fmi_shim.operators import Array, ReduceFunction
from fmi_shim.payload import Payload, pack, pack_operand, pack_out, pack_template
from fmi_shim.requests import Request
from fmi_shim.validation import (
    require_function,
    require_integer,
    require_name,
    require_peer,
    require_rank,
    require_type,
)
from fmi_shim.value_types import Form, TypeDescriptor, form_of


def _form(payload: Payload | None) -> Form | None:
    return None if payload is None else payload.form


def _flat(payload: Payload | None) -> Array | None:
    return None if payload is None else payload.flat


class Communicator(Membership):
    """A group of ranks that exchange messages and do collectives.

    Values are numbers or lists with a type descriptor ``t`` (``fmi.types``), as in the original, or, where
    ``t`` is left out, numpy arrays and torch CPU tensors of any numeric type and shape, which come back as
    what they were, and other buffers (bytes, bytearray, memoryview, array.array), of which new arrays are made.
    ``out``, where there is one, is an array that the result is put into and that is returned; it may be the
    value itself. A rank blocks until its part of an operation is done, or fails with an error that names
    the rank at fault (see `fmi_shim.errors`); after that the communicator refuses further calls. In a ``with``
    statement it is closed at the end, and an exception in the block is told to the other ranks.

    Methods say how often a rank copies a large array over Direct, besides the kernel into a socket and out of it, and
    how many messages it sends and receives among p ranks (lg is rounded up). With S3 and Redis it is as in
    `collectives.objects`. In shared memory collectives need no messages but for the scans of large arrays, and copy
    once into the segment and once out of it where others need it; which does less is said in `collectives.in_segment`
    and its neighbours, and in a table of docs/shared_memory.md.

    Parameters
    ----------
    peer_id
        This rank, from 0.
    num_peers
        Number of ranks.
    config_path
        Path of an ``fmi.json``.
    comm_name
        The same on all ranks, and not used by others at the same time.
    faas_memory
        Memory of the function in MB, an input of FMI's price model.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong.
    ConfigError
        If the configuration is.
    """

    def __init__(
        self,
        peer_id: int,
        num_peers: int,
        config_path: str | os.PathLike[str],
        comm_name: str,
        faas_memory: int = 128,
    ) -> None:
        require_integer("num_peers", num_peers, 1, 2**31 - 1)
        require_rank("peer_id", peer_id, num_peers)
        require_integer("faas_memory", faas_memory, 1, 2**31 - 1)
        require_name("comm_name", comm_name, num_peers)
        configure_log()
        self._join(peer_id, num_peers, load(config_path), comm_name, faas_memory)

    def barrier(self) -> None:
        """Wait until all ranks have come here. lg p messages each way."""
        plan = self._calls.barrier
        if plan is None:
            plan = self._calls.barrier = self._calls.collective(Operation.barrier)
        plan.run()

    def send(self, value: object, dst: int, t: TypeDescriptor | None = None) -> None:
        """Send `value` to rank `dst`, which must `recv` it. One message, no copies."""
        require_peer("dst", dst, self._rank, self._size)
        payload = pack(value, t)
        self._calls.sending(dst, payload.form).run(payload.flat)

    def recv(self, src: int, t: TypeDescriptor | None = None, out: object = None) -> Any:
        """Return the next value that rank `src` sends. One message, no copies.

        Without `t` it is an array: `out`, or a new one where that is left out (framed mode only).
        """
        require_peer("src", src, self._rank, self._size)
        target = self._target(out, t, "out")
        received = self._calls.receiving(src, _form(target)).run(_flat(target))
        return received if target is None else target.restore()

    def isend(self, value: object, dst: int, t: TypeDescriptor | None = None) -> Request:
        """Begin to send `value` to rank `dst`, and go on; an array must not change until the request is done.

        One message, no copies.
        """
        require_peer("dst", dst, self._rank, self._size)
        payload = pack(value, t)
        return Request(self._calls.sending(dst, payload.form, posted=True), payload, receives=False)

    def irecv(self, src: int, t: TypeDescriptor | None = None, out: object = None) -> Request:
        """Begin to receive from rank `src`, and go on: a value of type `t`, or an array into `out`.

        One message, no copies.
        """
        require_peer("src", src, self._rank, self._size)
        if t is None and out is None:
            raise TypeError("t and out are left out: irecv needs fmi.types, or an array to fill")
        target = self._target(out, t, "out")
        assert target is not None  # noqa: S101 - one of the two was given
        return Request(self._calls.receiving(src, target.form, posted=True), target, receives=True)

    def sendrecv(self, value: object, dst: int, src: int, t: TypeDescriptor | None = None, out: object = None) -> Any:
        """Send `value` to rank `dst`, and return what rank `src` sends; both move at the same time.

        What comes has the type and shape of `value`, or with an array `out` its type and shape.
        A message each way; one copy where the two overlap, else none.
        """
        require_peer("dst", dst, self._rank, self._size)
        require_peer("src", src, self._rank, self._size)
        payload = pack(value, t)
        if out is not None and t is None:
            target = pack_template(out, "out")
        else:
            target = pack_out(out, payload.form) or Payload.empty(payload.form)
        payload = payload.apart(target)
        incoming = Request(self._calls.receiving(src, target.form, posted=True), target, receives=True)
        outgoing = Request(self._calls.sending(dst, payload.form, posted=True), payload, receives=False)
        outgoing.wait()
        return incoming.wait()

    def bcast(self, value: object, root: int, t: TypeDescriptor | None = None) -> Any:
        """Return the root's `value` on every rank. No copies; one message in, up to lg p out.

        With `t`, other ranks' `value` is not looked at. Without, it is an array to fill, which is returned,
        or None for a new one (framed mode only).
        """
        require_rank("root", root, self._size)
        payload = pack(value, t) if self._rank == root else self._target(value, t, "value")
        received = self._calls.collective(Operation.bcast, _form(payload), root).run(_flat(payload))
        return received if payload is None else payload.restore()

    def gather(self, value: object, root: int, t: TypeDescriptor | None = None, out: object = None) -> Any:
        """Return all ranks' values on the root, in rank order as one flat list; elsewhere an empty list.

        Arrays, of one shape on all ranks, are joined along the first axis; elsewhere the result has no rows.
        Up to lg p messages in, one out. One copy of the own part; at the root one of everything where that is not rank
        0, and one more into `out`.
        """
        require_rank("root", root, self._size)
        payload = pack(value, t)
        plan = self._calls.collective(Operation.gather, payload.form, root)
        if self._rank != root:
            plan.run(payload.flat, None)
            return payload.form.joined(0).restore(payload.flat[:0])
        whole = payload.form.joined(self._size)
        place = pack_out(out, whole)
        parts = plan.run(payload.flat, _flat(place))
        return whole.restore(parts) if place is None else place.restore()

    def allgather(self, value: object, t: TypeDescriptor | None = None, out: object = None) -> Any:
        """Return all ranks' values on every rank, joined as in `gather`.

        p - 1 messages each way, and one copy of the own part; below `SwitchPoints.allgather` lg p messages, and two
        copies of everything more.
        """
        payload = pack(value, t)
        whole = payload.form.joined(self._size)
        place = pack_out(out, whole) or Payload.empty(whole)
        parts = place.flat.reshape(self._size, -1)
        parts[self._rank] = payload.flat
        self._calls.collective(Operation.allgather, payload.form).run(parts)
        return place.restore()

    def scatter(self, value: object, root: int, t: TypeDescriptor | None = None, out: object = None) -> Any:
        """Return this rank's slice of the root's `value`, whose length all ranks must divide evenly.

        ``t`` counts the whole list. An array is cut along its first axis; other ranks give an array to
        fill, which is returned, as `value` or as `out`, or None for a new one (framed mode only).
        One message in, up to lg p out. One copy of the own slice where the rank sends any; at a root other than rank 0
        one of everything.
        """
        require_rank("root", root, self._size)
        whole = pack(value, t) if self._rank == root else None
        own: Payload | None
        if whole is not None or t is not None:
            form = (whole.form if whole is not None else form_of(require_type(t))).slice(self._size)
            own = pack_out(out, form) or Payload.empty(form)
        else:
            own = self._target(value if out is None else out, None, "value" if out is None else "out")
        plan = self._calls.collective(Operation.scatter, _form(own), root)
        received = plan.run(_flat(whole), _flat(own))
        return received if own is None else own.restore()

    def alltoall(self, value: object, t: TypeDescriptor | None = None, out: object = None) -> Any:
        """Return what all ranks have for this one: slice i of the result is slice ``rank`` of rank i's `value`.

        Values are cut as in `scatter`; ``t`` counts the whole list. p - 1 messages each way, and one copy of the own
        slice; below `SwitchPoints.alltoall`, among more than 8 ranks, lg p messages, and a copy of everything at each
        end and of a half for each message. One copy more of everything where `out` is the value itself.
        """
        payload = pack(value, t)
        payload.form.slice(self._size)
        place = pack_out(out, payload.form) or Payload.empty(payload.form)
        payload = payload.apart(place)
        outgoing, incoming = (part.flat.reshape(self._size, -1) for part in (payload, place))
        self._calls.collective(Operation.alltoall, payload.form).run(outgoing, incoming)
        return place.restore()

    def reduce(
        self, value: object, root: int, f: ReduceFunction, t: TypeDescriptor | None = None, out: object = None
    ) -> Any:
        """Return the combination of all ranks' values on the root, None elsewhere.

        No copy of a large array (`SwitchPoints.reduce`) unless `f` is custom; else one, or none where the root's `out`
        is its value. Up to lg p messages in, one out; of a large array, of each MiB.
        """
        require_rank("root", root, self._size)
        form, flat, spare = pack_operand(value, t, out if self._rank == root else None)
        result = self._calls.collective(Operation.reduce, form, root, require_function(f)).run(flat, spare)
        if self._rank != root:
            return None
        return form.restore(result) if out is None else out

    def allreduce(self, value: object, f: ReduceFunction, t: TypeDescriptor | None = None, out: object = None) -> Any:
        """Return the combination of all ranks' values on every rank.

        No copy of a large array (`SwitchPoints.allreduce`) unless `f` is custom; else one, or none where `out` is the
        value. lg p messages each way; of a large array twice as many, of a half, a quarter and so on of it, in segments
        of 1 MiB at most.
        """
        if t is None and type(value) is ndarray and (out is None or out is value):
            known = self._calls.allreduces.get(value.shape)
            if known is not None and known[0] is f and known[1] is value.dtype and value.flags.carray:
                flat = value if value.ndim == 1 else value.reshape(-1)
                result = known[2].run(flat, None if out is None else flat)
                return result.reshape(value.shape) if out is None else out
        form, flat, spare = pack_operand(value, t, out)
        function = require_function(f)
        plan = self._calls.collective(Operation.allreduce, form, 0, function)
        if t is None and type(value) is ndarray:  # the next time it is known above, which takes a third of the time
            self._calls.allreduces[form.shape] = function, value.dtype, plan
        result = plan.run(flat, spare)
        return form.restore(result) if out is None else out

    def reduce_scatter(
        self, value: object, f: ReduceFunction, t: TypeDescriptor | None = None, out: object = None
    ) -> Any:
        """Return this rank's slice of the combination of all ranks' values, cut as in `scatter`.

        ``t`` counts the whole list. One copy of an array, and one of the slice. lg p messages each way where p is a
        power of two, else p - 1.
        """
        payload = pack(value, t)
        plan = self._calls.collective(Operation.reduce_scatter, payload.form, 0, require_function(f))
        form = payload.form.slice(self._size)
        own = pack_out(out, form) or Payload.empty(form)
        plan.run(payload.flat, payload.spare, own.flat)
        return own.restore()

    def scan(self, value: object, f: ReduceFunction, t: TypeDescriptor | None = None, out: object = None) -> Any:
        """Return the combination of the values of all ranks up to this one, itself included.

        One copy of an array, none where `out` is the value. Up to 2 lg p messages in all.
        """
        form, flat, spare = pack_operand(value, t, out)
        result = self._calls.collective(Operation.scan, form, 0, require_function(f)).run(flat, spare)
        return form.restore(result) if out is None else out

    def exscan(self, value: object, f: ReduceFunction, t: TypeDescriptor | None = None, out: object = None) -> Any:
        """Return the combination of the values of all ranks below this one; None on rank 0.

        One copy of an array. lg p messages each way.
        """
        payload = pack(value, t)
        plan = self._calls.collective(Operation.exscan, payload.form, 0, require_function(f))
        prefix = pack_out(out, payload.form) or Payload.empty(payload.form)
        plan.run(payload.flat, payload.spare, prefix.flat)
        return prefix.restore() if self._rank else None

    def _target(self, template: object, t: TypeDescriptor | None, name: str) -> Payload | None:
        """Return where to receive a value; None when only the sender knows its type."""
        if t is not None:
            form = form_of(require_type(t))
            return (pack_out(template, form) if name == "out" else None) or Payload.empty(form)
        if template is not None:
            return pack_template(template, name)
        if not self._config.framed:
            raise TypeError(
                f"{name} is None and t is left out: only in framed mode does a message tell its type; "
                "give fmi.types, or an array to fill"
            )
        return None
