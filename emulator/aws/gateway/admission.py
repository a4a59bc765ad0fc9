"""Which requests the gateway lets through to the services: none that a foreign web page may have sent."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from emulator.aws.gateway.browser_requests import OwnNames, foreign_origin, is_page_navigation, refused_host
from emulator.aws.gateway.refusals import refusal
from emulator.aws.s3.http.api import S3Api
from emulator.aws.s3.http.cors import NOT_ALLOWED

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# The CORS headers of the response to a page that a bucket's rules allow.
_CORS = web.RequestKey("cors", dict[str, str])


class Admission:
    """Refuses requests before a service sees them.

    Parameters
    ----------
    names
        The names that a Host header may contain.
    s3
        Answers web pages of other origins as the rules of its buckets say.
    """

    def __init__(self, names: OwnNames, s3: S3Api) -> None:
        self._names = names
        self._s3 = s3

    def install(self, app: web.Application) -> None:
        """Put this object in front of an application that has all its routes."""

        @web.middleware
        async def admit(request: web.Request, handler: _Handler) -> web.StreamResponse:
            response = self._refuse_foreign(request)
            return await handler(request) if response is None else response

        app.middlewares.append(admit)
        app.on_response_prepare.append(_add_cors)

    def _refuse_foreign(self, request: web.Request) -> web.Response | None:
        """Return the response to a request from a foreign web page; None for any other request."""
        if (reason := refused_host(request, self._names)) is not None:
            return refusal(request, "AccessDeniedException", reason, is_s3=False)
        origin = foreign_origin(request)
        if origin is None or is_page_navigation(request):
            return None
        # Lambda and the page have paths of their own; only what is left can be S3's.
        is_s3 = "path" in request.match_info and self._s3.is_s3(request)
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


async def _add_cors(request: web.Request, response: web.StreamResponse) -> None:
    if _CORS in request:
        response.headers.update(request[_CORS])
