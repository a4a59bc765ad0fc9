"""Which requests the gateway lets through: none of foreign web pages and, with access keys, only signed ones."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from emulator.aws.cloudformation.types.custom import RESPONSE_ROOT
from emulator.aws.gateway.browser_requests import PAGE_ROOT, OwnNames, foreign_origin, is_page_navigation, refused_host
from emulator.aws.gateway.key_ring import KeyRing
from emulator.aws.gateway.refusals import refusal
from emulator.aws.gateway.request_faults import IS_DUPLICATED, RequestFaults
from emulator.aws.gateway.signatures import (
    SignatureError,
    SignedRequest,
    chunk_signatures,
    is_sha256,
    read_claim,
    sha256_hex,
    signed_payload,
    verify,
)
from emulator.aws.json_requests import VERIFIED_BODY, read_body
from emulator.aws.lambda_.code_downloads import DOWNLOAD_PREFIX
from emulator.aws.lambda_.url_requests import FunctionUrlRequests
from emulator.aws.limits import MIB
from emulator.aws.s3.http.api import S3Api
from emulator.aws.s3.http.body_transfer import CHUNK_SIGNATURES, SIGNED_SHA256
from emulator.aws.s3.http.cors import NOT_ALLOWED
from emulator.errors import TooManyOpenFilesError, is_too_many_open_files

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# The CORS headers of the response to a page that a bucket's rules allow.
_CORS = web.RequestKey("cors", dict[str, str])
# The service that a request is signed for.
_SERVICE = web.RequestKey("service", str)
# A deployment package of 50 MB in base64, and its request.
_BODY_BYTES = 96 * MIB
_VERSION_2 = 2
_TOKEN = "token"  # noqa: S105 - the name of a parameter
# S3's name of each kind of `SignatureError`, that of the services with forms, and that of the others.
_CODES = {
    "missing": ("AccessDenied", "MissingAuthenticationToken", "MissingAuthenticationTokenException"),
    "key": ("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"),
    "token": ("InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException"),
    "expired": ("AccessDenied", "RequestExpired", "InvalidSignatureException"),
    "skewed": ("RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "malformed": ("AuthorizationHeaderMalformed", "IncompleteSignature", "IncompleteSignatureException"),
    "body": ("XAmzContentSHA256Mismatch", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "signature": ("SignatureDoesNotMatch", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "size": ("EntityTooLarge", "RequestEntityTooLarge", "RequestEntityTooLargeException"),
}
_STATUSES = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "body": HTTPStatus.BAD_REQUEST,
    "size": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}


class PageAccess:
    """The token that opens the page, once in its URL and then as a cookie."""

    def __init__(self) -> None:
        self._token = secrets.token_urlsafe(24)
        # A cookie is sent to every port of a host: the name keeps the endpoints of a machine apart.
        self._cookie = f"fmi-emulator-{hashlib.sha256(self._token.encode()).hexdigest()[:12]}"

    @property
    def query(self) -> str:
        """The query of the page's URL."""
        return f"?{_TOKEN}={self._token}"

    def admit(self, request: web.Request) -> web.Response | None:
        """Return None if the request has the cookie; otherwise a response that sets or asks for it."""
        if self._is_token(request.cookies.get(self._cookie, "")):
            return None
        if not self._is_token(request.query.get(_TOKEN, "")):
            return web.Response(
                status=HTTPStatus.FORBIDDEN,
                text="the page needs a token: open the URL that `fmi-emulator serve` printed\n",
                headers={"Cache-Control": "no-store"},
            )
        # The token leaves the address bar, and with it the history.
        response = web.Response(
            status=HTTPStatus.SEE_OTHER,
            headers={"Location": request.path, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
        )
        response.set_cookie(self._cookie, self._token, path=PAGE_ROOT[:-1], httponly=True, samesite="Strict")
        return response

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self._token.encode())


