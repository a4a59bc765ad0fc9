"""Ends a benchmark at SIGTERM or Ctrl-C, so that no process that it started remains."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_on_signals() -> None:
    """Raise SystemExit at SIGTERM or Ctrl-C, so that `with` statements clean up. A second signal is ignored."""
    for number in _SIGNALS:
        signal.signal(number, _exit)


@contextmanager
def signals_blocked_in_forks() -> Iterator[None]:
    """Block these signals in processes that are forked within the block; this process receives them at its end.

    So this process knows every fork that it has to kill, whenever the signal is sent.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Defer these signals to the end of the block, so that every process started within it is known."""
    received: list[int] = []
    before = {each: signal.signal(each, lambda number, _frame: received.append(number)) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if received:
            signal.raise_signal(received[0])


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)
