"""S3's operations on objects, with the headers of their responses."""

import asyncio
import urllib.parse
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web

from emulator.aws.json_requests import whole_number
from emulator.aws.s3.core.bodies import Body
from emulator.aws.s3.core.errors import bad_request, no_such_key, not_implemented
from emulator.aws.s3.core.object_events import ObjectEvent
from emulator.aws.s3.core.objects import DeleteResult
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.core.tables import NULL_VERSION, ObjectMetadata, ObjectVersion
from emulator.aws.s3.http import xml
from emulator.aws.s3.http.body_transfer import BodyTransfer
from emulator.aws.s3.http.encryption import ENCRYPTION, encrypted, encryption_headers
from emulator.aws.s3.http.requests import (
    ByteRange,
    S3Request,
    check_write,
    is_unmodified,
    object_metadata,
    override_headers,
    requested_range,
    validated_tags,
)
from emulator.errors import ApiError


def write_headers(version: ObjectVersion, body: Body) -> dict[str, str]:
    """Return the headers of the response to a write."""
    return {
        "ETag": f'"{body.etag}"',
        **version_header(version),
        **checksum_headers(body),
        **encryption_headers(version.metadata),
    }


def version_header(version: ObjectVersion) -> dict[str, str]:
    """Return the version ID header; versions stored without versioning have none."""
    return {} if version.version_id == NULL_VERSION else {"x-amz-version-id": version.version_id}


def read_headers(version: ObjectVersion, body: Body, *, with_checksum: bool) -> dict[str, str]:
    """Return the headers of the response to a read of the whole object, except for its length."""
    tags = {"x-amz-tagging-count": str(len(version.metadata.tags))} if version.metadata.tags else {}
    kept = {name: value for name, value in version.metadata.headers.items() if value != "STANDARD"}
    return {
        "ETag": f'"{body.etag}"',
        "Last-Modified": http_date(version.modified),
        "Accept-Ranges": "bytes",
        **version_header(version),
        **(checksum_headers(body) if with_checksum else {}),
        **tags,
        **kept,
    }


def http_date(seconds: float) -> str:
    """Format a time for an HTTP header."""
    return formatdate(seconds, usegmt=True)


def delete_marker_headers(version: ObjectVersion) -> dict[str, str]:
    """Return the headers of the response to a read of a delete marker."""
    return {"x-amz-delete-marker": "true", "x-amz-version-id": version.version_id}


