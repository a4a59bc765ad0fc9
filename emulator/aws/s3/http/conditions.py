"""Conditional requests and ranges, sans-IO.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html, RFC 9110 sections 13 and 14
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from emulator.aws.s3.core.errors import no_such_key, not_implemented
from emulator.aws.s3.core.records import ObjectVersion
from emulator.errors import ApiError

# No object has so many bytes that it would take more digits.
_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})")


@dataclass(frozen=True)
class ByteRange:
    """A stretch of an object: its first byte, and how many."""

    start: int
    size: int

    def content_range(self, whole: int) -> str:
        """Return the Content-Range header."""
        return f"bytes {self.start}-{self.start + self.size - 1}/{whole}"


def is_unmodified(headers: Mapping[str, str], version: ObjectVersion, etag: str, prefix: str = "") -> bool:
    """Tell whether a reader has the object already.

    Parameters
    ----------
    headers
        Of the request.
    version, etag
        What is to be read.
    prefix
        Before the headers' names: ``x-amz-copy-source-`` when copying.

    Raises
    ------
    ApiError
        PreconditionFailed.
    """
    modified = int(version.modified)
    if match := headers.get(f"{prefix}if-match"):
        # A matching ETag makes up for a failed If-Unmodified-Since.
        if not _matches(match, etag):
            raise _failed("If-Match")
    elif (since := _seconds(headers.get(f"{prefix}if-unmodified-since"))) is not None and modified > since:
        raise _failed("If-Unmodified-Since")
    if none_match := headers.get(f"{prefix}if-none-match"):
        return _matches(none_match, etag)
    since = _seconds(headers.get(f"{prefix}if-modified-since"))
    return since is not None and modified <= since


def is_conditional_write(headers: Mapping[str, str]) -> bool:
    """Tell whether a write depends on what is there."""
    return "if-match" in headers or "if-none-match" in headers


def check_write(headers: Mapping[str, str], key: str, present: ObjectVersion | None) -> None:
    """Make sure that an object may be written, or deleted, over what is there.

    Raises
    ------
    ApiError
        PreconditionFailed, or NoSuchKey when something had to be there.
    """
    body = present.body if present is not None else None
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match and body is None:
        raise no_such_key(key)
    if match and body is not None and not _matches(match, body.etag):
        raise _failed("If-Match")
    if none_match:
        if none_match != "*":
            raise not_implemented("If-None-Match other than * on a write")
        if body is not None:
            raise _failed("If-None-Match")


def requested_range(header: str, size: int) -> ByteRange | None:
    """Return the range that is asked for, or None for the whole object: several ranges, or none that is one.

    Raises
    ------
    ApiError
        InvalidRange when it lies behind the object.
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


def _matches(header: str, etag: str) -> bool:
    return any(tag.strip().removeprefix("W/").strip('"') in ("*", etag) for tag in header.split(","))


def _seconds(header: str | None) -> float | None:
    try:
        return parsedate_to_datetime(header).timestamp() if header else None
    except (ValueError, OverflowError):
        return None


def _failed(condition: str) -> ApiError:
    message = "At least one of the pre-conditions you specified did not hold"
    return ApiError("PreconditionFailed", HTTPStatus.PRECONDITION_FAILED, message, {"Condition": condition})
