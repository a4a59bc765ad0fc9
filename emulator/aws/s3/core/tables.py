"""The object store's tables, and transactions that end with the removal of what nobody refers to any more."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from emulator.aws.s3.core.bodies import BodyFolder, Segment
from emulator.aws.s3.core.records import body_of
from emulator.aws.state import StateFolder

# Keys are kept as UTF-8: S3 lists in the order of its bytes. A larger number is a later version.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (
    name TEXT PRIMARY KEY, region TEXT NOT NULL, created REAL NOT NULL, versioning TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS versions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket TEXT NOT NULL, key BLOB NOT NULL, version_id TEXT NOT NULL, modified REAL NOT NULL, body TEXT,
    content BLOB NOT NULL, description TEXT NOT NULL, part_sizes TEXT NOT NULL, upload_id TEXT NOT NULL,
    latest INTEGER NOT NULL,
    UNIQUE (bucket, key, version_id)
);
CREATE UNIQUE INDEX IF NOT EXISTS latest_versions ON versions (bucket, key) WHERE latest;
CREATE TABLE IF NOT EXISTS uploads (
    upload_id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key BLOB NOT NULL, created REAL NOT NULL,
    description TEXT NOT NULL, algorithm TEXT, kind TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    upload_id TEXT NOT NULL, number INTEGER NOT NULL, modified REAL NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (upload_id, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS configurations (
    bucket TEXT NOT NULL, target TEXT NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (bucket, target)
) WITHOUT ROWID;
"""


class Tables:
    """The database and the bodies that its records refer to.

    Parameters
    ----------
    state
        Where both are kept.

    Attributes
    ----------
    database
        The connection.
    bodies
        The body files.

    Raises
    ------
    StateError
        When what the folder has does not fit together.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self.database = state.database
        self.bodies = BodyFolder(state.folder("bodies"))
        try:
            self.database.executescript(_SCHEMA)
            self._hold_bodies(state)
        except sqlite3.DatabaseError as error:
            raise state.damaged(f"objects: {error}") from error
        self.bodies.sweep()

    @contextmanager
    def transaction(self) -> Iterator[list[tuple[Segment, ...]]]:
        """Commit all that happens within, or nothing; what is put into the list is released after the commit."""
        released: list[tuple[Segment, ...]] = []
        with self._state.transaction():
            yield released
        # Only now: until the commit, a kill must find the old files.
        for segments in released:
            self.bodies.release(segments)

    def _hold_bodies(self, state: StateFolder) -> None:
        held: Iterable[tuple[str]] = self.database.execute(
            "SELECT body FROM versions WHERE body IS NOT NULL UNION ALL SELECT body FROM parts"
        )
        sizes = self.bodies.sizes()
        for (record,) in held:
            segments = body_of(record).segments
            for segment in segments:
                if sizes.get(segment.file, -1) < segment.start + segment.size:
                    raise state.damaged(f"the body file {segment.file} is missing or too short")
            self.bodies.hold(segments)
