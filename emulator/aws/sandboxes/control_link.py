"""The endpoint's end of the socket to the zygote: orders go out and reports come in, and neither waits for the other.

While the zygote forks it reads nothing. Waiting for it would stand the endpoint still for as long, and for ever once
its reports had filled the other direction.
"""

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable

from emulator.aws.sandboxes.messages import Decoder, Message, encode

_READ_BYTES = 65536


class ControlLink:
    """Sends and receives messages in the running event loop.

    Parameters
    ----------
    control
        The connected socket, which this takes over.
    on_message
        Gets each message of the zygote's.
    on_closed
        Called once, when the zygote has closed its end or is gone.
    """

    def __init__(
        self, control: socket.socket, on_message: Callable[[Message], None], on_closed: Callable[[], None]
    ) -> None:
        self._control = control
        self._on_message = on_message
        self._on_closed = on_closed
        self._decoder = Decoder()
        self._unsent: deque[tuple[memoryview, int | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self.closed = False
        control.setblocking(False)
        self._loop.add_reader(control, self._receive)

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message as soon as the zygote takes it; the descriptor goes with it and is closed here then."""
        self._unsent.append((memoryview(encode(message)), descriptor))
        if len(self._unsent) == 1:
            self._flush()

    def close(self) -> None:
        """Hang up; what was not sent is dropped."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        for _, descriptor in self._unsent:
            if descriptor is not None:
                os.close(descriptor)
        self._unsent.clear()

    def _flush(self) -> None:
        try:
            while self._unsent:
                data, descriptor = self._unsent[0]
                sent = socket.send_fds(self._control, [data], [] if descriptor is None else [descriptor])
                if descriptor is not None:
                    os.close(descriptor)
                if sent < len(data):
                    self._unsent[0] = data[sent:], None
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._control, self._flush)
        except (BrokenPipeError, ConnectionResetError):
            # The reader is told, after what the zygote said last.
            self._loop.remove_writer(self._control)
        else:
            self._loop.remove_writer(self._control)

    def _receive(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionResetError):
            try:
                data = self._control.recv(_READ_BYTES)
            except BlockingIOError:
                return
        for message in self._decoder.feed(data):
            self._on_message(message)
        if not data and not self.closed:
            self.close()
            self._on_closed()
