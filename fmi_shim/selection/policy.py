"""Which channel an operation takes: the fastest or the cheapest by a model of latency and price."""

from __future__ import annotations

import enum
import functools

from fmi_shim.config import ChannelName, Formulas, Model
from fmi_shim.selection import compat, corrected
from fmi_shim.selection.model import Estimate, Task


class Hint(enum.Enum):
    """``fmi.hints``: what the choice of a channel should favour."""

    fast = 1
    cheap = 2


def estimates(
    channels: tuple[ChannelName, ...], task: Task, model: Model, memory_mib: int
) -> dict[ChannelName, Estimate]:
    """Return what the model says of `task`, on two or more ranks, for each of `channels`.

    Parameters
    ----------
    channels
        The enabled channels.
    task
        The operation, its size and the number of ranks.
    model
        Parameters and formulas.
    memory_mib
        Memory of one function, MiB.
    """
    formulas = compat.estimate if model.formulas is Formulas.compat else corrected.estimate
    return {channel: formulas(channel, task, model, memory_mib) for channel in channels}


@functools.lru_cache(maxsize=4096)
def choose(channels: tuple[ChannelName, ...], task: Task, model: Model, memory_mib: int, hint: Hint) -> ChannelName:
    """Return the channel with the lowest latency (``fast``) or price (``cheap``); of equal ones the first.

    All ranks must come to the same choice, so all arguments must be the same on all. A lone rank sends
    nothing and takes the first. Shared memory costs nothing but time, and is for ``fast`` alone: cheap are services
    that can be had on AWS. See `estimates` for the parameters.
    """
    if hint is Hint.cheap:
        channels = tuple(name for name in channels if name is not ChannelName.SharedMemory) or channels
    if task.ranks == 1 or len(channels) == 1:
        return channels[0]
    said = estimates(channels, task, model, memory_mib)
    if hint is Hint.fast:
        return min(channels, key=lambda channel: said[channel].latency)
    return min(channels, key=lambda channel: said[channel].price)
