"""The events of a run, and their encoding. No I/O.

A message is a JSON array: version, job, rank, number of the message, number of events dropped so far, events. An event
is an array of its kind and its fields, in the order of its class; rows are little-endian 64-bit numbers in base64. Time
is in nanoseconds of the monotonic clock of the rank's machine; `Started` relates that clock to the time of day.
"""

from __future__ import annotations

import json
import sys
from array import array
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np

VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20
"""Largest message that a reader accepts."""
MAX_ROWS = 2048
"""Largest number of rows in one `Operations` event: 100 KB."""
_MAX_TEXT = 1 << 16
_MAX_INTEGER = 1 << 62
"""The sum of two numbers below it has 64 bits, too."""
ROW_FIELDS = 5
"""Numbers of a row."""

Row = tuple[int, int, int, int, int]
"""One operation that has ended: its plan, its number, its start, its duration (both ns), and its bytes.

The number counts a communicator's collectives, or the messages of one pair of ranks and one direction. A second row of
an ``irecv`` with the same number is the wait in which its message arrived."""


class EventError(ValueError):
    """A message is not one of this version."""


@dataclass(frozen=True, slots=True)
class Started:
    """The rank opened its first communicator.

    Attributes
    ----------
    at
        Time of the event, ns.
    size
        Number of ranks.
    pid, host
        Its process, and the machine whose monotonic clock it uses.
    epoch
        Nanoseconds to add to the monotonic clock for the time since 1970.
    """

    at: int
    size: int
    pid: int
    host: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The rank opened a communicator: its number in this process, its name, and the rank and the ranks in it."""

    at: int
    communicator: int
    name: str
    rank: int
    size: int


@dataclass(frozen=True, slots=True)
class Planned:
    """The rank will make calls of a kind, to which rows refer by number.

    Attributes
    ----------
    plan, communicator
        Its number in this process, and the communicator's.
    operation
        What the rank does: an operation's name, ``recv``, ``isend``, ``irecv`` or ``wait``.
    peer
        The other rank of a message, numbered in the communicator; None in collectives.
    root
        The root; None in calls without one.
    algorithm, channel
        How it is executed, and through what.
    call
        The call in words.
    """

    plan: int
    communicator: int
    operation: str
    peer: int | None
    root: int | None
    algorithm: str
    channel: str
    call: str


@dataclass(frozen=True, slots=True)
class Operations:
    """Operations that have ended: the numbers of their rows, one row after another."""

    numbers: array[int]

    @staticmethod
    def of(rows: Iterable[Row]) -> Operations:
        """Return the event of these rows."""
        return Operations(array("q", chain.from_iterable(rows)))

    @property
    def rows(self) -> Iterator[Row]:
        """The rows in turn."""
        each = iter(self.numbers)
        return zip(each, each, each, each, each, strict=True)


@dataclass(frozen=True, slots=True)
class Connected:
    """The rank is connected to another one of a communicator: ``direct``, by ``hole punching``, through a ``relay``."""

    at: int
    communicator: str
    peer: int
    way: str


@dataclass(frozen=True, slots=True)
class Status:
    """What the rank does now.

    Attributes
    ----------
    at
        Time of the event, ns.
    plan, number, since
        The call that it is in, see `Row`; None between calls, where `since` is the end of the last one.
    awaited
        The rank, numbered in the communicator, that it waits for; None if it waits for none, or that is not known.
    where
        The line of the program that its main thread is in.
    memory
        Its resident memory, bytes.
    """

    at: int
    plan: int | None
    number: int
    since: int
    awaited: int | None
    where: str
    memory: int


@dataclass(frozen=True, slots=True)
class Phase:
    """The rank, or the function that runs it, did something else for a time, such as ``download``."""

    name: str
    began: int
    ended: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A communicator failed: the error, and the rank that it began at, if that is known."""

    at: int
    communicator: int
    error: str
    origin: int | None


@dataclass(frozen=True, slots=True)
class Stacks:
    """The answer to a command: the stack of each thread, the main one's first; frames are ``file:line in function``."""

    at: int
    request: int
    threads: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """The rank closed its last communicator."""

    at: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What the emulator has seen of a run: of a rank's function, of the rendezvous server, or of the pipeline.

    Attributes
    ----------
    source
        Who has seen it.
    rank
        The rank that it concerns; None if it concerns the run.
    name
        What it was.
    began, ended
        Nanoseconds since 1970; equal for an instant.
    """

    source: str
    rank: int | None
    name: str
    began: int
    ended: int


Event = Started | Opened | Planned | Operations | Connected | Status | Phase | Failed | Stacks | Closed | Observed

KINDS: Mapping[str, type[Event]] = {
    "started": Started,
    "opened": Opened,
    "planned": Planned,
    "operations": Operations,
    "connected": Connected,
    "status": Status,
    "phase": Phase,
    "failed": Failed,
    "stacks": Stacks,
    "closed": Closed,
    "observed": Observed,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Message:
    """Events of one sender.

    Attributes
    ----------
    job
        The run, which FMI_JOB names.
    rank
        The rank, in the first communicator of its process; None for the emulator, which sends `Observed` alone.
    number
        Counts the messages of the sender.
    dropped
        Operations that the sender has dropped so far, since the reader did not keep up.
    events
        The events, in order.
    """

    job: str
    rank: int | None
    number: int
    dropped: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A command to a rank: to send its ``stacks``, or to apply the ``fault`` that the text describes.

    ``ping`` asks for nothing: that it can be sent shows that the rank's process runs.
    """

    request: int
    action: str
    text: str = ""


