"""One run of a world: forks or starts its ranks, waits until all have ended, and has what they returned."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import selectors
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

from emulator.testing.errors import (
    HUNG,
    DebuggedWorldError,
    RankFailure,
    WorldError,
    WorldTimeoutError,
    WorldUsageError,
    by_cause,
)
from emulator.testing.rank_process import (
    LENGTH_BYTES,
    STACKS_SIGNAL,
    DebugEnd,
    DebuggerType,
    DebugRequest,
    Descriptors,
    Format,
    RankJob,
    RankReport,
    become_rank,
    format_with_locals,
)
from emulator.testing.rendezvous_process import RendezvousProcess
from fmi_shim.faults import Action, Fault

_GRACE_S = 3.0
"""After the first failure, the other ranks have this long to detect it and raise their own errors."""
_POLL_S = 0.1
_STACKS_S = 1.0
_READ_BYTES = 1 << 20
_SPAWNED_RANK = "emulator.testing.spawned_rank"
_HARNESS_FRAME = re.compile(r'^  File ".*rank_process\.py", line \d+ in _run$')
_STACK_LINE = re.compile(r'^  File "([^"]+)", line (\d+) in (\S+)')


@dataclass(frozen=True)
class Presentation:
    """How a world shows its ranks to the user of the process that forks them.

    Attributes
    ----------
    format
        Renders the traceback of a rank's exception, in the rank.
    debugger
        Makes the debugger of a ``breakpoint()`` in a rank; None for no debugger.
    post_mortem
        Whether a rank that fails stops in the debugger.
    terminal
        The standard descriptors that the debugger uses, 0, 1 and 2 of the command.
    lend_terminal
        Is entered while a rank uses the terminal.
    on_quit
        Is called when the user quits the debugger; raises what ends the session.
    on_output
        Is called with a rank and lines that it wrote, while it runs; None to collect the output only.
    """

    format: Format = format_with_locals
    debugger: DebuggerType | None = None
    post_mortem: bool = False
    terminal: tuple[int, ...] = ()
    lend_terminal: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    on_quit: Callable[[], NoReturn] = lambda: _interrupt()
    on_output: Callable[[int, str], None] | None = None


PLAIN = Presentation()


@dataclass(eq=False)
class _Rank:
    """A forked rank, as its parent sees it."""

    rank: int
    pid: int
    link: socket.socket
    output: FileIO
    stacks: FileIO
    received: bytearray = field(default_factory=bytearray)
    report: RankReport | None = None
    failure: RankFailure | None = None
    status: int | None = None
    shown: int = 0
    has_closed: bool = False

    def receive(self) -> list[object]:
        """Read what has arrived and return the complete messages."""
        try:
            data = self.link.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except ConnectionError:
            data = b""
        self.has_closed = not data
        self.received += data
        messages: list[object] = []
        while len(self.received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self.received[:LENGTH_BYTES], "little")
            if len(self.received) < end:
                break
            # Written by a fork of this process, on a socket that no other process has.
            messages.append(pickle.loads(memoryview(self.received)[LENGTH_BYTES:end]))  # noqa: S301
            del self.received[:end]
        return messages

    def reap(self) -> bool:
        """Return whether the process has ended; then no process of its group remains."""
        if self.status is not None:
            return True
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        # Its number cannot be another process's before it is waited for.
        self.kill()
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return True

    def kill(self) -> None:
        """Kill the process and those that it has started."""
        for kill in (os.killpg, os.kill):  # before its first instructions it has no group of its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)

    def text(self) -> str:
        """Return what it has written so far."""
        self.output.seek(0)
        return self.output.readall().decode(errors="replace")

    def close(self) -> None:
        """Release the descriptors."""
        self.link.close()
        self.output.close()
        self.stacks.close()


class Run:
    """One call of a world: its ranks from the first fork to the last exit."""

    def __init__(self, size: int, presentation: Presentation, faults: str, spawns: bool) -> None:
        self._size = size
        self._spawns = spawns
        self._faults = faults
        self._events: list[tuple[float, Callable[[], None]]] = []
        self._presentation = presentation
        self._ranks: list[_Rank] = []
        self._was_debugged = False
        self._selector = selectors.DefaultSelector()

    def plan_server_fault(self, fault: Fault, server: RendezvousProcess) -> None:
        """Have the rendezvous server end, and perhaps start again, at the fault's time from now."""
        at = time.monotonic() + (0.0 if fault.moment is None else fault.moment.seconds or 0.0)
        self._events.append((at, server.kill))
        if fault.action is Action.RESTART_SERVER:
            self._events.append((at + (fault.lasts or 0.0), server.restart))
        self._events.sort(key=lambda event: event[0])

    def start(self, job: RankJob) -> None:
        """Start a rank.

        Raises
        ------
        WorldUsageError
            If the machine has no room for it, or its function cannot be carried over to a new process.
        """
        try:
            self._start(job)
        except (OSError, MemoryError) as error:
            raise WorldUsageError(
                f"a world of {self._size} ranks is too large for this machine: rank {job.rank} cannot be started: "
                f"{error}: use fewer ranks"
            ) from None

    def _start(self, job: RankJob) -> None:
        with contextlib.ExitStack() as opened:
            ours, theirs = socket.socketpair()
            opened.callback(ours.close)
            files = [FileIO(_anonymous_file(), "r+") for _ in range(2)]
            for file in files:
                opened.callback(file.close)
            output, stacks = files
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            parent = os.getpid()
            descriptors = Descriptors(theirs, output.fileno(), stacks.fileno(), self._presentation.terminal)
            # Ctrl-C is handled when the rank is known, so that it is ended with the others.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                with theirs:
                    pid = _spawned(job, descriptors, parent) if self._spawns else _forked(job, descriptors, parent)
                ours.setblocking(False)
                rank = _Rank(job.rank, pid, ours, output, stacks)
                self._ranks.append(rank)
                self._selector.register(ours, selectors.EVENT_READ, rank)
                opened.pop_all()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def values(self, limit_s: float) -> list[Any]:
        """Wait until all ranks have ended and return their values; see `World.__call__`."""
        deadline = time.monotonic() + limit_s
        try:
            in_time = self._wait(deadline)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # Another time limit, such as pytest-timeout's, is over.
            self._dump_stacks(self._running)
            for rank in self._running:
                print(f"rank {rank.rank} is in:\n{_stacks(rank)}", file=sys.stderr)
            raise
        failures = [rank.failure for rank in self._ranks if rank.failure is not None]
        if failures:
            ordered = by_cause(failures)
            output = [rank.text() for rank in self._ranks]
            error: WorldError
            if self._was_debugged:
                error = DebuggedWorldError(self._size, ordered, output, self._faults)
            elif in_time:
                error = WorldError(self._size, ordered, output, self._faults)
            else:
                error = WorldTimeoutError(self._size, ordered, output, self._faults, limit_s)
            raise error from ordered[0].error
        for rank in self._ranks:
            if rank.report is not None and rank.report.skipped is not None:
                _skip(rank.report.skipped)
        return [self._value(rank) for rank in self._ranks]

    def _value(self, rank: _Rank) -> Any:
        assert rank.report is not None  # noqa: S101 - a rank without a report has failed
        try:
            return pickle.loads(rank.report.value)  # noqa: S301 - see `_Rank.receive`
        except Exception as error:
            message = f"rank {rank.rank} returned a value that cannot be unpickled: {error}: return plain values"
            failure = RankFailure(
                rank.rank, type(error).__name__, message, False, None, message, "", 0, time.monotonic(), error
            )
            raise WorldError(self._size, [failure], [known.text() for known in self._ranks], self._faults) from error

    @property
    def _running(self) -> list[_Rank]:
        return [rank for rank in self._ranks if rank.status is None]

    def _wait(self, deadline: float) -> bool:
        """Wait until all ranks have ended; return whether that was within the time limit."""
        grace = float("inf")
        while running := self._running:
            now = time.monotonic()
            if now >= min(deadline, grace):
                self._give_up(running, is_grace=grace < deadline)
                return grace < deadline
            while self._events and self._events[0][0] <= now:
                self._events.pop(0)[1]()
            next_event = self._events[0][0] if self._events else now + _POLL_S
            for key, _ in self._selector.select(max(0.0, min(_POLL_S, min(deadline, grace, next_event) - now))):
                began = time.monotonic()
                if self._receive(key.data):  # a user's time at the debugger is nobody's
                    deadline += time.monotonic() - began
            self._show_output()
            for rank in running:
                if rank.reap():
                    self._ended(rank)
            if grace == float("inf") and any(rank.failure for rank in self._ranks):
                grace = time.monotonic() + _GRACE_S
        return True

    def _receive(self, rank: _Rank) -> bool:
        """Process the messages of a rank; return whether it used the terminal."""
        debugged = False
        messages = rank.receive()
        for message in messages:
            if isinstance(message, RankReport):
                self._set_report(rank, message)
            elif isinstance(message, DebugRequest):
                self._lend_terminal(rank)
                debugged = True
        if rank.has_closed:
            self._selector.unregister(rank.link)
            # Closed by its exit: it can be waited for at once.
            os.waitid(os.P_PID, rank.pid, os.WEXITED | os.WNOWAIT)
        return debugged

    def _set_report(self, rank: _Rank, report: RankReport) -> None:
        rank.report = report
        rank.failure = report.failure

    def _ended(self, rank: _Rank) -> None:
        """Record that a rank has ended; an end without a report is a failure."""
        if not rank.has_closed:
            while messages := rank.receive():
                for message in messages:
                    if isinstance(message, RankReport):
                        self._set_report(rank, message)
            self._selector.unregister(rank.link)
        if rank.report is None and rank.failure is None:
            rank.failure = _death(rank)

    def _give_up(self, running: list[_Rank], is_grace: bool) -> None:
        """Kill the ranks that still run, and note where they were."""
        self._dump_stacks(running)
        now = time.monotonic()
        for rank in running:
            state = _state(rank.pid)
            stacks = _stacks(rank) or state
            path, line = _innermost(stacks)
            message = f"still running {_GRACE_S:g} s after another rank had failed" if is_grace else "did not end"
            if state:
                message += f" ({state})"
            rank.failure = RankFailure(rank.rank, HUNG, message, is_grace, None, stacks, path, line, now)

    def _dump_stacks(self, running: list[_Rank]) -> None:
        """Have ranks write their stacks, and wait until they have."""
        for rank in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank.pid, STACKS_SIGNAL)
        deadline = time.monotonic() + _STACKS_S
        sizes: list[int] = []
        while time.monotonic() < deadline:
            former, sizes = sizes, [os.fstat(rank.stacks.fileno()).st_size for rank in running]
            if sizes == former and all(sizes):
                return
            time.sleep(0.02)

    def _lend_terminal(self, rank: _Rank) -> None:
        """Give the terminal to a rank until it has returned it or ended."""
        self._was_debugged = True
        with self._presentation.lend_terminal(), _foreground(self._presentation.terminal, rank.pid):
            print(f"\nrank {rank.rank} stopped; the debugger is in its process", file=sys.stderr, flush=True)
            rank.link.setblocking(True)
            rank.link.send(b"g")
            messages: list[object] = []
            while not messages and not rank.has_closed:
                messages = rank.receive()
            rank.link.setblocking(False)
        for message in messages:
            if isinstance(message, RankReport):
                self._set_report(rank, message)
            elif isinstance(message, DebugEnd) and message.quits:
                self._presentation.on_quit()

    def _show_output(self) -> None:
        on_output = self._presentation.on_output
        if on_output is None:
            return
        for rank in self._ranks:
            size = os.fstat(rank.output.fileno()).st_size
            if size > rank.shown:
                data = os.pread(rank.output.fileno(), size - rank.shown, rank.shown)
                end = len(data) if rank.status is not None else data.rfind(b"\n") + 1
                if end:
                    rank.shown += end
                    on_output(rank.rank, data[:end].decode(errors="replace"))

    def end(self) -> tuple[str, ...]:
        """Kill what still runs, wait for it, and return the output by rank."""
        for rank in self._running:
            rank.kill()
        for rank in self._running:
            os.waitid(os.P_PID, rank.pid, os.WEXITED | os.WNOWAIT)
            rank.reap()
        self._show_output()
        output = tuple(rank.text() for rank in self._ranks)
        self._selector.close()
        for rank in self._ranks:
            rank.close()
        return output


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _forked(job: RankJob, descriptors: Descriptors, parent: int) -> int:
    """Fork a rank and return its process."""
    with warnings.catch_warnings():
        # Python warns of threads, whose locks a fork may inherit locked. The rank uses none of them: it replaces
        # logging's handlers, and threads of the local cloud hold no lock of the library.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _run_child(job, descriptors, parent)
    return pid


