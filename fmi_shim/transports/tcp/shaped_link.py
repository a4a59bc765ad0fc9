"""A connection on a slow link: what is sent waits in a queue until the link would have delivered it.

Each rank shapes what it sends, so that each direction is shaped once. The receiving end is a plain socket.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from fmi_shim.injection import LinkFaults
from fmi_shim.link_model import LinkModel

_QUEUE_BYTES = 1 << 20
"""Bytes in flight or waiting, as in a socket's send buffer."""
_PART_BYTES = 1 << 16
"""A large message arrives in parts of this size."""
_FULL_PAUSE_S = 0.002
_CUT_POLL_S = 0.02
_FLUSH_S = 5.0


class ShapedSocket(socket.socket):
    """A TCP connection whose outgoing bytes are delayed.

    `send` and `sendmsg` accept bytes until the queue is full, as a non-blocking socket does. A thread sends each part
    when it is due.

    Parameters
    ----------
    connection
        The connection, which this object takes over.
    faults
        The faults of the link.
    """

    def __init__(self, connection: socket.socket, faults: LinkFaults) -> None:
        super().__init__(fileno=connection.detach())
        self._faults = faults
        self._model = LinkModel(faults.chance)
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued = 0
        self._changed = threading.Condition()
        self._error: OSError | None = None
        self._ends = False
        self._thread = threading.Thread(target=self._deliver, name="shaped-link", daemon=True)
        self._thread.start()

    def send(self, data: Any, flags: int = 0) -> int:
        """Accept bytes, as many as the queue has room for; see `socket.socket.send`."""
        return self.sendmsg([data], (), flags)

    def sendmsg(self, buffers: Iterable[Any], *_: Any) -> int:
        """Accept bytes, as many as the queue has room for; see `socket.socket.sendmsg`."""
        accepted = 0
        with self._changed:
            if self._error is not None:
                raise self._error
            room = _QUEUE_BYTES - self._queued
            for buffer in buffers:
                view = memoryview(buffer).cast("B")[: room - accepted]
                for start in range(0, len(view), _PART_BYTES):
                    self._put(bytes(view[start : start + _PART_BYTES]))
                accepted += len(view)
            self._changed.notify_all()
        if not accepted and room <= 0:
            # The connection itself is writable, so a poll would return at once.
            time.sleep(_FULL_PAUSE_S)
            raise BlockingIOError
        return accepted

    def _put(self, part: bytes) -> None:
        now = time.monotonic()
        self._queue.append((self._model.arrival(now, len(part), self._faults.conditions(now)), part))
        self._queued += len(part)

    def _deliver(self) -> None:
        """Send each part when it is due, until the connection is closed."""
        while True:
            with self._changed:
                while not self._queue:
                    if self._ends:
                        return
                    self._changed.wait()
                due, part = self._queue[0]
                now = time.monotonic()
                if self._faults.is_cut(now):
                    if self._ends:
                        return
                    self._changed.wait(_CUT_POLL_S)
                    continue
                if due > now:
                    self._changed.wait(due - now)
                    continue
            try:
                self._send_all(part)
            except OSError as error:
                self._error = error
                part = b""
            with self._changed:
                if self._error is not None:
                    self._queue.clear()
                    self._queued = 0
                elif self._queue:  # not closed meanwhile
                    self._queue.popleft()
                    self._queued -= len(part)
                self._changed.notify_all()

    def _send_all(self, part: bytes) -> None:
        view = memoryview(part)
        while view:
            view = view[super().send(view) :]

    def shutdown(self, how: int) -> None:
        """Deliver what is queued, unless the link is cut; then see `socket.socket.shutdown`."""
        deadline = time.monotonic() + _FLUSH_S
        with self._changed:
            while self._queue and (left := deadline - time.monotonic()) > 0:
                if self._faults.is_cut_for_ever(time.monotonic()):
                    break
                self._changed.wait(min(left, _CUT_POLL_S))
            self._ends = True
            self._changed.notify_all()
        super().shutdown(how)

    def close(self) -> None:
        """End the thread and close; what is queued is lost."""
        with self._changed:
            self._ends = True
            self._queue.clear()
            self._changed.notify_all()
        # A send that blocks in the kernel returns when the connection is shut down.
        with contextlib.suppress(OSError):
            super().shutdown(socket.SHUT_RDWR)
        if self._thread is not threading.current_thread():
            self._thread.join(_FLUSH_S)
        super().close()


def shaped(connection: socket.socket, faults: LinkFaults | None) -> socket.socket:
    """Return the connection, shaped if its link has faults."""
    return connection if faults is None else ShapedSocket(connection, faults)
