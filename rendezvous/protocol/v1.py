"""TCPunch's wire protocol, version 1, without any I/O.

A client opens a TCP connection, sends a *pairing name* as raw bytes (at most 99, no terminator, no length),
and reads two records of 8 bytes: its own public address, then, once a partner has sent the same name, the
partner's. A record is the C struct ``{struct in_addr ip; in_port_t port;}`` as the compiler lays it out: 4
+ 2 bytes in network order and 2 bytes of padding, which the original server never initialises.

Source: ``client/tcpunch.cpp`` and ``common/utils.h`` of TCPunch, the library every deployed FMI is linked
with.
"""

from __future__ import annotations

from rendezvous.protocol.endpoints import ADDRESS_BYTES, Endpoint, ProtocolError, decode_endpoint

MAX_NAME_BYTES = 99

_PADDING = bytes(2)
RECORD_BYTES = ADDRESS_BYTES + len(_PADDING)


def encode_record(endpoint: Endpoint) -> bytes:
    """Return the 8 bytes that announce `endpoint`; the padding is zeroed."""
    return endpoint.encode() + _PADDING


def decode_record(record: bytes) -> Endpoint:
    """Return the endpoint in the 8 bytes of `record`, whatever its padding holds.

    Raises
    ------
    ProtocolError
        If `record` is not 8 bytes long or names port 0, which nobody can be reached at.
    """
    if len(record) != RECORD_BYTES:
        raise ProtocolError(f"an address record has {RECORD_BYTES} bytes, {len(record)} came")
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
        If the name is longer than the 99 bytes of the protocol, or holds a NUL, at which the original
        server stops.
    """
    return check_name(f"{comm_name}{sender}_{receiver}".encode())


def check_name(name: bytes) -> bytes:
    """Return `name` when it can be a pairing name, and raise `ProtocolError` when it cannot."""
    if not name:
        raise ProtocolError("a pairing name is empty")
    if len(name) > MAX_NAME_BYTES:
        raise ProtocolError(f"a pairing name has at most {MAX_NAME_BYTES} bytes, {len(name)} came")
    if b"\0" in name:
        raise ProtocolError(f"a pairing name has no NUL byte: {name!r}")
    return name


class Replies:
    """Client side: puts the server's two records together from however few bytes come at a time.

    Attributes
    ----------
    own
        This client's public endpoint, or None as long as its record is incomplete.
    peer
        The partner's public endpoint, or None until the partner has come.
    """

    def __init__(self) -> None:
        self.own: Endpoint | None = None
        self.peer: Endpoint | None = None
        self._buffer = b""

    def feed(self, data: bytes) -> None:
        """Take bytes from the server.

        Raises
        ------
        ProtocolError
            If more comes than two records, or a record is no address.
        """
        self._buffer += data
        if len(self._buffer) > 2 * RECORD_BYTES:
            raise ProtocolError(f"the server sent more than two records: {self._buffer.hex()}")
        if self.own is None and len(self._buffer) >= RECORD_BYTES:
            self.own = decode_record(self._buffer[:RECORD_BYTES])
        if len(self._buffer) == 2 * RECORD_BYTES:
            self.peer = decode_record(self._buffer[RECORD_BYTES:])
