"""S3's operations on multipart uploads."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.aws.json_requests import whole_number
from emulator.aws.s3.core.bodies import Body
from emulator.aws.s3.core.checksums import Checksum, ChecksumAlgorithm, ChecksumType, is_digest
from emulator.aws.s3.core.errors import bad_request
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.core.tables import Upload
from emulator.aws.s3.core.uploads import PART_NUMBERS, ExpectedObject, ListedPart
from emulator.aws.s3.http import xml
from emulator.aws.s3.http.body_transfer import BodyTransfer, checksums_of
from emulator.aws.s3.http.encryption import encryption_headers
from emulator.aws.s3.http.objects import ObjectApi, checksum_headers, version_header
from emulator.aws.s3.http.requests import S3Request, check_write, copied_range, object_metadata


class UploadApi:
    """The operations on multipart uploads.

    Parameters
    ----------
    store
        The object store.
    transfer
        Receives the parts' bodies.
    objects
        The operations on objects.
    """

    def __init__(self, store: ObjectStore, transfer: BodyTransfer, objects: ObjectApi) -> None:
        self._store = store
        self._uploads = store.uploads
        self._transfer = transfer
        self._objects = objects

    async def create(self, request: S3Request) -> web.StreamResponse:
        """CreateMultipartUpload."""
        self._store.buckets.get(request.bucket)
        algorithm, kind = _requested_checksum(request)
        metadata = self._objects.encrypted(request, object_metadata(request))
        upload = self._uploads.create(request.bucket, request.key, metadata, algorithm, kind)
        headers = encryption_headers(metadata)
        if algorithm is not None:
            headers |= {"x-amz-checksum-algorithm": algorithm.value, "x-amz-checksum-type": kind.value}
        content = {"Bucket": request.bucket, "Key": request.key, "UploadId": upload.upload_id}
        return xml.response("InitiateMultipartUploadResult", content, headers)

    async def put_part(self, request: S3Request) -> web.StreamResponse:
        """UploadPart."""
        upload, number = self._upload(request), _part_number(request)
        async with self._transfer.receive(request, upload.algorithm, small_bytes=0) as body:
            # The upload may have been completed or aborted meanwhile.
            self._uploads.put_part(self._upload(request), number, body)
        encryption = encryption_headers(upload.metadata)
        return web.Response(headers={"ETag": f'"{body.etag}"', **checksum_headers(body), **encryption})

    async def copy_part(self, request: S3Request) -> web.StreamResponse:
        """UploadPartCopy. The part shares its source's files."""
        upload, number = self._upload(request), _part_number(request)
        _, source = self._objects.copy_source(request)
        wanted = copied_range(request.header("x-amz-copy-source-range"), source.size)
        chosen = source if wanted is None else source.slice(wanted.start, wanted.size)
        # Retained from the start: the source may be deleted while it is read.
        with self._store.bodies.retained(chosen):
            body = await self._transfer.copy_by_reference(chosen, upload.algorithm)
            with self._store.bodies.retained(body):
                part = self._uploads.put_part(self._upload(request), number, body)
        content = {
            "ETag": f'"{body.etag}"',
            "LastModified": xml.timestamp(part.modified),
            **xml.checksum_fields(body.checksum),
        }
        return xml.response("CopyPartResult", content, encryption_headers(upload.metadata))

    async def complete(self, request: S3Request) -> web.StreamResponse:
        """CompleteMultipartUpload."""
        # A checksum in the headers is the object's, not that of the document.
        document = await self._transfer.read_document(request, with_checksum=False)
        expected = _expected_object(request)
        present = self._store.objects.find(request.bucket, request.key)
        if present is not None and present.upload_id == request.query["uploadId"] and present.body is not None:
            # A retry: the response to the first request may have been lost.
            version, body = present, present.body
            expected.check(body)
        else:
            upload = self._upload(request)
            content = xml.read("CompleteMultipartUpload", document)
            check_write(request.http.headers, request.key, present)
            listed = [_listed_part(part) for part in content.get("Parts", ())]
            if expected.checksum is not None and upload.algorithm is None:
                await self._check_unrequested(upload, listed, expected)
                upload = self._upload(request)
                check_write(request.http.headers, request.key, self._store.objects.find(request.bucket, request.key))
            version = self._uploads.complete(upload, listed, expected)
            self._objects.created(request, "CompleteMultipartUpload", version)
            body = version.body or Body(0, "")
        result = {
            "Location": f"http://{request.http.host}/{request.bucket}/{request.key}",
            "Bucket": request.bucket,
            "Key": request.key,
            "ETag": f'"{body.etag}"',
            **xml.checksum_fields(body.checksum),
            "ChecksumType": body.checksum and body.checksum.kind.value,
        }
        headers = {**version_header(version), **encryption_headers(version.metadata)}
        return xml.response("CompleteMultipartUploadResult", result, headers)

    async def abort(self, request: S3Request) -> web.StreamResponse:
        """AbortMultipartUpload."""
        self._uploads.abort(self._upload(request))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def list_parts(self, request: S3Request) -> web.StreamResponse:
        """ListParts."""
        upload = self._upload(request)
        marker = _number(request, "part-number-marker", 0)
        limit = min(_number(request, "max-parts", 1000), 1000)
        later = self._uploads.parts(upload, marker, limit + 1)
        page = later[:limit]
        content = {
            "Bucket": request.bucket,
            "Key": request.key,
            "UploadId": upload.upload_id,
            "PartNumberMarker": marker,
            "NextPartNumberMarker": page[-1].number if page else 0,
            "MaxParts": limit,
            "IsTruncated": len(later) > limit,
            "Initiator": xml.OWNER,
            "Owner": xml.OWNER,
            "StorageClass": upload.metadata.storage_class,
            "ChecksumAlgorithm": upload.algorithm and upload.algorithm.value,
            "ChecksumType": upload.algorithm and upload.kind.value,
            "Part": [
                {
                    "PartNumber": part.number,
                    "LastModified": xml.timestamp(part.modified),
                    "ETag": f'"{part.body.etag}"',
                    "Size": part.body.size,
                    **xml.checksum_fields(part.body.checksum),
                }
                for part in page
            ],
        }
        return xml.response("ListPartsResult", content)

    async def _check_unrequested(self, upload: Upload, listed: Sequence[ListedPart], expected: ExpectedObject) -> None:
        """Check the checksum of an object whose upload was started without one: its parts are read."""
        assert expected.checksum is not None  # noqa: S101 - for mypy
        body, _ = self._uploads.assemble(upload, listed)
        with self._store.bodies.retained(body):
            found = await self._transfer.checksum(body, expected.checksum.algorithm)
        expected.check(replace(body, checksum=found))

    def _upload(self, request: S3Request) -> Upload:
        return self._uploads.get(request.bucket, request.key, request.query["uploadId"])


