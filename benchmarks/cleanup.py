"""How a benchmark ends when it is told to: nothing that it has started stays behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_on_signals() -> None:
    """Let SIGTERM and Ctrl-C end this program by way of its `with` statements; a second one does not disturb them."""
    for number in _SIGNALS:
        signal.signal(number, _exit)


@contextmanager
def signals_blocked_in_forks() -> Iterator[None]:
    """Let processes that are forked within never hear these signals, which are for this one; it hears one at the end.

    So it knows of every fork that it has to kill, however soon it is told to end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Let this program be told to end only after what is within, lest it start what nothing knows of."""
    told: list[int] = []
    before = {each: signal.signal(each, lambda number, _frame: told.append(number)) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if told:
            signal.raise_signal(told[0])


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)
