"""What all protocols share: addresses, and the error for invalid bytes."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from functools import lru_cache

DEFAULT_PORT = 10000

_ADDRESS = struct.Struct("!4sH")
ADDRESS_BYTES = _ADDRESS.size


class ProtocolError(ValueError):
    """The other side sent bytes that its protocol does not allow."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IPv4 address and a TCP port, in the usual notation."""

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
        If `data` has another length, or contains port 0, which cannot be connected to.
    """
    if len(data) != ADDRESS_BYTES:
        raise ProtocolError(f"invalid address: expected {ADDRESS_BYTES} bytes, got {len(data)}")
    address, port = _ADDRESS.unpack(data)
    if port == 0:
        raise ProtocolError(f"invalid address {data.hex()}: expected a port from 1 to 65535, got 0")
    return Endpoint(str(ipaddress.IPv4Address(address)), port)
