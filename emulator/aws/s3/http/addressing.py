"""Which requests are S3's, and which bucket and object they are about."""

import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from emulator.aws.limits import REGION
from emulator.aws.s3.core.errors import bad_request

_KEY_BYTES = 1024
# bucket.s3.us-east-1.amazonaws.com, bucket.s3.localhost, bucket.localhost
_BUCKET_HOST = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]+?)\.(?:s3(?:[.-].*)?|localhost)")
_SCOPE = re.compile(r"Credential=[^/]+/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/")
# S3 Control has S3's scope and a path of its own.
_CONTROL = "/v20180820/"


@dataclass(frozen=True)
class S3Request:
    """A request to S3.

    Parameters
    ----------
    http
        As it came.
    bucket, key
        What it is about; empty when it is about none.
    query
        The query's parameters.
    """

    http: web.BaseRequest
    bucket: str
    key: str
    query: Mapping[str, str]

    @property
    def region(self) -> str:
        """The region that the request was signed for."""
        scope = _SCOPE.search(self.http.headers.get("Authorization", ""))
        return scope["region"] if scope else REGION

    def header(self, name: str) -> str:
        """Return a header, which a presigned URL may have among its parameters, or an empty text."""
        value = self.http.headers.get(name)
        return self.query.get(name, "") if value is None and name.startswith("x-amz-") else value or ""


def is_s3(http: web.BaseRequest, bucket_exists: Callable[[str], bool]) -> bool:
    """Tell whether a request is S3's: signed for it, presigned, or unsigned to a bucket that exists.

    Parameters
    ----------
    http
        The request.
    bucket_exists
        Tells whether there is a bucket of a name.
    """
    authorization = http.headers.get("Authorization", "")
    if http.raw_path.startswith(_CONTROL):
        return False
    if authorization:
        scope = _SCOPE.search(authorization)
        return scope["service"] == "s3" if scope else authorization.startswith("AWS ")
    path, _, query = http.raw_path.partition("?")
    if "X-Amz-Credential=" in query:
        return "%2Fs3%2F" in query or "/s3/" in query
    if "AWSAccessKeyId=" in query:
        return True
    if "X-Amz-Target" in http.headers:
        return False
    return bucket_exists(_bucket_of_host(http.host)) or bucket_exists(urllib.parse.unquote(path.split("/")[1]))


def s3_request(http: web.BaseRequest) -> S3Request:
    """Take a request's address apart.

    Raises
    ------
    ApiError
        When the key is none that S3 would take.
    """
    path, _, query = http.raw_path.partition("?")
    bucket = _bucket_of_host(http.host)
    rest = path.removeprefix("/")
    if not bucket:
        bucket, _, rest = rest.partition("/")
    try:
        key = urllib.parse.unquote(rest, errors="strict")
        parameters = dict(urllib.parse.parse_qsl(query, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise bad_request("InvalidURI", "Couldn't parse the specified URI: it is not UTF-8") from None
    if len(key.encode()) > _KEY_BYTES:
        raise bad_request("KeyTooLongError", f"Your key is too long: {len(key.encode())} bytes of {_KEY_BYTES}")
    return S3Request(http, urllib.parse.unquote(bucket), key, parameters)


def _bucket_of_host(host: str) -> str:
    match = _BUCKET_HOST.fullmatch(host.partition(":")[0])
    return match["bucket"] if match else ""
