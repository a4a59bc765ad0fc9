"""Detects which protocol a client speaks, from the first bytes it sends."""

from __future__ import annotations

import enum

from rendezvous.protocol.extension import MAGIC
from rendezvous.protocol.v1 import check_name

NUL = b"\0"


class WireProtocol(enum.Enum):
    """The protocol of a client, as far as its first bytes show."""

    v1 = "v1"
    v2 = "v2"
    extension = "extension"


def detect_protocol(data: bytes) -> WireProtocol:
    """Return the protocol of a client whose first bytes are `data`.

    A name of version 1 contains no NUL. Version 2 pads its name with at least one NUL, and does not begin with one.
    The extension begins with NUL and its magic. A client of version 2 whose request arrives in pieces therefore looks
    like one of version 1 until the first piece that reaches beyond its name.

    Raises
    ------
    ProtocolError
        If `data` is the beginning of no protocol.
    """
    if data.startswith(MAGIC[: len(data)]):
        return WireProtocol.extension
    if NUL in data:
        return WireProtocol.v2
    check_name(data)
    return WireProtocol.v1
