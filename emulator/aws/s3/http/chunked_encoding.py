r"""The aws-chunked encoding of a body, and the signatures of its chunks.

A chunk is ``size in hex[;chunk-signature=…]\r\n data \r\n``; the chunk of size 0 is followed by trailers, one
``name:value\r\n`` each, and an empty line. Each signature covers the one before it, the first that of the request.
Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from http import HTTPStatus

from emulator.aws.s3.core.errors import bad_request
from emulator.errors import ApiError

_LINE_BYTES = 4096
_TRAILERS = 32
_SIGNATURE = "chunk-signature="
_TRAILER_SIGNATURE = "x-amz-trailer-signature"
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class ChunkSignatures:
    """Verifies the chain of signatures of one body.

    Parameters
    ----------
    key
        The signing key of the request's scope.
    timestamp, scope
        As in the signature of the request.
    seed
        The signature of the request.
    signs_trailers
        Whether a signature of the trailers follows them.
    """

    def __init__(self, key: bytes, timestamp: str, scope: str, seed: str, *, signs_trailers: bool) -> None:
        self.signs_trailers = signs_trailers
        self._key = key
        self._signed_for = f"{timestamp}\n{scope}"
        self._previous = seed
        self._hash = hashlib.sha256()

    def update(self, data: bytes) -> None:
        """Add a piece of the present chunk."""
        self._hash.update(data)

    def end_chunk(self, signature: str) -> None:
        """Check the signature of the chunk whose pieces were added; the next one begins.

        Raises
        ------
        ApiError
            SignatureDoesNotMatch.
        """
        self._check("PAYLOAD", f"{_EMPTY_SHA256}\n{self._hash.hexdigest()}", signature)
        self._hash = hashlib.sha256()

    def end_trailers(self, trailers: Mapping[str, str]) -> None:
        """Check the signature among the trailers.

        Raises
        ------
        ApiError
            SignatureDoesNotMatch; MalformedTrailerError when it is missing, or there are trailers that nothing signs.
        """
        signed = {name: value for name, value in trailers.items() if name != _TRAILER_SIGNATURE}
        if self.signs_trailers != (_TRAILER_SIGNATURE in trailers) or (signed and not self.signs_trailers):
            message = (
                "The request contained trailing data that was not well-formed or did not conform to our published "
                f"schema: expected {f'the trailer {_TRAILER_SIGNATURE}' if self.signs_trailers else 'no trailers'}, "
                f"got {', '.join(trailers) or 'none'}"
            )
            raise bad_request("MalformedTrailerError", message)
        if self.signs_trailers:
            text = "".join(f"{name}:{value}\n" for name, value in sorted(signed.items()))
            self._check("TRAILER", hashlib.sha256(text.encode("latin-1")).hexdigest(), trailers[_TRAILER_SIGNATURE])

    def _check(self, kind: str, what: str, signature: str) -> None:
        text = f"AWS4-HMAC-SHA256-{kind}\n{self._signed_for}\n{self._previous}\n{what}"
        expected = hmac.digest(self._key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signature.encode("latin-1", errors="replace")):
            message = (
                f"The {'chunk' if kind == 'PAYLOAD' else 'trailer'} signature we calculated does not match the "
                "signature you provided. Check your AWS Secret Access Key and signing method."
            )
            raise ApiError("SignatureDoesNotMatch", HTTPStatus.FORBIDDEN, message)
        self._previous = expected


class ChunkedDecoder:
    """Decoder for an aws-chunked body.

    Parameters
    ----------
    signatures
        Verifies the chunks; None if they are not signed, or signatures are not checked.

    Attributes
    ----------
    trailers
        The trailers after the content, names in lower case.
    """

    def __init__(self, signatures: ChunkSignatures | None = None) -> None:
        self.trailers: dict[str, str] = {}
        self._signatures = signatures
        self._signature = ""
        self._line = b""
        self._left = 0
        self._in_data = False
        self._in_trailers = False
        self._ended = False
        self._lines_left = _TRAILERS

    def feed(self, data: bytes) -> list[bytes]:
        """Return the decoded content of `data`.

        Raises
        ------
        ApiError
            When the encoding is invalid, or a signature is wrong.
        """
        pieces = []
        position = 0
        while position < len(data) and not self._ended:
            if self._in_data:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
                if self._signatures is not None:
                    self._signatures.update(piece)
                if not self._left:
                    self._end_chunk()
                continue
            end = data.find(b"\n", position)
            self._line += data[position : end if end >= 0 else None]
            if len(self._line) > _LINE_BYTES:
                raise _invalid_encoding(f"expected a line of at most {_LINE_BYTES} bytes")
            if end < 0:
                break
            position = end + 1
            line, self._line = self._line.removesuffix(b"\r"), b""
            self._parse_line(line)
        return pieces

    def finish(self) -> None:
        """Check that the body is complete.

        Raises
        ------
        ApiError
            IncompleteBody when the last chunk is missing; as `ChunkSignatures.end_trailers`.
        """
        if not (self._ended or self._in_trailers):
            raise bad_request("IncompleteBody", "The request body terminated unexpectedly: its last chunk is missing")
        if self._signatures is not None:
            self._signatures.end_trailers(self.trailers)

    def _parse_line(self, line: bytes) -> None:
        if self._in_trailers:
            if not line:
                self._ended = True
                return
            name, colon, value = line.decode("latin-1").partition(":")
            self._lines_left -= 1
            if not colon or self._lines_left < 0:
                raise _invalid_encoding(f"expected at most {_TRAILERS} trailers name:value, got {line[:80]!r}")
            self.trailers[name.strip().lower()] = value.strip()
        elif line:
            size, _, extension = line.decode("latin-1").partition(";")
            try:
                self._left = int(size, 16)
            except ValueError:
                raise _invalid_encoding(f"expected a chunk's size in hex, got {line[:80]!r}") from None
            if self._left < 0:
                raise _invalid_encoding(f"expected a chunk's size from 0, got {self._left}")
            self._signature = extension.strip().removeprefix(_SIGNATURE)
            self._in_data, self._in_trailers = self._left > 0, self._left == 0
            if not self._left:
                self._end_chunk()

    def _end_chunk(self) -> None:
        self._in_data = False
        if self._signatures is not None:
            self._signatures.end_chunk(self._signature)


def _invalid_encoding(what: str) -> Exception:
    return bad_request("InvalidRequest", f"invalid aws-chunked encoding: {what}")
