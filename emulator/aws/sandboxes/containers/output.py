"""A container's output: the frames of the daemon's stream, and marks that prove that all of it has arrived.

The program writes output to a pipe, and the daemon copies it to a socket. The program's response takes another way and
can arrive first. So a mark is written to the same pipes, behind the program's output, and taken out of the stream
again: when it has arrived, so has all that was written before it.
"""

import asyncio
import os
import secrets
import stat
from collections.abc import Sequence

from emulator.aws.limits import LOG_EVENT_BYTES

_HEADER_BYTES = 8
_MARK_BYTES = 32
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2
# A program may have filled a pipe; the daemon empties it.
_FULL_PAUSE_S = 0.005


class OutputFrames:
    """Decodes the daemon's stream of a container's output: https://docs.docker.com/reference/api/engine/ (attach)."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        self._stream = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the output in the next bytes of the stream: pieces, each with 1 for standard output or 2 for error."""
        pieces = []
        while data:
            if self._left:
                pieces.append((self._stream, data[: self._left]))
                data = data[self._left :]
                self._left -= len(pieces[-1][1])
                continue
            missing = _HEADER_BYTES - len(self._header)
            self._header += data[:missing]
            data = data[missing:]
            if len(self._header) == _HEADER_BYTES:
                self._stream = self._header[0]
                self._left = int.from_bytes(self._header[4:])
                self._header = b""
        return pieces


class MarkedOutput:
    """Takes marks out of the output, wherever the stream is cut."""

    def __init__(self) -> None:
        self._frames = OutputFrames()
        self._marks: set[bytes] = set()
        self._held: dict[int, bytes] = {}

    def expect(self, mark: bytes) -> None:
        """Look for a mark from now on, once."""
        self._marks.add(mark)

    def forget(self, mark: bytes) -> None:
        """Look for a mark no longer."""
        self._marks.discard(mark)

    def feed(self, data: bytes) -> tuple[list[tuple[int, bytes]], set[bytes]]:
        """Return the output in the next bytes of the stream, pieces as of `OutputFrames`, and the marks found there."""
        pieces: list[tuple[int, bytes]] = []
        arrived: set[bytes] = set()
        for stream, piece in self._frames.feed(data):
            text = self._held.pop(stream, b"") + piece
            for mark in [mark for mark in self._marks if mark in text]:
                text = text.replace(mark, b"", 1)
                self._marks.discard(mark)
                arrived.add(mark)
            if held := max((_overlap(text, mark) for mark in self._marks), default=0):
                self._held[stream], text = text[-held:], text[:-held]
            if text:
                pieces.append((stream, text))
        return pieces, arrived

    def end(self) -> list[tuple[int, bytes]]:
        """Return what was held back as the possible beginning of a mark, at the end of the stream."""
        held = list(self._held.items())
        self._held.clear()
        return held


class WholeLines:
    """Joins pieces of output to lines, so that standard output and error do not cut each other's.

    Python, for one, writes a line to an unbuffered stream in several pieces.
    """

    def __init__(self) -> None:
        self._unfinished: dict[int, bytes] = {}

    def feed(self, stream: int, piece: bytes) -> bytes:
        """Return the lines that end in the next piece of a stream; a very long one is returned unfinished."""
        text = self._unfinished.pop(stream, b"") + piece
        end = text.rfind(b"\n") + 1
        if len(text) - end > LOG_EVENT_BYTES:
            return text
        if end < len(text):
            self._unfinished[stream] = text[end:]
        return text[:end]

    def flush(self) -> bytes:
        """Return the unfinished lines."""
        unfinished = b"".join(self._unfinished.values())
        self._unfinished.clear()
        return unfinished


def _overlap(text: bytes, mark: bytes) -> int:
    """Return the length of the longest end of a text that is a beginning of the mark, but not all of it."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:size])), 0)


class OutputPipes:
    """The pipes that a container's first process was started with, where this process may write to them.

    They are held without being open: a reader still finds their end when the container's processes have ended.
    """

    def __init__(self, descriptors: list[int]) -> None:
        self._descriptors = descriptors

    @classmethod
    def of_process(cls, pid: int) -> "OutputPipes | None":
        """Return the pipes of a process; None where they cannot be reached, or are no pipes."""
        found: dict[int, int] = {}
        for number in (_STANDARD_OUTPUT, _STANDARD_ERROR):
            try:
                descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
            except OSError:
                break
            status = os.fstat(descriptor)
            if not stat.S_ISFIFO(status.st_mode) or status.st_ino in found:
                os.close(descriptor)
                if not stat.S_ISFIFO(status.st_mode):
                    break
            else:
                found[status.st_ino] = descriptor
        else:
            return cls(list(found.values()))
        for descriptor in found.values():
            os.close(descriptor)
        return None

    @property
    def descriptors(self) -> Sequence[int]:
        """The pipes, each as a descriptor that refers to it without being one of its ends."""
        return self._descriptors

    async def write(self, descriptor: int, mark: bytes) -> bool:
        """Write a mark behind what is in a pipe; return False if nobody reads it any more."""
        if descriptor not in self._descriptors:
            return False
        try:
            pipe = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            while True:
                try:
                    os.write(pipe, mark)
                except BlockingIOError:
                    await asyncio.sleep(_FULL_PAUSE_S)
                except BrokenPipeError:
                    return False
                else:
                    return True
        finally:
            os.close(pipe)

    def close(self) -> None:
        """Release the pipes."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


def new_mark() -> bytes:
    """Return a mark that no program can guess: shorter than PIPE_BUF, so that it is written whole, see pipe(7)."""
    return secrets.token_hex(_MARK_BYTES // 2).encode()
