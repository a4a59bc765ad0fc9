"""Recognises requests that a foreign web page may have sent, from the headers that browsers set."""

import functools
import ipaddress
import re
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from aiohttp import web

PAGE_ROOT = "/_emulator/"
_PORT = re.compile(r":\d{1,5}$")
# The last is the name under which containers reach programs of their host.
_NAMES = ("localhost", "host.docker.internal")
# Sec-Fetch-Site of a request that no other site has caused: https://www.w3.org/TR/fetch-metadata/
_OWN_SITE = ("same-origin", "none")


class OwnNames:
    """The names and addresses that a request's Host header may contain.

    A web site may resolve its own name to 127.0.0.1 and then, as the same origin, use what its visitors' machines serve
    there (DNS rebinding). It cannot do this with an IP address or with ``localhost``.

    Parameters
    ----------
    names
        Further names of this endpoint, besides ``localhost``, ``host.docker.internal``, the machine's name and IP
        addresses of this machine or of a private network. A bucket's name may precede each of them.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = {name.lower().rstrip(".") for name in (*_NAMES, socket.gethostname(), *names)}
        self._includes = functools.lru_cache(maxsize=1024)(self._find)

    def includes(self, host: str, address: str = "") -> bool:
        """Return whether a Host header is this endpoint's own.

        Parameters
        ----------
        host
            The header, with or without port.
        address
            The address that the request was sent to.
        """
        return self._includes(host, address)

    def _find(self, host: str, address: str) -> bool:
        name = _PORT.sub("", host).strip("[]").lower().rstrip(".")
        if name in self._names or any(name.endswith(f".{own}") for own in self._names):
            return True
        try:
            # No name has a digit as its last label: a bucket's name before an address is not another site's.
            found = ipaddress.ip_address(".".join(name.split(".")[-4:]) if "." in name else name)
        except ValueError:
            return False
        return found.is_loopback or found.is_private or str(found) == address


def refused_host(request: web.BaseRequest, names: OwnNames) -> str | None:
    """Return why the Host header of a request is refused; None if it is this endpoint's own."""
    # A program may leave the header out in HTTP/1.0; no browser does.
    host = request.headers.get("Host")
    if host is None or names.includes(host):
        return None
    local = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if local is not None and names.includes(host, local[0]):
        return None
    return (
        f"invalid Host header {host!r:.100}: expected localhost, an IP address of this endpoint, or a name given to "
        "`fmi-emulator serve --host-name`"
    )


def foreign_origin(request: web.BaseRequest) -> str | None:
    """Return the origin of the foreign web page that has caused a request; None if no foreign page has.

    A page on another port is foreign, too. The origin is ``null`` when the browser does not name it.
    """
    headers = request.headers
    origin = headers.get("Origin")
    if origin is not None:
        return None if _is_same(origin, request) else origin
    site, referer = headers.get("Sec-Fetch-Site"), headers.get("Referer")
    if site is not None and site not in _OWN_SITE:
        return _origin_of(referer)
    if referer and not _is_same(referer, request):
        return _origin_of(referer)
    return None


def is_page_navigation(request: web.BaseRequest) -> bool:
    """Return whether a browser opens the page ``/_emulator/`` in a tab: the page that led there cannot read it."""
    headers = request.headers
    return (
        request.method == "GET"
        and (request.path == PAGE_ROOT[:-1] or request.path.startswith(PAGE_ROOT))
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
        and "Origin" not in headers
    )


def _is_same(url: str, request: web.BaseRequest) -> bool:
    try:
        return urlsplit(url).netloc.lower() == request.headers.get("Host", "").lower() != ""
    except ValueError:
        return False


def _origin_of(url: str | None) -> str:
    try:
        parts = urlsplit(url or "")
    except ValueError:
        return "null"
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else "null"
