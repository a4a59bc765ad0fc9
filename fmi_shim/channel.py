"""The interface of a channel, as collectives use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fmi_shim.backoff import Deadline
from fmi_shim.frames import Call
from fmi_shim.operators import Array, Combine, ReduceFunction

Schedule = Callable[..., Any]
"""Executes one collective each time that it is called, with the buffers of that call. By operation:

========================  ====================================================================================
barrier                   ``() -> None``
bcast                     ``(buffer or None) -> buffer``
gather                    ``(part, whole or None) -> whole at the root, None elsewhere``
scatter                   ``(whole or None, own or None) -> own``
reduce                    ``(value, spare or None) -> result at the root, None elsewhere``
allreduce, scan           ``(value, spare or None) -> result``
exscan, reduce_scatter    ``(value, spare or None, out) -> None``
allgather                 ``(parts)``, shape (p, n), which hold this rank's own row
alltoall                  ``(outgoing, incoming)``, both of shape (p, n)
gatherv                   ``(part, parts or None)`` -> parts at the root, new arrays where they were None, else None
scatterv                  ``(parts or None, own or None) -> own``
allgatherv                ``(parts)``, one array for each rank, which hold this rank's own
alltoallv                 ``(outgoing, incoming)``, one array for each rank
reduce_scatterv           ``(value, spare or None, sizes, own) -> None``, with the elements of each rank
========================  ====================================================================================

`value` is left unchanged unless it is `spare`, which is memory of the same type and size that may be overwritten.
"""


class Pending(Protocol):
    """A posted message.

    Attributes
    ----------
    done
        Whether all of it was sent or received.
    array
        Of a message that was received, its content: the memory it was received into, as far as it was filled.
    """

    @property
    def done(self) -> bool: ...  # noqa: D102 - see above

    @property
    def array(self) -> Array | None: ...  # noqa: D102 - see above


class Channel(Protocol):
    """Moves C-contiguous arrays between ranks, in order for each pair and direction.

    Attributes
    ----------
    rank, size
        This rank and the number of ranks.
    full_duplex
        Whether `sendrecv` moves both messages at the same time, so that their size does not matter.
    call_deadline
        The instant by which the running call must end, beside the configured limit of each wait.
    """

    rank: int
    size: int
    full_duplex: bool
    call_deadline: Deadline

    @property
    def awaited(self) -> int | None:
        """The rank that this one has waited for since at least some milliseconds; None if it does not wait so long."""

    def prepare(self, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
        """Return the schedule of a collective, which is run each time that this rank makes the call.

        Parameters
        ----------
        call
            The operation, and the type and size of its payload.
        function, combine
            The function of a reduction, and the combination of two buffers by it; None in other operations.
        """

    def begin(self, call: Call, sequence: int) -> None:
        """Start a call with its number; the following messages belong to it."""

    def send(self, buffer: Array, dst: int) -> None:
        """Send all of `buffer` to rank `dst`; it may be changed on return."""

    def recv(self, buffer: Array, src: int) -> Array:
        """Fill `buffer` with the next message of rank `src`, and return it.

        Of a message with fewer rows, which `Call.accepts_shorter` describes, the part that was filled is returned.
        """

    def recv_new(self, src: int, parts: int | None = None) -> Array:
        """Return the next message of rank `src`, whose type and shape only the sender knows.

        From then on the running call has that type and shape. With `parts` the message consists of that number of
        arrays of that shape, and the result has one more axis in front.
        """

    def sendrecv(self, outgoing: Array, dst: int, incoming: Array, src: int) -> None:
        """Send to rank `dst` and receive from rank `src`.

        With one peer for both it is FMI's exchange, in FMI's order if the channel is not full duplex. With two peers
        both messages are transferred at the same time on every channel, so that rings do not deadlock.
        """

    def isend(self, buffer: Array, dst: int) -> Pending:
        """Begin to send `buffer`, which must not be changed until it is done; never block."""

    def irecv(self, buffer: Array | None, src: int) -> Pending:
        """Begin to fill `buffer`, or as `recv_new` a new array, with the next message of rank `src`; never block."""

    def progress(self, pending: Sequence[Pending], wait: bool) -> bool:
        """Move posted messages, until one of `pending` is done if `wait` is true; return whether one is done."""

    def complete_posted(self) -> None:
        """Block until all posted messages that only move in this channel's calls are done."""

    def withdraw_wait(self) -> None:
        """Withdraw what was reported of the last wait, which ended without a message: it is in no deadlock."""

    def fail(self, error: BaseException) -> None:
        """Report `error` to the other ranks, if the channel can; then close."""

    def close(self) -> None:
        """Close without an error. Closing again has no effect."""
