"""A rank: the process that `world` forks, from its first instruction to its exit.

It runs in a copy of the test's process, from which it must drop what belongs to that one: descriptors, signal handlers,
the handlers of `logging`, captured output, and the threads of torch's pool, which do not exist in a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import io
import logging
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, TextIO

from emulator.testing.errors import RankFailure
from fmi_shim.communicator import Communicator
from fmi_shim.config import Config, parse
from fmi_shim.errors import VICTIM_ERRORS, FmiError
from fmi_shim.injection import print_missed

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
STACKS_SIGNAL = signal.SIGUSR2
"""Has a rank write the stacks of its threads."""
_LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"
_THIS_FILE = __file__

Format = Callable[[BaseException], str]
"""Returns the traceback of an exception as text."""

DebuggerType = Callable[[], Any]
"""Returns a `pdb.Pdb`."""

inside_rank: int | None = None
"""The rank that this process is; None if it is none."""


@dataclass(frozen=True)
class RankJob:
    """What a rank runs, and where.

    Attributes
    ----------
    rank, size
        The rank and the number of ranks.
    function, arguments, keywords
        Is called with the communicator and these arguments.
    config
        The content of its ``fmi.json``.
    name
        Name of the communicator.
    environment
        Variables of the rank. Those that begin with ``FMI_`` and are not here are removed.
    format
        Renders the traceback of an exception.
    debugger
        Makes the debugger of a ``breakpoint()``; None for no debugger.
    post_mortem
        Whether the rank stops in the debugger if it fails.
    """

    rank: int
    size: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    config: bytes
    name: str
    environment: Mapping[str, str]
    format: Format
    debugger: DebuggerType | None = None
    post_mortem: bool = False

    def configuration(self, environment: Mapping[str, str]) -> Config:
        """Return the configuration of its communicator, parsed once for all forks."""
        return parse(self.config, "configuration of the world", environment)


@dataclass(frozen=True)
class Descriptors:
    """The descriptors that a rank keeps.

    Attributes
    ----------
    report
        Socket to the parent.
    output
        File for standard output and standard error.
    stacks
        File for the stacks.
    terminal
        The parent's standard input, output and error, for a debugger; empty if there is none.
    """

    report: socket.socket
    output: int
    stacks: int
    terminal: tuple[int, ...] = ()


@dataclass(frozen=True)
class RankReport:
    """How a rank ended.

    Attributes
    ----------
    value
        What the function returned, pickled.
    failure
        How it failed, or None.
    skipped
        Why the function skipped the test; None if it did not.
    """

    value: bytes
    failure: RankFailure | None = None
    skipped: str | None = None


@dataclass(frozen=True)
class DebugRequest:
    """The rank waits for the parent's terminal."""


@dataclass(frozen=True)
class DebugEnd:
    """The rank has returned the terminal; whether the user ended the session."""

    quits: bool


def become_rank(job: RankJob, descriptors: Descriptors, parent: int) -> NoReturn:
    """Run the job in this process, which was forked by process `parent`; never return."""
    global inside_rank
    inside_rank = job.rank
    _detach(descriptors, parent)
    _set_environment(job)
    report = _run(job, descriptors)
    print_missed()
    with contextlib.suppress(OSError):  # the parent has ended
        send_message(descriptors.report, report)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def _detach(descriptors: Descriptors, parent: int) -> None:
    """Drop what belongs to the parent."""
    # Inherited objects are never collected: their finalizers would remove the parent's files.
    gc.freeze()
    os.setpgid(0, 0)
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    # The parent handles Ctrl-C and ends its ranks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _close_inherited({descriptors.report.fileno(), descriptors.output, descriptors.stacks, *descriptors.terminal})
    former = sys.stdout, sys.stderr
    _redirect(descriptors.output)
    faulthandler.enable(file=2)
    faulthandler.register(STACKS_SIGNAL, file=descriptors.stacks, all_threads=True, chain=False)
    _reset_logging(former)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    boto3 = sys.modules.get("boto3")
    if boto3 is not None:
        # The parent's default session has the credentials and the endpoint of the parent.
        vars(boto3)["DEFAULT_SESSION"] = None
    torch = sys.modules.get("torch")
    if torch is not None:
        # The threads of OpenMP's pool do not exist in a fork: a parallel region would wait for them for ever.
        torch.set_num_threads(1)


