"""The models' inputs and outcome. The defaults are the values FMI was published with (its config/fmi.json)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fmi_shim.frames import Operation


class ChannelName(enum.Enum):
    """A channel, by its key in ``fmi.json``; in the alphabetic order in which FMI looks at them."""

    Direct = "Direct"
    Redis = "Redis"
    S3 = "S3"
    SharedMemory = "SharedMemory"
    """Not FMI's: for ranks on one host."""


class Formulas(enum.Enum):
    """Which model: FMI's own formulas, or those whose mistakes are mended."""

    compat = "compat"
    corrected = "corrected"


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


@dataclass(frozen=True, slots=True)
class FunctionModel:
    """``model.FaaS``: USD for a GiB-second."""

    gib_second_price: float = 0.0000166667


@dataclass(frozen=True, slots=True)
class S3Model:
    """``model.S3``: MB/s, ms, USD a GB, USD a request; ``timeout``, ``max_timeout`` of ``backends.S3``, ms."""

    bandwidth: float = 50.0
    overhead: float = 40.4
    transfer_price: float = 0.0
    download_price: float = 0.00000043
    upload_price: float = 0.0000054
    timeout: int = 100
    max_timeout: int = 1000


@dataclass(frozen=True, slots=True)
class RedisModel:
    """``model.Redis``: MB/s of a flow and of all, ms, USD a GB, USD an hour; ``timeout`` of ``backends.Redis``, ms."""

    bandwidth_single: float = 100.0
    bandwidth_multiple: float = 400.0
    overhead: float = 5.2
    transfer_price: float = 0.0
    instance_price: float = 0.0038
    requests_per_hour: int = 1000
    include_infrastructure_costs: bool = True
    timeout: int = 1


@dataclass(frozen=True, slots=True)
class DirectModel:
    """``model.Direct``: MB/s, ms, USD a GB, USD an hour; and whether exchanges go both ways at once (framed)."""

    bandwidth: float = 400.0
    overhead: float = 0.34
    transfer_price: float = 0.0
    vm_price: float = 0.0134
    requests_per_hour: int = 1000
    include_infrastructure_costs: bool = True
    full_duplex: bool = False


@dataclass(frozen=True, slots=True)
class SharedMemoryModel:
    """``model.SharedMemory``: MB/s of copies while all ranks copy, ms until all ranks have come to a round.

    Fitted, in November 2026, to ``benchmarks.comparison --contestants shm --worlds 4`` on 2 cores, medians of 9 turns:
    a barrier 5.1 us and an allreduce of 8 bytes 6.6 us; of 16 MiB an allreduce 7.2 ms, a reduce 5.1 and a bcast 4.6,
    where the formulas say 6.7, 6.7 and 5.6. Busy cores halve the bandwidth, and so do cores that share no cache;
    processors with more memory channels copy faster.
    """

    bandwidth: float = 6000.0
    overhead: float = 0.005


@dataclass(frozen=True, slots=True)
class Model:
    """All parameters, and the formulas to put them in."""

    formulas: Formulas = Formulas.corrected
    function: FunctionModel = FunctionModel()
    direct: DirectModel = DirectModel()
    redis: RedisModel = RedisModel()
    s3: S3Model = S3Model()
    shared_memory: SharedMemoryModel = SharedMemoryModel()