def _spawned(job: RankJob, descriptors: Descriptors, parent: int) -> int:
    """Start a rank in a new interpreter and return its process."""
    with FileIO(_anonymous_file(), "r+") as file:
        file.write(_carried(job))
        inherited = (file.fileno(), descriptors.report.fileno(), descriptors.output, descriptors.stacks)
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        command = [sys.executable, "-m", _SPAWNED_RANK, str(parent), *map(str, inherited)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
        try:
            return os.posix_spawn(sys.executable, command, environment)
        finally:
            for descriptor in inherited:
                os.set_inheritable(descriptor, False)


def _carried(job: RankJob) -> bytes:
    """Return the job, pickled with its function.

    Raises
    ------
    WorldUsageError
        If that is not possible.
    """
    try:
        import cloudpickle  # only needed where no fork is possible
    except ImportError:
        raise WorldUsageError(
            "a world without fork needs the package cloudpickle: pip install 'fmi-emulator[testing]'"
        ) from None
    try:
        carried: bytes = cloudpickle.dumps(replace(job, format=format_with_locals, debugger=None))
    except Exception as error:
        name = getattr(job.function, "__qualname__", repr(job.function))
        raise WorldUsageError(
            f"rank function {name} cannot be carried over to a new process: {error}: expected a function whose "
            "arguments and outer variables can be pickled, or start='fork'"
        ) from error
    return carried


def _run_child(job: RankJob, descriptors: Descriptors, parent: int) -> NoReturn:
    """Become the rank; no exception may return to the parent's code in this process."""
    try:
        become_rank(job, descriptors, parent)
    finally:
        os._exit(70)


def _anonymous_file() -> int:
    """Return a descriptor of an empty file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("rank", os.MFD_CLOEXEC)
    descriptor, path = tempfile.mkstemp()
    Path(path).unlink()
    return descriptor


def _death(rank: _Rank) -> RankFailure:
    """Return the failure of a process that ended without a report."""
    status = rank.status or 0
    if status < 0:
        kind, message = "Killed", f"the process was ended by {signal.Signals(-status).name}"
    else:
        kind, message = "Exited", f"the process ended with status {status} before the function returned"
    return RankFailure(rank.rank, kind, message, False, None, "", "", 0, time.monotonic())


def _stacks(rank: _Rank) -> str:
    """Return the stacks that a rank has written, without the frames of this package and of the test runner."""
    rank.stacks.seek(0)
    lines: list[str] = []
    is_hidden = False
    for line in rank.stacks.readall().decode(errors="replace").splitlines():
        if not line.startswith("  "):
            is_hidden = False
        is_hidden = is_hidden or _HARNESS_FRAME.match(line) is not None
        if not is_hidden and line:
            lines.append(line)
    return "\n".join(lines)


def _innermost(stacks: str) -> tuple[str, int]:
    """Return the innermost line of the program, outside of the library and the standard library if there is one."""
    frames = [(found[1], int(found[2])) for line in stacks.splitlines() if (found := _STACK_LINE.match(line))]
    own = [(path, line) for path, line in frames if f"{os.sep}fmi_shim{os.sep}" not in path]
    return (own or frames or [("", 0)])[0]


def _state(pid: int) -> str:
    """Return ``stopped`` for a stopped process, which writes no stacks; else nothing."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
    return "stopped by a signal" if state in "Tt" else ""


@contextlib.contextmanager
def _foreground(terminal: Sequence[int], group: int) -> Iterator[None]:
    """Make `group` the foreground group of the terminal, if there is one."""
    if not terminal or not os.isatty(terminal[0]):
        yield
        return
    former = os.tcgetpgrp(terminal[0])
    # A background process that changes the foreground group receives SIGTTOU.
    handler = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        os.tcsetpgrp(terminal[0], group)
        yield
    finally:
        os.tcsetpgrp(terminal[0], former)
        signal.signal(signal.SIGTTOU, handler)


def _skip(reason: str) -> NoReturn:
    """Skip the test, as ``pytest.skip`` in a rank asked."""
    import pytest

    pytest.skip(reason)
