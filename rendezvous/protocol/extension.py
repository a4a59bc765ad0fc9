"""The extension's protocol for ranks of this library: preamble, challenge and proofs.

A connection begins with a preamble of 141 bytes, as many as a request of TCPunch's version 2, so that a server of
either original kind answers at once and is recognised by its answer. Its first byte is NUL, with which no name begins.

*Control*. The server answers with a challenge of 38 bytes. If that announces TLS, both sides switch to it
now. Then messages go both ways, each a length (u16), a kind (u8) and a body, in network order: the rank
registers; the server welcomes or refuses it. To connect to a peer, a rank announces a port that it listens on. If the
server sees it behind a NAT, it requests a *probe*: a second connection from the same port, which shows the port's
public address. Once both ranks have announced a port for each other, each receives the other's addresses, and a ticket
for the relay. Announcements are valid until withdrawn. A rank whose connection or server was lost registers and
announces again.

*Probe* and *relay* connections carry a ticket in their preamble. A probe stays open, without data, to keep the NAT's
mapping. A relay connection is joined with the peer's; from then on the server forwards bytes.

*Secret*. With a shared secret a rank proves that it knows it, by an HMAC over both sides' nonces and the
registration; the server proves the same in its welcome. Nothing else is sent before.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from dataclasses import dataclass

from rendezvous.protocol.endpoints import ProtocolError
from rendezvous.protocol.v2 import REQUEST_BYTES

MAGIC = b"\0FMI"
VERSION = 2
PREAMBLE_BYTES = REQUEST_BYTES
TICKET_BYTES = 32
"""Length of a nonce and of a ticket, both random."""
PROOF_BYTES = hashlib.sha256().digest_size
NO_PROOF = bytes(PROOF_BYTES)
MIN_SECRET_BYTES = 16
"""A shorter secret could be found by brute force: every challenge with its proof is a sample to test guesses on."""

_PREAMBLE = struct.Struct(f"!4sBB{TICKET_BYTES}s{PREAMBLE_BYTES - TICKET_BYTES - 6}x")
_CHALLENGE = struct.Struct(f"!4sBB{TICKET_BYTES}s")
CHALLENGE_BYTES = _CHALLENGE.size


class Purpose(enum.IntEnum):
    """The use of a connection."""

    control = 0
    probe = 1
    relay = 2


class Demand(enum.IntFlag):
    """What the server requires of a rank before it may register."""

    nothing = 0
    secret = 1
    tls = 2


@dataclass(frozen=True, slots=True)
class Preamble:
    """The first message of a connection. `token` is the rank's nonce on a control connection, otherwise a ticket."""

    purpose: Purpose
    token: bytes

    def encode(self) -> bytes:
        """Return the 141 bytes of this preamble."""
        return _PREAMBLE.pack(MAGIC, VERSION, self.purpose, self.token)


def decode_preamble(data: bytes) -> Preamble:
    """Return the preamble in 141 bytes.

    Raises
    ------
    ProtocolError
        If the bytes are no preamble, or of another version.
    """
    if len(data) != PREAMBLE_BYTES:
        raise ProtocolError(f"invalid preamble: expected {PREAMBLE_BYTES} bytes, got {len(data)}")
    magic, version, purpose, token = _PREAMBLE.unpack(data)
    if magic != MAGIC or version != VERSION:
        raise ProtocolError(f"expected a preamble of version {VERSION}, got {data[:6].hex()}")
    try:
        return Preamble(Purpose(purpose), token)
    except ValueError:
        raise ProtocolError(f"invalid preamble: unknown purpose {purpose}") from None


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server's answer to a control preamble. Its version comes first, so that any client can read it."""

    demand: Demand
    nonce: bytes

    def encode(self) -> bytes:
        """Return the 38 bytes of this challenge."""
        return _CHALLENGE.pack(MAGIC, VERSION, self.demand, self.nonce)


def decode_challenge(data: bytes) -> Challenge | None:
    """Return the challenge in `data`; None as long as it is incomplete.

    Raises
    ------
    ProtocolError
        As soon as `data` cannot become one of this version: the server is of another kind.
    """
    if data[:5] != (MAGIC + bytes([VERSION]))[: len(data)] or len(data) > CHALLENGE_BYTES:
        raise ProtocolError(f"expected a challenge of version {VERSION}, got {data[:16].hex()}")
    if len(data) < CHALLENGE_BYTES:
        return None
    _, _, demand, nonce = _CHALLENGE.unpack(data)
    if demand & ~int(Demand.secret | Demand.tls):  # of an int, since ~ of a flag contains known flags only
        raise ProtocolError(f"the server demands {demand:#x}, which this version does not support: update this side")
    return Challenge(Demand(demand), nonce)


@dataclass(frozen=True, slots=True)
class Proof:
    """Computes the proofs that both ends of a connection know the secret.

    Parameters
    ----------
    secret
        The shared secret; empty if none is required, and then the proofs are zeros.
    client_nonce, server_nonce
        Random bytes that each end chose for this connection, so that no proof can be replayed.
    """

    secret: bytes
    client_nonce: bytes
    server_nonce: bytes

    def of_client(self, registration: bytes) -> bytes:
        """Return the rank's proof, which is valid for this registration only."""
        return self._digest(b"rank", registration)

    def of_server(self) -> bytes:
        """Return the server's proof."""
        return self._digest(b"server", b"")

    def _digest(self, who: bytes, what: bytes) -> bytes:
        if not self.secret:
            return NO_PROOF
        text = b"fmi-rendezvous " + who + b"\0" + self.client_nonce + self.server_nonce + what
        return hmac.digest(self.secret, text, "sha256")


def same_proof(one: bytes, other: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one, other)
