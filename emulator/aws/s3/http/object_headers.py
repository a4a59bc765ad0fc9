"""What headers say of an object, in requests and in answers."""

import re
import urllib.parse
from collections.abc import Mapping
from email.utils import formatdate

from emulator.aws.s3.core.bodies import Body
from emulator.aws.s3.core.errors import bad_request, not_implemented
from emulator.aws.s3.core.records import NULL_VERSION, Description, ObjectVersion
from emulator.aws.s3.http.addressing import S3Request
from emulator.aws.s3.http.transfer import checksum_headers

_KEPT = (
    "cache-control",
    "content-disposition",
    "content-language",
    "content-type",
    "expires",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key-md5",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
)
# RFC 9110, section 5.5, without what is no UTF-8.
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
_OVERRIDES = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
)


def description(request: S3Request) -> Description:
    """Return what a request says of the object it writes.

    Raises
    ------
    ApiError
        When AWS would refuse it, or when it asks for a lock.
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
        message = f"Your metadata headers exceed the maximum allowed metadata size: {size} of {_USER_METADATA_BYTES}"
        raise bad_request("MetadataTooLarge", message)
    if headers.get("x-amz-storage-class", "STANDARD") not in _STORAGE_CLASSES:
        raise bad_request("InvalidStorageClass", "The storage class you specified is not valid")
    if any(name.startswith("x-amz-object-lock-") for name in given):
        raise not_implemented("S3 Object Lock")
    return Description({**headers, **metadata}, tags_of_header(request.header("x-amz-tagging")))


def tags_of_header(header: str) -> dict[str, str]:
    """Return the tags that an x-amz-tagging header names.

    Raises
    ------
    ApiError
        InvalidTag.
    """
    return checked_tags(urllib.parse.parse_qsl(header, keep_blank_values=True))


def checked_tags(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return tags as a mapping.

    Raises
    ------
    ApiError
        InvalidTag when there are too many, or one is too long or there twice.
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


def written(version: ObjectVersion, body: Body) -> dict[str, str]:
    """Return the headers of the answer to a write."""
    encryption = {
        name: value
        for name, value in version.description.headers.items()
        if name.startswith("x-amz-server-side-encryption")
    }
    return {"ETag": f'"{body.etag}"', **version_header(version), **checksum_headers(body), **encryption}


def version_header(version: ObjectVersion) -> dict[str, str]:
    """Return the header with the version's id; objects from before versioning have none."""
    return {} if version.version_id == NULL_VERSION else {"x-amz-version-id": version.version_id}


def read(version: ObjectVersion, body: Body, *, with_checksum: bool) -> dict[str, str]:
    """Return the headers of the answer to a read of the whole object, but for its length."""
    tags = {"x-amz-tagging-count": str(len(version.description.tags))} if version.description.tags else {}
    kept = {name: value for name, value in version.description.headers.items() if value != "STANDARD"}
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
    """Return a time as headers have it."""
    return formatdate(seconds, usegmt=True)


def overrides(query: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a reader asked to get other values.

    Raises
    ------
    ApiError
        InvalidArgument when a value would be no header's, but end it.
    """
    asked = {name: query[f"response-{name}"] for name in _OVERRIDES if f"response-{name}" in query}
    for name, value in asked.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise bad_request("InvalidArgument", f"response-{name}: expected a header's value, got {value!r:.80}")
    return asked


def refusal_headers(version: ObjectVersion) -> dict[str, str]:
    """Return the headers of the answer to a read that found a delete marker."""
    return {"x-amz-delete-marker": "true", "x-amz-version-id": version.version_id}
