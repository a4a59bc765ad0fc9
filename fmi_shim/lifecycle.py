"""The lifecycle of a communicator: opening, closing, reporting an exception that ends the program, splitting."""

from __future__ import annotations

import atexit
import itertools
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self, SupportsIndex

import numpy as np

from fmi_shim import telemetry
from fmi_shim.calls import Calls
from fmi_shim.config import Config
from fmi_shim.errors import SplitGroup
from fmi_shim.frames import Call, Operation
from fmi_shim.requests import Background, Request, Running
from fmi_shim.selection.policy import Hint
from fmi_shim.selection.selector import ChannelSelector
from fmi_shim.validation import require_integer, require_name
from fmi_shim.value_types import array_type

ExceptionHook = Callable[[type[BaseException], BaseException, TracebackType | None], object]

_members: weakref.WeakSet[Calls] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close all communicators at the end of the program."""
    for calls in list(_members):
        calls.close()
    if telemetry.recorder is not None:
        telemetry.recorder.close()


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

    def _open(
        self,
        rank: int,
        size: int,
        config: Config,
        name: str,
        memory_mib: int,
        split_group: SplitGroup | None = None,
        server_known: bool = False,
    ) -> None:
        """Become `rank` of `size` in the communicator called `name`.

        One that was split from another has a `split_group`, and knows whether the rendezvous server has answered that.
        """
        self._rank = rank
        self._size = size
        self._config = config
        self._name = name
        self._memory_mib = memory_mib
        self._splits = 0
        self._background: Background[Any] | None = None
        self._objects: Counter[tuple[object, ...]] = Counter()  # calls with objects, by kind
        channels = ChannelSelector(rank, size, name, config, memory_mib, server_known)
        if telemetry.recorder is None:
            self._calls = Calls(rank, size, channels)
        else:
            from fmi_shim.tracing import TracedCalls  # programs that record nothing do not pay for the import

            self._calls = TracedCalls(rank, size, channels, telemetry.recorder)
        self._calls.split_group = split_group
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
        if self._background is not None:
            self._background.close(_close)
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception in the block, report it to the other ranks first."""
        if error is not None:
            beside = None if self._background is None else self._background.communicator
            if beside is not None:
                beside._calls.abandon(error)  # noqa: SLF001 - of this class
            self._calls.abandon(error)
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(
            "a communicator cannot be pickled or copied, since its connections belong to this process: use dup(), or "
            "make one in the other process"
        )

    def dup(self, timeout: float | None = None) -> Self:
        """Return a communicator of the same ranks, whose calls are independent of this one's.

        All ranks make this call. Messages: those of `split`, which it is with one colour.
        """
        copy = self.split(0, self._rank, timeout)
        assert copy is not None  # noqa: S101 - every rank has the colour
        return copy

    def split(self, colour: int | None, key: int = 0, timeout: float | None = None) -> Self | None:
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
        timeout
            Seconds in which the call must end; None for no limit but ``max_timeout``.
        """
        if timeout is not None:
            with self._calls.within(timeout):
                return self.split(colour, key)
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
        known = self._calls.split_group
        world_ranks = tuple(rank if known is None else known.world_ranks[rank] for _, rank in members)
        split_group = SplitGroup(name, world_ranks)
        part._open(  # noqa: SLF001 - a new one of this class
            place, len(members), self._config, name, self._memory_mib, split_group, self._calls.server_known
        )
        part.hint(self._calls.hint)
        return part

    def _begin(self, name: str, call: Callable[[Self], Any]) -> Request:
        """Begin a collective, which a thread runs over a communicator beside this one; return its request."""
        self._calls.require_open(Call(Operation.barrier, 0, None, 0), itertools.count())
        kind, hint = type(self), self._calls.hint
        if self._background is None:
            rank, size, config, name_of_it, memory, split_group, server_known = (
                self._rank,
                self._size,
                self._config,
                f"{self._name}i/",
                self._memory_mib,
                self._calls.split_group,
                self._calls.server_known,
            )
            require_name("the name of the communicator beside this one", name_of_it, size)

            def open_beside() -> Lifecycle:
                beside = kind.__new__(kind)
                beside._open(rank, size, config, name_of_it, memory, split_group, server_known)  # noqa: SLF001 - of this class
                return beside

            self._background = Background(open_beside)
            weakref.finalize(self, self._background.close, _close).atexit = False

        def run(beside: Self) -> Any:
            if beside._calls.hint is not hint:
                beside.hint(hint)
            return call(beside)

        return Request(Running(self._calls, f"rank {self._rank} in {name}", self._background.submit(run)))


def _close(communicator: Lifecycle) -> None:
    communicator.close()
