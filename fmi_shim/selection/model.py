"""The input and the output of the cost models: an operation among ranks, and its latency and price."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fmi_shim.frames import Operation

_NEAREST = {
    "exscan": "scan",
    "reduce_scatter": "allreduce",
    "reduce_scatterv": "allreduce",
    "gatherv": "gather",
    "scatterv": "scatter",
    "send_object": "send",
    "bcast_object": "bcast",
    "gather_object": "gather",
    "scatter_object": "scatter",
}


class Pattern(enum.Enum):
    """The operations that FMI's cost models have."""

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
        """Return the pattern of an operation; for an operation that the models lack, that of the nearest one."""
        return cls.__members__.get(_NEAREST.get(operation.name, operation.name), cls.allgather)


@dataclass(frozen=True, slots=True)
class Task:
    """An operation to estimate.

    Attributes
    ----------
    pattern
        The operation.
    size_bytes
        One rank's payload (for scatter: the slice), bytes.
    ranks
        World size.
    left_to_right
        Whether a reduction combines strictly in rank order.
    """

    pattern: Pattern
    size_bytes: int
    ranks: int
    left_to_right: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate of a model.

    Attributes
    ----------
    latency
        Seconds from the first rank's call to the last rank's return; in the compat model FMI's sum of
        milliseconds and seconds.
    channel_usd
        Price of requests, transfer and the share of servers, USD.
    function_usd
        Price of the functions' time, USD.
    """

    latency: float
    channel_usd: float
    function_usd: float

    @property
    def price(self) -> float:
        """The whole price, USD."""
        return self.channel_usd + self.function_usd
