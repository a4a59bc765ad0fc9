"""Verifies the signature of a request: computes it again, from the request as it was received.

Sources: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_plus, unquote_to_bytes, urlsplit

import botocore.auth
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials as BotoCredentials
from botocore.utils import normalize_url_path

from emulator.aws.credentials import Credentials
from emulator.aws.s3.http.chunked_encoding import ChunkSignatures

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
# Each chunk of the body is signed, and with the suffix the trailers, too.
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_WITH_TRAILERS = "-TRAILER"
_ALGORITHM = "AWS4-HMAC-SHA256"
_SKEW_S = 15 * 60
_MOST_EXPIRES_S = 7 * 24 * 3600
_DATE = re.compile(r"\d{8}T\d{6}Z")
# Text in canonical encoding: all bytes but the unreserved ones are escaped.
_CANONICAL = re.compile(
    r"(?:[A-Za-z0-9._~-]|%(?:[0189A-F][0-9A-F]|2[0-9A-CF]|3[A-F]|40|5[B-E]|60|7[B-DF]))*",
)
_HEX = re.compile(r"[0-9a-f]{64}")
# Sent in the query of a presigned URL, they need not be signed a second time.
_V2_HEADERS = ("content-md5", "content-type")
_UNSIGNED_IN_QUERY = ("x-amz-content-sha256",)


class SignatureError(Exception):
    """A request is not signed as required.

    Attributes
    ----------
    kind
        ``missing``, ``key``, ``token``, ``expired``, ``skewed``, ``malformed``, ``body``, ``signature`` or ``size``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class SignedRequest:
    """A request, as far as it is signed.

    Parameters
    ----------
    method, raw_path, query
        As received; the query without its question mark.
    headers
        With names in lower case; values of repeated headers joined by commas.
    bucket
        The bucket that precedes the host's name; empty if none does.
    """

    method: str
    raw_path: str
    query: str
    headers: Mapping[str, str]
    bucket: str = ""

    @cached_property
    def parameters(self) -> Mapping[str, str]:
        """The query's parameters, decoded."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


@dataclass(frozen=True)
class Claim:
    """What a request says about its signature.

    Parameters
    ----------
    version
        2 or 4.
    access_key_id
        The key that it is signed with.
    service, region
        From the scope; ``s3`` in version 2.
    signature
        As received.
    signed_headers
        Names in lower case.
    timestamp
        As received.
    token
        The session token, or empty.
    expires
        How long a presigned URL is valid, seconds, or in version 2 until when; None for a signature in the header.
    """

    version: int
    access_key_id: str
    service: str
    region: str
    signature: str
    signed_headers: tuple[str, ...]
    timestamp: str
    token: str
    expires: int | None


def read_claim(request: SignedRequest) -> Claim | None:
    """Return what a request says about its signature; None if it is not signed.

    Raises
    ------
    SignatureError
        When it is malformed.
    """
    authorization = request.headers.get("authorization", "")
    token = request.headers.get("x-amz-security-token", "")
    if authorization.startswith(_ALGORITHM + " "):
        parts = (part.partition("=") for part in authorization[len(_ALGORITHM) :].split(","))
        fields = {name.strip(): value.strip() for name, _, value in parts}
        return _claim(fields, request.headers.get("x-amz-date", ""), token, None)
    if authorization.startswith("AWS ") and ":" in authorization:
        key, _, signature = authorization[4:].rpartition(":")
        date = request.headers.get("x-amz-date") or request.headers.get("date", "")
        return Claim(2, key.strip(), "s3", "", signature.strip(), (), date, token, None)
    if authorization:
        raise SignatureError("malformed", f"unsupported Authorization header: expected {_ALGORITHM} with a signature")
    query = request.parameters
    if "X-Amz-Signature" in query or "X-Amz-Algorithm" in query:
        if query.get("X-Amz-Algorithm") != _ALGORITHM:
            raise SignatureError("malformed", f"unsupported X-Amz-Algorithm: expected {_ALGORITHM}")
        fields = {name: query.get(f"X-Amz-{name}", "") for name in ("Credential", "SignedHeaders", "Signature")}
        expires = _whole_number(query.get("X-Amz-Expires", ""))
        if not 1 <= expires <= _MOST_EXPIRES_S:
            raise SignatureError("malformed", f"invalid X-Amz-Expires: expected 1 to {_MOST_EXPIRES_S} seconds")
        return _claim(fields, query.get("X-Amz-Date", ""), query.get("X-Amz-Security-Token", ""), expires)
    if "AWSAccessKeyId" in query:
        expires = _whole_number(query.get("Expires", ""))
        token = query.get("x-amz-security-token", "")
        return Claim(2, query["AWSAccessKeyId"], "s3", "", query.get("Signature", ""), (), "", token, expires)
    return None


def verify(request: SignedRequest, claim: Claim, credentials: Credentials, payload_hash: str, now: float) -> None:
    """Check the signature, the session token and the time of a request.

    Parameters
    ----------
    request, claim
        The request and what it says about its signature.
    credentials
        The key with the id that the request names.
    payload_hash
        The hash of the body that is signed in version 4, see `signed_payload`.
    now
        The present, seconds since 1970.

    Raises
    ------
    SignatureError
        When one of them is wrong.
    """
    if not hmac.compare_digest(claim.token.encode(), credentials.session_token.encode()):
        raise SignatureError("token", "The security token included in the request is invalid.")
    try:
        if claim.version == 2:
            _check_time_v2(claim, now)
            expected = _signature_v2(request, claim, credentials)
        else:
            _check_time(claim, now)
            _check_signed_headers(request, claim)
            expected = _signature(request, claim, credentials, payload_hash)
    except (UnicodeError, ValueError) as error:
        raise SignatureError("malformed", f"the request cannot be verified: {error}") from None
    if not hmac.compare_digest(expected.encode(), claim.signature.encode(errors="replace")):
        raise SignatureError(
            "signature",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method.",
        )


def _claim(fields: Mapping[str, str], timestamp: str, token: str, expires: int | None) -> Claim:
    # An access key id has no slash.
    scope = fields.get("Credential", "").split("/")
    signed = tuple(name.lower() for name in fields.get("SignedHeaders", "").split(";") if name)
    if len(scope) != 5 or scope[4] != "aws4_request" or "host" not in signed or not fields.get("Signature"):
        raise SignatureError(
            "malformed",
            "incomplete signature: expected Credential (key/date/region/service/aws4_request), Signature, and "
            "SignedHeaders with host",
        )
    if not _DATE.fullmatch(timestamp) or timestamp[:8] != scope[1]:
        raise SignatureError("malformed", "invalid X-Amz-Date: expected YYYYMMDDTHHMMSSZ, on the date of the scope")
    return Claim(4, scope[0], scope[3], scope[2], fields["Signature"], signed, timestamp, token, expires)


def _check_time(claim: Claim, now: float) -> None:
    signed = datetime.fromisoformat(claim.timestamp).timestamp()
    if claim.expires is None:
        if abs(now - signed) > _SKEW_S:
            raise SignatureError(
                "skewed",
                f"The difference between the request time and the current time is too large: {claim.timestamp}",
            )
    elif signed > now + _SKEW_S:
        raise SignatureError("expired", "Request is not valid yet")
    elif now >= signed + claim.expires:
        raise SignatureError("expired", "Request has expired")


def _check_time_v2(claim: Claim, now: float) -> None:
    if claim.expires is not None:
        if now >= claim.expires:
            raise SignatureError("expired", "Request has expired")
        return
    signed = calendar.timegm(time.strptime(claim.timestamp.removesuffix(" GMT"), "%a, %d %b %Y %H:%M:%S"))
    if abs(now - signed) > _SKEW_S:
        raise SignatureError("skewed", "The difference between the request time and the current time is too large.")


def _check_signed_headers(request: SignedRequest, claim: Claim) -> None:
    for name in request.headers:
        if not name.startswith("x-amz-") or name in claim.signed_headers:
            continue
        if claim.expires is None or name not in _UNSIGNED_IN_QUERY:
            raise SignatureError(
                "signature", f"There were headers present in the request which were not signed: {name}"
            )


def _signature(request: SignedRequest, claim: Claim, credentials: Credentials, payload_hash: str) -> str:
    """Return the signature in version 4, computed as botocore's signers do, in a third of their time."""
    names = sorted(set(claim.signed_headers))
    headers = "\n".join(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names)
    # S3's paths are not normalised.
    path = request.raw_path if claim.service == "s3" else quote(normalize_url_path(request.raw_path), safe="/~")
    query = _canonical_query(request.query)
    canonical = f"{request.method}\n{path}\n{query}\n{headers}\n\n{';'.join(names)}\n{payload_hash}"
    scope = _scope(claim)
    to_sign = f"{_ALGORITHM}\n{claim.timestamp}\n{scope}\n{sha256_hex(canonical.encode())}"
    return hmac.digest(_signing_key(credentials.secret_access_key, scope), to_sign.encode(), "sha256").hex()


