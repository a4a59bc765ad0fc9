"""How a command ends: its exit status, one line for an expected error, clean-up after Ctrl-C and SIGTERM."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from botocore.exceptions import BotoCoreError, ClientError

from emulator.errors import EmulatorError
from emulator.fmi.report import sanitize
from rendezvous.nonblocking_stream import NonBlockingStream

# As shells and mpirun: 1 a rank failed, 2 the command could not run, 128 + n ended by signal n.
FAILED, UNUSABLE = 1, 2


def run_command(command: str, body: Callable[[], int]) -> int:
    """Run a command and return its exit status. An expected error is printed in one line; SIGTERM ends it like Ctrl-C.

    Parameters
    ----------
    command
        The name of the command.
    body
        Does the work and returns the exit status.
    """
    error_output = sys.stderr
    # The endpoint's loop is in another thread than this command, which waits for a slow reader.
    stream = NonBlockingStream(error_output, may_block=lambda: threading.current_thread() is threading.main_thread())
    sys.stderr = stream
    former_term = signal.signal(signal.SIGTERM, _terminate)
    former = signal.getsignal(signal.SIGINT)
    if former is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return body()
    except (EmulatorError, BotoCoreError, ClientError) as error:
        print_status(f"{command}: {error}")
        return UNUSABLE
    except KeyboardInterrupt:
        stream.stop_waiting()
        print_status(f"{command}: interrupted")
        return 128 + signal.SIGINT
    except _TerminatedError:
        stream.stop_waiting()
        print_status(f"{command}: terminated")
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        # The reader, for example `head`, has closed the pipe. Flushing at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    finally:
        # Clean-up is complete: from here on, both signals may end the process as before.
        signal.signal(signal.SIGINT, former)
        signal.signal(signal.SIGTERM, former_term)
        stream.close()
        sys.stderr = error_output
        # The interpreter's final collections over moto's objects would take 0.4 s and free nothing.
        gc.freeze()


def print_status(text: str) -> None:
    """Print a line on standard error, without characters that control a terminal, which programs may have written."""
    print(sanitize(text), file=sys.stderr, flush=True)


def with_rank_prefix(rank: int, world_size: int, text: str) -> str:
    """Return a rank's output with a prefix ``[rank]`` on each line, of equal width for all ranks."""
    prefix = f"[{rank:>{len(str(world_size - 1))}}] "
    return prefix + text.replace("\n", "\n" + prefix)


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Defer the first Ctrl-C or SIGTERM within a block until the yielded function is called, which raises it.

    An exception raised by the signal handler itself, in a callback from C or with a lock held, is lost or leaves the
    interrupted object unusable. A second signal is still raised at once.
    """
    pending: list[BaseException] = []

    def defer(number: int, _: object) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else _TerminatedError()
        if pending:
            raise error
        pending.append(error)

    def check() -> None:
        if pending:
            raise pending[0]

    former = {number: signal.signal(number, defer) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
        check()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _TerminatedError(BaseException):
    """SIGTERM was received."""


def _terminate(*_: object) -> NoReturn:
    raise _TerminatedError
