"""Buckets, their configuration, and the versions of their objects.

Versioning: https://docs.aws.amazon.com/AmazonS3/latest/userguide/versioning-workflows.html
"""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from emulator.aws.s3.core.errors import no_such_bucket, no_such_key, no_such_version
from emulator.aws.s3.core.tables import (
    FILES_OF_PARTS,
    NULL_VERSION,
    Bucket,
    ObjectVersion,
    Tables,
    Versioning,
    body_from_json,
    body_to_json,
    metadata_from_json,
    metadata_to_json,
)
from emulator.errors import ApiError

# Deleting a file takes up to 0.1 ms, and the event loop waits for it.
_DELETED_AT_ONCE = 100


@dataclass(frozen=True)
class BucketConfiguration:
    """The request that set one part of a bucket's configuration, to be replayed to moto.

    Parameters
    ----------
    target
        Path and query.
    headers, body
        As received.
    """

    target: str
    headers: Mapping[str, str]
    body: bytes


class Buckets:
    """The buckets and their configuration.

    Parameters
    ----------
    tables
        Where they are stored.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._database = tables.database
        # Read at every PutObject, and seldom changed.
        self._documents: dict[tuple[str, str], bytes | None] = {}

    def create(self, name: str, region: str, configuration: BucketConfiguration | None = None) -> None:
        """Create a bucket and store the request that created it, if any; an existing bucket is not changed."""
        if self.exists(name):
            return
        bucket = (name, region, time.time(), Versioning.OFF.value)
        with self._tables.transaction():
            self._database.execute("INSERT INTO buckets VALUES (?, ?, ?, ?)", bucket)
            if configuration is not None:
                self.set_configuration(name, configuration)

    def all(self) -> list[Bucket]:
        """Return all buckets, by name."""
        rows = self._database.execute("SELECT name, region, created, versioning FROM buckets ORDER BY name")
        return [Bucket(name, region, created, Versioning(state)) for name, region, created, state in rows]

    def exists(self, name: str) -> bool:
        """Return whether a bucket exists."""
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
        """Set a bucket's versioning."""
        self._database.write("UPDATE buckets SET versioning = ? WHERE name = ?", (versioning.value, name))

    def check_empty(self, name: str) -> None:
        """Check that a bucket exists and is empty.

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
        """Delete an empty bucket with its uploads and its configuration.

        Raises
        ------
        ApiError
            As `check_empty`.
        """
        self.check_empty(name)
        self._documents.clear()
        with self._tables.transaction(is_delete=True) as changes:
            uploads = "SELECT upload_id FROM uploads WHERE bucket = ?"
            rows = self._database.execute(f"{FILES_OF_PARTS} WHERE upload_id IN ({uploads})", (name,))
            changes.released.extend(file for *_, file in rows)
            self._database.execute(f"DELETE FROM parts WHERE upload_id IN ({uploads})", (name,))  # noqa: S608 - constants
            self._database.execute("DELETE FROM uploads WHERE bucket = ?", (name,))
            self._database.execute("DELETE FROM configurations WHERE bucket = ?", (name,))
            self._database.execute("DELETE FROM buckets WHERE name = ?", (name,))

    def delete_some(self) -> bool:
        """Delete a few objects and parts, of whatever bucket; return whether there were any."""
        versions = self._database.execute("SELECT body, number FROM versions LIMIT ?", (_DELETED_AT_ONCE,)).fetchall()
        query = "SELECT body, upload_id, number FROM parts LIMIT ?"
        parts = self._database.execute(query, (_DELETED_AT_ONCE,)).fetchall()
        with self._tables.transaction(is_delete=True) as changes:
            for _, *key in versions:
                self._database.execute("DELETE FROM versions WHERE number = ?", key)
            for _, *key in parts:
                self._database.execute("DELETE FROM parts WHERE upload_id = ? AND number = ?", key)
            bodies = [record for record, *_ in (*versions, *parts) if record is not None]
            changes.released.extend(file for record in bodies for file in body_from_json(record).files)
        return bool(versions or parts)

    def clear(self) -> None:
        """Delete all buckets with their objects, uploads and configuration."""
        self._documents.clear()
        with self._tables.transaction(is_delete=True) as changes:
            for table in ("versions", "parts"):
                rows = self._database.execute(f"SELECT body FROM {table} WHERE body IS NOT NULL")  # noqa: S608 - constants
                changes.released.extend(file for (record,) in rows for file in body_from_json(record).files)
            for table in ("versions", "parts", "uploads", "configurations", "buckets"):
                self._database.execute(f"DELETE FROM {table}")  # noqa: S608 - constants

    def configurations(self) -> list[BucketConfiguration]:
        """Return the configuration requests of all buckets.

        A bucket's creation precedes its other requests; its versioning precedes what requires versioning.
        """
        rows = self._database.execute("SELECT target, headers, body FROM configurations ORDER BY bucket, target")
        stored = [BucketConfiguration(target, json.loads(headers), body) for target, headers, body in rows]
        created = [request for request in stored if "?" not in request.target]
        versioning = [
            BucketConfiguration(f"/{bucket.name}?versioning", {}, versioning_document(bucket.versioning))
            for bucket in self.all()
            if bucket.versioning is not Versioning.OFF
        ]
        return [*created, *versioning, *(request for request in stored if "?" in request.target)]

    def configuration(self, name: str, part: str) -> bytes | None:
        """Return the document that set one part of a bucket's configuration, such as ``cors``; None if none did."""
        if (name, part) not in self._documents:
            rows = self._database.execute("SELECT target, body FROM configurations WHERE bucket = ?", (name,))
            found = next((body for target, body in rows if part in _parameters(target)), None)
            self._documents[name, part] = found
        return self._documents[name, part]

    def stored_configuration(self, name: str, target: str) -> BucketConfiguration | None:
        """Return the configuration request with a target, or None."""
        query = "SELECT headers, body FROM configurations WHERE bucket = ? AND target = ?"
        row = self._database.execute(query, (name, target)).fetchone()
        return None if row is None else BucketConfiguration(target, json.loads(row[0]), row[1])

    def set_configuration(self, name: str, configuration: BucketConfiguration) -> None:
        """Store a configuration request; it replaces the one with the same target."""
        self._documents.clear()
        row = (name, configuration.target, json.dumps(dict(configuration.headers)), configuration.body)
        self._database.write("INSERT OR REPLACE INTO configurations VALUES (?, ?, ?, ?)", row)

    def delete_configuration(self, name: str, target: str) -> None:
        """Delete a configuration request."""
        self._documents.clear()
        self._database.write("DELETE FROM configurations WHERE bucket = ? AND target = ?", (name, target))


