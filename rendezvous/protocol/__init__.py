"""The protocols between a rank and the rendezvous server. No I/O.

Three protocols share one port and are detected by the first bytes, see `protocol_detection`:

- `v1`, TCPunch's original: a name as raw bytes, as the C++ client sends that every deployed FMI is linked with.
- `v2`, TCPunch's successor: a request of 141 bytes with a token to resume a wait.
- `extension` and `messages`, between ranks of this library and this server: one authenticated connection per rank.
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
