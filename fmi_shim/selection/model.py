"""What the models estimate: an operation among ranks, and its time and price."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fmi_shim.frames import Operation

_NEAREST = {"exscan": "scan", "reduce_scatter": "allreduce"}


class Pattern(enum.Enum):
    """Who sends to whom: FMI's operations, as far as its models know them."""

    send = 1
    bcast = 2
    gather = 3
    scatter = 4
    reduce = 5
    allreduce = 6
    scan = 7
    barrier = 8
    allgather = 9

    @classmethod
    def of(cls, operation: Operation) -> Pattern:
        """Return the pattern of an operation, for one that the models do not know that of its nearest."""
        return cls.__members__.get(_NEAREST.get(operation.name, operation.name), cls.allgather)


@dataclass(frozen=True, slots=True)
class Task:
    """An operation whose time and price are asked for.

    Attributes
    ----------
    pattern
        What is done.
    size_bytes
        One rank's payload (for scatter: the slice), bytes.
    ranks
        World size.
    left_to_right
        Whether a reduction has to keep the order of the ranks.
    """

    pattern: Pattern
    size_bytes: int
    ranks: int
    left_to_right: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model says.

    Attributes
    ----------
    latency
        Seconds from the first rank's call to the last rank's return; in the compat model FMI's sum of
        milliseconds and seconds.
    channel_usd
        Requests, transfer and the share of servers, USD.
    function_usd
        The functions' time, USD.
    """

    latency: float
    channel_usd: float
    function_usd: float

    @property
    def price(self) -> float:
        """All of it, USD."""
        return self.channel_usd + self.function_usd
