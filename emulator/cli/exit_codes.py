"""How a command ends: its exit status, one line for each failure on purpose, tidiness under Ctrl-C and SIGTERM."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from botocore.exceptions import BotoCoreError, ClientError

from emulator.errors import EmulatorError
from emulator.fmi.report import sanitize

# What shells and mpirun use: 1 a failed rank, 2 a command that cannot be, 128 + n ended by signal n.
FAILED, UNUSABLE = 1, 2


def run_command(command: str, body: Callable[[], int]) -> int:
    """Run a command; a failure on purpose is one line, and SIGTERM ends it as tidily as Ctrl-C.

    Parameters
    ----------
    command
        What the user has called it.
    body
        Does it, and returns the exit status.
    """
    signal.signal(signal.SIGTERM, _terminate)
    former = signal.getsignal(signal.SIGINT)
    if former is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return body()
    except (EmulatorError, BotoCoreError, ClientError) as error:
        print_status(f"{command}: {error}")
        return UNUSABLE
    except KeyboardInterrupt:
        print_status(f"{command}: interrupted")
        return 128 + signal.SIGINT
    except _TerminatedError:
        print_status(f"{command}: terminated")
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        # Whoever read the output has seen enough, such as `head`; what is left unwritten must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    finally:
        # All is tidy: from here on, Ctrl-C may end the process as it did before.
        signal.signal(signal.SIGINT, former)
        # The interpreter's last collections over all that moto is made of would take 0.4 s and free nothing.
        gc.freeze()


def print_status(text: str) -> None:
    """Tell the user, on standard error. What programs have put into the text cannot drive the terminal."""
    print(sanitize(text), file=sys.stderr, flush=True)


def with_rank_prefix(rank: int, world_size: int, text: str) -> str:
    """Return what a rank has written with the rank before each line, all ranks equally wide."""
    prefix = f"[{rank:>{len(str(world_size - 1))}}] "
    return prefix + text.replace("\n", "\n" + prefix)


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Hold the first Ctrl-C or SIGTERM back within a block, until the function that is given raises it.

    Where they strike by themselves, in a callback from C or with a lock held, they are lost or leave what they hit
    unusable. The second one strikes at once all the same.
    """
    pending: list[BaseException] = []

    def hold(number: int, _: object) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else _TerminatedError()
        if pending:
            raise error
        pending.append(error)

    def check() -> None:
        if pending:
            raise pending[0]

    former = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
        check()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _TerminatedError(BaseException):
    """SIGTERM came."""


def _terminate(*_: object) -> NoReturn:
    raise _TerminatedError
