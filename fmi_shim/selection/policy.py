"""Chooses the channel of an operation: the fastest or the cheapest by a model of latency and price."""

from __future__ import annotations

import functools

from fmi_shim.config import ChannelName, Formulas, Model
from fmi_shim.operators import BindingEnum
from fmi_shim.selection import compat, corrected
from fmi_shim.selection.model import Estimate, Task


class Hint(BindingEnum, binding_name="hints"):
    """``fmi.hints``: whether a channel is chosen by latency or by price."""

    fast = 1
    cheap = 2


def estimates(
    channels: tuple[ChannelName, ...], task: Task, model: Model, memory_mib: int
) -> dict[ChannelName, Estimate]:
    """Return the model's estimate of `task`, on two or more ranks, for each of `channels`.

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
    """Return the channel with the lowest latency (``fast``) or price (``cheap``), the first of equal ones.

    All ranks must make the same choice, so all arguments must be the same on all ranks. A single rank sends nothing and
    gets the first channel. Only ``fast`` selects shared memory: ``cheap`` compares the prices of services on AWS.
    See `estimates` for the parameters.
    """
    if hint is Hint.cheap:
        channels = tuple(name for name in channels if name is not ChannelName.SharedMemory) or channels
    if task.ranks == 1 or len(channels) == 1:
        return channels[0]
    estimated = estimates(channels, task, model, memory_mib)
    if hint is Hint.fast:
        return min(channels, key=lambda channel: estimated[channel].latency)
    return min(channels, key=lambda channel: estimated[channel].price)
