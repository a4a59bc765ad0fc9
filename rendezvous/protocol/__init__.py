"""What is said between a rank and the rendezvous server, without any I/O.

Three dialects share one port and are told apart by what arrives, see `greeting`:

- `v1`, TCPunch's original: a name as raw bytes. The C++ client every deployed FMI is linked with.
- `v2`, TCPunch's successor: a request of 141 bytes with a token to resume a wait.
- `extension`, between ranks of ours and our server: one authenticated connection a rank.
"""

from rendezvous.protocol.endpoints import DEFAULT_PORT, Endpoint, ProtocolError
from rendezvous.protocol.v1 import (
    MAX_NAME_BYTES,
    RECORD_BYTES,
    Replies,
    check_name,
    decode_record,
    encode_record,
    pair_name,
)

__all__ = [
    "DEFAULT_PORT",
    "MAX_NAME_BYTES",
    "RECORD_BYTES",
    "Endpoint",
    "ProtocolError",
    "Replies",
    "check_name",
    "decode_record",
    "encode_record",
    "pair_name",
]