class Admission:
    """Refuses requests before a service sees them.

    Parameters
    ----------
    names
        The names that a Host header may contain.
    s3
        Answers web pages of other origins as the rules of its buckets say.
    urls
        The function URLs, some of which need no signature.
    keys
        The keys that requests must be signed with; None if signatures are not checked.
    page
        Opens the page; None if everybody may see it.
    faults
        Requests that fail because a user asked for it.
    """

    def __init__(
        self,
        names: OwnNames,
        s3: S3Api,
        urls: FunctionUrlRequests,
        keys: KeyRing | None,
        page: PageAccess | None,
        faults: RequestFaults,
    ) -> None:
        self._names = names
        self._urls = urls
        self._keys = keys
        self._page = page
        self._s3 = s3
        self._faults = faults

    def install(self, app: web.Application) -> None:
        """Put this object in front of an application that has all its routes."""

        @web.middleware
        async def admit(request: web.Request, handler: _Handler) -> web.StreamResponse:
            refused = self._refuse_foreign(request)
            if refused is None and self._keys is not None:
                refused = await self._refuse_unsigned(request, self._keys)
            if refused is not None:
                return refused
            if self._faults.planned and (failure := await self._faults.answer(request)) is not None:
                return failure
            if request.get(IS_DUPLICATED):
                await _read(request)  # once, for both
                self._faults.repeat(handler(request))
            try:
                response = await handler(request)
            except OSError as error:
                if not is_too_many_open_files(error):
                    raise
                text, status = str(TooManyOpenFilesError()), HTTPStatus.SERVICE_UNAVAILABLE
                return refusal(request, "ServiceUnavailable", text, is_s3=self._is_s3(request), status=status)
            if self._keys is not None and request.get(_SERVICE) == "sts":
                _issue_session(response, self._keys)
            return response

        app.middlewares.append(admit)
        app.on_response_prepare.append(_add_cors)

    def _refuse_foreign(self, request: web.Request) -> web.Response | None:
        """Return the response to a request from a foreign web page; None for any other request."""
        if (reason := refused_host(request, self._names)) is not None:
            return refusal(request, "AccessDeniedException", reason, is_s3=False)
        origin = foreign_origin(request)
        if origin is None or (self._has_own_path(request) and is_page_navigation(request)):
            return None
        if self._urls.allows_origin(request, origin):
            return None
        is_s3 = self._is_s3(request)
        if not is_s3 or origin == "null":
            message = (
                f"request from a foreign web page (origin {origin:.200}): only programs and this endpoint may call it"
            )
            code = "AccessDenied" if is_s3 else "AccessDeniedException"
            return refusal(request, code, message, is_s3=is_s3)
        headers = self._s3.cors(request, origin) if "Origin" in request.headers else None
        if headers is None:
            return refusal(request, "AccessForbidden", NOT_ALLOWED, is_s3=True)
        request[_CORS] = headers
        return web.Response(status=HTTPStatus.OK) if request.method == "OPTIONS" else None

    def _has_own_path(self, request: web.Request) -> bool:
        """Return whether a request is for what is found by its path, whatever its headers say.

        The path alone does not tell: with another method or an escaped slash, or in a bucket's host, it may be S3's.
        """
        return "path" not in request.match_info and not self._urls.is_function_url(request)

    def _is_s3(self, request: web.Request) -> bool:
        if "path" not in request.match_info or self._urls.is_function_url(request):
            return False
        return "X-Amz-Target" not in request.headers and self._s3.is_s3(request)

    async def _refuse_unsigned(self, request: web.Request, keys: KeyRing) -> web.Response | None:
        """Return the response to a request that is not signed as required; None for any other request."""
        if self._has_own_path(request):
            if request.path == PAGE_ROOT[:-1] or request.path.startswith(PAGE_ROOT):
                return self._page.admit(request) if self._page is not None else None
            if request.path.startswith((RESPONSE_ROOT, f"/{DOWNLOAD_PREFIX}/")):
                # Its random token is the permission.
                return None
        if self._urls.is_open(request):
            return None
        is_s3 = self._is_s3(request)
        if is_s3 and request.method == "POST" and request.content_type == "multipart/form-data":
            # Its signature is a field of the form.
            message = "S3: uploads by HTML forms (POST) are not emulated: use a presigned URL for PUT"
            return refusal(request, "NotImplemented", message, is_s3=True, status=HTTPStatus.NOT_IMPLEMENTED)
        try:
            await self._verify(request, keys, is_s3=is_s3)
        except SignatureError as error:
            return _refusal(request, error, is_s3=is_s3)
        return None

    async def _verify(self, request: web.Request, keys: KeyRing, *, is_s3: bool) -> None:
        signed = _signed_request(request, self._s3.bucket_of_host(request))
        claim = read_claim(signed)
        if claim is None:
            if is_s3 and self._s3.is_public(request):
                return
            raise SignatureError("missing", "Access Denied" if is_s3 else "Missing Authentication Token")
        credentials = keys.find(claim.access_key_id)
        if credentials is None:
            raise SignatureError("key", "The access key or security token included in the request is not valid.")
        if is_s3 and claim.service != "s3":
            raise SignatureError("malformed", f"invalid scope: expected the service s3, got {claim.service:.40}")
        # Else a URL for the upload of an object, whose body is not signed, could have the path of another operation.
        if claim.service == "s3" and ("path" not in request.match_info or self._urls.is_function_url(request)):
            raise SignatureError("malformed", "invalid scope: expected the service of the operation, got s3")
        # S3 compares a body with its hash while it receives it; the other services' hash is a part of the signature.
        body = b"" if is_s3 else await _read_to_verify(request)
        payload_hash = "" if claim.version == _VERSION_2 else signed_payload(signed, claim, lambda: sha256_hex(body))
        verify(signed, claim, credentials, payload_hash, time.time())
        request[_SERVICE] = claim.service
        if not is_s3:
            return
        if is_sha256(payload_hash):
            request[SIGNED_SHA256] = payload_hash
        elif (signatures := chunk_signatures(claim, credentials, payload_hash)) is not None:
            request[CHUNK_SIGNATURES] = signatures


