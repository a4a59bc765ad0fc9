"""TCPunch's wire protocol, version 2, without any I/O.

A client sends a request of 141 bytes and is answered at once, with status *waiting* or *paired*; after
*waiting* a second response tells how the wait ended. The token in a response resumes the wait on another
connection, should this one break.

Source: ``server/rust/src/protocol.rs`` and ``CLIENT_MIGRATION.md`` of TCPunch's Rust server. The latter says
that a response has 51 bytes; its fields, and the server, come to 50.
"""

from __future__ import annotations

import enum
import struct
import uuid
from dataclasses import dataclass

from rendezvous.protocol.endpoints import ADDRESS_BYTES, Endpoint, ProtocolError, decode_endpoint
from rendezvous.protocol.v1 import MAX_NAME_BYTES, check_name

_NAME_BYTES = MAX_NAME_BYTES + 1
_TOKEN_BYTES = 37
_REQUEST = struct.Struct(f"<{_NAME_BYTES}s{_TOKEN_BYTES}sI")
_RESPONSE = struct.Struct(f"<B{ADDRESS_BYTES}s{ADDRESS_BYTES}s{_TOKEN_BYTES}s")
REQUEST_BYTES = _REQUEST.size
RESPONSE_BYTES = _RESPONSE.size

_NOWHERE = bytes(ADDRESS_BYTES)
NO_TOKEN = uuid.UUID(int=0)
"""What a response carries that has no token to give: the nil UUID in text, as the original does."""


class Status(enum.IntEnum):
    """How a request stands."""

    waiting = 0
    paired = 1
    timeout = 2
    error = 3


@dataclass(frozen=True, slots=True)
class Request:
    """A wish to be paired under `name`, or to go on waiting if `token` is that of a wait."""

    name: bytes
    token: uuid.UUID | None = None

    def encode(self) -> bytes:
        """Return the 141 bytes of this request; the reserved flags are 0."""
        token = "" if self.token is None else str(self.token)
        return _REQUEST.pack(check_name(self.name), token.encode(), 0)


def decode_request(data: bytes) -> Request:
    """Return the request in 141 bytes; the reserved flags are not looked at.

    Raises
    ------
    ProtocolError
        If its name is empty, longer than 99 bytes or no UTF-8, or its token is no UUID.
    """
    if len(data) != REQUEST_BYTES:
        raise ProtocolError(f"a request has {REQUEST_BYTES} bytes, {len(data)} came")
    name_field, token_field, _ = _REQUEST.unpack(data)
    name = check_name(name_field.partition(b"\0")[0])
    token = token_field.partition(b"\0")[0]
    try:
        name.decode()
        return Request(name, uuid.UUID(token.decode("ascii")) if token else None)
    except UnicodeDecodeError:
        raise ProtocolError(f"the name {name!r} is no UTF-8, or the token {token!r} no ASCII") from None
    except ValueError:
        raise ProtocolError(f"the token {token!r} is no UUID") from None


@dataclass(frozen=True, slots=True)
class Response:
    """What the server says: where the client is and, once paired, where its partner is."""

    status: Status
    own: Endpoint | None = None
    peer: Endpoint | None = None
    token: uuid.UUID = NO_TOKEN

    def encode(self) -> bytes:
        """Return the 50 bytes of this response."""
        own, peer = (_NOWHERE if endpoint is None else endpoint.encode() for endpoint in (self.own, self.peer))
        return _RESPONSE.pack(self.status, own, peer, str(self.token).encode())


def decode_response(data: bytes) -> Response:
    """Return the response in 50 bytes.

    Raises
    ------
    ProtocolError
        If it has another length, or a field that cannot be.
    """
    if len(data) != RESPONSE_BYTES:
        raise ProtocolError(f"a response has {RESPONSE_BYTES} bytes, {len(data)} came")
    status, own, peer, token = _RESPONSE.unpack(data)
    try:
        return Response(
            Status(status), _endpoint(own), _endpoint(peer), uuid.UUID(token.partition(b"\0")[0].decode("ascii"))
        )
    except ValueError as error:
        raise ProtocolError(f"{data.hex()} is no response: {error}") from None


def _endpoint(field: bytes) -> Endpoint | None:
    return None if field == _NOWHERE else decode_endpoint(field)
