"""TCPunch's wire protocol, version 2. No I/O.

A client sends a request of 141 bytes and is answered at once, with status *waiting* or *paired*; after
*waiting* a second response reports how the wait ended. The token in a response resumes the wait on another
connection, should this one break.

Source: ``server/rust/src/protocol.rs`` and ``CLIENT_MIGRATION.md`` of TCPunch's Rust server. The latter
states that a response has 51 bytes; its fields, and the server, make 50.
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
"""The token of a response without one: the nil UUID as text, as in the original."""


class Status(enum.IntEnum):
    """The state of a request."""

    waiting = 0
    paired = 1
    timeout = 2
    error = 3


@dataclass(frozen=True, slots=True)
class Request:
    """A request to be paired under `name`, or to resume a wait if `token` is its token."""

    name: bytes
    token: uuid.UUID | None = None

    def encode(self) -> bytes:
        """Return the 141 bytes of this request; the reserved flags are 0."""
        token = "" if self.token is None else str(self.token)
        return _REQUEST.pack(check_name(self.name), token.encode(), 0)


def decode_request(data: bytes) -> Request:
    """Return the request in 141 bytes; the reserved flags are ignored.

    Raises
    ------
    ProtocolError
        If its name is empty, longer than 99 bytes or not UTF-8, or its token is not a UUID.
    """
    if len(data) != REQUEST_BYTES:
        raise ProtocolError(f"invalid request: expected {REQUEST_BYTES} bytes, got {len(data)}")
    name_field, token_field, _ = _REQUEST.unpack(data)
    name = check_name(name_field.partition(b"\0")[0])
    token = token_field.partition(b"\0")[0]
    try:
        name.decode()
        return Request(name, uuid.UUID(token.decode("ascii")) if token else None)
    except UnicodeDecodeError:
        raise ProtocolError(f"expected a name in UTF-8 and a token in ASCII, got {name!r} and {token!r}") from None
    except ValueError:
        raise ProtocolError(f"invalid token {token!r}: expected a UUID") from None


@dataclass(frozen=True, slots=True)
class Response:
    """The server's answer: the client's public address and, once paired, the partner's."""

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
        If it has another length, or an invalid field.
    """
    if len(data) != RESPONSE_BYTES:
        raise ProtocolError(f"invalid response: expected {RESPONSE_BYTES} bytes, got {len(data)}")
    status, own, peer, token = _RESPONSE.unpack(data)
    try:
        return Response(
            Status(status), _endpoint(own), _endpoint(peer), uuid.UUID(token.partition(b"\0")[0].decode("ascii"))
        )
    except ValueError as error:
        raise ProtocolError(f"invalid response {data.hex()}: {error}") from None


def _endpoint(field: bytes) -> Endpoint | None:
    return None if field == _NOWHERE else decode_endpoint(field)
