"""Objects' bodies: files written once, shared by whoever refers to them, and removed with the last of those.

Small ones are no files, they lie in the database with their object: making a file takes longer than all the rest.
"""

import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from emulator.aws.s3.core.checksums import Checksum, ChecksumAlgorithm, Digests

SMALL_BYTES = 16 * 1024
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class FileRange:
    """A stretch of a body file.

    Parameters
    ----------
    file
        The file's name: random, so that no key is ever part of a path.
    start, size
        Where it lies in the file, bytes.
    """

    file: str
    start: int
    size: int


@dataclass(frozen=True)
class Body:
    """An object's or a part's content.

    Parameters
    ----------
    size
        Its size, bytes.
    etag
        MD5 in hex; a multipart object's is the MD5 of its parts' MD5s and ends in ``-N``.
    file_ranges
        Where it lies, in order. Copies and multipart objects share the files of what they were made from.
    content
        The content itself when it lies in no file; listings leave it out.
    checksum
        What S3 shows besides, if anything.
    """

    size: int
    etag: str
    file_ranges: tuple[FileRange, ...] = ()
    content: bytes = b""
    checksum: Checksum | None = None

    def slice(self, start: int, size: int) -> "Body":
        """Return a part of it, from a byte on and so many bytes long; it must lie within."""
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
    """The body files.

    A file without a holder is no body: it is one being written, or what a killed process left behind.

    Parameters
    ----------
    folder
        Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        # A text: this is the path of every request, and pathlib takes longer than the system call.
        self._folder = str(folder)
        self._references: Counter[str] = Counter()

    def path(self, file: str) -> str:
        """Return where a file lies."""
        return f"{self._folder}/{file}"

    def writer(self, algorithms: Iterable[ChecksumAlgorithm] = (), small_bytes: int = SMALL_BYTES) -> "BodyWriter":
        """Begin a new body; hold it once it is finished.

        Parameters
        ----------
        algorithms
            Checksums to compute.
        small_bytes
            The largest body that gets no file.
        """
        file = uuid.uuid4().hex
        return BodyWriter(file, self.path(file), algorithms, small_bytes)

    def retain(self, file_ranges: Iterable[FileRange]) -> None:
        """Keep the file_ranges' files for one more holder."""
        self._references.update({file_range.file for file_range in file_ranges})

    def release(self, file_ranges: Iterable[FileRange]) -> None:
        """Let a holder go; files without any are removed."""
        for file in {file_range.file for file_range in file_ranges}:
            self._references[file] -= 1
            if self._references[file] <= 0:
                del self._references[file]
                os.unlink(self.path(file))  # noqa: PTH108 - see __init__

    @contextmanager
    def retained(self, file_ranges: Sequence[FileRange]) -> Iterator[None]:
        """Keep the file_ranges' files for as long as they are read, whatever happens to their object."""
        self.retain(file_ranges)
        try:
            yield
        finally:
            self.release(file_ranges)

    def read(self, body: Body) -> bytes:
        """Return a body as a whole."""
        return b"".join(self.pieces(body))

    def pieces(self, body: Body) -> Iterator[bytes]:
        """Return a body piece by piece."""
        if body.content:
            yield body.content
        for file_range in body.file_ranges:
            with open(self.path(file_range.file), "rb", buffering=0) as opened:  # noqa: PTH123 - see __init__
                opened.seek(file_range.start)
                left = file_range.size
                while left:
                    piece = opened.read(min(left, _PIECE_BYTES))
                    if not piece:
                        raise OSError(f"the body file {opened.name} ends {left} bytes early")
                    left -= len(piece)
                    yield piece

    def sizes(self) -> dict[str, int]:
        """Return all files' sizes, bytes, by name."""
        with os.scandir(self._folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}

    def remove_unreferenced(self) -> None:
        """Remove the files without a holder."""
        for file in self.sizes():
            if file not in self._references:
                os.unlink(self.path(file))  # noqa: PTH108 - see __init__


class BodyWriter:
    """A body being written and hashed.

    Parameters
    ----------
    file, path
        The new file's name and where it lies.
    algorithms
        Checksums to compute.
    small_bytes
        The largest body that gets no file.
    """

    def __init__(self, file: str, path: str, algorithms: Iterable[ChecksumAlgorithm], small_bytes: int) -> None:
        self._name = file
        self._path = path
        self._small_bytes = small_bytes
        self._small = b""
        self._file: FileIO | None = None
        self.digests = Digests(algorithms)

    def write(self, pieces: Sequence[bytes]) -> None:
        """Append to the body; it blocks, without the interpreter's lock for all that is large."""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.digests.update(data)
        if self._file is None:
            data = self._small + data
            if len(data) <= self._small_bytes:
                self._small = data
                return
            self._file = FileIO(self._path, "x")
            self._small = b""
        unwritten = memoryview(data)
        while unwritten:
            unwritten = unwritten[self._file.write(unwritten) :]

    def finish(self, checksum: Checksum | None = None) -> Body:
        """Close the file; return the body with the checksum that its object shall show."""
        etag, size = self.digests.md5().hex(), self.digests.size
        if self._file is None:
            return Body(size, etag, content=self._small, checksum=checksum)
        self._file.close()
        return Body(size, etag, (FileRange(self._name, 0, size),), checksum=checksum)

    def discard(self) -> None:
        """Give the body up and remove its file."""
        if self._file is not None:
            self._file.close()
            with suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108 - see BodyFolder