class ObjectApi:
    """The operations on objects.

    Parameters
    ----------
    store
        The object store.
    transfer
        Receives and sends bodies.
    """

    def __init__(self, store: ObjectStore, transfer: BodyTransfer) -> None:
        self._store = store
        self._objects = store.objects
        self._transfer = transfer

    async def put(self, request: S3Request) -> web.StreamResponse:
        """PutObject."""
        metadata = self.encrypted(request, object_metadata(request))
        # Check before receiving the body, and again after: the object may have changed meanwhile.
        self._check_write(request)
        async with self._transfer.receive(request) as body:
            self._check_write(request)
            version = self._objects.put(request.bucket, ObjectVersion(request.key, "", 0, body, metadata))
        self.created(request, "Put", version)
        return web.Response(headers=write_headers(version, body))

    def created(self, request: S3Request, how: str, version: ObjectVersion) -> None:
        """Tell the observer of a new object.

        Parameters
        ----------
        request
            The request that made it.
        how
            ``Put``, ``Copy`` or ``CompleteMultipartUpload``.
        version
            The object.
        """
        if self._store.observer is not None and version.body is not None:
            body = version.body
            self._observe(request, f"ObjectCreated:{how}", version.key, version.version_id, body.size, body.etag)

    def _deleted(self, request: S3Request, key: str, deleted: DeleteResult) -> None:
        if self._store.observer is not None:
            is_new_marker = deleted.is_marker and not request.query.get("versionId")
            how = "DeleteMarkerCreated" if is_new_marker else "Delete"
            self._observe(request, f"ObjectRemoved:{how}", key, deleted.version_id, None, None)

    def _observe(
        self, request: S3Request, name: str, key: str, version_id: str, size: int | None, etag: str | None
    ) -> None:
        # Most buckets notify nobody.
        is_notified = self._store.buckets.configuration(request.bucket, "notification") is not None
        if self._store.observer is not None and is_notified:
            region = self._store.buckets.get(request.bucket).region
            event = ObjectEvent(name, request.bucket, region, key, version_id, size, etag, request.request_id)
            self._store.observer.happened(event)

    def encrypted(self, request: S3Request, metadata: ObjectMetadata) -> ObjectMetadata:
        """Return an object's metadata with the encryption that its bucket prescribes, if it has none."""
        return encrypted(metadata, self._store.buckets.configuration(request.bucket, "encryption"))

    async def get(self, request: S3Request) -> web.StreamResponse:
        """GetObject and HeadObject."""
        version, body = self._existing_version(request)
        with_checksum = request.header("x-amz-checksum-mode").upper() == "ENABLED"
        if is_unmodified(request.http.headers, version, body.etag):
            headers = read_headers(version, body, with_checksum=False)
            kept = {name: value for name, value in headers.items() if not name.startswith("content-")}
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=kept)
        wanted, parts = _requested_range(request, version, body)
        headers = {
            **read_headers(version, body, with_checksum=with_checksum and wanted is None),
            **override_headers(request.query),
            **parts,
        }
        status, sent = HTTPStatus.OK, body
        if wanted is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = wanted.content_range(body.size)
            sent = body.slice(wanted.start, wanted.size)
        if request.http.method == "HEAD":
            return web.Response(status=status, headers={**headers, "Content-Length": str(sent.size)})
        headers["x-amz-request-id"] = request.request_id
        return await self._transfer.send(request.http, status, headers, sent)

    async def delete(self, request: S3Request) -> web.StreamResponse:
        """DeleteObject."""
        self._check_write(request)
        deleted = self._objects.delete(request.bucket, request.key, request.query.get("versionId", ""))
        self._deleted(request, request.key, deleted)
        headers = {"x-amz-version-id": deleted.version_id} if deleted.version_id else {}
        if deleted.is_marker:
            headers["x-amz-delete-marker"] = "true"
        return web.Response(status=HTTPStatus.NO_CONTENT, headers=headers)

    async def delete_objects(self, request: S3Request) -> web.StreamResponse:
        """DeleteObjects."""
        content = xml.read("DeleteObjects", await self._transfer.read_document(request))
        self._store.buckets.get(request.bucket)
        named = [(one["Key"], one.get("VersionId", "")) for one in content["Objects"]]
        if not 0 < len(named) <= 1000 or not all(key for key, _ in named):
            message = f"The XML you provided did not validate: expected 1 to 1000 objects with keys, got {len(named)}"
            raise bad_request("MalformedXML", message)
        answer = []
        for key, version_id in named:
            deleted = self._objects.delete(request.bucket, key, version_id)
            self._deleted(request, key, deleted)
            await asyncio.sleep(0)  # a thousand transactions: other requests are handled in between
            answer.append(
                {
                    "Key": key,
                    "VersionId": version_id or None,
                    "DeleteMarker": deleted.is_marker or None,
                    "DeleteMarkerVersionId": deleted.version_id if deleted.is_marker else None,
                }
            )
        return xml.response("DeleteResult", {"Deleted": [] if content.get("Quiet") else answer})

    async def copy(self, request: S3Request) -> web.StreamResponse:
        """CopyObject. The copy shares the source's files."""
        source, body = self.copy_source(request)
        described = self.encrypted(request, self._copied_metadata(request, source))
        self._check_write(request)
        algorithm = request.header("x-amz-checksum-algorithm").upper()
        if algorithm and (body.checksum is None or body.checksum.algorithm.value != algorithm):
            raise not_implemented("S3: a copy with a checksum other than its source's")
        copied = ObjectVersion(request.key, "", 0, body, described, source.part_sizes)
        version = self._objects.put(request.bucket, copied)
        self.created(request, "Copy", version)
        result = {
            "ETag": f'"{body.etag}"',
            "LastModified": xml.timestamp(version.modified),
            **xml.checksum_fields(body.checksum),
        }
        headers = {**version_header(version), **encryption_headers(version.metadata)}
        if source_version := version_header(source):
            headers["x-amz-copy-source-version-id"] = source_version["x-amz-version-id"]
        return xml.response("CopyObjectResult", result, headers)

    def copy_source(self, request: S3Request) -> tuple[ObjectVersion, Body]:
        """Return the source of a copy.

        Raises
        ------
        ApiError
            When the source does not exist, or a condition on it does not hold.
        """
        named, _, query = request.header("x-amz-copy-source").partition("?")
        bucket, _, key = urllib.parse.unquote(named).removeprefix("/").partition("/")
        version_id = dict(urllib.parse.parse_qsl(query)).get("versionId", "")
        source = self._objects.get(bucket, key, version_id)
        if source.body is None:
            raise bad_request("InvalidRequest", "The source of a copy request may not be a delete marker")
        if is_unmodified(request.http.headers, source, source.body.etag, "x-amz-copy-source-"):
            message = "At least one of the pre-conditions you specified did not hold"
            raise ApiError("PreconditionFailed", HTTPStatus.PRECONDITION_FAILED, message)
        return source, source.body

    def _copied_metadata(self, request: S3Request, source: ObjectVersion) -> ObjectMetadata:
        given = object_metadata(request)
        replaces = request.header("x-amz-metadata-directive").upper() == "REPLACE"
        named = urllib.parse.unquote(request.header("x-amz-copy-source").partition("?")[0]).removeprefix("/")
        changes = replaces or any(name.startswith("x-amz-") and "meta" not in name for name in given.headers)
        if named == f"{request.bucket}/{request.key}" and not (
            changes or "versionId=" in request.header("x-amz-copy-source")
        ):
            message = (
                "This copy request is illegal because it is trying to copy an object to itself without changing the "
                "object's metadata, storage class, website redirect location or encryption attributes."
            )
            raise bad_request("InvalidRequest", message)
        headers = given.headers
        if not replaces:
            own = {
                name: value for name, value in given.headers.items() if name.startswith("x-amz-") and "meta" not in name
            }
            kept = {
                name: value
                for name, value in source.metadata.headers.items()
                if name != "x-amz-storage-class" and not name.startswith(ENCRYPTION)
            }
            headers = {**kept, **own}
        replaces_tags = request.header("x-amz-tagging-directive").upper() == "REPLACE"
        return ObjectMetadata(headers, given.tags if replaces_tags else source.metadata.tags)

    async def get_tags(self, request: S3Request) -> web.StreamResponse:
        """GetObjectTagging."""
        version, _ = self._existing_version(request)
        tags = [{"Key": key, "Value": value} for key, value in version.metadata.tags.items()]
        return xml.response("Tagging", {"TagSet": {"Tag": tags}}, version_header(version))

    async def put_tags(self, request: S3Request) -> web.StreamResponse:
        """PutObjectTagging."""
        content = xml.read("PutObjectTagging", await self._transfer.read_document(request))
        pairs = [(tag["Key"], tag["Value"]) for tag in content["TagSet"]]
        version, _ = self._existing_version(request)
        self._objects.set_tags(request.bucket, version, validated_tags(pairs))
        return web.Response(headers=version_header(version))

    async def delete_tags(self, request: S3Request) -> web.StreamResponse:
        """DeleteObjectTagging."""
        version, _ = self._existing_version(request)
        self._objects.set_tags(request.bucket, version, {})
        return web.Response(status=HTTPStatus.NO_CONTENT, headers=version_header(version))

    async def put_acl(self, request: S3Request) -> web.StreamResponse:
        """PutObjectAcl: only the list that every object has, by its name."""
        version, _ = self._existing_version(request)
        if not request.header("x-amz-acl") or await self._transfer.read_document(request):
            raise not_implemented("S3: PutObjectAcl with a list other than private or bucket-owner-full-control")
        return web.Response(headers=version_header(version))

    async def get_acl(self, request: S3Request) -> web.StreamResponse:
        """GetObjectAcl: the owner has full control."""
        self._existing_version(request)
        return web.Response(body=xml.access_control(), content_type="application/xml")

    async def get_attributes(self, request: S3Request) -> web.StreamResponse:
        """GetObjectAttributes."""
        version, body = self._existing_version(request)
        wanted = {name.strip() for name in request.header("x-amz-object-attributes").split(",")}
        parts = [{"PartNumber": number, "Size": size} for number, size in enumerate(version.part_sizes, 1)]
        kind = body.checksum and {"ChecksumType": body.checksum.kind.value}
        attributes = {
            "ETag": body.etag,
            "Checksum": body.checksum and {**xml.checksum_fields(body.checksum), **(kind or {})},
            "ObjectParts": {"TotalPartsCount": len(parts), "IsTruncated": False, "Part": parts} if parts else None,
            "StorageClass": version.metadata.storage_class,
            "ObjectSize": body.size,
        }
        return xml.response(
            "GetObjectAttributesResponse",
            {name: value for name, value in attributes.items() if name in wanted},
            {**version_header(version), "Last-Modified": http_date(version.modified)},
        )

    def _check_write(self, request: S3Request) -> None:
        self._store.buckets.get(request.bucket)
        headers = request.http.headers
        if "If-Match" in headers or "If-None-Match" in headers:
            check_write(headers, request.key, self._objects.find(request.bucket, request.key))

    def _existing_version(self, request: S3Request) -> tuple[ObjectVersion, Body]:
        """Return the requested version; raise if it does not exist or is a delete marker."""
        version_id = request.query.get("versionId", "")
        version = self._objects.get(request.bucket, request.key, version_id)
        if version.body is None:
            details = delete_marker_headers(version)
            if version_id:
                message = "The specified method is not allowed against this resource."
                raise ApiError("MethodNotAllowed", HTTPStatus.METHOD_NOT_ALLOWED, message, details)
            refusal = no_such_key(request.key)
            raise ApiError(refusal.code, refusal.status, refusal.message, {**refusal.details, **details})
        return version, version.body


def _requested_range(request: S3Request, version: ObjectVersion, body: Body) -> tuple[ByteRange | None, dict[str, str]]:
    """Return the requested range, None for the whole object, and the header with the number of parts."""
    number = request.query.get("partNumber", "")
    if not number:
        return requested_range(request.header("range"), body.size), {}
    sizes = version.part_sizes or (body.size,)
    part = whole_number(number) or 0
    if not 1 <= part <= len(sizes):
        message = f"The requested partnumber is not satisfiable: expected 1 to {len(sizes)}, got {number:.80}"
        raise ApiError("InvalidPartNumber", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, message)
    before = sum(sizes[: part - 1])
    count = {"x-amz-mp-parts-count": str(len(sizes))} if version.part_sizes else {}
    return ByteRange(before, sizes[part - 1]), count


def checksum_headers(body: Body) -> dict[str, str]:
    """Return the headers with a body's checksum."""
    if body.checksum is None:
        return {}
    return {body.checksum.algorithm.header: body.checksum.value, "x-amz-checksum-type": body.checksum.kind.value}
