"""Messages of a rank to itself. They take no channel, so that every channel and a single rank have them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from fmi_shim.backoff import Deadline
from fmi_shim.channel import Pending, Schedule
from fmi_shim.errors import MismatchError
from fmi_shim.frames import BY_ROWS, Call
from fmi_shim.operators import Array, Combine, ReduceFunction


@dataclass(slots=True, eq=False)
class _Message:
    """A message that was sent or is to be received; see `Pending`."""

    call: Call
    array: Array | None
    done: bool = False


class Loopback:
    """Keeps the messages that a rank sends to itself until it receives them. Implements `Channel` for messages only.

    A message is copied once where it is sent and once where it is received; a receive into a new array returns the
    first copy.

    Parameters
    ----------
    rank
        This rank.
    """

    size = 1
    full_duplex = True

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.call_deadline = Deadline(None)
        self._sent: deque[_Message] = deque()
        self._posted: deque[_Message] = deque()
        self._call: Call

    @property
    def awaited(self) -> int | None:
        """None: this rank never waits for itself."""
        return None

    def prepare(self, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
        """Raise: collectives take another channel."""
        raise AssertionError(f"{call.operation.name} is not a message")

    def begin(self, call: Call, sequence: int) -> None:
        """Start a call, which the next message belongs to."""
        self._call = call.numbered(sequence)

    def send(self, buffer: Array, dst: int) -> None:
        """Keep a copy of `buffer`."""
        self._sent.append(_Message(self._call, buffer.copy()))
        self._match()

    def recv(self, buffer: Array, src: int) -> Array:
        """Fill `buffer` with the oldest message, as far as it goes, and return that part."""
        return self._received(self.irecv(buffer, src))

    def recv_new(self, src: int, parts: int | None = None) -> Array:
        """Return the oldest message."""
        return self._received(self.irecv(None, src))

    def sendrecv(self, outgoing: Array, dst: int, incoming: Array, src: int) -> None:
        """Copy `outgoing` to `incoming`, unless older messages are waiting."""
        self.send(outgoing, dst)
        self.recv(incoming, src)

    def isend(self, buffer: Array, dst: int) -> Pending:
        """Keep a copy of `buffer`, which completes the send."""
        self.send(buffer, dst)
        return _Message(self._call, buffer, done=True)

    def irecv(self, buffer: Array | None, src: int) -> _Message:
        """Receive the oldest message that no earlier receive takes, now or when it is sent."""
        receive = _Message(self._call, buffer)
        self._posted.append(receive)
        self._match()
        return receive

    def progress(self, pending: Sequence[Pending], wait: bool) -> bool:
        """Return whether one of `pending` is done.

        Raises
        ------
        MismatchError
            If `wait` is true and none is: this rank would wait for itself forever.
        """
        if any(message.done for message in pending):
            return True
        if wait:
            raise MismatchError(
                f"rank {self.rank} in {self._call.made_by(None)} waits for a message from itself, which it has not "
                "sent: expected send or isend before the wait",
                origin=self.rank,
            )
        return False

    def complete_posted(self) -> None:
        """Do nothing: a posted message does not need this rank's calls to be sent."""

    def withdraw_wait(self) -> None:
        """Do nothing: no wait is reported."""

    def fail(self, error: BaseException) -> None:
        """Drop all messages."""
        self.close()

    def close(self) -> None:
        """Drop all messages."""
        self._sent.clear()
        self._posted.clear()

    def _received(self, receive: _Message) -> Array:
        self.progress([receive], wait=True)
        assert receive.array is not None  # noqa: S101 - it is done
        return receive.array

    def _match(self) -> None:
        """Hand the oldest messages to the oldest receives."""
        while self._sent and self._posted:
            sent, receive = self._sent.popleft(), self._posted.popleft()
            assert sent.array is not None  # noqa: S101 - it was sent
            if receive.array is None:
                self._require(receive.call.accepts(sent.call), sent.call, receive.call)
                receive.array = (
                    sent.array if sent.call.operation in BY_ROWS else sent.array.reshape(sent.call.shape or ())
                )
            else:
                fits = _fits(sent.call, receive.call) and sent.array.size <= receive.array.size
                self._require(fits, sent.call, receive.call)
                receive.array = receive.array[: sent.array.size]
                receive.array[...] = sent.array
            receive.done = True

    def _require(self, matches: bool, sent: Call, receive: Call) -> None:
        if not matches:
            raise MismatchError(
                f"rank {self.rank} receives from itself in {receive.made_by(None)} what it sent in {sent}: "
                "types and shapes must be the same",
                origin=self.rank,
            )


def _fits(sent: Call, receive: Call) -> bool:
    """Whether a message of `sent` is the one that `receive` expects, or has fewer rows."""
    if receive.accepts(sent):
        return sent.shape == receive.shape
    shape = sent.shape
    if shape is None or not receive.accepts_shorter(sent, len(shape)):
        return False
    return receive.fits_into(shape, sent.count)
