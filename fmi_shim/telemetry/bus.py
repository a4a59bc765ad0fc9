"""A rank's connection to the emulator over ZeroMQ: events go out, commands come in. Nothing here blocks the rank.

Events are pushed over a PUSH socket, which refuses what does not fit into its queue, so that a drop is known and
counted. Commands come over a DEALER socket, whose identity is the rank. Both are encrypted, and authenticate both ends
(CURVE). The context is made when the first communicator is opened, after any fork.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from time import monotonic_ns
from types import FrameType

from fmi_shim.errors import ConfigError
from fmi_shim.faults import FaultError
from fmi_shim.injection import strike_now
from fmi_shim.telemetry.events import Command, EventError, Message, Stacks, decode_command, encode
from fmi_shim.telemetry.recording import Recorder, frame_line

try:
    import zmq
except ImportError as error:
    raise ConfigError(
        f"FMI_TELEMETRY=bus needs pyzmq, which cannot be imported ({error}): install it, or set FMI_TELEMETRY=log"
    ) from None

_KEY_CHARACTERS = 40
_QUEUED_MESSAGES = 1000
"""Messages that wait for a slow reader, up to 100 KB each; beyond it they are refused."""
_PERIOD_MS = 250
"""What the thread does takes up to half a millisecond, however few the calls: less often would show less."""
_LINGER_MS = 500
"""The end of a process waits so long for what is not yet sent."""
_MOST_FRAMES = 60


@dataclass(frozen=True, slots=True)
class BusAddress:
    """Where the emulator is, and the keys of the run.

    Attributes
    ----------
    events, commands
        The ZeroMQ endpoints that the rank connects to.
    server_key
        The emulator's public key, Z85.
    client_key, client_secret
        The key pair of the ranks, Z85.
    """

    events: str
    commands: str
    server_key: str
    client_key: str
    client_secret: str

    def __str__(self) -> str:
        return " ".join((self.events, self.commands, self.server_key, self.client_key, self.client_secret))

    @staticmethod
    def parse(text: str) -> BusAddress:
        """Parse what `str` returns.

        Raises
        ------
        ConfigError
            If it is invalid. The message has no key.
        """
        parts = text.split()
        valid = len(parts) == 5 and all(part.startswith("tcp://") for part in parts[:2])
        if not valid or any(len(key) != _KEY_CHARACTERS for key in parts[2:]):
            raise ConfigError(
                "environment: invalid FMI_TELEMETRY_BUS: expected two tcp:// addresses and three keys, as the emulator "
                "sets it: run the program with fmirun, or set FMI_TELEMETRY=log"
            )
        return BusAddress(*parts)


def rank_identity(job: str, rank: int) -> bytes:
    """Return the identity under which a rank of a run receives commands."""
    return f"{job[:200]}/{rank}".encode()


def connect(recorder: Recorder, address: str) -> None:
    """Send the recorder's events to the emulator at this address, and follow its commands, until it is closed.

    Raises
    ------
    ConfigError
        If the address is invalid.
    """
    bus = Bus(BusAddress.parse(address), recorder)
    recorder.sinks.append(bus)
    recorder.has_thread = True
    recorder.on_close(bus)


class Bus:
    """The sockets, and the thread that passes on events and follows commands. Implements `Sink`."""

    def __init__(self, address: BusAddress, recorder: Recorder) -> None:
        self._recorder = recorder
        self._context = zmq.Context()
        self._push = self._socket(zmq.PUSH, address)
        self._push.setsockopt(zmq.SNDHWM, _QUEUED_MESSAGES)
        self._push.connect(address.events)
        self._commands = self._socket(zmq.DEALER, address)
        self._commands.setsockopt(zmq.IDENTITY, rank_identity(recorder.job, recorder.rank))
        self._commands.connect(address.commands)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fmi telemetry", daemon=True)
        self._thread.start()

    def _socket(self, kind: int, address: BusAddress) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        socket.setsockopt_string(zmq.CURVE_SERVERKEY, address.server_key)
        socket.setsockopt_string(zmq.CURVE_PUBLICKEY, address.client_key)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, address.client_secret)
        return socket

    def take(self, message: Message) -> bool:
        """Send a message unless the queue is full. The recorder calls this from one thread at a time."""
        try:
            self._push.send(encode(message), zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def finish(self) -> None:
        """Do nothing: messages are sent at once."""

    def close(self) -> None:
        """End the thread, and wait for a moment until everything is sent."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:  # garbage may be collected in any thread
            self._thread.join()
        self._context.destroy(linger=_LINGER_MS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._commands.poll(_PERIOD_MS):
                self._follow(self._commands.recv())
            self._recorder.tick()

    def _follow(self, data: bytes) -> None:
        """Follow a command; one that is invalid is reported as an event, and ends nothing."""
        try:
            command = decode_command(data)
            if command.action == "stacks":
                self._recorder.add(Stacks(monotonic_ns(), command.request, stacks()))
            elif command.action == "fault":
                self._strike(command)
        except (EventError, FaultError) as error:
            self._recorder.failed(0, error, None)

    def _strike(self, command: Command) -> None:
        self._recorder.flush()
        strike_now(self._recorder.rank, self._recorder.size, command.text)


def stacks() -> tuple[tuple[str, ...], ...]:
    """Return the stacks of the threads of this process but this one, the main thread's first, outermost frame first."""
    frames = sys._current_frames()  # noqa: SLF001 - the documented way
    main = threading.main_thread().ident
    order = sorted(frames, key=lambda ident: ident != main)
    return tuple(_stack(frames[ident]) for ident in order if ident != threading.get_ident())


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    lines: list[str] = []
    while frame is not None and len(lines) < _MOST_FRAMES:
        lines.append(frame_line(frame))
        frame = frame.f_back
    return tuple(reversed(lines))
