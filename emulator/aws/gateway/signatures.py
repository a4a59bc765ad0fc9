"""Verifies the signature of a request: botocore's signers compute it again, from the request as it was received.

Sources: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

import calendar
import hashlib
import hmac
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import botocore.auth
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials as BotoCredentials

from emulator.aws.credentials import Credentials
from emulator.aws.s3.http.chunked_encoding import ChunkSignatures

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
# Each chunk of the body is signed, and with the suffix the trailers, too.
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_WITH_TRAILERS = "-TRAILER"
_ALGORITHM = "AWS4-HMAC-SHA256"
_SKEW_S = 15 * 60
_MOST_EXPIRES_S = 7 * 24 * 3600
_FIELD = re.compile(r"\s*(Credential|SignedHeaders|Signature)=([^,\s]+)\s*")
_DATE = re.compile(r"\d{8}T\d{6}Z")
_HEX = re.compile(r"[0-9a-f]{64}")
# Sent in the query of a presigned URL, they need not be signed a second time.
_V2_HEADERS = ("content-md5", "content-type")
_UNSIGNED_IN_QUERY = ("x-amz-content-sha256",)


class SignatureError(Exception):
    """A request is not signed as required.

    Attributes
    ----------
    kind
        ``missing``, ``key``, ``token``, ``expired``, ``skewed``, ``malformed``, ``body`` or ``signature``.
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
        found = (_FIELD.fullmatch(part) for part in authorization[len(_ALGORITHM) :].split(","))
        fields = {match[1]: match[2] for match in found if match is not None}
        return _claim(fields, request.headers.get("x-amz-date", ""), token, None)
    if authorization.startswith("AWS ") and ":" in authorization:
        key, _, signature = authorization[4:].rpartition(":")
        date = request.headers.get("x-amz-date") or request.headers.get("date", "")
        return Claim(2, key.strip(), "s3", "", signature.strip(), (), date, token, None)
    if authorization:
        raise SignatureError("malformed", f"unsupported Authorization header: expected {_ALGORITHM} with a signature")
    query = dict(urllib.parse.parse_qsl(request.query, keep_blank_values=True))
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


class _Headers(dict[str, str]):
    """The signed headers, as botocore's signers read them; its own class takes three times as long."""

    def get_all(self, name: str) -> list[str]:
        return [self[name]]


@dataclass(frozen=True)
class _RequestToSign:
    """What botocore's signers read of a request."""

    method: str
    url: str
    headers: _Headers
    context: dict[str, str]


class _Signer:
    """The parts of botocore's signers that do not change the request."""

    def headers_to_sign(self, request: Any) -> Any:
        return request.headers

    def payload(self, request: Any) -> str:
        return str(request.context["payload_hash"])

    def canonical_query_string(self, request: Any) -> str:
        return str(request.context["query"])

    def signature(self: Any, string_to_sign: str, request: Any) -> str:
        date = request.context["timestamp"][:8]
        key = _signing_key(self.credentials.secret_key, date, self._region_name, self._service_name)
        return hmac.digest(key, string_to_sign.encode(), "sha256").hex()


class _SigV4(_Signer, botocore.auth.SigV4Auth):
    """Signs for every service but S3."""


class _S3SigV4(_Signer, botocore.auth.S3SigV4Auth):
    """Signs for S3, whose paths are not normalised."""


def _signature(request: SignedRequest, claim: Claim, credentials: Credentials, payload_hash: str) -> str:
    kind: Any = _S3SigV4 if claim.service == "s3" else _SigV4
    signer = kind(_boto(credentials), claim.service, claim.region)
    headers = _Headers((name, request.headers.get(name, "")) for name in claim.signed_headers)
    query = _canonical_query(request.query)
    context = {"timestamp": claim.timestamp, "payload_hash": payload_hash, "query": query}
    signed = _RequestToSign(request.method, f"http://host{request.raw_path}", headers, context)
    return str(signer.signature(signer.string_to_sign(signed, signer.canonical_request(signed)), signed))


def chunk_signatures(claim: Claim, credentials: Credentials, payload_hash: str) -> ChunkSignatures | None:
    """Return what verifies the chunks of a verified request's body; None if the payload's hash says they have none."""
    if claim.version != 4 or payload_hash not in (SIGNED_CHUNKS, SIGNED_CHUNKS + _WITH_TRAILERS):
        return None
    scope = f"{claim.timestamp[:8]}/{claim.region}/{claim.service}/aws4_request"
    key = _signing_key(credentials.secret_access_key, claim.timestamp[:8], claim.region, claim.service)
    signs_trailers = payload_hash.endswith(_WITH_TRAILERS)
    return ChunkSignatures(key, claim.timestamp, scope, claim.signature, signs_trailers=signs_trailers)


# One for each day, region and service of each key.
@lru_cache(maxsize=256)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
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
            moved[name.lower()] = urllib.parse.unquote_plus(value)
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
    split = urllib.parse.urlsplit(f"http://host{request.raw_path}?{'&'.join(kept)}")
    path = f"/{request.bucket}{split.path}" if request.bucket else split.path
    signer: Any = _SigV2(_boto(credentials), date)
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
    return urllib.parse.quote(urllib.parse.unquote_to_bytes(text), safe="-_.~")


def _boto(credentials: Credentials) -> BotoCredentials:
    return BotoCredentials(credentials.access_key_id, credentials.secret_access_key)


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
            query = dict(urllib.parse.parse_qsl(request.query, keep_blank_values=True))
            return query.get("X-Amz-Content-Sha256") or stated or UNSIGNED_PAYLOAD
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
