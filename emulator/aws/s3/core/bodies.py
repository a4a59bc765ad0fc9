"""Bodies of objects: files written once, reference-counted, and removed with the last reference.

Small bodies are stored in the database with their object: creating a file takes longer than the rest of a PutObject.
"""

import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from emulator.aws.disk_reserve import SMALL_WRITE_BYTES, DiskFullError, DiskReserve, is_disk_full, private_opener
from emulator.aws.s3.core.checksums import Checksum, ChecksumAlgorithm, Digests

SMALL_BYTES = 16 * 1024
# Deleting a file takes up to 0.1 ms, and the event loop waits for it; what exceeds this is deleted by a thread.
_DELETED_AT_ONCE = 100
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class FileRange:
    """A range of bytes of a body file.

    Parameters
    ----------
    file
        The file's name: random, so that a key is never part of a path.
    start, size
        Offset and length, bytes.
    """

    file: str
    start: int
    size: int


@dataclass(frozen=True)
class Body:
    """The content of an object or a part.

    Parameters
    ----------
    size
        Size, bytes.
    etag
        MD5 in hex; of a multipart object the MD5 of its parts' MD5s, followed by ``-N``.
    file_ranges
        The ranges that form it, in order. Copies and multipart objects share the files of their sources.
    content
        The content itself if it is small enough to have no file; not set in listings.
    checksum
        The checksum that S3 returns with it, if any.
    """

    size: int
    etag: str
    file_ranges: tuple[FileRange, ...] = ()
    content: bytes = b""
    checksum: Checksum | None = None

    @property
    def files(self) -> set[str]:
        """The names of its files."""
        return {file_range.file for file_range in self.file_ranges}

    def slice(self, start: int, size: int) -> "Body":
        """Return `size` bytes from `start` as a body that shares the files; the range must lie inside."""
        content = self.content[start : start + size]
        found, left = [], size
        for file_range in self.file_ranges:
            within = min(file_range.size - start, left)
            if within > 0:
                found.append(FileRange(file_range.file, file_range.start + start, within))
                left -= within
            start = max(0, start - file_range.size)
        return replace(self, size=size, file_ranges=tuple(found), content=content)


class BodyFolder:
    """The body files and their reference counts.

    A file without a reference is being written, or was left by a killed process.

    Parameters
    ----------
    folder
        Where the files are.
    reserve
        Space for small files on a full disk.
    """

    def __init__(self, folder: Path, reserve: DiskReserve) -> None:
        self._reserve = reserve
        # A string: on the path of every request, pathlib takes longer than the system call.
        self._folder = str(folder)
        self._references: Counter[str] = Counter()
        self._deleting = ThreadPoolExecutor(1, "deleted-bodies")

    def path(self, file: str) -> str:
        """Return the path of a file."""
        return f"{self._folder}/{file}"

    def writer(self, algorithms: Iterable[ChecksumAlgorithm] = (), small_bytes: int = SMALL_BYTES) -> "BodyWriter":
        """Start a new body; `retain` it when it is finished.

        Parameters
        ----------
        algorithms
            Checksums to compute.
        small_bytes
            Bodies up to this size have no file.
        """
        file = uuid.uuid4().hex
        return BodyWriter(file, self.path(file), algorithms, small_bytes, self._reserve)

    def retain(self, files: Iterable[str]) -> None:
        """Add references to files, one for each mention."""
        self._references.update(files)

    def release(self, files: Iterable[str]) -> None:
        """Remove references from files, one for each mention; delete files without any."""
        unused = []
        for file in files:
            self._references[file] -= 1
            if self._references[file] <= 0:
                del self._references[file]
                unused.append(file)
        # A full disk needs their space at once.
        at_once = len(unused) if self._reserve.missing else _DELETED_AT_ONCE
        self._delete(unused[:at_once])
        if len(unused) > at_once:
            self._deleting.submit(self._delete, unused[at_once:])

    def close(self) -> None:
        """Wait until the files without a reference are deleted."""
        self._deleting.shutdown()

    def _delete(self, files: Iterable[str]) -> None:
        for file in files:
            os.unlink(self.path(file))  # noqa: PTH108 - see __init__

    @contextmanager
    def retained(self, body: Body) -> Iterator[None]:
        """Hold references for the block, so that the files exist even if their object is deleted."""
        files = body.files
        self.retain(files)
        try:
            yield
        finally:
            self.release(files)

    def read(self, body: Body) -> bytes:
        """Return a whole body."""
        return b"".join(self.pieces(body))

    def pieces(self, body: Body) -> Iterator[bytes]:
        """Yield a body in pieces of at most 1 MiB; a small body is one piece."""
        if body.content:
            yield body.content
        for file_range in body.file_ranges:
            with open(self.path(file_range.file), "rb", buffering=0) as opened:  # noqa: PTH123 - see __init__
                opened.seek(file_range.start)
                left = file_range.size
                while left:
                    piece = opened.read(min(left, _PIECE_BYTES))
                    if not piece:
                        raise OSError(f"body file {opened.name} is {left} bytes too short")
                    left -= len(piece)
                    yield piece

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all files, bytes, by name."""
        with os.scandir(self._folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}

    def remove_unreferenced(self) -> None:
        """Delete the files without a reference."""
        self._delete(file for file in self.sizes() if file not in self._references)


class BodyWriter:
    """Writes and hashes a body.

    Parameters
    ----------
    file, path
        The new file's name and path.
    algorithms
        Checksums to compute.
    small_bytes
        Bodies up to this size have no file.
    reserve
        Space for small files on a full disk.
    """

    def __init__(
        self,
        file: str,
        path: str,
        algorithms: Iterable[ChecksumAlgorithm],
        small_bytes: int,
        reserve: DiskReserve,
    ) -> None:
        self._reserve = reserve
        self._name = file
        self._path = path
        self._small_bytes = small_bytes
        self._small = b""
        self._file: FileIO | None = None
        self.digests = Digests(algorithms)

    def write(self, pieces: Sequence[bytes]) -> None:
        """Append to the body. Blocks; large pieces are hashed and written without the interpreter lock.

        Raises
        ------
        DiskFullError
            When the disk is full.
        """
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.digests.update(data)
        if self._file is None:
            data = self._small + data
            if len(data) <= self._small_bytes:
                self._small = data
                return
            self._file = self._reserve.write(lambda: FileIO(self._path, "x", opener=private_opener))
            self._small = b""
        unwritten = memoryview(data)
        while unwritten:
            unwritten = unwritten[self._write_some(self._file, unwritten) :]

    def _write_some(self, file: FileIO, data: memoryview) -> int:
        if self.digests.size <= SMALL_WRITE_BYTES:
            return self._reserve.write(lambda: file.write(data))
        if not self._reserve.leaves_room(len(data)):
            raise DiskFullError
        try:
            return file.write(data)
        except OSError as error:
            raise (DiskFullError() if is_disk_full(error) else error) from error

    def finish(self, checksum: Checksum | None = None) -> Body:
        """Close the file; return the body, with the checksum to store."""
        etag, size = self.digests.md5().hex(), self.digests.size
        if self._file is None:
            return Body(size, etag, content=self._small, checksum=checksum)
        self._file.close()
        return Body(size, etag, (FileRange(self._name, 0, size),), checksum=checksum)

    def discard(self) -> None:
        """Discard the body and delete its file."""
        if self._file is not None:
            self._file.close()
            with suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108 - see BodyFolder
            self._reserve.refill()
