r"""Bodies in the aws-chunked encoding, with the checksum behind them, sans-IO.

A chunk is ``size in hex[;chunk-signature=…]\r\n data \r\n``; after the chunk of size 0 come trailers, one
``name:value\r\n`` each, and an empty line. Signatures are not checked, as no credentials are.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

from emulator.aws.s3.core.errors import bad_request

_LINE_BYTES = 4096
_TRAILERS = 32


class PlainDecoder:
    """A body without any encoding."""

    def __init__(self) -> None:
        self.trailers: dict[str, str] = {}

    def feed(self, data: bytes) -> list[bytes]:
        """Return the content that has come."""
        return [data]

    def finish(self) -> None:
        """Take note that the body has ended: it may end anywhere."""


class ChunkedDecoder:
    """An aws-chunked body.

    Attributes
    ----------
    trailers
        What came behind the content, names in lower case.
    """

    def __init__(self) -> None:
        self.trailers: dict[str, str] = {}
        self._line = b""
        self._left = 0
        self._in_data = False
        self._in_trailers = False
        self._ended = False
        self._lines_left = _TRAILERS

    def feed(self, data: bytes) -> list[bytes]:
        """Return the content that has come.

        Raises
        ------
        ApiError
            When the encoding is broken.
        """
        pieces = []
        position = 0
        while position < len(data) and not self._ended:
            if self._in_data:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
                if not self._left:
                    self._in_data = False
                continue
            end = data.find(b"\n", position)
            self._line += data[position : end if end >= 0 else None]
            if len(self._line) > _LINE_BYTES:
                raise _broken(f"a line of more than {_LINE_BYTES} bytes")
            if end < 0:
                break
            position = end + 1
            line, self._line = self._line.removesuffix(b"\r"), b""
            self._take_line(line)
        return pieces

    def finish(self) -> None:
        """Take note that the body has ended.

        Raises
        ------
        ApiError
            When its last chunk has not come.
        """
        if not (self._ended or self._in_trailers):
            raise bad_request("IncompleteBody", "The request body terminated unexpectedly: its last chunk is missing")

    def _take_line(self, line: bytes) -> None:
        if self._in_trailers:
            if not line:
                self._ended = True
                return
            name, colon, value = line.decode("latin-1").partition(":")
            self._lines_left -= 1
            if not colon or self._lines_left < 0:
                raise _broken(f"{line[:80]!r} is no trailer, or one too many")
            self.trailers[name.strip().lower()] = value.strip()
        elif line:
            try:
                self._left = int(line.partition(b";")[0], 16)
            except ValueError:
                raise _broken(f"expected a chunk's size in hex, got {line[:80]!r}") from None
            if self._left < 0:
                raise _broken(f"a chunk of {self._left} bytes")
            self._in_data, self._in_trailers = self._left > 0, self._left == 0


def _broken(what: str) -> Exception:
    return bad_request("InvalidRequest", f"the body is not in the aws-chunked encoding: {what}")