def _close_inherited(kept: set[int]) -> None:
    """Close all inherited descriptors but those in `kept` and the standard ones.

    Each is replaced by /dev/null: an inherited object may still close its number, which must not be a new file's.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208 - paths cost a tenth of a rank's start
        if descriptor > 2 and descriptor != null and descriptor not in kept:
            with contextlib.suppress(OSError):  # the listing's own
                os.fstat(descriptor)
                os.dup2(null, descriptor, inheritable=False)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor, open until the process ends


def _redirect(output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.FileIO(descriptor, "w", closefd=False),
            "utf-8",
            "backslashreplace",
            line_buffering=True,
            write_through=True,
        )
        for descriptor in (1, 2)
    )


def _reset_logging(former: tuple[TextIO, TextIO]) -> None:
    """Have all loggers that wrote to the parent's streams, and the root, write to standard error."""
    own = logging.StreamHandler(sys.stderr)
    own.setFormatter(logging.Formatter(_LOG_FORMAT))
    logging.root.handlers = [own]
    for logger in list(logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream in former:
                handler.stream = sys.stdout if handler.stream is former[0] else sys.stderr


def _set_environment(job: RankJob) -> None:
    for name in [name for name in os.environ if name.startswith("FMI_") and name != "FMI_LOG"]:
        del os.environ[name]
    os.environ.update(job.environment)
    os.environ.update(RANK=str(job.rank), WORLD_SIZE=str(job.size))


def _run(job: RankJob, descriptors: Descriptors) -> RankReport:
    terminal = Terminal(descriptors, job.debugger)
    if job.debugger is not None:
        sys.breakpointhook = terminal.set_trace
    try:
        with Communicator(job.rank, job.size, job.configuration(os.environ), job.name) as comm:
            value = job.function(comm, *job.arguments, **job.keywords)
    except SystemExit as error:
        if error.code in (None, 0):
            return RankReport(pickle.dumps(None))
        return _failed(job, error)
    except BaseException as error:  # noqa: BLE001 - whatever ends a rank is its result
        if _is_skip(error):
            return RankReport(b"", skipped=str(error))
        report = _failed(job, error)
        if job.debugger is not None and job.post_mortem and report.failure and not report.failure.is_victim:
            terminal.post_mortem(error, report.failure.traceback)
        return report
    try:
        return RankReport(pickle.dumps(value, protocol=5))
    except Exception as error:  # noqa: BLE001 - a value's own code may raise anything
        return _unpicklable(job.rank, value, error)


def _is_skip(error: BaseException) -> bool:
    """Return whether ``pytest.skip`` raised the error."""
    pytest = sys.modules.get("pytest")
    return pytest is not None and isinstance(error, pytest.skip.Exception)


def _failed(job: RankJob, error: BaseException) -> RankReport:
    now = time.monotonic()
    try:
        text = job.format(error)
    except Exception:  # noqa: BLE001 - a value's own repr may raise anything
        text = "".join(traceback.format_exception(error))
    path, line = _location(error.__traceback__)
    message = str(error)
    origin = error.world_origin if isinstance(error, FmiError) else None
    is_victim = isinstance(error, VICTIM_ERRORS) or _is_reported(error)
    failure = RankFailure(job.rank, type(error).__name__, message, is_victim, origin, text, path, line, now)
    with contextlib.suppress(Exception):
        pickled = pickle.dumps(error)
        pickle.loads(pickled)  # noqa: S301 - pickled in the line above
        return RankReport(b"", RankFailure(**{**failure.__dict__, "error": error}))
    return RankReport(b"", failure)


def _is_reported(error: BaseException) -> bool:
    return isinstance(error, FmiError) and error.reported_by is not None


def _unpicklable(rank: int, value: object, error: Exception) -> RankReport:
    message = (
        f"rank {rank} returned a value that cannot be sent to the test: {_described(value)}: {error}: return numbers, "
        "text, arrays, or objects of classes defined at the top of a module"
    )
    failure = RankFailure(rank, "TypeError", message, False, None, message, "", 0, time.monotonic())
    return RankReport(b"", failure)


def _described(value: object) -> str:
    """Return the value's type, and which part of a container cannot be pickled."""
    parts: Iterator[tuple[str, object]] = iter(())
    if isinstance(value, dict):
        parts = ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        parts = ((f"[{index}]", part) for index, part in enumerate(value))
    for place, part in parts:
        try:
            pickle.dumps(part)
        except Exception:  # noqa: BLE001 - see `_run`
            return f"{type(value).__name__}, of which {place} is {_described(part)}"
    return f"a {type(value).__qualname__}"


def _location(trace: TracebackType | None) -> tuple[str, int]:
    """Return where the program was when the error was raised: its last frame outside of the library."""
    library = f"{os.sep}fmi_shim{os.sep}"
    found = ("", 0)
    for frame, line in traceback.walk_tb(trace):
        path = frame.f_code.co_filename
        if path != _THIS_FILE and (library not in path or not found[0]):
            found = path, line
    return found


def format_with_locals(error: BaseException) -> str:
    """Return the traceback with local variables, without the frames of this module."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == _THIS_FILE:
        trace = trace.tb_next
    return "".join(traceback.TracebackException(type(error), error, trace, capture_locals=True, compact=True).format())


class Terminal:
    """The parent's terminal, which a rank may borrow for a debugger.

    Parameters
    ----------
    descriptors
        The rank's descriptors.
    debugger
        Makes the debugger.
    """

    def __init__(self, descriptors: Descriptors, debugger: DebuggerType | None) -> None:
        self._descriptors = descriptors
        self._debugger = debugger
        self._is_borrowed = False

    def post_mortem(self, error: BaseException, text: str) -> None:
        """Debug an exception where it was raised, after printing its traceback."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == _THIS_FILE:
            trace = trace.tb_next
        assert self._debugger is not None  # noqa: S101 - asked before
        self._borrow()
        print(text)
        debugger = self._debugger()
        debugger.reset()
        debugger.interaction(None, trace)
        self._give_back(bool(debugger.quitting))

    def set_trace(self, *_: object, **__: object) -> None:
        """Stop at a ``breakpoint()``, as pdb does; the rank keeps the terminal until it ends."""
        assert self._debugger is not None  # noqa: S101 - asked before
        self._borrow()
        self._debugger().set_trace(sys._getframe(1))  # noqa: SLF001 - as pdb.set_trace itself

    def _borrow(self) -> None:
        if self._is_borrowed:
            return
        self._is_borrowed = True
        link = self._descriptors.report
        send_message(link, DebugRequest())
        if not link.recv(1):
            os._exit(1)  # the parent has ended
        for number, descriptor in enumerate(self._descriptors.terminal):
            os.dup2(descriptor, number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, buffering=1, closefd=False)  # noqa: SIM115 - descriptors
            for number, mode in enumerate(("r", "w", "w"))
        )

    def _give_back(self, quits: bool) -> None:
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _redirect(self._descriptors.output)
        send_message(self._descriptors.report, DebugEnd(quits))


LENGTH_BYTES = 8


def send_message(link: socket.socket, message: object) -> None:
    """Send a message to the parent: its length in 8 bytes, then the pickled object."""
    data = pickle.dumps(message, protocol=5)
    link.sendall(len(data).to_bytes(LENGTH_BYTES, "little"))
    link.sendall(data)
