"""Published measurements of the runs that sweeps repeat, for comparison in figures and tables."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRun:
    """One published run, or the mean of several equal ones.

    Parameters
    ----------
    source
        Where it was published.
    seconds
        Duration of the whole state machine.
    world_size, memory_mb, batch_size, partition_mb, data_gb
        Its settings, as `emulator.fmi.sweep.grid.Point` has them; None if the source does not say.
    """

    source: str
    seconds: float
    world_size: int | None = None
    memory_mb: int | None = None
    batch_size: int | None = None
    partition_mb: int | None = None
    data_gb: float | None = None


_TEAM_4 = "DS5110 Team 4, FMI hello"
_TEAM_1 = "DS5110 Team 1, FMI hello"
_COSMIC = "AI-for-Astronomy, 10 GB Lambdas"

# Run time of a state machine whose ranks only connect, by world size. Source: the teams' READMEs.
HELLO = (
    *(PublishedRun(_TEAM_4, s, n) for n, s in ((2, 4.846), (4, 4.635), (20, 5.029), (50, 6.877))),
    *(PublishedRun(_TEAM_1, s, n) for n, s in ((2, 3.161), (10, 3.554), (24, 5.682))),
)

# Duration of one invocation by memory. The README's labels are shifted by one: these explain its costs to 0.1 %.
MEMORY = tuple(
    PublishedRun(f"{_TEAM_4}, one invocation", seconds, memory_mb=memory)
    for memory, seconds in ((128, 11.722), (256, 6.678), (512, 3.194), (1024, 1.465))
)

# Whole runs of the inference, the mean of two each, one rank per partition. Source: the study's log of state machines.
_BY_SIZE = {
    25: ((1, 41, 19.89), (2, 82, 31.21), (4, 164, 36.23), (6, 246, 39.96), (8, 328, 44.35)),
    50: ((1, 21, 26.97), (2, 41, 31.48), (4, 82, 33.27), (6, 123, 37.99), (8, 164, 37.68)),
    100: ((1, 11, 52.24), (2, 21, 47.72), (4, 41, 50.46), (6, 62, 52.70), (8, 82, 56.20)),
}
COSMIC = (
    *(
        PublishedRun(_COSMIC, seconds, world_size, 10240, 512, partition, gigabytes)
        for partition, runs in _BY_SIZE.items()
        for gigabytes, world_size, seconds in runs
    ),
    *(
        PublishedRun(_COSMIC, seconds, 41, 10240, batch, 25, 1)
        for batch, seconds in ((32, 38.66), (64, 30.91), (256, 21.48))
    ),
)
