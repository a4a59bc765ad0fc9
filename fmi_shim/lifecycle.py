"""Belonging to a communicator: joining, leaving in peace or with an error, and splitting it."""

from __future__ import annotations

import atexit
import sys
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from fmi_shim.calls import Calls
from fmi_shim.config import Config
from fmi_shim.frames import Operation
from fmi_shim.selection.policy import Hint
from fmi_shim.selection.selector import ChannelSelector
from fmi_shim.tracing import calls_type
from fmi_shim.validation import require_integer, require_name
from fmi_shim.value_types import array_form

ExceptionHook = Callable[[type[BaseException], BaseException, TracebackType | None], object]

_members: weakref.WeakSet[Calls] = weakref.WeakSet()


@atexit.register
def _leave_all() -> None:
    """Leave in peace at the end of the program."""
    for calls in list(_members):
        calls.close()


def _tell_the_end(previous: ExceptionHook) -> ExceptionHook:
    """Return a `sys.excepthook` that tells the other ranks of the exception that ends this program, then `previous`."""

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not hasattr(sys, "ps1"):  # at a prompt, the program goes on
            for calls in list(_members):
                calls.abandon(error)
        previous(kind, error, trace)

    return tell


class Membership:
    """What a rank is in a communicator, and how it comes and goes."""

    def _join(self, rank: int, size: int, config: Config, name: str, memory_mib: int) -> None:
        """Become `rank` of `size` in the communicator called `name`."""
        self._rank = rank
        self._size = size
        self._config = config
        self._name = name
        self._memory_mib = memory_mib
        self._splits = 0
        self._calls = calls_type()(rank, ChannelSelector(rank, size, name, config, memory_mib))
        self._finalizer = weakref.finalize(self, self._calls.close)
        self._finalizer.atexit = False  # `_leave_all` is called before the modules that it needs are gone
        if not _members:
            sys.excepthook = _tell_the_end(sys.excepthook)
        _members.add(self._calls)

    @property
    def rank(self) -> int:
        """Number of this rank, from 0."""
        return self._rank

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self._size

    def hint(self, hint: Hint) -> None:
        """Say, on all ranks alike, whether the fastest or the cheapest enabled channel is wanted from now on."""
        if not isinstance(hint, Hint):
            raise TypeError(f"hint is {hint!r}, allowed are fmi.hints.fast and fmi.hints.cheap")
        self._calls.hint = hint

    def close(self) -> None:
        """Leave the communicator in peace; the end of the program does the same. Further calls raise."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave in peace; after an exception in the block, tell it to the other ranks first."""
        if error is not None:
            self._calls.abandon(error)
        self.close()

    def split(self, colour: int | None, key: int = 0) -> Self | None:
        """Return a communicator of the ranks that give the same `colour`; None where that is None.

        All ranks make this call. The new ranks are in the order of `key`, then of the old ranks. The new
        communicator has connections of its own, may be split again, and is closed, and fails, by itself.
        Messages: an allgather of two numbers.
        """
        if colour is not None:
            require_integer("colour", colour, 0, 2**31 - 1)
        require_integer("key", key, -(2**31), 2**31 - 1)
        name = f"{self._name}{self._splits}.{colour}/"  # ends in no digit, so that ranks after it stay apart
        require_name("the new communicator's name", name, self._size)
        choices = np.empty((self._size, 2), np.int64)
        choices[self._rank] = -1 if colour is None else colour, key
        plan = self._calls.collective(Operation.allgather, array_form(choices.dtype, (2,), False))
        plan.run(choices)
        self._splits += 1
        if colour is None:
            return None
        members = sorted((other, rank) for rank, (group, other) in enumerate(choices.tolist()) if group == colour)
        part = type(self).__new__(type(self))
        place = members.index((key, self._rank))
        part._join(place, len(members), self._config, name, self._memory_mib)  # noqa: SLF001 - a new one of this class
        part.hint(self._calls.hint)
        return part
