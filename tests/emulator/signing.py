"""Requests without an SDK, signed with the key of a local cloud."""

from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from emulator.cloud import LocalCloud


def signed(
    cloud: LocalCloud, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, service: str = "s3"
) -> dict[str, str]:
    """Return the headers with a signature, which covers the host, ``x-amz-*`` and the body.

    A body whose hash the headers state is not read, for example that of an upload in chunks.
    """
    covered = {name: value for name, value in headers.items() if name.lower() == "host" or _is_of_aws(name)}
    request = AWSRequest(method, f"{cloud.endpoint_url}{path}", covered, body)
    key = BotoCredentials(cloud.credentials.access_key_id, cloud.credentials.secret_access_key)
    kind: Any = S3SigV4Auth if service == "s3" else SigV4Auth
    if (stated := covered.get("x-amz-content-sha256")) is not None:
        request.context["payload_hash"] = stated
        kind = _WithStatedHash
    kind(key, service, "us-east-1").add_auth(request)
    return {name: value for name, value in headers.items() if name not in request.headers} | dict(request.headers)


class _WithStatedHash(S3SigV4Auth):
    def payload(self, request: AWSRequest) -> str:
        return str(request.context["payload_hash"])


def _is_of_aws(name: str) -> bool:
    return name.lower().startswith("x-amz-")


def page_cookie(cloud: LocalCloud) -> str:
    """Return the header Cookie of a browser that has opened the printed URL of the page."""
    parts = urlsplit(cloud.page_url)
    with closing(HTTPConnection(parts.netloc, timeout=30)) as connection:
        connection.request("GET", f"{parts.path}?{parts.query}")
        cookie = connection.getresponse().headers["Set-Cookie"]
    return str(cookie).partition(";")[0]