def _requested_checksum(request: S3Request) -> tuple[ChecksumAlgorithm | None, ChecksumType]:
    """Return the requested checksum of an upload's object."""
    named = request.header("x-amz-checksum-algorithm").upper()
    kind_named = request.header("x-amz-checksum-type").upper()
    if not named:
        return None, ChecksumType.COMPOSITE
    try:
        algorithm = ChecksumAlgorithm(named)
        default = ChecksumType.FULL_OBJECT if named == "CRC64NVME" else ChecksumType.COMPOSITE
        kind = ChecksumType(kind_named) if kind_named else default
    except ValueError:
        message = f"Checksum algorithm or type provided is unsupported: {named} {kind_named}"
        raise bad_request("InvalidRequest", message) from None
    is_crc = algorithm not in (ChecksumAlgorithm.SHA1, ChecksumAlgorithm.SHA256)
    if (kind is ChecksumType.FULL_OBJECT and not is_crc) or (kind is ChecksumType.COMPOSITE and named == "CRC64NVME"):
        message = f"The {kind.value} checksum type cannot be used with the {named} checksum algorithm."
        raise bad_request("InvalidRequest", message)
    return algorithm, kind


def _expected_object(request: S3Request) -> ExpectedObject:
    """Return what a CompleteMultipartUpload expects of the object.

    Raises
    ------
    ApiError
        InvalidRequest when it is not valid.
    """
    headers = request.http.headers
    checksums = checksums_of(headers)
    if len(checksums) > 1:
        message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        raise bad_request("InvalidRequest", message)
    for checksum in checksums:
        if not is_digest(checksum.algorithm, checksum.value.partition("-")[0]):
            raise bad_request("InvalidRequest", f"Value for {checksum.algorithm.header} header is invalid.")
    kind, size = headers.get("x-amz-checksum-type", "").upper(), headers.get("x-amz-mp-object-size", "")
    if kind and kind not in [known.value for known in ChecksumType]:
        raise bad_request("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    if size and whole_number(size) is None:
        raise bad_request("InvalidRequest", "Value for x-amz-mp-object-size header is invalid.")
    return ExpectedObject(
        checksums[0] if checksums else None,
        ChecksumType(kind) if kind else None,
        whole_number(size) if size else None,
    )


def _listed_part(part: Mapping[str, Any]) -> ListedPart:
    number, etag = part.get("PartNumber"), part.get("ETag")
    if number is None or not etag:
        raise bad_request(
            "MalformedXML", "The XML you provided did not validate: a Part needs a PartNumber and an ETag"
        )
    checksums = [Checksum(algorithm, value) for algorithm in ChecksumAlgorithm if (value := part.get(algorithm.field))]
    if len(checksums) > 1:
        raise bad_request("InvalidRequest", f"Part {number}: expected one checksum, got {len(checksums)}")
    return ListedPart(number, etag, checksums[0] if checksums else None)


def _part_number(request: S3Request) -> int:
    number = whole_number(request.query["partNumber"])
    if number is None or number not in PART_NUMBERS:
        message = f"Part number must be an integer between 1 and {PART_NUMBERS[-1]}, inclusive"
        raise bad_request("InvalidArgument", message)
    return number


def _number(request: S3Request, name: str, default: int) -> int:
    text = request.query.get(name) or str(default)
    number = whole_number(text)
    if number is None:
        raise bad_request("InvalidArgument", f"{name}: expected a whole number, got {text!r:.80}")
    return number
