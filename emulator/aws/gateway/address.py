"""The address that the gateway listens on, and the one under which local programs reach it."""

import errno
import ipaddress
import socket

from emulator.errors import AddressNotAvailableError, PortInUseError

LOOPBACK = "127.0.0.1"
RESET_PATH = "/moto-api/reset"
"""Where a POST empties every service: moto's own path for it."""


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket.

    Parameters
    ----------
    host
        An IPv4 address of this machine, or 0.0.0.0 for all of them.
    port
        A TCP port; 0 selects a free one.

    Raises
    ------
    PortInUseError
        When the port is in use.
    AddressNotAvailableError
        When it is not an address of this machine.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError("the AWS endpoint", host, port) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise AddressNotAvailableError(host) from None
        raise
    return listener


def local_address(host: str) -> str:
    """Return the address under which programs on this machine reach a server that listens on `host`."""
    return LOOPBACK if ipaddress.IPv4Address(host).is_unspecified else host
