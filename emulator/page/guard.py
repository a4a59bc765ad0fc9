"""Who may see the page, and what a browser may do with it."""

import ipaddress
import re

# Everything is made here: no script runs, nothing is fetched from elsewhere, no other site may frame it.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# An object's content is anybody's: it is shown as if it came from nowhere.
OBJECT_HEADERS = {**HEADERS, "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'"}
_PORT = re.compile(r":\d{1,5}$")


def is_own_host(host: str) -> bool:
    """Return whether a Host header names this machine in a way that no other site can take over.

    A site may point its own name at 127.0.0.1 and then read, as itself, what its visitors' machines serve there (DNS
    rebinding). It cannot do that with an IP address, nor with ``localhost``.

    Parameters
    ----------
    host
        The header, with or without port.
    """
    name = _PORT.sub("", host).strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
