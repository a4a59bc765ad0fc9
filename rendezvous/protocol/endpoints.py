"""What all dialects have in common: addresses, and the error for what no dialect allows."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from functools import lru_cache

DEFAULT_PORT = 10000

_ADDRESS = struct.Struct("!4sH")
ADDRESS_BYTES = _ADDRESS.size


class ProtocolError(ValueError):
    """The other side sent what its protocol does not allow."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IPv4 address and a TCP port, in the host's own notation."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def encode(self) -> bytes:
        """Return ``struct in_addr`` and ``in_port_t``, 6 bytes in network order."""
        return _ADDRESS.pack(_packed(self.host), self.port)


@lru_cache(maxsize=4096)
def _packed(host: str) -> bytes:
    return ipaddress.IPv4Address(host).packed


def decode_endpoint(data: bytes) -> Endpoint:
    """Return the endpoint in 6 bytes.

    Raises
    ------
    ProtocolError
        If `data` is shorter or longer, or names port 0, which nobody can be reached at.
    """
    if len(data) != ADDRESS_BYTES:
        raise ProtocolError(f"an address has {ADDRESS_BYTES} bytes, {len(data)} came")
    address, port = _ADDRESS.unpack(data)
    if port == 0:
        raise ProtocolError(f"the address {data.hex()} names port 0")
    return Endpoint(str(ipaddress.IPv4Address(address)), port)
