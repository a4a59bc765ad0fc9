"""TCPunch's wire protocol, version 1. No I/O.

A client opens a TCP connection, sends a *pairing name* as raw bytes (at most 99, no terminator, no length), and reads
two records of 8 bytes: its own public address, then, once a partner has sent the same name, the partner's. A record is
the C struct ``{struct in_addr ip; in_port_t port;}`` as the compiler lays it out: 4 + 2 bytes in network order and 2
bytes of padding, which the original server never initialises.

Source: ``client/tcpunch.cpp`` and ``common/utils.h`` of TCPunch, the library every deployed FMI is linked
with.
"""

from __future__ import annotations

from rendezvous.protocol.endpoints import ADDRESS_BYTES, Endpoint, ProtocolError, decode_endpoint

MAX_NAME_BYTES = 99

_PADDING = bytes(2)
RECORD_BYTES = ADDRESS_BYTES + len(_PADDING)


def encode_record(endpoint: Endpoint) -> bytes:
    """Return the record of `endpoint`, 8 bytes; the padding is zeros."""
    return endpoint.encode() + _PADDING


def decode_record(record: bytes) -> Endpoint:
    """Return the endpoint in the 8 bytes of `record`, whatever its padding contains.

    Raises
    ------
    ProtocolError
        If `record` is not 8 bytes long, or contains port 0.
    """
    if len(record) != RECORD_BYTES:
        raise ProtocolError(f"invalid address record: expected {RECORD_BYTES} bytes, got {len(record)}")
    return decode_endpoint(record[:ADDRESS_BYTES])


def pair_name(comm_name: str, sender: int, receiver: int) -> bytes:
    """Return the name under which FMI pairs two ranks.

    Parameters
    ----------
    comm_name
        Name of the communicator, common to all ranks.
    sender, receiver
        Ranks at the two ends of the *first message* between them. In an exchange the higher rank sends first.

    Raises
    ------
    ProtocolError
        If the name is longer than the 99 bytes of the protocol, or contains a NUL, at which the original server stops.
    """
    return check_name(f"{comm_name}{sender}_{receiver}".encode())


def check_name(name: bytes) -> bytes:
    """Return `name` if it is a valid pairing name; raise `ProtocolError` if not."""
    if not name:
        raise ProtocolError(f"invalid pairing name: expected 1 to {MAX_NAME_BYTES} bytes, got 0")
    if len(name) > MAX_NAME_BYTES:
        raise ProtocolError(f"invalid pairing name: expected at most {MAX_NAME_BYTES} bytes, got {len(name)}")
    if b"\0" in name:
        raise ProtocolError(f"invalid pairing name {name!r}: expected no NUL byte")
    return name


class Replies:
    """Client side: assembles the server's two records from the bytes that arrive.

    Attributes
    ----------
    own
        This client's public endpoint, or None as long as its record is incomplete.
    peer
        The partner's public endpoint, or None until the partner has connected.
    """

    def __init__(self) -> None:
        self.own: Endpoint | None = None
        self.peer: Endpoint | None = None
        self._buffer = b""

    def feed(self, data: bytes) -> None:
        """Add bytes from the server.

        Raises
        ------
        ProtocolError
            If more than two records arrive, or a record is invalid.
        """
        self._buffer += data
        if len(self._buffer) > 2 * RECORD_BYTES:
            raise ProtocolError(f"expected two records, got {self._buffer.hex()}")
        if self.own is None and len(self._buffer) >= RECORD_BYTES:
            self.own = decode_record(self._buffer[:RECORD_BYTES])
        if len(self._buffer) == 2 * RECORD_BYTES:
            self.peer = decode_record(self._buffer[RECORD_BYTES:])
