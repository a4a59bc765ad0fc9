"""S3's operations on buckets, and its listings.

Versioning is implemented here; moto handles all other configuration, which is stored here for the next start.
"""

import asyncio
import base64
import re
import urllib.parse
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.aws.json_requests import whole_number
from emulator.aws.s3.core.errors import bad_request, not_implemented
from emulator.aws.s3.core.listing import MAX_KEYS, ListingPage, ListingQuery
from emulator.aws.s3.core.objects import BucketConfiguration, versioning_document
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.core.tables import ObjectVersion, Versioning
from emulator.aws.s3.http import xml
from emulator.aws.s3.http.body_transfer import BodyTransfer
from emulator.aws.s3.http.encryption import default_encryption
from emulator.aws.s3.http.operation_names import check_document, operation_name
from emulator.aws.s3.http.requests import S3Request
from emulator.errors import ApiError

_KEPT_HEADERS = re.compile(r"content-type|x-amz-(?!date$|content-sha256$|security-token$).*", re.IGNORECASE)
_SIGNATURE = re.compile(r"x-amz-(?!acl$|grant-).*|x-id|AWSAccessKeyId|Signature|Expires", re.IGNORECASE)
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IP_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_Moto = Callable[[str, BucketConfiguration], Awaitable[web.Response]]


_ACL_HEADERS = (
    "x-amz-acl",
    *(f"x-amz-grant-{what}" for what in ("full-control", "read", "read-acp", "write", "write-acp")),
)


