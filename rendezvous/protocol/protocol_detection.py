"""Which dialect a client speaks, found out from the first bytes it sends."""

from __future__ import annotations

import enum

from rendezvous.protocol.extension import MAGIC
from rendezvous.protocol.v1 import check_name

NUL = b"\0"


class WireProtocol(enum.Enum):
    """What a client speaks, as far as its first bytes tell."""

    v1 = "v1"
    v2 = "v2"
    extension = "extension"


def detect_protocol(data: bytes) -> WireProtocol:
    """Return the dialect of a client whose first bytes are `data`.

    A name of version 1 has no NUL. Version 2 pads its name with NULs, at least one, and does not begin with
    one. The extension begins with NUL and its magic. So a client of version 2 whose request comes in pieces
    looks like one of version 1 until the first piece that reaches beyond its name.

    Raises
    ------
    ProtocolError
        If `data` is the beginning of nothing.
    """
    if data.startswith(MAGIC[: len(data)]):
        return WireProtocol.extension
    if NUL in data:
        return WireProtocol.v2
    check_name(data)
    return WireProtocol.v1
