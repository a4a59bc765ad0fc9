"""A text stream that never blocks an event loop: a thread writes, and lines beyond its queue are counted."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable
from typing import TextIO

_MOST_WAITING = 10_000
_CLOSE_S = 2.0


class NonBlockingStream(io.TextIOBase):
    """Standard error for a program with an event loop: a reader that does not read must not stop the program.

    What a thread writes is queued when it ends a line, since ``print`` writes a text and its end in two calls: nothing
    of other threads comes between the lines of one text. A text without an end of line is queued by `flush`.

    Parameters
    ----------
    stream
        The stream that a thread writes to.
    may_block
        Returns whether the calling thread may wait for the reader.
    """

    def __init__(self, stream: TextIO, may_block: Callable[[], bool]) -> None:
        self._stream = stream
        self._may_block = may_block
        self._waiting: queue.Queue[str | None] = queue.Queue(_MOST_WAITING)
        self._begun: dict[int, str] = {}
        self._lost = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._write_all, name="stderr", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue a text that ends a line; if the queue is full, wait where the thread may, or else drop them."""
        thread = threading.get_ident()
        with self._lock:
            begun = self._begun.pop(thread, "") + text
            if begun and not begun.endswith("\n"):
                self._begun[thread] = begun
                return len(text)
        if begun:
            self._queue(begun)
        return len(text)

    def flush(self) -> None:
        """Queue what this thread has written, and wait until all is written, where the thread may."""
        with self._lock:
            begun = self._begun.pop(threading.get_ident(), "")
        if begun:
            self._queue(begun)
        if self._may_block() and self._thread.is_alive():
            self._waiting.join()

    def _queue(self, text: str) -> None:
        if self._may_block():
            self._waiting.put(text)
            return
        try:
            self._waiting.put_nowait(text)
        except queue.Full:
            with self._lock:
                self._lost += len(text.splitlines())

    def stop_waiting(self) -> None:
        """Have no thread wait from now on, as at the end of the program."""
        self._may_block = lambda: False

    def close(self) -> None:
        """Write what is queued, for at most 2 s."""
        self._may_block = lambda: False
        with self._lock:
            begun, self._begun = self._begun, {}
        for text in begun.values():
            self._queue(text)
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=_CLOSE_S)
            except queue.Full:
                return
            self._thread.join(_CLOSE_S)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self._stream.encoding

    def _write_all(self) -> None:
        in_line = False
        while True:
            text = self._waiting.get()
            try:
                if text is not None:
                    self._stream.write(text)
                    self._stream.flush()
                    in_line = not text.endswith("\n")
                if text is None or (self._waiting.empty() and not in_line):
                    self._write_number_of_lost_lines("\n" if in_line else "")
            except (OSError, ValueError):
                # Nobody reads any more: as with other programs, the rest is lost.
                pass
            finally:
                self._waiting.task_done()
            if text is None:
                return

    def _write_number_of_lost_lines(self, end_of_line: str) -> None:
        with self._lock:
            lost, self._lost = self._lost, 0
        if lost:
            self._stream.write(f"{end_of_line}{lost} lines are missing here: standard error was not read in time\n")
            self._stream.flush()
