"""The figures of the comparison: one per operation, size and world size, stored as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

OURS = ("direct", "raw", "shm")
PEERS = ("mpi", "gloo")
FLOORS = ("sockets", "c", "c-fmi")
"""The lower bounds over TCP, `benchmarks.bare_sockets`: in Python, in C, and in C in the order of FMI's C++ library."""

_NONE = f"{'-':>15}"


@dataclass(frozen=True, slots=True)
class Figure:
    """Seconds per call of each contestant.

    Attributes
    ----------
    operation
        Its name in `fmi.Communicator`.
    size_bytes
        Bytes that a rank passes in; of an allgather, bytes that it gets; 0 for a barrier.
    world_size
        Number of ranks.
    seconds
        Median, over the turns, of the slowest rank's time, by contestant.
    """

    operation: str
    size_bytes: int
    world_size: int
    seconds: dict[str, float]

    @property
    def case(self) -> tuple[str, int, int]:
        """The case that was measured."""
        return self.operation, self.size_bytes, self.world_size

    def ratio(self, ours: str, theirs: str) -> float | None:
        """Return how many times longer `ours` takes than `theirs`; None if one of them was not measured."""
        if ours not in self.seconds or theirs not in self.seconds:
            return None
        return self.seconds[ours] / self.seconds[theirs]


def table_header(names: Sequence[str]) -> str:
    """Return the table's first line."""
    ratios = [f"{ours}/{theirs}" for ours, theirs in _pairs(names)]
    return f"{'operation':<15}{'bytes':>10}{'N':>4}" + "".join(f"{name:>15}" for name in [*names, *ratios])


def table_line(figure: Figure, names: Sequence[str]) -> str:
    """Return a line of the table: milliseconds, then ratios; a contestant without the operation has a dash."""
    line = f"{figure.operation:<15}{figure.size_bytes:>10}{figure.world_size:>4}"
    line += "".join(f"{figure.seconds[name] * 1e3:>15.4f}" if name in figure.seconds else _NONE for name in names)
    ratios = [figure.ratio(ours, theirs) for ours, theirs in _pairs(names)]
    return line + "".join(_NONE if ratio is None else f"{ratio:>15.2f}" for ratio in ratios)


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return one of ours and another contestant, for each ratio in the table."""
    return [(ours, theirs) for ours in OURS for theirs in (*PEERS, *FLOORS) if {ours, theirs} <= {*names}]


def load(path: Path) -> list[Figure]:
    """Return the figures stored at `path`, none if the file does not exist."""
    if not path.exists():
        return []
    return [Figure(**figure) for figure in json.loads(path.read_text())]


def save(figures: Iterable[Figure], path: Path) -> None:
    """Store `figures` at `path`, one per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(asdict(figure)) for figure in figures) + "\n]\n")
