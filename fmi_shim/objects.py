"""Python objects between ranks: how they are pickled and authenticated, and the communicator's calls for them.

Unpickling runs what the sender chose. So an object is accepted only from a rank that shares the run's secret. It is
sent as an *envelope*::

    HMAC-SHA256 | number of buffers | for each buffer: length, SHA-256 | pickle
         32              4                              8       32

and one message for each buffer. The pickle has protocol 5, with large buffers (arrays, bytearrays) out of band, so that
they are not copied. The HMAC is computed of the names of run and communicator, the call and its number, the rank that
made the object, and all that follows the HMAC in the envelope. Numbers are little-endian.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import pickle
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmi_shim.collectives.python_objects import Parts
from fmi_shim.errors import ConfigError, MismatchError
from fmi_shim.frames import Operation
from fmi_shim.lifecycle import Lifecycle
from fmi_shim.operators import Array
from fmi_shim.pairing.control_connection import RUN_SECRET_VARIABLE, read_access
from fmi_shim.validation import require_rank

MIN_BUFFER_BYTES = 1 << 14
"""Smaller buffers are copied into the pickle, which takes less time than a message."""
MIN_SECRET_BYTES = 16

_COUNT = struct.Struct("<I")
_ENTRY = struct.Struct("<Q32s")
_DIGEST_BYTES = 32


class InvalidEnvelopeError(ValueError):
    """The bytes are no envelope that was made with this key and context."""


def encode_object(value: object, key: bytes, context: bytes) -> Parts:
    """Return the envelope and the out-of-band buffers of `value`, whose memory is that of the object.

    Raises
    ------
    Exception
        What `pickle` raises, if `value` cannot be pickled.
    """
    buffers: list[Array] = []

    def is_in_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < MIN_BUFFER_BYTES:
            return True
        buffers.append(np.frombuffer(raw, np.uint8))
        return False

    stream = pickle.dumps(value, protocol=5, buffer_callback=is_in_band)
    table = b"".join(_ENTRY.pack(buffer.nbytes, hashlib.sha256(buffer.data).digest()) for buffer in buffers)
    content = _COUNT.pack(len(buffers)) + table + stream
    envelope = hmac.digest(key, context + content, "sha256") + content
    return [np.frombuffer(envelope, np.uint8), *buffers]


def buffer_lengths(envelope: Array, key: bytes, context: bytes) -> list[int]:
    """Return the lengths of the buffers that follow `envelope`.

    Raises
    ------
    InvalidEnvelopeError
        If it was not made with this key and context.
    """
    data = envelope.tobytes()
    digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if not hmac.compare_digest(digest, hmac.digest(key, context + content, "sha256")):
        raise InvalidEnvelopeError
    return [length for length, _ in _entries(content)]


def decode_object(parts: Parts) -> Any:
    """Return the object of an envelope that `buffer_lengths` has accepted, and of its buffers, whose memory it uses.

    Raises
    ------
    InvalidEnvelopeError
        If a buffer is not the one that the envelope was made with.
    Exception
        What `pickle` raises.
    """
    envelope, *buffers = parts
    content = envelope.tobytes()[_DIGEST_BYTES:]
    entries = _entries(content)
    for buffer, (_, digest) in zip(buffers, entries, strict=True):
        if not hmac.compare_digest(hashlib.sha256(buffer.data).digest(), digest):
            raise InvalidEnvelopeError
    stream = content[_COUNT.size + len(entries) * _ENTRY.size :]
    return pickle.loads(stream, buffers=buffers)  # noqa: S301 - made by a rank that has the run's secret


def _entries(content: bytes) -> list[tuple[int, bytes]]:
    (count,) = _COUNT.unpack_from(content)
    return [_ENTRY.unpack_from(content, _COUNT.size + i * _ENTRY.size) for i in range(count)]


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One call with objects: encodes and decodes them.

    Attributes
    ----------
    rank, operation
        This rank, and the call.
    key
        The run's secret.
    context
        What identifies the call among all that have this key.
    """

    rank: int
    operation: Operation
    key: bytes
    context: str

    def encode(self, value: object) -> Parts:
        """Return the envelope and the buffers of an object that this rank makes."""
        return encode_object(value, self.key, self._made_by(self.rank))

    def lengths(self, envelope: Array, maker: int) -> list[int]:
        """Return the lengths of the buffers of an object that `maker` has made; see `collectives.python_objects`."""
        try:
            return buffer_lengths(envelope, self.key, self._made_by(maker))
        except InvalidEnvelopeError:
            raise self._error(f"the object of rank {maker}", maker) from None

    def decode(self, parts: Parts) -> Any:
        """Return the object."""
        try:
            return decode_object(parts)
        except InvalidEnvelopeError:
            raise self._error("a buffer of an object", None) from None

    def decode_all(self, found: Sequence[Parts], own: object) -> list[Any]:
        """Return the objects of all ranks; this rank's is `own` itself."""
        return [own if rank == self.rank else self.decode(parts) for rank, parts in enumerate(found)]

    def _made_by(self, maker: int) -> bytes:
        return f"{self.context}\0{maker}\0".encode()

    def _error(self, what: str, maker: int | None) -> MismatchError:
        return MismatchError(
            f"rank {self.rank} in {self.operation.name}: {what} was not made with this rank's secret in the same call: "
            f"expected the same {RUN_SECRET_VARIABLE} on all ranks",
            origin=maker,
        )


