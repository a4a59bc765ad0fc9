"""The object store's records, the tables that store them, and transactions that remove unreferenced body files."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import Enum

from emulator.aws.s3.core.bodies import Body, BodyFolder, FileRange
from emulator.aws.s3.core.checksums import Checksum, ChecksumAlgorithm, ChecksumType
from emulator.aws.state import StateFolder

# The version ID of objects that were stored while their bucket had no versioning.
NULL_VERSION = "null"


class Versioning(Enum):
    """Whether a bucket keeps overwritten and deleted versions."""

    OFF = ""
    ENABLED = "Enabled"
    SUSPENDED = "Suspended"


@dataclass(frozen=True)
class Bucket:
    """A bucket.

    Parameters
    ----------
    name, region, versioning
        As in the API.
    created
        Seconds since 1970.
    """

    name: str
    region: str
    created: float
    versioning: Versioning = Versioning.OFF


@dataclass(frozen=True)
class ObjectMetadata:
    """System and user metadata of an object, and its tags.

    Parameters
    ----------
    headers
        Headers of the object, in lower case: content type, user metadata and so on.
    tags
        Tags, by key.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def storage_class(self) -> str:
        """The storage class; it has no effect here."""
        return self.headers.get("x-amz-storage-class", "STANDARD")


@dataclass(frozen=True)
class ObjectVersion:
    """A version of an object, or a delete marker.

    Parameters
    ----------
    key, version_id
        As in the API.
    modified
        Seconds since 1970.
    body
        The content; None for a delete marker.
    metadata
        Its metadata.
    part_sizes
        Sizes of the parts if it is a multipart object, bytes.
    upload_id
        The multipart upload that created it.
    is_latest
        Whether it is the latest version of its key.
    """

    key: str
    version_id: str
    modified: float
    body: Body | None
    metadata: ObjectMetadata = field(default_factory=ObjectMetadata)
    part_sizes: tuple[int, ...] = ()
    upload_id: str = ""
    is_latest: bool = True


@dataclass(frozen=True)
class Upload:
    """A multipart upload in progress.

    Parameters
    ----------
    upload_id, bucket, key
        As in the API.
    created
        Seconds since 1970.
    metadata
        The metadata of the future object.
    algorithm, kind
        The checksum that the object will have, if one was requested.
    """

    upload_id: str
    bucket: str
    key: str
    created: float
    metadata: ObjectMetadata
    algorithm: ChecksumAlgorithm | None
    kind: ChecksumType


@dataclass(frozen=True)
class Part:
    """A part of an upload: number, content, and time of its upload in seconds since 1970."""

    number: int
    body: Body
    modified: float


def body_to_json(body: Body) -> str:
    """Serialize a body, without its content."""
    checksum = body.checksum
    return json.dumps(
        {
            "segments": [[file_range.file, file_range.start, file_range.size] for file_range in body.file_ranges],
            "size": body.size,
            "etag": body.etag,
            "checksum": checksum and [checksum.algorithm.value, checksum.value, checksum.kind.value],
        }
    )


def body_from_json(record: str, content: bytes = b"") -> Body:
    """Deserialize a body; `content` is stored in a column of its own."""
    found = json.loads(record)
    checksum = None
    if found["checksum"]:
        algorithm, value, kind = found["checksum"]
        checksum = Checksum(ChecksumAlgorithm(algorithm), value, ChecksumType(kind))
    file_ranges = tuple(FileRange(*file_range) for file_range in found["segments"])
    return Body(found["size"], found["etag"], file_ranges, content, checksum)


# The files of a part in a query, without parsing a record in Python: an upload has up to 10,000 parts.
FILES_OF_PARTS = (
    "SELECT DISTINCT number, upload_id, json_extract(range.value, '$[0]') "
    "FROM parts, json_each(body, '$.segments') AS range"
)


def metadata_to_json(metadata: ObjectMetadata) -> str:
    """Serialize metadata."""
    return json.dumps(asdict(metadata))


def metadata_from_json(record: str) -> ObjectMetadata:
    """Deserialize metadata."""
    return ObjectMetadata(**json.loads(record))


# Keys are stored as UTF-8: S3 orders listings by its bytes. A larger number is a later version.
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


@dataclass
class FileChanges:
    """Files that a transaction adds references to, and that it removes references from, as often as they are named."""

    retained: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)


class Tables:
    """The database and the body files that its records refer to.

    Parameters
    ----------
    state
        The folder that stores both.

    Attributes
    ----------
    database
        The connection.
    bodies
        The body files.

    Raises
    ------
    StateError
        When the content of the folder is inconsistent.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self.database = state.database
        self.bodies = BodyFolder(state.folder("bodies"), state.reserve)
        try:
            self.database.executescript(_SCHEMA)
            self._retain_bodies(state)
        except sqlite3.DatabaseError as error:
            raise state.damaged(f"objects: {error}") from error
        self.bodies.remove_unreferenced()

    @contextmanager
    def transaction(self, size: int = 0, *, is_delete: bool = False) -> Iterator[FileChanges]:
        """Run the block as one transaction; after the commit, count the references in the object it yields.

        Parameters
        ----------
        size, is_delete
            As in `StateFolder.transaction`.
        """
        changes = FileChanges()
        with self._state.transaction(size, is_delete=is_delete):
            yield changes
        self.bodies.retain(changes.retained)
        # Only after the commit: if the process is killed before it, the old files must exist.
        self.bodies.release(changes.released)
        if changes.released and self._state.reserve.missing:
            self.database.recover_space()

    def _retain_bodies(self, state: StateFolder) -> None:
        held: Iterable[tuple[str]] = self.database.execute(
            "SELECT body FROM versions WHERE body IS NOT NULL UNION ALL SELECT body FROM parts"
        )
        sizes = self.bodies.sizes()
        for (record,) in held:
            body = body_from_json(record)
            for file_range in body.file_ranges:
                if sizes.get(file_range.file, -1) < file_range.start + file_range.size:
                    raise state.damaged(f"body file {file_range.file} is missing or too short")
            self.bodies.retain(body.files)
