"""The grid of a sweep: its axes, and its points in the order in which they are run."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Point:
    """One setting of all axes. None leaves an axis as the command has it.

    Parameters
    ----------
    world_size
        Number of ranks; None for one rank per partition.
    memory_mb
        Memory of a rank, MB.
    batch_size
        BATCH_SIZE of the program.
    partition_mb, data_gb
        Size of a partition and of the data set, powers of 1024 as in the published study.
    repeat
        Number of the repetition, from 1.
    """

    world_size: int | None
    memory_mb: int | None = None
    batch_size: int | None = None
    partition_mb: int | None = None
    data_gb: float | None = None
    repeat: int = 1

    def __str__(self) -> str:
        """Return the settings that are not None, for messages and folder names."""
        names = {"memory_mb": "memory", "data_gb": "data", "batch_size": "batch", "partition_mb": "partition"}
        units = {"memory_mb": "MB", "partition_mb": "MB", "data_gb": "GB"}
        parts = [
            f"{names.get(field.name, field.name)} {getattr(self, field.name):g}{units.get(field.name, '')}"
            for field in fields(self)
            if getattr(self, field.name) is not None and (field.name != "repeat" or self.repeat > 1)
        ]
        return ", ".join(parts)


# In the order of the table's columns.
AXES = tuple(field.name for field in fields(Point))


def grid(
    *,
    world_sizes: Sequence[int | None],
    memories: Sequence[int | None] = (None,),
    batch_sizes: Sequence[int | None] = (None,),
    partition_mb: Sequence[int | None] = (None,),
    data_gb: Sequence[float | None] = (None,),
    repeats: int = 1,
) -> list[Point]:
    """Return every combination once. All points come before the first repetition of one."""
    return [
        Point(*values, repeat)
        for repeat in range(1, repeats + 1)
        for values in itertools.product(world_sizes, memories, batch_sizes, partition_mb, data_gb)
    ]
