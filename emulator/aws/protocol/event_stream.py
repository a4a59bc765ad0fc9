"""Messages of AWS's event streams.

Format: https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import struct
import zlib

_STRING = 7


def event_message(kind: str, payload: bytes, content_type: str) -> bytes:
    """Return an event.

    Parameters
    ----------
    kind
        The name of the event in the service's model.
    payload
        Its content.
    content_type
        The media type of the content.
    """
    pairs = ((":event-type", kind), (":content-type", content_type), (":message-type", "event"))
    headers = b"".join(_header(name, value) for name, value in pairs)
    # Two lengths and their checksum, the headers, the payload, and the checksum of all.
    prelude = struct.pack(">II", 12 + len(headers) + len(payload) + 4, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    return struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", _STRING, len(value)) + value.encode()
