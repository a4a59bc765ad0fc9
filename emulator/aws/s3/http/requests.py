"""What a request to S3 asks for: bucket and key, object metadata, conditions and ranges, without input or output.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html, RFC 9110 sections 13 and 14
"""

import os
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from aiohttp import web

from emulator.aws.limits import REGION
from emulator.aws.s3.core.errors import bad_request, no_such_key, not_implemented
from emulator.aws.s3.core.tables import ObjectMetadata, ObjectVersion
from emulator.aws.s3.http.encryption import ENCRYPTION, check_encryption
from emulator.errors import ApiError

_OVERRIDES = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
)

_KEPT = (
    "cache-control",
    "content-disposition",
    "content-language",
    "content-type",
    "expires",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
)
# The lists that give access to the owner alone: there is one account.
_OWNERS_ACLS = ("private", "bucket-owner-full-control")
_EXPECTED_OWNERS = ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner")
_REFUSED = {
    "x-amz-grant-": "S3: access control lists of objects",
    "x-amz-server-side-encryption-customer-": "S3: encryption with customer-provided keys (SSE-C)",
    "x-amz-copy-source-server-side-encryption-customer-": "S3: encryption with customer-provided keys (SSE-C)",
    "x-amz-object-lock-": "S3 Object Lock",
    "x-amz-write-offset-bytes": "S3: appending to objects",
}
# ECDSA belongs to Signature Version 4A, which is refused as a whole.
_PAYLOAD_HASHES = (
    "UNSIGNED-PAYLOAD",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# RFC 9110, section 5.5, and valid UTF-8.
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")
_USER_METADATA = "x-amz-meta-"
_USER_METADATA_BYTES = 2048
_STORAGE_CLASSES = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
    "EXPRESS_ONEZONE",
]
_TAGS, _TAG_KEY_LENGTH, _TAG_VALUE_LENGTH = 10, 128, 256

_KEY_BYTES = 1024
# bucket.s3.us-east-1.amazonaws.com, bucket.s3.localhost, bucket.localhost
_BUCKET_HOST = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]+?)\.(?:s3(?:[.-].*)?|localhost)")
_SCOPE = re.compile(r"Credential=[^/]+/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/")
# The second one is that of WriteGetObjectResponse alone.
_SERVICES = ("s3", "s3-object-lambda")
# S3 Control is signed for S3, but has a path of its own.
_CONTROL = "/v20180820/"


def new_request_id() -> str:
    """Return a request ID in AWS's form."""
    return os.urandom(8).hex().upper()


@dataclass(frozen=True)
class S3Request:
    """A request to S3.

    Parameters
    ----------
    http
        The HTTP request.
    bucket, key
        The bucket and key it addresses; empty if none.
    query
        The query's parameters.
    request_id
        Identifies the request in its response.
    """

    http: web.BaseRequest
    bucket: str
    key: str
    query: Mapping[str, str]
    request_id: str = field(default_factory=new_request_id)

    @property
    def region(self) -> str:
        """The region of the request's signature."""
        scope = _SCOPE.search(self.http.headers.get("Authorization", ""))
        return scope["region"] if scope else REGION

    def header(self, name: str) -> str:
        """Return a header, or an empty string; a presigned URL may pass it as a query parameter."""
        value = self.http.headers.get(name)
        return self.query.get(name, "") if value is None and name.startswith("x-amz-") else value or ""


def is_s3(http: web.BaseRequest, bucket_exists: Callable[[str], bool]) -> bool:
    """Return whether a request is for S3: signed for it, presigned, or unsigned to an existing bucket.

    Parameters
    ----------
    http
        The request.
    bucket_exists
        Returns whether a bucket exists.
    """
    authorization = http.headers.get("Authorization", "")
    if http.raw_path.startswith(_CONTROL):
        return False
    if authorization:
        scope = _SCOPE.search(authorization)
        return scope["service"] in _SERVICES if scope else authorization.startswith("AWS ")
    path, _, query = http.raw_path.partition("?")
    if "X-Amz-Credential=" in query:
        return "%2Fs3%2F" in query or "/s3/" in query
    if "AWSAccessKeyId=" in query:
        return True
    if "X-Amz-Target" in http.headers:
        return False
    return bucket_exists(bucket_of_host(http.host)) or bucket_exists(urllib.parse.unquote(path.split("/")[1]))


