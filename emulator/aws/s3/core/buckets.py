"""Buckets, their versioning, and what else they were configured with."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from emulator.aws.s3.core.errors import no_such_bucket
from emulator.aws.s3.core.records import Bucket, Versioning, body_of
from emulator.aws.s3.core.tables import Tables
from emulator.errors import ApiError


@dataclass(frozen=True)
class Configuration:
    """A request that gave a bucket a part of its configuration, as moto understands it.

    Parameters
    ----------
    target
        Path and query.
    headers, body
        As they came.
    """

    target: str
    headers: Mapping[str, str]
    body: bytes


class Buckets:
    """The buckets that exist.

    Parameters
    ----------
    tables
        Where they are kept.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._database = tables.database

    def create(self, name: str, region: str) -> None:
        """Add a bucket; one that is there stays as it is."""
        bucket = (name, region, time.time(), Versioning.OFF.value)
        self._database.execute("INSERT OR IGNORE INTO buckets VALUES (?, ?, ?, ?)", bucket)

    def all(self) -> list[Bucket]:
        """Return all buckets, by name."""
        rows = self._database.execute("SELECT name, region, created, versioning FROM buckets ORDER BY name")
        return [Bucket(name, region, created, Versioning(state)) for name, region, created, state in rows]

    def exists(self, name: str) -> bool:
        """Tell whether there is a bucket of that name."""
        return self._database.execute("SELECT 1 FROM buckets WHERE name = ?", (name,)).fetchone() is not None

    def get(self, name: str) -> Bucket:
        """Return a bucket.

        Raises
        ------
        ApiError
            NoSuchBucket.
        """
        query = "SELECT region, created, versioning FROM buckets WHERE name = ?"
        row = self._database.execute(query, (name,)).fetchone()
        if row is None:
            raise no_such_bucket(name)
        return Bucket(name, row[0], row[1], Versioning(row[2]))

    def set_versioning(self, name: str, versioning: Versioning) -> None:
        """Turn versioning on or suspend it."""
        self._database.execute("UPDATE buckets SET versioning = ? WHERE name = ?", (versioning.value, name))

    def check_empty(self, name: str) -> None:
        """Make sure that a bucket may be deleted.

        Raises
        ------
        ApiError
            NoSuchBucket, or BucketNotEmpty when it has a version of an object or a delete marker.
        """
        self.get(name)
        query = "SELECT 1 FROM versions WHERE bucket = ? LIMIT 1"
        if self._database.execute(query, (name,)).fetchone() is not None:
            message = "The bucket you tried to delete is not empty"
            raise ApiError("BucketNotEmpty", HTTPStatus.CONFLICT, message, {"BucketName": name})

    def delete(self, name: str) -> None:
        """Remove an empty bucket with its uploads and its configuration."""
        with self._tables.transaction() as released:
            parts = "SELECT body FROM parts JOIN uploads USING (upload_id) WHERE bucket = ?"
            released.extend(body_of(record).segments for (record,) in self._database.execute(parts, (name,)))
            uploads = "SELECT upload_id FROM uploads WHERE bucket = ?"
            self._database.execute(f"DELETE FROM parts WHERE upload_id IN ({uploads})", (name,))  # noqa: S608 - constants
            self._database.execute("DELETE FROM uploads WHERE bucket = ?", (name,))
            self._database.execute("DELETE FROM configurations WHERE bucket = ?", (name,))
            self._database.execute("DELETE FROM buckets WHERE name = ?", (name,))

    def configurations(self) -> list[Configuration]:
        """Return what all buckets were configured with; a bucket's creation comes before the rest of it."""
        rows = self._database.execute("SELECT target, headers, body FROM configurations ORDER BY bucket, target")
        return [Configuration(target, json.loads(headers), body) for target, headers, body in rows]

    def set_configuration(self, name: str, configuration: Configuration) -> None:
        """Keep a part of a bucket's configuration in place of what it was before."""
        row = (name, configuration.target, json.dumps(dict(configuration.headers)), configuration.body)
        self._database.execute("INSERT OR REPLACE INTO configurations VALUES (?, ?, ?, ?)", row)

    def delete_configuration(self, name: str, target: str) -> None:
        """Forget a part of a bucket's configuration."""
        self._database.execute("DELETE FROM configurations WHERE bucket = ? AND target = ?", (name, target))