class BucketApi:
    """The operations on buckets.

    Parameters
    ----------
    store
        The buckets.
    transfer
        Receives documents.
    moto
        Handles configuration requests.
    """

    def __init__(self, store: ObjectStore, transfer: BodyTransfer, moto: _Moto) -> None:
        self._store = store
        self._buckets = store.buckets
        self._transfer = transfer
        self._moto = moto
        # One change at a time: the store and moto must not differ.
        self._changes = asyncio.Lock()

    async def create(self, request: S3Request) -> web.StreamResponse:
        """CreateBucket."""
        check_bucket_name(request.bucket)
        if request.header("x-amz-bucket-object-lock-enabled").lower() == "true":
            raise not_implemented("S3 Object Lock")
        configuration = _configuration(request, await self._transfer.read_document(request))
        async with self._changes:
            response = await self._moto("PUT", configuration)
            if response.status == HTTPStatus.OK:
                try:
                    self._buckets.create(request.bucket, request.region, configuration)
                except BaseException:
                    # Neither a bucket that only moto knows.
                    await self._moto("DELETE", configuration)
                    raise
        return response

    async def delete(self, request: S3Request) -> web.StreamResponse:
        """DeleteBucket."""
        async with self._changes:
            self._buckets.delete(request.bucket)
            await self._moto("DELETE", _configuration(request, b""))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def reset(self, reset_moto: Callable[[], Awaitable[web.Response]]) -> web.Response:
        """Delete all buckets, here and in moto; return moto's response."""
        async with self._changes:
            more = True
            while more:
                more = self._buckets.delete_some()
                # Other requests are handled in between.
                await asyncio.sleep(0)
            self._buckets.clear()
            return await reset_moto()

    async def head(self, request: S3Request) -> web.StreamResponse:
        """HeadBucket."""
        bucket = self._buckets.get(request.bucket)
        return web.Response(headers={"x-amz-bucket-region": bucket.region})

    async def get_versioning(self, request: S3Request) -> web.StreamResponse:
        """GetBucketVersioning."""
        bucket = self._buckets.get(request.bucket)
        return xml.response("VersioningConfiguration", {"Status": bucket.versioning.value or None})

    async def set_versioning(self, request: S3Request) -> web.StreamResponse:
        """PutBucketVersioning."""
        content = xml.read("PutBucketVersioning", await self._transfer.read_document(request))
        self._buckets.get(request.bucket)
        if "Status" not in content:
            message = "The Versioning element must be specified"
            raise bad_request("IllegalVersioningConfigurationException", message)
        if content.get("MFADelete") == "Enabled":
            raise not_implemented("S3: MFA delete")
        versioning = Versioning(content["Status"])
        async with self._changes:
            self._buckets.set_versioning(request.bucket, versioning)
            # Moto needs it for what requires versioning, such as replication.
            await self._moto("PUT", _configuration(request, versioning_document(versioning)))
        return web.Response()

    async def get_encryption(self, request: S3Request) -> web.StreamResponse:
        """GetBucketEncryption: without a configuration, the default of every bucket."""
        if self._buckets.configuration(request.bucket, "encryption") is not None:
            return await self.configure(request)
        self._buckets.get(request.bucket)
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
        return xml.response("ServerSideEncryptionConfiguration", {"Rule": rule})

    async def get_request_payment(self, request: S3Request) -> web.StreamResponse:
        """GetBucketRequestPayment: the owner pays."""
        self._buckets.get(request.bucket)
        return xml.response("RequestPaymentConfiguration", {"Payer": "BucketOwner"})

    async def set_encryption(self, request: S3Request) -> web.StreamResponse:
        """PutBucketEncryption."""
        body = await self._transfer.read_document(request)
        # Checks the document.
        default_encryption(body)
        return await self._pass_on(request, body)

    async def configure(self, request: S3Request) -> web.StreamResponse:
        """Pass a request about a bucket's configuration to moto; store it for the next start."""
        body = await self._transfer.read_document(request)
        if request.http.method == "PUT":
            check_document(operation_name("PUT", request.bucket, "", request.query), body)
            if "acl" in request.query and not body and not any(map(request.header, _ACL_HEADERS)):
                message = "Your request was missing a required header: expected x-amz-acl, x-amz-grant-* or a document"
                raise bad_request("MissingSecurityHeader", message)
        observer = self._store.observer
        if observer is not None and request.http.method == "PUT" and "notification" in request.query:
            await observer.check(body)
        return await self._pass_on(request, body)

    async def _pass_on(self, request: S3Request, body: bytes) -> web.StreamResponse:
        method, configuration = request.http.method, _configuration(request, body)
        if method not in ("PUT", "DELETE"):
            return await self._moto(method, configuration)
        if method == "PUT" and "object-lock" in request.query:
            raise not_implemented("S3 Object Lock")
        self._buckets.get(request.bucket)
        async with self._changes:
            # Stored before moto has it: moto's cannot be undone when the disk is full.
            before = self._buckets.stored_configuration(request.bucket, configuration.target)
            self._set_configuration(request.bucket, configuration.target, configuration if method == "PUT" else None)
            response = await self._moto(method, configuration)
            if response.status >= HTTPStatus.BAD_REQUEST:
                self._set_configuration(request.bucket, configuration.target, before)
        return response

    def _set_configuration(self, bucket: str, target: str, configuration: BucketConfiguration | None) -> None:
        if configuration is None:
            self._buckets.delete_configuration(bucket, target)
        else:
            self._buckets.set_configuration(bucket, configuration)


def _configuration(request: S3Request, body: bytes) -> BucketConfiguration:
    """Return a request about a bucket as moto gets it: the bucket in the path, without the signature."""
    headers = {name: value for name, value in request.http.headers.items() if _KEPT_HEADERS.fullmatch(name)}
    # Moto reads the region from the signature's scope.
    headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential=local/20000101/{request.region}/s3/aws4_request"
    parameters = [
        urllib.parse.quote(name) + (f"={urllib.parse.quote(value)}" if value else "")
        for name, value in request.query.items()
        if not _SIGNATURE.fullmatch(name)
    ]
    path = f"/{urllib.parse.quote(request.bucket)}"
    if request.key:
        path += f"/{urllib.parse.quote(request.key)}"
    return BucketConfiguration(path + ("?" + "&".join(parameters) if parameters else ""), headers, body)


def check_bucket_name(name: str) -> None:
    """Check the name of a new bucket.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html

    Raises
    ------
    ApiError
        InvalidBucketName.
    """
    valid = (
        _BUCKET_NAME.fullmatch(name)
        and ".." not in name
        and not _IP_ADDRESS.fullmatch(name)
        and not name.startswith(_RESERVED_PREFIXES)
        and not name.endswith(_RESERVED_SUFFIXES)
    )
    if not valid:
        message = (
            "The specified bucket is not valid: expected 3 to 63 lower-case letters, digits, dots and hyphens, and no "
            "IP address or reserved name"
        )
        raise ApiError("InvalidBucketName", HTTPStatus.BAD_REQUEST, message, {"BucketName": name})


