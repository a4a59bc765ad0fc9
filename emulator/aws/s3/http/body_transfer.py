"""Bodies between network and disk: decoded and hashed while they are received, sent without a copy through Python."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from io import FileIO

from aiohttp import web

from emulator.aws.json_requests import whole_number
from emulator.aws.limits import MIB
from emulator.aws.s3.core.bodies import SMALL_BYTES, Body, BodyFolder, BodyWriter
from emulator.aws.s3.core.checksums import Checksum, ChecksumAlgorithm, Digests, is_digest
from emulator.aws.s3.core.errors import bad_request
from emulator.aws.s3.http.chunked_encoding import ChunkedDecoder, ChunkSignatures
from emulator.aws.s3.http.requests import S3Request


class PlainDecoder:
    """Decoder for a body without encoding."""

    def __init__(self) -> None:
        self.trailers: dict[str, str] = {}

    def feed(self, data: bytes) -> list[bytes]:
        """Return the decoded content of `data`."""
        return [data]

    def finish(self) -> None:
        """Check that the body is complete: any end is valid."""


# A single PUT or part: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_BODY_BYTES = 5 * 1024 * MIB
_DOCUMENT_BYTES = 4 * MIB
# Passing a batch to a thread takes 0.1 ms, as long as hashing 64 KiB.
_BATCH_BYTES = MIB
_INLINE_BYTES = 128 * 1024
# AWS, too, times out when a client stops sending.
_STALLED_S = 60.0


_ALGORITHMS = {algorithm.header: algorithm for algorithm in ChecksumAlgorithm}
_CHECKSUM = "x-amz-checksum-"
_ABOUT_CHECKSUMS = ("x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type")


# The SHA-256 of a body in hex, as signed, where signatures are checked.
SIGNED_SHA256 = web.RequestKey("signed_sha256", str)
# What verifies the chunks of a body whose chunks are signed, where signatures are checked.
CHUNK_SIGNATURES = web.RequestKey("chunk_signatures", ChunkSignatures)


def check_signed_sha256(request: S3Request, digest: bytes) -> None:
    """Compare a body's SHA-256 with the signed one, if there is one.

    Raises
    ------
    ApiError
        XAmzContentSHA256Mismatch.
    """
    if request.http.get(SIGNED_SHA256, digest.hex()) != digest.hex():
        message = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise bad_request("XAmzContentSHA256Mismatch", message)


class BodyTransfer:
    """Receives and sends bodies.

    Parameters
    ----------
    bodies
        The body files.
    threads
        Threads that hash and write large bodies.
    """

    def __init__(self, bodies: BodyFolder, threads: ThreadPoolExecutor) -> None:
        self._bodies = bodies
        self._threads = threads

    @asynccontextmanager
    async def receive(
        self, request: S3Request, wanted: ChecksumAlgorithm | None = None, small_bytes: int = SMALL_BYTES
    ) -> AsyncIterator[Body]:
        """Receive, verify and store a request's body; the block holds a reference to its file.

        Parameters
        ----------
        request
            The request.
        wanted
            The checksum to compute if the request has none; a request with another one is an error.
        small_bytes
            Bodies up to this size have no file.

        Raises
        ------
        ApiError
            When length, Content-MD5, checksum or signatures do not match, or the body is too large.
        """
        sent = _checksum_algorithm(request)
        if sent and wanted and sent is not wanted:
            message = (
                f"Checksum Type mismatch occurred, expected checksum Type: {wanted.value.lower()}, "
                f"actual checksum Type: {sent.value.lower()}"
            )
            raise bad_request("InvalidRequest", message)
        algorithm = sent or wanted
        signed = [ChecksumAlgorithm.SHA256] if SIGNED_SHA256 in request.http else []
        writer = self._bodies.writer([*([algorithm] if algorithm else []), *signed], small_bytes)
        try:
            trailers = await self._write_body(request, writer)
            checksum = writer.digests.checksum(algorithm) if algorithm else None
            _verify(request, trailers, writer.digests, checksum)
            body = writer.finish(checksum)
        except BaseException:
            writer.discard()
            raise
        with self._bodies.retained(body):
            yield body

    async def copy_by_reference(self, source: Body, algorithm: ChecksumAlgorithm | None) -> Body:
        """Return a new body that shares the files of `source`; they are read for the checksums, not copied."""
        algorithms = [algorithm] if algorithm else []
        if source.content:
            writer = self._bodies.writer(algorithms, small_bytes=0)
            writer.write([source.content])
            return writer.finish(algorithm and writer.digests.checksum(algorithm))
        digests = await self._digests(source, algorithms)
        checksum = algorithm and digests.checksum(algorithm)
        return Body(source.size, digests.md5().hex(), source.file_ranges, checksum=checksum)

    async def checksum(self, body: Body, algorithm: ChecksumAlgorithm) -> Checksum:
        """Return the checksum of a stored body, which is read for it."""
        return (await self._digests(body, [algorithm])).checksum(algorithm)

    async def _digests(self, body: Body, algorithms: list[ChecksumAlgorithm]) -> Digests:
        loop = asyncio.get_running_loop()
        digests = Digests(algorithms)
        for piece in self._bodies.pieces(body):
            await loop.run_in_executor(self._threads, digests.update, piece)
        return digests

    async def read_document(self, request: S3Request, *, with_checksum: bool = True) -> bytes:
        """Receive a small body, such as an XML document, as a whole.

        Parameters
        ----------
        request
            The request.
        with_checksum
            Whether the request's checksum headers are those of the body.

        Raises
        ------
        ApiError
            As `receive`.
        """
        body = bytearray()
        algorithm = _checksum_algorithm(request) if with_checksum else None
        signed = [ChecksumAlgorithm.SHA256] if SIGNED_SHA256 in request.http else []
        digests = Digests([*([algorithm] if algorithm else []), *signed])
        decoder = _decoder(request)
        async for chunk in request.http.content.iter_any():
            for piece in decoder.feed(chunk):
                body += piece
            if len(body) > _DOCUMENT_BYTES:
                raise bad_request(
                    "MaxMessageLengthExceeded", f"Your request was too big: more than {_DOCUMENT_BYTES} bytes"
                )
        decoder.finish()
        digests.update(body)
        _verify(request, decoder.trailers, digests, digests.checksum(algorithm) if algorithm else None)
        return bytes(body)

    async def send(
        self, request: web.BaseRequest, status: HTTPStatus, headers: Mapping[str, str], body: Body
    ) -> web.StreamResponse:
        """Respond with a body; large ones are sent by sendfile."""
        if body.size <= _INLINE_BYTES:
            return web.Response(status=status, headers=headers, body=self._bodies.read(body))
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = body.size
        with self._bodies.retained(body):
            await response.prepare(request)
            for file_range in body.file_ranges:
                transport = request.transport
                if transport is None:
                    raise ConnectionResetError("the client closed the connection")
                # Opening an existing local file does not block noticeably.
                with FileIO(self._bodies.path(file_range.file)) as opened:
                    await asyncio.get_running_loop().sendfile(transport, opened, file_range.start, file_range.size)
            await response.write_eof()
        return response

    async def _write_body(self, request: S3Request, writer: BodyWriter) -> Mapping[str, str]:
        """Decode and write a body while it is received; return its trailers."""
        loop = asyncio.get_running_loop()
        decoder = _decoder(request)
        writing: asyncio.Future[None] | None = None
        batch: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_STALLED_S) as timeout:
                async for chunk in request.http.content.iter_any():
                    timeout.reschedule(loop.time() + _STALLED_S)
                    pieces = decoder.feed(chunk)
                    batch += pieces
                    size += sum(map(len, pieces))
                    if size < _BATCH_BYTES:
                        continue
                    if writer.digests.size + size > _BODY_BYTES:
                        raise bad_request("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
                    if writing is not None:
                        await writing
                    writing = loop.run_in_executor(self._threads, writer.write, batch)
                    batch, size = [], 0
                decoder.finish()
            if writing is not None:
                await writing
            if size > _INLINE_BYTES:
                writing = loop.run_in_executor(self._threads, writer.write, batch)
                await writing
            elif size:
                writer.write(batch)
        except TimeoutError:
            message = "Your socket connection to the server was not read from or written to within the timeout period."
            raise bad_request("RequestTimeout", message) from None
        finally:
            # The caller may close the file only when no thread writes to it.
            if writing is not None and not writing.done():
                await asyncio.wait([writing])
        return decoder.trailers


def _decoder(request: S3Request) -> PlainDecoder | ChunkedDecoder:
    signatures = request.http.get(CHUNK_SIGNATURES)
    chunked = (
        signatures is not None
        or request.header("x-amz-content-sha256").startswith("STREAMING-")
        or ("aws-chunked" in request.header("Content-Encoding"))
    )
    return ChunkedDecoder(signatures) if chunked else PlainDecoder()


def _checksum_algorithm(request: S3Request) -> ChecksumAlgorithm | None:
    """Return the algorithm of a request's checksum header, or else of its trailer or algorithm header.

    Headers alone count: as on AWS, what a presigned URL says about checksums is ignored. The JavaScript SDK signs the
    checksum of an empty body into every URL for an upload.

    Raises
    ------
    ApiError
        InvalidRequest for a checksum that cannot be checked.
    """
    headers = request.http.headers
    sent = checksums_of(headers)
    trailer = headers.get("x-amz-trailer", "").strip().lower()
    if trailer and trailer not in _ALGORITHMS:
        message = f"The value specified in the x-amz-trailer header is not supported: {trailer:.80}"
        raise bad_request("InvalidRequest", message)
    for checksum in sent:
        if not is_digest(checksum.algorithm, checksum.value):
            raise bad_request("InvalidRequest", f"Value for {checksum.algorithm.header} header is invalid.")
    algorithms = [*(checksum.algorithm for checksum in sent), *([_ALGORITHMS[trailer]] if trailer else [])]
    if len(algorithms) > 1:
        message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        raise bad_request("InvalidRequest", message)
    named = headers.get("x-amz-sdk-checksum-algorithm", "").upper()
    if not named:
        return algorithms[0] if algorithms else None
    found = next((algorithm for algorithm in ChecksumAlgorithm if algorithm.value == named), None)
    if found is None or algorithms not in ([], [found]):
        raise bad_request("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    return found


def checksums_of(headers: Mapping[str, str]) -> list[Checksum]:
    """Return the checksums in the headers of a request.

    Raises
    ------
    ApiError
        InvalidRequest for an algorithm that is not emulated.
    """
    found = []
    for name, value in headers.items():
        lower = name.lower()
        if lower in _ALGORITHMS:
            found.append(Checksum(_ALGORITHMS[lower], value.strip()))
        elif lower.startswith(_CHECKSUM) and lower not in _ABOUT_CHECKSUMS:
            message = f"The algorithm type you specified in x-amz-checksum- header is invalid: {lower:.80}"
            raise bad_request("InvalidRequest", message)
    return found


def _verify(request: S3Request, trailers: Mapping[str, str], digests: Digests, checksum: Checksum | None) -> None:
    """Check a body against its announced length, Content-MD5 and checksum."""
    if SIGNED_SHA256 in request.http:
        check_signed_sha256(request, base64.b64decode(digests.checksum(ChecksumAlgorithm.SHA256).value))
    headers = request.http.headers
    length = headers.get("x-amz-decoded-content-length", "")
    if length and whole_number(length) != digests.size:
        message = f"You did not provide the number of bytes specified: expected {length:.80}, got {digests.size}"
        raise bad_request("IncompleteBody", message)
    promised = headers.get("x-amz-trailer", "").strip().lower()
    if {name for name in trailers if name.startswith(_CHECKSUM)} != ({promised} if promised else set()):
        message = (
            "The request contained trailing data that was not well-formed or did not conform to our published schema: "
            f"expected the trailer {promised or 'of no checksum'}, got {', '.join(trailers) or 'none'}"
        )
        raise bad_request("MalformedTrailerError", message)
    if md5 := headers.get("Content-MD5"):
        try:
            expected = base64.b64decode(md5, validate=True)
        except ValueError:
            expected = b""
        if len(expected) != len(digests.md5()):
            raise bad_request("InvalidDigest", "The Content-MD5 you specified is not valid.")
        if expected != digests.md5():
            raise bad_request("BadDigest", "The Content-MD5 you specified did not match what we received.")
    if checksum is not None:
        header = checksum.algorithm.header
        sent = headers.get(header, "").strip() or trailers.get(header, checksum.value)
        if sent != checksum.value:
            message = f"The {checksum.algorithm.value} you specified did not match the calculated checksum."
            raise bad_request("BadDigest", message)
