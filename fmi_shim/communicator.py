"""``fmi.Communicator``: one operation is payload -> collective over the channel -> payload."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fmi_shim.arguments import require_integer, require_peer, require_rank, require_type
from fmi_shim.channels.base import Channel
from fmi_shim.channels.enabled import EnabledChannels
from fmi_shim.collectives import select
from fmi_shim.config import load
from fmi_shim.errors import BrokenCommunicatorError
from fmi_shim.forms import Form, TypeDescriptor, form_of
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array, Combine, ReduceFunction
from fmi_shim.payload import Payload, combine_of, pack, pack_template
from fmi_shim.policy import Hint
from rendezvous.protocol import pair_name

Result = TypeVar("Result")

_BYTE = np.dtype(np.uint8)


def _form(payload: Payload | None) -> Form | None:
    return None if payload is None else payload.form


def _flat(payload: Payload | None) -> Array | None:
    return None if payload is None else payload.flat


def _receive(channel: Channel, buffer: Array | None, src: int) -> Array:
    """Return rank `src`'s next message, in `buffer` where there is one."""
    if buffer is None:
        return channel.recv_new(src)
    channel.recv(buffer, src)
    return buffer


class Communicator:
    """A group of ranks that exchange messages and do collectives.

    Values are numbers or lists with a type descriptor ``t`` (``fmi.types``), as in the original, or, where
    ``t`` is left out, numpy arrays and torch CPU tensors of any numeric type and shape, which come back as
    what they were. A rank blocks until its part of an operation is done, or fails with an error that names
    the rank at fault (see `fmi_shim.errors`); after that the communicator refuses further calls.

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
        if not isinstance(comm_name, str):
            raise TypeError(f"comm_name is {comm_name!r}, allowed is a string")
        pair_name(comm_name, num_peers - 1, num_peers - 1)  # the longest name this communicator may need
        config = load(config_path)
        self._rank = peer_id
        self._size = num_peers
        self._framed = config.framed
        self._channels = EnabledChannels(peer_id, num_peers, comm_name, config, faas_memory)
        self._collectives = 0
        self._sent = [0] * num_peers
        self._received = [0] * num_peers
        self._failure: BaseException | None = None
        self._finalizer = weakref.finalize(self, self._channels.close)

    def hint(self, hint: Hint) -> None:
        """Say, on all ranks alike, whether the fastest or the cheapest enabled channel is wanted from now on."""
        if not isinstance(hint, Hint):
            raise TypeError(f"hint is {hint!r}, allowed are fmi.hints.fast and fmi.hints.cheap")
        self._channels.hint = hint

    def close(self) -> None:
        """Leave the communicator in peace; the end of the program does the same. Further calls raise."""
        if self._failure is None:
            self._failure = BrokenCommunicatorError("the communicator was closed")
        self._finalizer()

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        self._perform(Call(Operation.barrier, self._collectives, _BYTE, 1), select.barrier)

    def send(self, value: object, dst: int, t: TypeDescriptor | None = None) -> None:
        """Send `value` to rank `dst`, which must `recv` it. Arrays are not copied."""
        require_peer("dst", dst, self._rank, self._size)
        payload = pack(value, t)
        self._perform(
            self._message(self._rank, self._sent[dst], payload.form), lambda channel: channel.send(payload.flat, dst)
        )
        self._sent[dst] += 1

    def recv(self, src: int, t: TypeDescriptor | None = None) -> Any:
        """Return the next value that rank `src` sends; without `t` it is a numpy array, in framed mode only."""
        require_peer("src", src, self._rank, self._size)
        target = self._target(None, t)
        received = self._perform(
            self._message(src, self._received[src], _form(target)),
            lambda channel: _receive(channel, _flat(target), src),
        )
        self._received[src] += 1
        return received if target is None else target.restore()

    def bcast(self, value: object, root: int, t: TypeDescriptor | None = None) -> Any:
        """Return the root's `value` on every rank. No copies.

        With `t`, other ranks' `value` is not looked at. Without, it is an array to fill, which is returned,
        or None for a new one (framed mode only).
        """
        require_rank("root", root, self._size)
        payload = pack(value, t) if self._rank == root else self._target(value, t)
        call = self._collective(Operation.bcast, _form(payload), root)
        received = self._perform(call, lambda channel: select.bcast(channel, _flat(payload), root))
        return received if payload is None else payload.restore()

    def gather(self, value: object, root: int, t: TypeDescriptor | None = None) -> Any:
        """Return all ranks' values on the root, in rank order as one flat list; elsewhere an empty list.

        Arrays, of one shape on all ranks, are joined along the first axis; elsewhere the result has no rows.
        """
        require_rank("root", root, self._size)
        payload = pack(value, t)
        call = self._collective(Operation.gather, payload.form, root)
        parts = self._perform(call, lambda channel: select.gather(channel, payload.flat, root))
        return payload.form.restore_parts(payload.flat[:0] if parts is None else parts)

    def scatter(self, value: object, root: int, t: TypeDescriptor | None = None) -> Any:
        """Return this rank's slice of the root's `value`, whose length all ranks must divide evenly.

        ``t`` counts the whole list. An array is cut along its first axis; other ranks give an array to
        fill, which is returned, or None for a new one (framed mode only).
        """
        require_rank("root", root, self._size)
        whole = pack(value, t) if self._rank == root else None
        own: Payload | None
        if whole is not None:
            own = Payload.empty(whole.form.slice(self._size))
        elif t is not None:
            own = Payload.empty(form_of(require_type(t)).slice(self._size))
        else:
            own = self._target(value, None)
        call = self._collective(Operation.scatter, _form(own), root)
        received = self._perform(call, lambda channel: select.scatter(channel, _flat(whole), _flat(own), root))
        return received if own is None else own.restore()

    def reduce(self, value: object, root: int, f: ReduceFunction, t: TypeDescriptor | None = None) -> Any:
        """Return the combination of all ranks' values on the root, None elsewhere. One copy of an array."""
        require_rank("root", root, self._size)
        payload, combine = self._reducible(value, f, t)
        call = self._collective(Operation.reduce, payload.form, root, f)
        result = self._perform(call, lambda channel: select.reduce(channel, payload.flat, root, f, combine))
        return None if result is None else payload.form.restore(result)

    def allreduce(self, value: object, f: ReduceFunction, t: TypeDescriptor | None = None) -> Any:
        """Return the combination of all ranks' values on every rank. One copy of an array."""
        payload, combine = self._reducible(value, f, t)
        call = self._collective(Operation.allreduce, payload.form, 0, f)
        result = self._perform(call, lambda channel: select.allreduce(channel, payload.flat, f, combine))
        return payload.form.restore(result)

    def scan(self, value: object, f: ReduceFunction, t: TypeDescriptor | None = None) -> Any:
        """Return the combination of the values of all ranks up to this one, itself included. One copy of an array."""
        payload, combine = self._reducible(value, f, t)
        call = self._collective(Operation.scan, payload.form, 0, f)
        self._perform(call, lambda channel: select.scan(channel, payload.flat, f, combine))
        return payload.restore()

    def _reducible(self, value: object, f: ReduceFunction, t: TypeDescriptor | None) -> tuple[Payload, Combine]:
        """Return `value` as memory that a reduction may overwrite, and how two of its kind are combined."""
        if not isinstance(f, ReduceFunction):
            raise TypeError(f"f is {f!r}, allowed is fmi.func(...)")
        payload = pack(value, t).private()
        return payload, combine_of(f, payload.form)

    def _target(self, template: object, t: TypeDescriptor | None) -> Payload | None:
        """Return where to receive a value; None when only the sender knows its type."""
        if t is not None:
            return Payload.empty(form_of(require_type(t)))
        if template is not None:
            return pack_template(template)
        if not self._framed:
            raise TypeError(
                "value is None and t is left out: only in framed mode does a message tell its type; "
                "give fmi.types, or an array to fill"
            )
        return None

    def _message(self, sender: int, sequence: int, form: Form | None) -> Call:
        if form is None:
            return Call(Operation.send, sequence, None, 0, sender)
        return Call(Operation.send, sequence, form.dtype, form.count, sender, 0, form.described_shape)

    def _collective(
        self, operation: Operation, form: Form | None, root: int = 0, f: ReduceFunction | None = None
    ) -> Call:
        if form is None:
            return Call(operation, self._collectives, None, 0, root)
        code = 0 if f is None else f.code
        return Call(operation, self._collectives, form.dtype, form.count, root, code, form.described_shape)

    def _perform(self, call: Call, schedule: Callable[[Channel], Result]) -> Result:
        """Run an operation on a channel; whatever goes wrong in it is the end of the communicator."""
        if self._failure is not None:
            cause = f"{type(self._failure).__name__}: {self._failure}"
            raise BrokenCommunicatorError(f"{call} refused, the communicator ended with {cause}") from self._failure
        try:
            channel = self._channels.choose(call)
            channel.begin(call)
            result = schedule(channel)
        except BaseException as error:  # a Ctrl-C in the middle leaves the messages out of step, too
            self._failure = error
            self._finalizer.detach()
            self._channels.fail(error)
            raise
        if call.operation is not Operation.send:
            self._collectives += 1
        return result
