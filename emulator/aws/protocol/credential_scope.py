"""The service and the region that a request is signed for, which identify the service of a request without a path."""

import re
from dataclasses import dataclass

from aiohttp import web

from emulator.aws.limits import REGION

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signing-elements.html
_SCOPE = re.compile(r"Credential=[^/,\s]*/\d{8}/([a-z0-9-]+)/([a-z0-9.-]+)/aws4_request")
_QUERY = re.compile(r"[^/]*/\d{8}/([a-z0-9-]+)/([a-z0-9.-]+)/aws4_request")


@dataclass(frozen=True)
class CredentialScope:
    """A service's signing name, empty if the request has no signature, and a region."""

    service: str
    region: str


def credential_scope(request: web.BaseRequest) -> CredentialScope:
    """Return what a request is signed for, in its header or its query."""
    match = _SCOPE.search(request.headers.get("Authorization", "")) or _QUERY.fullmatch(
        request.query.get("X-Amz-Credential", "")
    )
    if match is None:
        return CredentialScope("", REGION)
    return CredentialScope(match[2], match[1])