class ObjectOperations(Lifecycle):
    """The calls of a communicator for any Python value that can be pickled.

    They need framed mode, and the run's secret on all ranks: ``FMI_SECRET``, which ``fmirun`` sets, or else
    ``FMI_RENDEZVOUS_SECRET``. They raise `ConfigError` without these, and `MismatchError` if an object was made without
    the secret, or in another call. What `pickle` raises is raised, too, before anything is sent or after all was
    received, so that the communicator stays usable on this rank.

    An object is one message, and one more for each array or other buffer in it of 16 KiB or more, which is not copied
    but hashed on both sides; the rest of the object is copied into and out of the pickle.
    """

    def send_object(self, value: object, dst: int, timeout: float | None = None) -> None:
        """Send any value to rank `dst`, which must call `recv_object`. One message, and one for each large buffer."""
        if timeout is not None:
            with self._calls.within(timeout):
                self.send_object(value, dst)
            return
        require_rank("dst", dst, self._size)
        with self._exchange(Operation.send_object, self._rank, dst) as exchange:
            self._calls.sending_object(dst).run(exchange.encode(value))

    def recv_object(self, src: int, timeout: float | None = None) -> Any:
        """Return the next value that rank `src` sends with `send_object`. Messages as there."""
        if timeout is not None:
            with self._calls.within(timeout):
                return self.recv_object(src)
        require_rank("src", src, self._size)
        with self._exchange(Operation.send_object, src, self._rank, receives=True) as exchange:
            parts = self._calls.receiving_object(src).run(exchange.lengths)
        return exchange.decode(parts)

    def bcast_object(self, value: object, root: int, timeout: float | None = None) -> Any:
        """Broadcast the root's `value`, which other ranks ignore; every rank returns it.

        One message received, up to lg p sent; as many for each large buffer.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.bcast_object(value, root)
        require_rank("root", root, self._size)
        with self._exchange(Operation.bcast_object) as exchange:
            parts = exchange.encode(value) if self._rank == root else None
            received = self._calls.collective_of_objects(exchange.operation, root).run(parts, exchange.lengths)
        return value if self._rank == root else exchange.decode(received)

    def gather_object(self, value: object, root: int, timeout: float | None = None) -> list[Any] | None:
        """Gather all ranks' values on the root, which returns them in rank order; other ranks return None.

        p - 1 messages received by the root, one sent by the others; as many for each large buffer.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.gather_object(value, root)
        require_rank("root", root, self._size)
        with self._exchange(Operation.gather_object) as exchange:
            plan = self._calls.collective_of_objects(exchange.operation, root)
            found = plan.run(exchange.encode(value), exchange.lengths)
        return None if found is None else exchange.decode_all(found, value)

    def scatter_object(self, values: Sequence[object] | None, root: int, timeout: float | None = None) -> Any:
        """Scatter the root's `values`, one for each rank; each rank returns its own. Other ranks' are ignored.

        p - 1 messages sent by the root, one received by the others; as many for each large buffer.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.scatter_object(values, root)
        require_rank("root", root, self._size)
        if self._rank != root:
            values = None
        elif not isinstance(values, Sequence) or len(values) != self._size:
            raise ValueError(f"invalid values: expected a sequence of {self._size} values, one for each rank")
        with self._exchange(Operation.scatter_object) as exchange:
            objects = None if values is None else [exchange.encode(value) for value in values]
            received = self._calls.collective_of_objects(exchange.operation, root).run(objects, exchange.lengths)
        return exchange.decode(received) if values is None else values[root]

    def allgather_object(self, value: object, timeout: float | None = None) -> list[Any]:
        """Gather all ranks' values on every rank, in rank order.

        p - 1 messages sent and received; as many for each large buffer.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.allgather_object(value)
        with self._exchange(Operation.allgather_object) as exchange:
            plan = self._calls.collective_of_objects(exchange.operation)
            found = plan.run(exchange.encode(value), exchange.lengths)
        return exchange.decode_all(found, value)

    @contextlib.contextmanager
    def _exchange(
        self, operation: Operation, sender: int = -1, receiver: int = -1, receives: bool = False
    ) -> Iterator[_Exchange]:
        """Begin the next call with objects of this kind; it is counted if it succeeds.

        Raises
        ------
        ConfigError
            If objects cannot be sent.
        """
        if not self._config.framed:
            raise ConfigError(
                f"{operation.name} needs the framed mode, since FMI's protocol has no objects: expected framed true in "
                "fmi.json, or FMI_FRAMED=1, on all ranks"
            )
        access = read_access()
        if len(access.run_secret) < MIN_SECRET_BYTES:
            raise ConfigError(
                f"{operation.name} needs a secret, since unpickling an object runs what its sender chose: expected "
                f"{RUN_SECRET_VARIABLE}, the same random text of {MIN_SECRET_BYTES} bytes or more on all ranks; fmirun "
                "sets it"
            )
        kind = (operation, sender, receiver, receives)
        context = f"{access.job}\0{self._name}\0{operation.name}\0{self._objects[kind]}\0{sender}\0{receiver}"
        yield _Exchange(self._rank, operation, access.run_secret, context)
        self._objects[kind] += 1
