"""Log groups, streams and events in a database, and the filter patterns that select events.

Lines of a sandbox that arrive together have one timestamp and share a row: a row for each line took ten times as long.
Filter patterns: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

import asyncio
import itertools
import json
import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from emulator.aws.disk_reserve import DiskFullError
from emulator.aws.state import StateFolder
from emulator.errors import ApiError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogGroup:
    """A log group: times in ms since 1970, retention in days (stored, but nothing expires), size in bytes.

    Its class and its key have no effect; one that is protected cannot be deleted.
    """

    name: str
    created: int
    retention: int | None
    log_class: str
    kms_key: str | None
    is_protected: bool
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
class EventPosition:
    """The position of an event in its order: by timestamp, then by batch of arrival, then by index in the batch."""

    timestamp: int
    batch: int
    index: int


@dataclass(frozen=True)
class LogEvent:
    """A log event: position, time of arrival in ms since 1970, stream and message."""

    position: EventPosition
    ingested: int
    stream: str
    message: str


@dataclass(frozen=True)
class SubscriptionFilter:
    """A filter whose matching events go to a destination: an ARN. The time is in ms since 1970."""

    name: str
    pattern: str
    destination: str
    distribution: str
    created: int


@dataclass(frozen=True)
class SubscribedEvents:
    """Events of a stream that a subscription filter matches: pairs of time in ms since 1970 and message."""

    region: str
    group: str
    stream: str
    filter: SubscriptionFilter
    events: Sequence[tuple[int, str]]


_SCHEMA = """
CREATE TABLE IF NOT EXISTS log_groups (
    id INTEGER PRIMARY KEY, region TEXT NOT NULL, name TEXT NOT NULL, created INTEGER NOT NULL, retention INTEGER,
    class TEXT NOT NULL DEFAULT 'STANDARD', kms_key TEXT, is_protected INTEGER NOT NULL DEFAULT 0, UNIQUE (region, name)
);
CREATE TABLE IF NOT EXISTS log_group_tags (
    group_id INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (group_id, key)
);
CREATE TABLE IF NOT EXISTS log_streams (
    id INTEGER PRIMARY KEY, group_id INTEGER NOT NULL, name TEXT NOT NULL, created INTEGER NOT NULL,
    first INTEGER, last INTEGER, ingested INTEGER, bytes INTEGER NOT NULL, UNIQUE (group_id, name)
);
CREATE TABLE IF NOT EXISTS log_batches (
    number INTEGER PRIMARY KEY, group_id INTEGER NOT NULL, stream_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
    ingested INTEGER NOT NULL, messages TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS log_subscription_filters (
    group_id INTEGER NOT NULL, name TEXT NOT NULL, pattern TEXT NOT NULL, destination TEXT NOT NULL,
    distribution TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (group_id, name)
);
CREATE INDEX IF NOT EXISTS log_batches_of_group ON log_batches (group_id, timestamp, number);
CREATE INDEX IF NOT EXISTS log_batches_of_stream ON log_batches (stream_id, timestamp, number);
"""
_GROUPS = (
    "SELECT name, created, retention, class, kms_key, is_protected,"
    " (SELECT coalesce(sum(bytes), 0) FROM log_streams WHERE group_id = log_groups.id) FROM log_groups"
)
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
_MOST_FILTERS = 2
_FOREVER = 2**62
_DELETED_AT_ONCE = 500
# The IDs of a group and a stream, cached for streams that are written to.
_Ids = tuple[int, int]


class LogStore:
    """The logs of all regions.

    Parameters
    ----------
    state
        The folder that stores them.

    Raises
    ------
    StateError
        When the tables cannot be read.

    Attributes
    ----------
    subscriber
        Receives the events that subscription filters match; None if nobody does.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self.subscriber: Callable[[SubscribedEvents], None] | None = None
        self._regions: dict[str, RegionLogs] = {}
        self._is_full = False
        try:
            state.database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise state.damaged(f"logs: {error}") from error

    def region(self, name: str) -> "RegionLogs":
        """Return the logs of a region."""
        if name not in self._regions:
            self._regions[name] = RegionLogs(self._state, name, self._publish)
        return self._regions[name]

    def _publish(self, found: SubscribedEvents) -> None:
        if self.subscriber is not None:
            self.subscriber(found)

    def append(self, region: str, group: str, stream: str, messages: Sequence[str]) -> None:
        """Append events with the current time; create group and stream if missing.

        Where the disk is full, the events are lost; what writes them, such as a function, continues.
        """
        try:
            self.region(region).append(group, stream, messages)
            self._is_full = False
        except DiskFullError as error:
            if not self._is_full:
                _log.warning("log events are lost: %s", error.message)
            self._is_full = True

    def clear(self) -> None:
        """Delete all log groups with their streams and events."""
        self._regions.clear()
        with self._state.transaction(is_delete=True):
            for table in ("log_batches", "log_streams", "log_group_tags", "log_subscription_filters", "log_groups"):
                self._state.database.execute(f"DELETE FROM {table}")  # noqa: S608 - constants


class RegionLogs:
    """Log groups with their streams and events. Every method commits its changes before it returns.

    Parameters
    ----------
    state
        The folder that stores them.
    region
        The region whose they are.
    publish
        Receives the events that subscription filters match.
    """

    def __init__(self, state: StateFolder, region: str, publish: Callable[[SubscribedEvents], None]) -> None:
        self._state = state
        self._database = state.database
        self._region = region
        self._stream_ids: dict[tuple[str, str], _Ids] = {}
        self._publish = publish
        self._filters = self._stored_filters()

    def append(self, group: str, stream: str, messages: Sequence[str]) -> None:
        """Append events with the current time; create group and stream if missing."""
        if (group, stream) not in self._stream_ids:
            now = _now()
            query = "INSERT OR IGNORE INTO log_groups (region, name, created) VALUES (?, ?, ?)"
            self._database.write(query, (self._region, group, now))
            made = (self._group_id(group), stream, now)
            query = "INSERT OR IGNORE INTO log_streams (group_id, name, created, bytes) VALUES (?, ?, ?, 0)"
            self._database.write(query, made)
        now = _now()
        self.put_events(group, stream, [(now, message) for message in messages])

    def put_events(self, group: str, stream: str, events: Sequence[tuple[int, str]]) -> None:
        """Append events to a stream.

        Parameters
        ----------
        group, stream
            Their names.
        events
            Pairs of time in ms since 1970 and message, ordered by time.

        Raises
        ------
        ApiError
            ResourceNotFoundException.
        """
        group_id, stream_id = self._ids(group, stream)
        if not events:
            return
        now, size = _now(), sum(len(message.encode(errors="replace")) for _, message in events)
        rows = [
            (group_id, stream_id, timestamp, now, json.dumps([message for _, message in batch]))
            for timestamp, batch in itertools.groupby(events, key=lambda event: event[0])
        ]
        insert = "INSERT INTO log_batches (group_id, stream_id, timestamp, ingested, messages) VALUES (?, ?, ?, ?, ?)"
        update = (
            "UPDATE log_streams SET first = min(coalesce(first, ?1), ?1), last = max(coalesce(last, ?2), ?2),"
            " ingested = ?3, bytes = bytes + ?4 WHERE id = ?5"
        )
        with self._state.transaction(size):
            self._database.executemany(insert, rows)
            self._database.execute(update, (events[0][0], events[-1][0], now, size, stream_id))
        for wanted, matches in self._filters.get(group, ()):
            if matching := [event for event in events if matches(event[1])]:
                self._publish(SubscribedEvents(self._region, group, stream, wanted, matching))

    def put_filter(self, group: str, wanted: SubscriptionFilter) -> None:
        """Add a subscription filter to a group, or replace the one of its name.

        Raises
        ------
        ApiError
            ResourceNotFoundException; LimitExceededException when the group has two others; InvalidParameterException
            for a pattern that is not emulated.
        """
        group_id = self._group_id(group)
        compile_filter_pattern(wanted.pattern)
        others = [found for found in self.filters(group) if found.name != wanted.name]
        if len(others) >= _MOST_FILTERS:
            raise ApiError("LimitExceededException", HTTPStatus.BAD_REQUEST, "Resource limit exceeded.")
        query = "INSERT OR REPLACE INTO log_subscription_filters VALUES (?, ?, ?, ?, ?, ?)"
        row = (wanted.name, wanted.pattern, wanted.destination, wanted.distribution, wanted.created)
        self._database.write(query, (group_id, *row))
        self._filters = self._stored_filters()

    def filters(self, group: str) -> list[SubscriptionFilter]:
        """Return a group's subscription filters, ordered by name."""
        self._group_id(group)
        return [wanted for wanted, _ in self._filters.get(group, ())]

    def delete_filter(self, group: str, name: str) -> None:
        """Delete a subscription filter.

        Raises
        ------
        ApiError
            ResourceNotFoundException.
        """
        group_id = self._group_id(group)
        if all(wanted.name != name for wanted in self.filters(group)):
            message = "The specified subscription filter does not exist."
            raise ApiError("ResourceNotFoundException", HTTPStatus.BAD_REQUEST, message)
        query = "DELETE FROM log_subscription_filters WHERE group_id = ? AND name = ?"
        self._database.write(query, (group_id, name))
        self._filters = self._stored_filters()

    def _stored_filters(self) -> dict[str, list[tuple[SubscriptionFilter, Callable[[str], bool]]]]:
        """Return all filters by their groups, each with what tells whether a message matches."""
        query = (
            "SELECT log_groups.name, f.name, pattern, destination, distribution, f.created"
            " FROM log_subscription_filters AS f JOIN log_groups ON log_groups.id = group_id"
            " WHERE region = ? ORDER BY f.name"
        )
        stored: dict[str, list[tuple[SubscriptionFilter, Callable[[str], bool]]]] = {}
        for group, *row in self._database.execute(query, (self._region,)).fetchall():
            wanted = SubscriptionFilter(*row)
            stored.setdefault(group, []).append((wanted, compile_filter_pattern(wanted.pattern)))
        return stored

    def create_group(
        self, name: str, log_class: str = "STANDARD", kms_key: str | None = None, *, is_protected: bool = False
    ) -> None:
        """Create a log group.

        Raises
        ------
        ApiError
            ResourceAlreadyExistsException.
        """
        row = (self._region, name, _now(), log_class, kms_key, is_protected)
        query = "INSERT INTO log_groups (region, name, created, class, kms_key, is_protected) VALUES (?, ?, ?, ?, ?, ?)"
        try:
            self._database.write(query, row)
        except sqlite3.IntegrityError:
            raise _exists("group") from None

    def create_stream(self, group: str, name: str) -> None:
        """Create a log stream.

        Raises
        ------
        ApiError
            ResourceAlreadyExistsException or ResourceNotFoundException.
        """
        row = (self._group_id(group), name, _now())
        try:
            query = "INSERT INTO log_streams (group_id, name, created, bytes) VALUES (?, ?, ?, 0)"
            self._database.write(query, row)
        except sqlite3.IntegrityError:
            raise _exists("stream") from None

    async def delete_group(self, name: str) -> None:
        """Delete a log group with its streams and events.

        Raises
        ------
        ApiError
            ResourceNotFoundException, or ValidationException when it is protected.
        """
        group_id = self._group_id(name)
        query = "SELECT is_protected FROM log_groups WHERE id = ?"
        if self._database.execute(query, (group_id,)).fetchone()[0]:
            message = "Cannot delete a log group with deletion protection enabled"
            raise ApiError("ValidationException", HTTPStatus.BAD_REQUEST, message)
        await self._delete_events("group_id", group_id)
        self._filters.pop(name, None)
        tables = ("log_streams", "log_group_tags", "log_subscription_filters")
        self._delete(*((table, "group_id") for table in tables), ("log_groups", "id"), value=group_id)

    async def delete_stream(self, group: str, name: str) -> None:
        """Delete a log stream with its events."""
        _, stream_id = self._ids(group, name)
        await self._delete_events("stream_id", stream_id)
        self._delete(("log_streams", "id"), value=stream_id)

    def set_retention(self, group: str, days: int | None) -> None:
        """Store the retention of a log group; nothing expires here."""
        self._database.write("UPDATE log_groups SET retention = ? WHERE id = ?", (days, self._group_id(group)))

    def set_kms_key(self, group: str, key: str | None) -> None:
        """Store the key of a log group; nothing is encrypted with it."""
        self._database.write("UPDATE log_groups SET kms_key = ? WHERE id = ?", (key, self._group_id(group)))

    def protect(self, group: str, *, is_protected: bool) -> None:
        """Protect a log group from being deleted, or do so no longer."""
        self._database.write(
            "UPDATE log_groups SET is_protected = ? WHERE id = ?", (is_protected, self._group_id(group))
        )

    def tags(self, group: str) -> dict[str, str]:
        """Return the tags of a log group."""
        query = "SELECT key, value FROM log_group_tags WHERE group_id = ? ORDER BY key"
        return dict(self._database.execute(query, (self._group_id(group),)).fetchall())

    def set_tags(self, group: str, tags: Mapping[str, str]) -> None:
        """Add tags to a log group, or change their values."""
        group_id = self._group_id(group)
        for key, value in tags.items():
            self._database.write("INSERT OR REPLACE INTO log_group_tags VALUES (?, ?, ?)", (group_id, key, value))

    def remove_tags(self, group: str, keys: Sequence[str]) -> None:
        """Remove tags from a log group; nothing happens to those it does not have."""
        group_id = self._group_id(group)
        for key in keys:
            self._database.write("DELETE FROM log_group_tags WHERE group_id = ? AND key = ?", (group_id, key))

    def groups(self) -> list[LogGroup]:
        """Return all log groups, ordered by name."""
        rows = self._database.execute(f"{_GROUPS} WHERE region = ? ORDER BY name", (self._region,))
        return [
            LogGroup(name, created, retention, log_class, kms_key, bool(is_protected), size)
            for name, created, retention, log_class, kms_key, is_protected, size in rows
        ]

    def streams(self, group: str) -> list[LogStream]:
        """Return a group's streams, ordered by name."""
        query = "SELECT name, created, first, last, ingested, bytes FROM log_streams WHERE group_id = ? ORDER BY name"
        return [LogStream(*row) for row in self._database.execute(query, (self._group_id(group),))]

    def events_of_group(
        self,
        group: str,
        *,
        start: int = 0,
        end: int = _FOREVER,
        after: EventPosition | None = None,
        stream: Callable[[str], bool] = lambda _: True,
    ) -> Iterable[LogEvent]:
        """Yield a group's events in order. Do not modify the store while iterating.

        Parameters
        ----------
        group
            Its name.
        start, end
            First and last time, inclusive, ms since 1970.
        after
            The position after which to start.
        stream
            Returns whether to include a stream, by its name.
        """
        group_id = self._group_id(group)
        names = self._database.execute("SELECT id, name FROM log_streams WHERE group_id = ?", (group_id,))
        wanted = {stream_id: name for stream_id, name in names if stream(name)}
        place = after or EventPosition(start, -1, -1)
        query = (
            "SELECT timestamp, number, ingested, stream_id, messages FROM log_batches"
            " WHERE group_id = ? AND (timestamp, number) >= (?, ?) AND timestamp >= ? AND timestamp <= ?"
            " ORDER BY timestamp, number"
        )
        rows = self._database.execute(query, (group_id, place.timestamp, place.batch, start, end))
        for timestamp, number, ingested, stream_id, messages in rows:
            if stream_id in wanted:
                for index, message in enumerate(json.loads(messages)):
                    position = EventPosition(timestamp, number, index)
                    if position > place:
                        yield LogEvent(position, ingested, wanted[stream_id], message)

    def events_of_stream(
        self, group: str, stream: str, *, start: int, end: int, place: EventPosition | None, backward: bool
    ) -> Iterable[LogEvent]:
        """Yield a stream's events. Do not modify the store while iterating.

        Parameters
        ----------
        group, stream
            Their names.
        start, end
            First and last time, inclusive, ms since 1970.
        place
            The position to start at, exclusive; None for the first or last event.
        backward
            Whether to iterate from the last event to the first.
        """
        _, stream_id = self._ids(group, stream)
        sign, order = ("<=", "DESC") if backward else (">=", "ASC")
        begin = place or (EventPosition(_FOREVER, 0, 0) if backward else EventPosition(-1, 0, 0))
        query = (
            "SELECT timestamp, number, ingested, messages FROM log_batches"  # noqa: S608 - constants
            f" WHERE stream_id = ? AND (timestamp, number) {sign} (?, ?) AND timestamp >= ? AND timestamp <= ?"
            f" ORDER BY timestamp {order}, number {order}"
        )
        rows = self._database.execute(query, (stream_id, begin.timestamp, begin.batch, start, end))
        for timestamp, number, ingested, messages in rows:
            numbered = list(enumerate(json.loads(messages)))
            for index, message in reversed(numbered) if backward else numbered:
                position = EventPosition(timestamp, number, index)
                if position < begin if backward else position > begin:
                    yield LogEvent(position, ingested, stream, message)

    def _group_id(self, name: str) -> int:
        query = "SELECT id FROM log_groups WHERE region = ? AND name = ?"
        row = self._database.execute(query, (self._region, name)).fetchone()
        if row is None:
            raise _missing("group")
        return int(row[0])

    def _ids(self, group: str, stream: str) -> _Ids:
        known = self._stream_ids.get((group, stream))
        if known is None:
            group_id = self._group_id(group)
            query = "SELECT id FROM log_streams WHERE group_id = ? AND name = ?"
            row = self._database.execute(query, (group_id, stream)).fetchone()
            if row is None:
                raise _missing("stream")
            known = self._stream_ids[group, stream] = (group_id, int(row[0]))
        return known

    async def _delete_events(self, column: str, value: int) -> None:
        """Delete events in steps, so that even the deletion of a large group needs little space on a full disk.

        Other requests are handled between the steps; events that they add are deleted, too.
        """
        numbers = f"SELECT number FROM log_batches WHERE {column} = ? LIMIT {_DELETED_AT_ONCE}"  # noqa: S608 - constants
        query = f"DELETE FROM log_batches WHERE number IN ({numbers})"  # noqa: S608 - constants
        deleted = 1
        while deleted:
            deleted = self._database.write(query, (value,)).rowcount
            await asyncio.sleep(0)

    def _delete(self, *places: tuple[str, str], value: int) -> None:
        self._stream_ids.clear()
        with self._state.transaction(is_delete=True):
            for table, column in places:
                self._database.execute(f"DELETE FROM {table} WHERE {column} = ?", (value,))  # noqa: S608 - constants


def _now() -> int:
    return int(time.time() * 1000)


def _missing(what: str) -> ApiError:
    message = f"The specified log {what} does not exist."
    return ApiError("ResourceNotFoundException", HTTPStatus.BAD_REQUEST, message)


def _exists(what: str) -> ApiError:
    message = f"The specified log {what} already exists"
    return ApiError("ResourceAlreadyExistsException", HTTPStatus.BAD_REQUEST, message)


_TERM = re.compile(r'(?P<sign>[-?]?)(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s"]+))')


def compile_filter_pattern(pattern: str) -> Callable[[str], bool]:
    """Compile a filter pattern to a function that returns whether a message matches.

    Parameters
    ----------
    pattern
        Terms that must all occur, ``-term`` for one that must not, ``?term`` for alternatives of which one must occur;
        ``"a phrase"`` is one term.

    Raises
    ------
    ApiError
        InvalidParameterException for JSON, space-delimited and regular expression patterns.
    """
    pattern = pattern.strip()
    # A pattern of no fields restricts nothing.
    if pattern == "[]":
        pattern = ""
    if pattern[:1] in ("{", "[", "%"):
        message = f'unsupported filterPattern {pattern!r}: expected terms, for example ERROR -"a phrase" ?any'
        raise ApiError("InvalidParameterException", HTTPStatus.BAD_REQUEST, message)
    terms: dict[str, list[str]] = {"": [], "-": [], "?": []}
    for term in _TERM.finditer(pattern):
        terms[term["sign"]].append(term["quoted"] if term["quoted"] is not None else term["plain"])

    def matches(message: str) -> bool:
        return (
            all(term in message for term in terms[""])
            and not any(term in message for term in terms["-"])
            and (not terms["?"] or any(term in message for term in terms["?"]))
        )

    return matches
