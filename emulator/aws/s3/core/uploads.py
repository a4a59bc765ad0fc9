"""Multipart uploads: parts that are uploaded separately and combined into one object.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emulator.aws.limits import MIB
from emulator.aws.s3.core.bodies import Body
from emulator.aws.s3.core.checksums import Checksum, ChecksumAlgorithm, ChecksumType, combine_checksums
from emulator.aws.s3.core.errors import bad_request, no_such_upload
from emulator.aws.s3.core.objects import Objects
from emulator.aws.s3.core.tables import (
    FILES_OF_PARTS,
    ObjectMetadata,
    ObjectVersion,
    Part,
    Tables,
    Upload,
    body_from_json,
    body_to_json,
    metadata_from_json,
    metadata_to_json,
)

# Except for the last part.
MIN_PART_BYTES = 5 * MIB
PART_NUMBERS = range(1, 10_001)
_COLUMNS = "upload_id, bucket, key, created, description, algorithm, kind"


@dataclass(frozen=True)
class ListedPart:
    """A part that CompleteMultipartUpload lists, with its ETag and optional checksum."""

    number: int
    etag: str
    checksum: Checksum | None = None


@dataclass(frozen=True)
class ExpectedObject:
    """What CompleteMultipartUpload expects of the object.

    Parameters
    ----------
    checksum
        Its checksum, None for any. A composite checksum may lack the number of parts.
    kind
        What the checksum covers, None for either.
    size
        Its size, bytes, None for any.
    """

    checksum: Checksum | None = None
    kind: ChecksumType | None = None
    size: int | None = None

    def check(self, body: Body) -> None:
        """Check a body.

        Raises
        ------
        ApiError
            BadDigest or InvalidRequest.
        """
        if self.size not in (None, body.size):
            message = (
                f"The provided 'x-amz-mp-object-size' header value {self.size} does not match what was computed: "
                f"{body.size}"
            )
            raise bad_request("InvalidRequest", message)
        found = body.checksum
        if found is None:
            return
        if self.kind not in (None, found.kind):
            message = (
                f"The upload was created using the {found.kind.value} checksum mode. The complete request must use the "
                "same checksum mode."
            )
            raise bad_request("InvalidRequest", message)
        if self.checksum is None:
            return
        if self.checksum.algorithm is not found.algorithm:
            message = (
                f"Checksum Type mismatch occurred, expected checksum Type: {found.algorithm.value.lower()}, "
                f"actual checksum Type: {self.checksum.algorithm.value.lower()}"
            )
            raise bad_request("InvalidRequest", message)
        if self.checksum.value not in (found.value, found.value.partition("-")[0]):
            message = f"The {found.algorithm.value} you specified did not match the calculated checksum."
            raise bad_request("BadDigest", message)


class Uploads:
    """The multipart uploads in progress.

    Parameters
    ----------
    tables
        Where they are stored.
    objects
        Where completed objects are stored.
    """

    def __init__(self, tables: Tables, objects: Objects) -> None:
        self._tables = tables
        self._database = tables.database
        self._objects = objects

    def create(
        self,
        bucket: str,
        key: str,
        metadata: ObjectMetadata,
        algorithm: ChecksumAlgorithm | None,
        kind: ChecksumType,
    ) -> Upload:
        """Start an upload into an existing bucket."""
        upload = Upload(uuid.uuid4().hex, bucket, key, time.time(), metadata, algorithm, kind)
        row = (
            upload.upload_id,
            bucket,
            key.encode(),
            upload.created,
            metadata_to_json(metadata),
            algorithm and algorithm.value,
            kind.value,
        )
        self._database.write("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return upload

    def get(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Return an upload.

        Raises
        ------
        ApiError
            NoSuchUpload.
        """
        query = f"SELECT {_COLUMNS} FROM uploads WHERE upload_id = ? AND bucket = ? AND key = ?"  # noqa: S608 - constants
        row = self._database.execute(query, (upload_id, bucket, key.encode())).fetchone()
        if row is None:
            raise no_such_upload(upload_id)
        return _upload_of(row)

    def all(self, bucket: str, prefix: str) -> list[Upload]:
        """Return a bucket's uploads whose keys start with `prefix`, ordered by key and time."""
        query = f"SELECT {_COLUMNS} FROM uploads WHERE bucket = ? ORDER BY key, created"  # noqa: S608 - constants
        uploads = [_upload_of(row) for row in self._database.execute(query, (bucket,))]
        return [upload for upload in uploads if upload.key.startswith(prefix)]

    def put_part(self, upload: Upload, number: int, body: Body) -> Part:
        """Store a part, replacing one with the same number; its body must be in files."""
        part = Part(number, body, time.time())
        with self._tables.transaction() as changes:
            old = "DELETE FROM parts WHERE upload_id = ? AND number = ? RETURNING body"
            rows = self._database.execute(old, (upload.upload_id, number)).fetchall()
            changes.released.extend(file for (record,) in rows for file in body_from_json(record).files)
            row = (upload.upload_id, number, part.modified, body_to_json(body))
            self._database.execute("INSERT INTO parts VALUES (?, ?, ?, ?)", row)
            changes.retained.extend(body.files)
        return part

    def parts(self, upload: Upload, after: int = 0, most: int = len(PART_NUMBERS)) -> list[Part]:
        """Return an upload's parts with numbers above `after`, ordered by number, and at most so many."""
        query = "SELECT number, body, modified FROM parts WHERE upload_id = ? AND number > ? ORDER BY number LIMIT ?"
        rows = self._database.execute(query, (upload.upload_id, after, most))
        return [Part(number, body_from_json(body), modified) for number, body, modified in rows]

    def complete(self, upload: Upload, listed: Sequence[ListedPart], expected: ExpectedObject) -> ObjectVersion:
        """Create the object from the listed parts and delete the other parts.

        No byte is copied: the object shares its parts' files.

        Raises
        ------
        ApiError
            InvalidPart, InvalidPartOrder, EntityTooSmall, BadDigest or InvalidRequest; the upload stays in progress.
        """
        body, sizes = self.assemble(upload, listed)
        expected.check(body)
        version = ObjectVersion(upload.key, "", 0, body, upload.metadata, sizes, upload.upload_id)
        stored = self._objects.put(upload.bucket, version)
        # If the process is killed in between, object and upload both exist, as if the response had been lost.
        self.abort(upload)
        return stored

    def assemble(self, upload: Upload, listed: Sequence[ListedPart]) -> tuple[Body, tuple[int, ...]]:
        """Return the body of the future object and the sizes of its parts, bytes.

        Raises
        ------
        ApiError
            InvalidPart, InvalidPartOrder or EntityTooSmall.
        """
        chosen = self._validated_parts(upload, listed)
        etags = b"".join(bytes.fromhex(part.body.etag) for part in chosen)
        checksum = None
        if upload.algorithm is not None:
            values = [(part.body.checksum.value, part.body.size) for part in chosen if part.body.checksum]
            checksum = combine_checksums(upload.algorithm, upload.kind, values)
        body = Body(
            size=sum(part.body.size for part in chosen),
            etag=f"{hashlib.md5(etags, usedforsecurity=False).hexdigest()}-{len(chosen)}",
            file_ranges=tuple(file_range for part in chosen for file_range in part.body.file_ranges),
            checksum=checksum,
        )
        return body, tuple(part.body.size for part in chosen)

    def abort(self, upload: Upload) -> None:
        """Delete an upload and its parts."""
        with self._tables.transaction(is_delete=True) as changes:
            rows = self._database.execute(f"{FILES_OF_PARTS} WHERE upload_id = ?", (upload.upload_id,))
            changes.released.extend(file for *_, file in rows)
            self._database.execute("DELETE FROM parts WHERE upload_id = ?", (upload.upload_id,))
            self._database.execute("DELETE FROM uploads WHERE upload_id = ?", (upload.upload_id,))

    def _validated_parts(self, upload: Upload, listed: Sequence[ListedPart]) -> list[Part]:
        stored = {part.number: part for part in self.parts(upload)}
        numbers = [part.number for part in listed]
        if not listed:
            raise bad_request("MalformedXML", "You must specify at least one part")
        if numbers != sorted(set(numbers)):
            message = "The list of parts was not in ascending order. Parts must be ordered by part number."
            raise bad_request("InvalidPartOrder", message)
        for part in listed:
            found = stored.get(part.number)
            checksum_differs = part.checksum and found and found.body.checksum != part.checksum
            if found is None or found.body.etag != part.etag.strip('"') or checksum_differs:
                message = (
                    f"One or more of the specified parts could not be found: part {part.number} was not uploaded, or "
                    "has a different ETag or checksum."
                )
                raise bad_request("InvalidPart", message)
        chosen = [stored[number] for number in numbers]
        if small := next((part for part in chosen[:-1] if part.body.size < MIN_PART_BYTES), None):
            message = (
                "Your proposed upload is smaller than the minimum allowed size: "
                f"part {small.number} has {small.body.size} bytes, all but the last need {MIN_PART_BYTES}"
            )
            raise bad_request("EntityTooSmall", message)
        return chosen


def _upload_of(row: tuple[Any, ...]) -> Upload:
    upload_id, bucket, key, created, metadata, algorithm, kind = row
    return Upload(
        upload_id,
        bucket,
        key.decode(),
        created,
        metadata_from_json(metadata),
        algorithm and ChecksumAlgorithm(algorithm),
        ChecksumType(kind),
    )