def encode(message: Message) -> bytes:
    """Return the message as JSON, without line breaks."""
    head = _json([VERSION, message.job, message.rank, message.number, message.dropped])
    return b"%b,[%b]]" % (head[:-1], b",".join(map(_encode_event, message.events)))


def _encode_event(event: Event) -> bytes:
    if not isinstance(event, Operations):
        return _json([_NAMES[type(event)], *(getattr(event, name) for name in event.__slots__)])
    numbers = event.numbers
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    # These are nearly all bytes of a message. They need no JSON encoder, which would take longer than all the rest.
    return b'["%b","%b"]' % (_NAMES[Operations].encode(), b2a_base64(numbers, newline=False))


def _json(values: Sequence[object]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


def decode(data: bytes | str) -> Message:
    """Parse a message.

    Raises
    ------
    EventError
        If it is no message, or one of another version.
    """
    parts = _load(data)
    job, rank, number, dropped, events = _exactly(parts, 5)
    if not isinstance(events, list):
        raise EventError(f"invalid events {_shown(events)}: expected an array")
    return Message(
        _text(job),
        _natural_or_none(rank),
        _natural(number),
        _natural(dropped),
        tuple(_event(event) for event in events),
    )


def encode_command(command: Command) -> bytes:
    """Return a command as JSON."""
    return json.dumps([VERSION, command.request, command.action, command.text]).encode()


def decode_command(data: bytes) -> Command:
    """Parse a command.

    Raises
    ------
    EventError
        If it is no command, or one of another version.
    """
    request, action, text = _exactly(_load(data), 3)
    if action not in ("stacks", "fault", "ping"):
        raise EventError(f"unknown command {_shown(action)}: expected stacks, fault or ping")
    return Command(_natural(request), _text(action), _text(text))


def _load(data: bytes | str) -> list[object]:
    """Return the parts of a message after its version."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise EventError(f"message of {len(data)} bytes: expected at most {MAX_MESSAGE_BYTES}")
    try:
        parts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EventError(f"invalid message {_shown(data[:80])}: expected JSON: {error}") from None
    if not isinstance(parts, list) or not parts:
        raise EventError(f"invalid message {_shown(parts)}: expected an array that begins with the version")
    version, *rest = parts
    if version != VERSION or isinstance(version, bool):
        raise EventError(
            f"unknown version {_shown(version)} of telemetry events: expected {VERSION}: install the same release of "
            "fmi-emulator for the ranks and for the emulator"
        )
    return rest


def _event(value: object) -> Event:
    if not isinstance(value, list) or not value or not isinstance(value[0], str) or value[0] not in KINDS:
        raise EventError(f"unknown event {_shown(value)}: expected an array that begins with one of {', '.join(KINDS)}")
    kind = KINDS[value[0]]
    readers = _FIELDS[kind]
    values: list[Any] = _exactly(value[1:], len(readers))
    return kind(*(read(part) for read, part in zip(readers, values, strict=True)))


def _exactly(values: list[object], count: int) -> list[object]:
    if len(values) != count:
        raise EventError(f"invalid message {_shown(values)}: expected {count} values")
    return values


def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MAX_INTEGER:
        raise EventError(f"invalid number {_shown(value)}: expected a whole number from 0 to 2^62 - 1")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise EventError(f"invalid text {_shown(value)}: expected at most {_MAX_TEXT} characters")
    return value


def _natural_or_none(value: object) -> int | None:
    return None if value is None else _natural(value)


def _numbers(value: object) -> array[int]:
    numbers = array("q")
    try:
        numbers.frombytes(a2b_base64(value if isinstance(value, str) else "?", strict_mode=True))
    except ValueError:
        raise EventError(f"invalid rows {_shown(value)}: expected 64-bit numbers in base64") from None
    if sys.byteorder == "big":
        numbers.byteswap()
    is_whole = len(numbers) % ROW_FIELDS == 0 and len(numbers) <= ROW_FIELDS * MAX_ROWS
    # Without their sign, negative numbers are the largest.
    if not is_whole or np.frombuffer(numbers, np.uint64).max(initial=0) >= _MAX_INTEGER:
        raise EventError(
            f"invalid rows {_shown(value)}: expected at most {MAX_ROWS} of {ROW_FIELDS} numbers from 0 to 2^62 - 1"
        )
    return numbers


def _threads(value: object) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or not all(isinstance(thread, list) for thread in value):
        raise EventError(f"invalid stacks {_shown(value)}: expected an array of arrays")
    return tuple(tuple(_text(frame) for frame in thread) for thread in value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_READERS: Mapping[str, Callable[[object], Any]] = {
    "int": _natural,
    "str": _text,
    "int | None": _natural_or_none,
    "array[int]": _numbers,
    "tuple[tuple[str, ...], ...]": _threads,
}
_FIELDS = {kind: tuple(_READERS[str(field.type)] for field in fields(kind)) for kind in KINDS.values()}