def s3_request(http: web.BaseRequest) -> S3Request:
    """Parse the address of a request.

    Raises
    ------
    ApiError
        When the key is not UTF-8 or too long.
    """
    path, _, query = http.raw_path.partition("?")
    bucket = bucket_of_host(http.host)
    rest = path.removeprefix("/")
    if not bucket:
        bucket, _, rest = rest.partition("/")
    try:
        key = urllib.parse.unquote(rest, errors="strict")
        parameters = dict(urllib.parse.parse_qsl(query, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise bad_request("InvalidURI", "Couldn't parse the specified URI: it is not UTF-8") from None
    if len(key.encode()) > _KEY_BYTES:
        raise bad_request(
            "KeyTooLongError", f"Your key is too long: expected at most {_KEY_BYTES} bytes, got {len(key.encode())}"
        )
    return S3Request(http, urllib.parse.unquote(bucket), key, parameters)


def bucket_of_host(host: str) -> str:
    """Return the bucket that precedes a host's name; empty if none does."""
    match = _BUCKET_HOST.fullmatch(host.partition(":")[0])
    return match["bucket"] if match else ""


# No object is so large that an offset has more digits.
_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})")


@dataclass(frozen=True)
class ByteRange:
    """A range of bytes: offset and length."""

    start: int
    size: int

    def content_range(self, whole: int) -> str:
        """Return the Content-Range header."""
        return f"bytes {self.start}-{self.start + self.size - 1}/{whole}"


def object_metadata(request: S3Request) -> ObjectMetadata:
    """Return the metadata and tags that a request gives an object.

    Raises
    ------
    ApiError
        When AWS would reject it.
    """
    headers = {name: value for name in _KEPT if (value := request.header(name))}
    headers.setdefault("content-type", "binary/octet-stream")
    encodings = [name.strip() for name in request.header("content-encoding").split(",")]
    if encoding := ",".join(name for name in encodings if name not in ("", "aws-chunked")):
        headers["content-encoding"] = encoding
    given = {name.lower(): value for name, value in [*request.query.items(), *request.http.headers.items()]}
    metadata = {name: value for name, value in given.items() if name.startswith(_USER_METADATA)}
    if not all(map(_HEADER_VALUE.fullmatch, metadata.values())):
        raise bad_request("InvalidArgument", "User metadata must be text in UTF-8, without control characters")
    size = sum(len(name) - len(_USER_METADATA) + len(value.encode()) for name, value in metadata.items())
    if size > _USER_METADATA_BYTES:
        message = f"Your metadata headers exceed the maximum allowed metadata size: {size} > {_USER_METADATA_BYTES}"
        raise bad_request("MetadataTooLarge", message)
    if headers.get("x-amz-storage-class", "STANDARD") not in _STORAGE_CLASSES:
        raise bad_request("InvalidStorageClass", "The storage class you specified is not valid")
    if any(name.startswith(ENCRYPTION) for name in headers):
        check_encryption(headers)
    return ObjectMetadata({**headers, **metadata}, tags_of_header(request.header("x-amz-tagging")))


def check_emulated(request: S3Request, account_number: str) -> None:
    """Check that a request asks for nothing that would silently not be done.

    Raises
    ------
    ApiError
        NotImplemented for access control lists besides private, customer keys and locks of objects; AccessDenied when
        another owner of the bucket is expected; InvalidArgument for an unknown kind of payload's hash.
    """
    payload_hash = request.http.headers.get("x-amz-content-sha256", "")
    if payload_hash and payload_hash not in _PAYLOAD_HASHES and not _SHA256.fullmatch(payload_hash):
        message = f"x-amz-content-sha256 must be {', '.join(_PAYLOAD_HASHES)} or a valid sha256 value."
        raise bad_request("InvalidArgument", message)
    for name in (*request.http.headers, *request.query):
        lower = name.lower()
        if not lower.startswith("x-amz-"):
            continue
        if lower in _EXPECTED_OWNERS and request.header(name) != account_number:
            raise ApiError("AccessDenied", HTTPStatus.FORBIDDEN, f"Access Denied: the owner is {account_number}")
        if not request.key:
            continue
        if lower == "x-amz-acl" and request.header(name) not in _OWNERS_ACLS:
            raise not_implemented(f"S3: the access control list {request.header(name)!r:.80} of an object")
        for prefix, what in _REFUSED.items():
            if lower.startswith(prefix):
                raise not_implemented(what)


def tags_of_header(header: str) -> dict[str, str]:
    """Parse an x-amz-tagging header.

    Raises
    ------
    ApiError
        InvalidTag.
    """
    return validated_tags(urllib.parse.parse_qsl(header, keep_blank_values=True))