class ListingApi:
    """The operations that list buckets, objects, versions and uploads.

    Parameters
    ----------
    store
        The object store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def buckets(self, request: S3Request) -> web.StreamResponse:
        """ListBuckets."""
        prefix, after = request.query.get("prefix", ""), request.query.get("continuation-token", "")
        limit = _limit(request, "max-buckets", 10_000)
        found = [
            bucket for bucket in self._store.buckets.all() if bucket.name.startswith(prefix) and bucket.name > after
        ]
        listed = [
            {"Name": bucket.name, "CreationDate": xml.timestamp(bucket.created), "BucketRegion": bucket.region}
            for bucket in found[:limit]
        ]
        token = found[limit - 1].name if len(found) > limit else None
        content = {"Owner": xml.OWNER, "Buckets": {"Bucket": listed}, "ContinuationToken": token}
        return xml.response("ListAllMyBucketsResult", content)

    async def objects(self, request: S3Request) -> web.StreamResponse:
        """ListObjects and ListObjectsV2."""
        bucket = self._store.buckets.get(request.bucket)
        listing_query, encode = _listing_query(request), _key_encoder(request)
        if request.query.get("list-type") != "2":
            marker = request.query.get("marker", "")
            page = self._store.listing.objects(listing_query, marker)
            content = {
                "Name": bucket.name,
                "Prefix": encode(listing_query.prefix),
                "Marker": encode(marker),
                "NextMarker": encode(page.last) if page.is_truncated and listing_query.delimiter else None,
                **_common(request, listing_query, page),
            }
            return xml.response("ListBucketResult", {**content, **_entries(page, encode, with_owner=True)})
        token, start_after = request.query.get("continuation-token"), request.query.get("start-after", "")
        page = self._store.listing.objects(listing_query, start_after if token is None else _decode_token(token))
        content = {
            "Name": bucket.name,
            "Prefix": encode(listing_query.prefix),
            "StartAfter": encode(start_after) if start_after else None,
            "ContinuationToken": token,
            "NextContinuationToken": _encode_token(page.last) if page.is_truncated else None,
            "KeyCount": len(page.versions) + len(page.common_prefixes),
            **_common(request, listing_query, page),
        }
        with_owner = request.query.get("fetch-owner") == "true"
        return xml.response("ListBucketResult", {**content, **_entries(page, encode, with_owner=with_owner)})

    async def versions(self, request: S3Request) -> web.StreamResponse:
        """ListObjectVersions."""
        bucket = self._store.buckets.get(request.bucket)
        listing_query, encode = _listing_query(request), _key_encoder(request)
        key_marker = request.query.get("key-marker", "")
        version_marker = request.query.get("version-id-marker", "")
        page = self._store.listing.all_versions(listing_query, key_marker, version_marker)
        last = page.versions[-1] if page.versions and page.versions[-1].key == page.last else None
        content = {
            "Name": bucket.name,
            "Prefix": encode(listing_query.prefix),
            "KeyMarker": encode(key_marker),
            "VersionIdMarker": version_marker,
            "NextKeyMarker": encode(page.last) if page.is_truncated else None,
            "NextVersionIdMarker": last.version_id if page.is_truncated and last is not None else None,
            **_common(request, listing_query, page),
            "Version": [_version(version, encode) for version in page.versions if version.body is not None],
            "DeleteMarker": [_version(version, encode) for version in page.versions if version.body is None],
            "CommonPrefixes": [{"Prefix": encode(prefix)} for prefix in page.common_prefixes],
        }
        return xml.response("ListVersionsResult", content)

    async def uploads(self, request: S3Request) -> web.StreamResponse:
        """ListMultipartUploads."""
        self._store.buckets.get(request.bucket)
        encode, prefix = _key_encoder(request), request.query.get("prefix", "")
        key_marker, id_marker = request.query.get("key-marker", ""), request.query.get("upload-id-marker", "")
        limit = _limit(request, "max-uploads", MAX_KEYS)
        uploads = self._store.uploads.all(request.bucket, prefix)
        ids = [upload.upload_id for upload in uploads]
        if id_marker in ids:
            uploads = uploads[ids.index(id_marker) + 1 :]
        elif key_marker:
            uploads = [upload for upload in uploads if upload.key.encode() > key_marker.encode()]
        page = uploads[:limit]
        is_truncated = len(uploads) > limit
        content = {
            "Bucket": request.bucket,
            "Prefix": encode(prefix),
            "KeyMarker": encode(key_marker),
            "UploadIdMarker": id_marker,
            "NextKeyMarker": encode(page[-1].key) if is_truncated and page else None,
            "NextUploadIdMarker": page[-1].upload_id if is_truncated and page else None,
            "EncodingType": request.query.get("encoding-type"),
            "MaxUploads": limit,
            "IsTruncated": is_truncated,
            "Upload": [
                {
                    "Key": encode(upload.key),
                    "UploadId": upload.upload_id,
                    "Initiator": xml.OWNER,
                    "Owner": xml.OWNER,
                    "StorageClass": upload.metadata.storage_class,
                    "Initiated": xml.timestamp(upload.created),
                    "ChecksumAlgorithm": upload.algorithm and upload.algorithm.value,
                    "ChecksumType": upload.algorithm and upload.kind.value,
                }
                for upload in page
            ],
        }
        return xml.response("ListMultipartUploadsResult", content)


def _listing_query(request: S3Request) -> ListingQuery:
    limit = _limit(request, "max-keys", MAX_KEYS)
    return ListingQuery(request.bucket, request.query.get("prefix", ""), request.query.get("delimiter", ""), limit)


def _limit(request: S3Request, name: str, most: int) -> int:
    text = request.query.get(name) or str(most)
    number = whole_number(text)
    if number is None:
        message = f"Provided {name} not an integer or within integer range: {text!r:.80}"
        raise bad_request("InvalidArgument", message)
    return min(number, most)


def _key_encoder(request: S3Request) -> Callable[[str], str]:
    """Return the encoder for keys: XML cannot represent some characters, so clients may request URL encoding."""
    if request.query.get("encoding-type") == "url":
        return lambda key: urllib.parse.quote(key, safe="/-_.~*")
    return lambda key: key


def _common(request: S3Request, listing_query: ListingQuery, page: ListingPage) -> dict[str, Any]:
    return {
        "MaxKeys": listing_query.limit,
        "Delimiter": _key_encoder(request)(listing_query.delimiter) or None,
        "EncodingType": request.query.get("encoding-type"),
        "IsTruncated": page.is_truncated,
    }


def _entries(page: ListingPage, encode: Callable[[str], str], *, with_owner: bool) -> dict[str, Any]:
    owner = xml.OWNER if with_owner else None
    contents = [{**_entry(version, encode), "Owner": owner} for version in page.versions]
    return {"Contents": contents, "CommonPrefixes": [{"Prefix": encode(prefix)} for prefix in page.common_prefixes]}


def _entry(version: ObjectVersion, encode: Callable[[str], str]) -> dict[str, Any]:
    body = version.body
    return {
        "Key": encode(version.key),
        "LastModified": xml.timestamp(version.modified),
        "ETag": body and f'"{body.etag}"',
        "ChecksumAlgorithm": body and body.checksum and body.checksum.algorithm.value,
        "ChecksumType": body and body.checksum and body.checksum.kind.value,
        "Size": None if body is None else body.size,
        "StorageClass": body and version.metadata.storage_class,
    }


def _version(version: ObjectVersion, encode: Callable[[str], str]) -> dict[str, Any]:
    return {
        **_entry(version, encode),
        "VersionId": version.version_id,
        "IsLatest": version.is_latest,
        "Owner": xml.OWNER,
    }


def _encode_token(last: str) -> str:
    return base64.urlsafe_b64encode(last.encode()).decode()


def _decode_token(token: str) -> str:
    try:
        after = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        after = ""
    if not after:
        raise bad_request("InvalidArgument", "The continuation token provided is incorrect")
    return after
