"""The sizes from which on an operation takes the algorithm for large payloads: a measured table that can be overridden.

``FMI_SWITCH_POINTS=allreduce=65536,reduce=1048576`` in the environment of all ranks alike sets entries in
bytes; ``python -m benchmarks.switch_points`` measures both schedules of each, and prints the table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from fmi_shim.errors import ConfigError

SWITCH_VARIABLE = "FMI_SWITCH_POINTS"


@dataclass(frozen=True, slots=True)
class SwitchPoints:
    """Sizes in bytes, measured with both schedules in turns over loopback on 2 (busy) cores with N = 2, 4, 8.

    At the size given the large schedule takes this part of the small one's time at N = 2, 4, 8, and at half of
    it: allreduce 0.41, 0.45, 0.71, and 1.05, 0.94, 1.41; reduce 0.35, 0.56, 0.57, and 1.28, 1.06, 1.16; allgather,
    which was measured at a quarter, 0.63, 0.83, 1.09, and 0.74, 0.98, 1.77; alltoall at N = 16 0.90, and 1.40.

    Attributes
    ----------
    allreduce
        One rank's payload, from which on halves are exchanged instead of the whole in each round.
    reduce
        One rank's payload, from which on segments of it follow each other up the tree.
    allgather
        All payloads together, from which on they are sent around a ring without copies instead of in doubling blocks.
    alltoall
        One rank's payload, from which on each slice is sent directly to its rank instead of through other ranks. Among
        at most 8 ranks slices are always sent directly.
    """

    allreduce: int = 1 << 18
    reduce: int = 1 << 21
    allgather: int = 1 << 18
    alltoall: int = 1 << 17


def load_switch_points(environment: Mapping[str, str]) -> SwitchPoints:
    """Return the table with what `environment` overrides.

    Raises
    ------
    ConfigError
        If an entry is unknown or no size.
    """
    names = [field.name for field in fields(SwitchPoints)]
    table = SwitchPoints()
    for entry in filter(None, environment.get(SWITCH_VARIABLE, "").split(",")):
        name, _, size = entry.partition("=")
        if name.strip() not in names or not (size.strip().isascii() and size.strip().isdigit() and len(size) < 20):
            raise ConfigError(
                f"environment: invalid entry {entry[:80]!r} of {SWITCH_VARIABLE}: expected one of "
                f"{', '.join(names)} with '=' and a size in bytes"
            )
        table = replace(table, **{name.strip(): int(size)})
    return table


SWITCH_POINTS = load_switch_points(os.environ)