def validated_tags(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Validate tags; return them as a mapping.

    Raises
    ------
    ApiError
        BadRequest when there are too many, InvalidTag when one is too long or duplicate.
    """
    if len(pairs) > _TAGS:
        raise bad_request("BadRequest", f"Object tags cannot be greater than {_TAGS}")
    for key, value in pairs:
        if not 0 < len(key) <= _TAG_KEY_LENGTH:
            raise bad_request("InvalidTag", f"The TagKey you have provided is invalid: {key!r}")
        if len(value) > _TAG_VALUE_LENGTH:
            raise bad_request("InvalidTag", f"The TagValue you have provided is invalid: {value!r}")
    tags = dict(pairs)
    if len(tags) < len(pairs):
        raise bad_request("InvalidTag", "Cannot provide multiple Tags with the same key")
    return tags


def override_headers(query: Mapping[str, str]) -> dict[str, str]:
    """Return the response headers that a read request overrides.

    Raises
    ------
    ApiError
        InvalidArgument when a value is not valid in a header.
    """
    asked = {name: query[f"response-{name}"] for name in _OVERRIDES if f"response-{name}" in query}
    for name, value in asked.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise bad_request("InvalidArgument", f"response-{name}: expected a header value, got {value!r:.80}")
    return asked


def is_unmodified(headers: Mapping[str, str], version: ObjectVersion, etag: str, prefix: str = "") -> bool:
    """Evaluate the conditions of a read: return whether the response is 304 Not Modified.

    Parameters
    ----------
    headers
        The headers of the request.
    version, etag
        The version to read.
    prefix
        Prefix of the header names: ``x-amz-copy-source-`` for a copy.

    Raises
    ------
    ApiError
        PreconditionFailed.
    """
    modified = int(version.modified)
    if match := headers.get(f"{prefix}if-match"):
        # If-Match takes precedence over If-Unmodified-Since.
        if not _matches(match, etag):
            raise _precondition_failed("If-Match")
    elif (since := _seconds(headers.get(f"{prefix}if-unmodified-since"))) is not None and modified > since:
        raise _precondition_failed("If-Unmodified-Since")
    if none_match := headers.get(f"{prefix}if-none-match"):
        return _matches(none_match, etag)
    since = _seconds(headers.get(f"{prefix}if-modified-since"))
    return since is not None and modified <= since


def check_write(headers: Mapping[str, str], key: str, present: ObjectVersion | None) -> None:
    """Evaluate the conditions of a write or delete against the present version.

    Raises
    ------
    ApiError
        PreconditionFailed, or NoSuchKey when If-Match requires an object.
    """
    body = present.body if present is not None else None
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match and body is None:
        raise no_such_key(key)
    if match and body is not None and not _matches(match, body.etag):
        raise _precondition_failed("If-Match")
    if none_match:
        if none_match != "*":
            raise not_implemented("S3: If-None-Match other than * on a write")
        if body is not None:
            raise _precondition_failed("If-None-Match")


def requested_range(header: str, size: int) -> ByteRange | None:
    """Parse a Range header; return None for the whole object, as for several or invalid ranges.

    Raises
    ------
    ApiError
        InvalidRange when it starts after the end of the object.
    """
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or not (match["first"] or match["last"]):
        return None
    if match["first"]:
        start = int(match["first"])
        last = min(int(match["last"]) if match["last"] else size - 1, size - 1)
        if match["last"] and int(match["last"]) < start:
            return None
    else:
        start, last = max(0, size - int(match["last"])), size - 1
    if start > last:
        details = {"ActualObjectSize": str(size), "RangeRequested": header}
        message = "The requested range is not satisfiable"
        raise ApiError("InvalidRange", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, message, details)
    return ByteRange(start, last - start + 1)


def copied_range(header: str, size: int) -> ByteRange | None:
    """Parse the range of a source that a part is copied from; return None for the whole source.

    Raises
    ------
    ApiError
        InvalidArgument when it is not ``bytes=first-last``, or not inside the source.
    """
    if not header:
        return None
    match = _RANGE.fullmatch(header)
    if match is None or not (match["first"] and match["last"]) or int(match["last"]) < int(match["first"]):
        message = (
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            f"zero-based offsets of the first and last bytes to copy, got {header!r:.80}"
        )
        raise bad_request("InvalidArgument", message)
    first, last = int(match["first"]), int(match["last"])
    if last >= size:
        raise bad_request("InvalidArgument", f"Range specified is not valid for source object of size: {size}")
    return ByteRange(first, last - first + 1)


def _matches(header: str, etag: str) -> bool:
    return any(tag.strip().removeprefix("W/").strip('"') in ("*", etag) for tag in header.split(","))


def _seconds(header: str | None) -> float | None:
    try:
        return parsedate_to_datetime(header).timestamp() if header else None
    except (ValueError, OverflowError):
        return None


def _precondition_failed(condition: str) -> ApiError:
    message = "At least one of the pre-conditions you specified did not hold"
    return ApiError("PreconditionFailed", HTTPStatus.PRECONDITION_FAILED, message, {"Condition": condition})