def _scope(claim: Claim) -> str:
    return f"{claim.timestamp[:8]}/{claim.region}/{claim.service}/aws4_request"


def chunk_signatures(claim: Claim, credentials: Credentials, payload_hash: str) -> ChunkSignatures | None:
    """Return what verifies the chunks of a verified request's body; None if the payload's hash says they have none."""
    if claim.version != 4 or payload_hash not in (SIGNED_CHUNKS, SIGNED_CHUNKS + _WITH_TRAILERS):
        return None
    scope = _scope(claim)
    key = _signing_key(credentials.secret_access_key, scope)
    signs_trailers = payload_hash.endswith(_WITH_TRAILERS)
    return ChunkSignatures(key, claim.timestamp, scope, claim.signature, signs_trailers=signs_trailers)


# One for each day, region and service of each key.
@lru_cache(maxsize=256)
def _signing_key(secret: str, scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class _SigV2(botocore.auth.HmacV1Auth):
    """Signs in version 2, with the time of the request instead of the present."""

    def __init__(self, credentials: BotoCredentials, date: str) -> None:
        super().__init__(credentials)
        self._date = date

    def _get_date(self) -> str:
        return self._date


def _signature_v2(request: SignedRequest, claim: Claim, credentials: Credentials) -> str:
    kept, moved = [], {}
    for part in request.query.split("&"):
        name, _, value = part.partition("=")
        if name in ("AWSAccessKeyId", "Signature", "Expires"):
            continue
        # A presigned URL has these headers in its query.
        if claim.expires is not None and (name.lower().startswith("x-amz-") or name in _V2_HEADERS):
            moved[name.lower()] = unquote_plus(value)
        else:
            kept.append(part)
    headers: Any = HTTPHeaders()
    for name, value in {**request.headers, **moved}.items():
        if name.startswith("x-amz-") or name in _V2_HEADERS:
            headers[name] = value
    if claim.expires is not None:
        date = str(claim.expires)
    else:
        date = "" if "x-amz-date" in request.headers else claim.timestamp
    split = urlsplit(f"http://host{request.raw_path}?{'&'.join(kept)}")
    path = f"/{request.bucket}{split.path}" if request.bucket else split.path
    key = BotoCredentials(credentials.access_key_id, credentials.secret_access_key)
    signer: Any = _SigV2(key, date)
    return str(signer.sign_string(signer.canonical_string(request.method, split, headers, auth_path=path)))


def _canonical_query(query: str) -> str:
    """Return the query's parameters without the signature, in canonical encoding and order."""
    pairs = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if part and name != "X-Amz-Signature":
            pairs.append((_encoded(name), _encoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encoded(text: str) -> str:
    return text if _CANONICAL.fullmatch(text) else quote(unquote_to_bytes(text), safe="-_.~")


def _whole_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0


def signed_payload(request: SignedRequest, claim: Claim, body_hash: Callable[[], str]) -> str:
    """Return the payload's hash as it must be in the signature.

    Raises
    ------
    SignatureError
        When the header states another hash than the body has, or S3's header is missing.
    """
    stated = request.headers.get("x-amz-content-sha256", "")
    if claim.service == "s3":
        if claim.expires is not None:
            return request.parameters.get("X-Amz-Content-Sha256") or stated or UNSIGNED_PAYLOAD
        if not stated:
            raise SignatureError("malformed", "Missing required header for this request: x-amz-content-sha256")
        return stated
    found = body_hash()
    if stated not in ("", UNSIGNED_PAYLOAD, found):
        raise SignatureError("body", "The provided 'x-amz-content-sha256' header does not match what was computed.")
    return stated or found


def is_sha256(payload_hash: str) -> bool:
    """Return whether a payload's hash is one, and not a word such as UNSIGNED-PAYLOAD."""
    return _HEX.fullmatch(payload_hash) is not None


def sha256_hex(body: bytes) -> str:
    """Return the hash of a body."""
    return hashlib.sha256(body).hexdigest()
