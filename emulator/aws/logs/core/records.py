"""What the log store tells of groups, streams and events."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LogGroup:
    """A log group: times in ms since 1970, retention in days (kept, but nothing expires), size in bytes."""

    name: str
    created: int
    retention: int | None
    size: int


@dataclass(frozen=True)
class LogStream:
    """A log stream: times in ms since 1970, None before the first event; size in bytes."""

    name: str
    created: int
    first: int | None
    last: int | None
    ingested: int | None
    size: int


@dataclass(frozen=True, order=True)
class Position:
    """A place in the order of events: by time, of one time by arrival, and of what arrived together by its order."""

    timestamp: int
    batch: int
    index: int


@dataclass(frozen=True)
class LogEvent:
    """An event: its place, the time it arrived in ms since 1970, its stream and its text."""

    position: Position
    ingested: int
    stream: str
    message: str