def versioning_document(versioning: Versioning) -> bytes:
    """Return the document that sets a bucket's versioning."""
    return f"<VersioningConfiguration><Status>{versioning.value}</Status></VersioningConfiguration>".encode()


def _parameters(target: str) -> set[str]:
    return {parameter.partition("=")[0] for parameter in target.partition("?")[2].split("&")}


COLUMNS = "key, version_id, modified, body, description, part_sizes, upload_id, latest"
_ALL_COLUMNS = f"{COLUMNS}, content"


@dataclass(frozen=True)
class DeleteResult:
    """The version that was deleted or created, if any, and whether it is a delete marker."""

    version_id: str = ""
    is_marker: bool = False


def version_of(row: tuple[Any, ...]) -> ObjectVersion:
    """Convert a row of `COLUMNS`, optionally followed by the content, to a version."""
    key, version_id, modified, body, metadata, part_sizes, upload_id, latest, *content = row
    return ObjectVersion(
        key=key.decode(),
        version_id=version_id,
        modified=modified,
        body=None if body is None else body_from_json(body, *content),
        metadata=metadata_from_json(metadata),
        part_sizes=tuple(json.loads(part_sizes)),
        upload_id=upload_id,
        is_latest=bool(latest),
    )


class Objects:
    """The objects of all buckets.

    Parameters
    ----------
    tables
        Where they are stored.
    buckets
        Their buckets.
    """

    def __init__(self, tables: Tables, buckets: Buckets) -> None:
        self._tables = tables
        self._database = tables.database
        self._buckets = buckets

    def find(self, bucket: str, key: str, version_id: str = "") -> ObjectVersion | None:
        """Return a version or delete marker, or None if there is none; without a version ID the latest.

        Raises
        ------
        ApiError
            NoSuchBucket.
        """
        which = "version_id = ?" if version_id else "latest"
        query = f"SELECT {_ALL_COLUMNS} FROM versions WHERE bucket = ? AND key = ? AND {which}"  # noqa: S608 - constants
        row = self._database.execute(query, (bucket, key.encode(), *([version_id] if version_id else []))).fetchone()
        if row is None:
            self._buckets.get(bucket)
            return None
        return version_of(row)

    def get(self, bucket: str, key: str, version_id: str = "") -> ObjectVersion:
        """Return a version or delete marker; without a version ID the latest.

        Raises
        ------
        ApiError
            NoSuchBucket, NoSuchKey or NoSuchVersion.
        """
        found = self.find(bucket, key, version_id)
        if found is None:
            raise no_such_version(key, version_id) if version_id else no_such_key(key)
        return found

    def put(self, bucket: str, version: ObjectVersion) -> ObjectVersion:
        """Store a version or delete marker as the latest of its key; return it as stored.

        Parameters
        ----------
        bucket
            Its bucket.
        version
            What to store; this method sets its version ID and time.

        Raises
        ------
        ApiError
            NoSuchBucket.
        """
        versioning = self._buckets.get(bucket).versioning
        version_id = uuid.uuid4().hex if versioning is Versioning.ENABLED else NULL_VERSION
        stored = replace(version, version_id=version_id, modified=time.time(), is_latest=True)
        content = version.body.content if version.body is not None else b""
        with self._tables.transaction(len(content), is_delete=version.body is None) as changes:
            if version_id == NULL_VERSION:
                changes.released.extend(self._remove(bucket, stored.key.encode(), NULL_VERSION))
            if versioning is not Versioning.OFF:
                query = "UPDATE versions SET latest = 0 WHERE bucket = ? AND key = ? AND latest"
                self._database.execute(query, (bucket, stored.key.encode()))
            self._insert(bucket, stored)
            if stored.body is not None:
                changes.retained.extend(stored.body.files)
        return stored

    def _insert(self, bucket: str, version: ObjectVersion) -> None:
        row = (
            version.key.encode(),
            version.version_id,
            version.modified,
            None if version.body is None else body_to_json(version.body),
            metadata_to_json(version.metadata),
            json.dumps(version.part_sizes),
            version.upload_id,
            True,
            b"" if version.body is None else version.body.content,
            bucket,
        )
        query = f"INSERT INTO versions ({_ALL_COLUMNS}, bucket) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
        self._database.execute(query, row)

    def delete(self, bucket: str, key: str, version_id: str = "") -> DeleteResult:
        """Delete a version; without a version ID, delete the object according to its bucket's versioning.

        Raises
        ------
        ApiError
            NoSuchBucket.
        """
        if not version_id and self._buckets.get(bucket).versioning is not Versioning.OFF:
            marker = self.put(bucket, ObjectVersion(key, "", 0, body=None))
            return DeleteResult(marker.version_id, is_marker=True)
        found = self.find(bucket, key, version_id or NULL_VERSION)
        if found is None:
            return DeleteResult(version_id)
        with self._tables.transaction(is_delete=True) as changes:
            changes.released.extend(self._remove(bucket, key.encode(), found.version_id))
            if found.is_latest:
                newest = "SELECT max(number) FROM versions WHERE bucket = ? AND key = ?"
                query = f"UPDATE versions SET latest = 1 WHERE number = ({newest})"  # noqa: S608 - constants
                self._database.execute(query, (bucket, key.encode()))
        return DeleteResult(version_id, is_marker=bool(version_id) and found.body is None)

    def set_tags(self, bucket: str, version: ObjectVersion, tags: Mapping[str, str]) -> None:
        """Replace the tags of a version."""
        metadata = metadata_to_json(replace(version.metadata, tags=tags))
        query = "UPDATE versions SET description = ? WHERE bucket = ? AND key = ? AND version_id = ?"
        self._database.write(query, (metadata, bucket, version.key.encode(), version.version_id))

    def _remove(self, bucket: str, key: bytes, version_id: str) -> list[str]:
        """Delete a row; return its files, which the caller releases."""
        query = "DELETE FROM versions WHERE bucket = ? AND key = ? AND version_id = ? RETURNING body"
        rows = self._database.execute(query, (bucket, key, version_id)).fetchall()
        return [file for (body,) in rows if body is not None for file in body_from_json(body).files]
