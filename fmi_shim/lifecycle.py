"""The lifecycle of a communicator: opening, closing, reporting an exception that ends the program, splitting."""

from __future__ import annotations

import atexit
import sys
import weakref
from collections import Counter
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
from fmi_shim.value_types import array_type

ExceptionHook = Callable[[type[BaseException], BaseException, TracebackType | None], object]

_members: weakref.WeakSet[Calls] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close all communicators at the end of the program."""
    for calls in list(_members):
        calls.close()


def _report_uncaught(previous: ExceptionHook) -> ExceptionHook:
    """Return a `sys.excepthook` that reports the exception to the other ranks, then calls `previous`."""

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not hasattr(sys, "ps1"):  # at a prompt, the program continues
            for calls in list(_members):
                calls.abandon(error)
        previous(kind, error, trace)

    return report


class Lifecycle:
    """Opens, closes and splits a communicator; has this rank's number and the number of ranks."""

    def _open(self, rank: int, size: int, config: Config, name: str, memory_mib: int) -> None:
        """Become `rank` of `size` in the communicator called `name`."""
        self._rank = rank
        self._size = size
        self._config = config
        self._name = name
        self._memory_mib = memory_mib
        self._splits = 0
        self._objects: Counter[tuple[object, ...]] = Counter()  # calls with objects, by kind
        self._calls = calls_type()(rank, size, ChannelSelector(rank, size, name, config, memory_mib))
        self._finalizer = weakref.finalize(self, self._calls.close)
        self._finalizer.atexit = False  # `_close_all` is called before the modules that it needs are gone
        if not _members:
            sys.excepthook = _report_uncaught(sys.excepthook)
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
        """Choose the fastest or the cheapest enabled channel from now on. All ranks must make the same call."""
        if not isinstance(hint, Hint):
            raise TypeError(f"invalid hint {hint!r}: expected fmi.hints.fast or fmi.hints.cheap")
        self._calls.hint = hint

    def close(self) -> None:
        """Close the communicator, as the end of the program does. Further calls raise `BrokenCommunicatorError`.

        Raises
        ------
        ConcurrentCallError
            If another thread is in a call, which raises it, too.
        """
        self._calls.require_idle()
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception in the block, report it to the other ranks first."""
        if error is not None:
            self._calls.abandon(error)
        self.close()

    def split(self, colour: int | None, key: int = 0) -> Self | None:
        """Split into communicators, one for each `colour`; return this rank's one, or None where `colour` is None.

        All ranks make this call. Ranks of the new communicator are ordered by `key`, then by their old rank. It has its
        own connections, may be split again, and is closed and fails independently of this one. Messages: an allgather
        of two numbers.

        Parameters
        ----------
        colour
            From 0 to 2^31 - 1; None for a rank that is in none of the new communicators.
        key
            Any 32-bit integer.
        """
        if colour is not None:
            require_integer("colour", colour, 0, 2**31 - 1)
        require_integer("key", key, -(2**31), 2**31 - 1)
        name = (
            f"{self._name}{self._splits}.{colour}/"  # ends in no digit, so that keys with a rank after it are distinct
        )
        require_name("the new communicator's name", name, self._size)
        choices = np.empty((self._size, 2), np.int64)
        choices[self._rank] = -1 if colour is None else colour, key
        plan = self._calls.collective(Operation.allgather, array_type(choices.dtype, (2,), False))
        plan.run(choices)
        self._splits += 1
        if colour is None:
            return None
        members = sorted((other, rank) for rank, (group, other) in enumerate(choices.tolist()) if group == colour)
        part = type(self).__new__(type(self))
        place = members.index((key, self._rank))
        part._open(place, len(members), self._config, name, self._memory_mib)  # noqa: SLF001 - a new one of this class
        part.hint(self._calls.hint)
        return part