def _issue_session(response: web.StreamResponse, keys: KeyRing) -> None:
    """Replace the key in a response of moto's STS, if it is the one that moto gives everybody."""
    if isinstance(response, web.Response) and isinstance(response.body, bytes):
        response.body = keys.issue_session(response.body)
        response.headers["Content-Length"] = str(len(response.body))


def _signed_request(request: web.Request, bucket: str) -> SignedRequest:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
    path, _, query = request.raw_path.partition("?")
    return SignedRequest(request.method, path, query, headers, bucket)


async def _read_to_verify(request: web.Request) -> bytes:
    message = f"the body exceeds {_BODY_BYTES} bytes, the most of any service but S3"
    if (request.content_length or 0) > _BODY_BYTES:
        raise SignatureError("size", message)
    body = await _read(request)
    if len(body) > _BODY_BYTES:
        raise SignatureError("size", message)
    return body


async def _read(request: web.Request) -> bytes:
    """Read a body for the services, which find it in the request."""
    body = await read_body(request, _BODY_BYTES)
    request[VERIFIED_BODY] = body
    return body


def _refusal(request: web.Request, error: SignatureError, *, is_s3: bool) -> web.Response:
    of_s3, of_form, other = _CODES[error.kind]
    is_form = request.content_type == "application/x-www-form-urlencoded"
    status = _STATUSES.get(error.kind, HTTPStatus.FORBIDDEN)
    code = of_s3 if is_s3 else of_form if is_form else other
    return refusal(request, code, str(error), is_s3=is_s3, status=status)


async def _add_cors(request: web.Request, response: web.StreamResponse) -> None:
    if _CORS in request:
        response.headers.update(request[_CORS])
