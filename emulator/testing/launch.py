"""``emulator.launch``: a function on every rank of a world, from any Python program."""

from __future__ import annotations

import atexit
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emulator.testing.errors import WorldUsageError
from emulator.testing.run import Presentation
from emulator.testing.services import Services, WorldChannel
from emulator.testing.world import DEFAULT_LIMIT_S, DEFAULT_MAX_TIMEOUT_S, World

_services: Services | None = None
_owner = 0


def launch(
    function: Callable[..., Any],
    world_size: int,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    channel: str = "direct",
    framed: bool = True,
    timeout: float = DEFAULT_LIMIT_S,
    max_timeout: float = DEFAULT_MAX_TIMEOUT_S,
    env: Mapping[str, str] | None = None,
    faults: str = "",
    seed: int | None = None,
    start: str | None = None,
    show_output: bool = True,
) -> list[Any]:
    """Run ``function(comm, *args, **kwargs)`` on every rank of a new world and return the values by rank.

    Each rank is a process forked from this one, so closures and local functions work, and nothing but the values is
    pickled. In a program with an event loop, call ``await asyncio.to_thread(emulator.launch, function, 4)``; in a
    notebook, call it directly.

    Parameters
    ----------
    function
        What each rank runs; its first argument is the rank's `fmi.Communicator`.
    world_size
        Number of ranks.
    args, kwargs
        Further arguments of the function.
    channel
        ``direct`` (TCP), ``shm`` (shared memory), ``redis`` or ``s3``. What it needs is started, and kept for the
        next call until this process ends.
    framed
        Whether messages have headers. Without them the wire format is that of the original library.
    timeout
        Seconds until all ranks must have ended.
    max_timeout
        The longest wait of a rank for another one, s.
    env
        Further variables of the ranks.
    faults
        What fails, for example ``"kill rank 2 at allreduce 3"``; the language is in docs/testing.md.
    seed
        Decides what the faults leave to chance; without one, another seed for each call, which errors name.
    start
        ``fork``, or ``spawn`` for new interpreters, to which the function is pickled by cloudpickle; by default a fork,
        unless this process uses CUDA.
    show_output
        Whether what the ranks write is printed while they run, each line with its rank.

    Returns
    -------
    list
        What the function returned on each rank.

    Raises
    ------
    WorldError
        If a rank failed: the text has the traceback of the rank where it began, with local variables.
    WorldTimeoutError
        If ranks have not ended within the time limit: the text has the stacks of all ranks.
    WorldUsageError
        If the world cannot be started.

    Examples
    --------
    >>> import emulator, fmi_shim as fmi
    >>> def total(comm):
    ...     return comm.allreduce(comm.rank, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
    >>> emulator.launch(total, 4)
    [6, 6, 6, 6]
    """
    on_output = _printer(world_size) if show_output else None
    world = World(
        world_size,
        shared_services(),
        channel_named(channel),
        framed,
        timeout,
        max_timeout,
        dict(env or {}),
        Presentation(on_output=on_output),
        (faults,) if faults else (),
        secrets.randbelow(2**31) if seed is None else seed,
        start,
    )
    return world(function, *args, **(kwargs or {}))


def channel_named(name: str) -> WorldChannel:
    """Return the channel of this name.

    Raises
    ------
    WorldUsageError
        If there is none.
    """
    try:
        return WorldChannel(name)
    except ValueError:
        known = ", ".join(channel.value for channel in WorldChannel)
        raise WorldUsageError(f"invalid channel {name!r}: expected one of {known}") from None


def shared_services() -> Services:
    """Return the servers of this process, which end with it."""
    global _services, _owner
    if _services is None or _owner != os.getpid():
        _services, _owner = Services(), os.getpid()
        atexit.register(_close, _services, _owner)
    return _services


def _close(services: Services, owner: int) -> None:
    if os.getpid() == owner:
        services.close()


def _printer(world_size: int) -> Callable[[int, str], None]:
    def print_lines(rank: int, text: str) -> None:
        width = len(str(world_size - 1))
        lines = (f"[{rank:>{width}}] {line}\n" for line in text.splitlines())
        sys.stdout.write("".join(lines))
        sys.stdout.flush()

    return print_lines
