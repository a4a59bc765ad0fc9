"""Durations of cold starts, drawn from measurements on AWS."""

import csv
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources


class ColdStarts:
    """Draws durations of cold starts.

    Parameters
    ----------
    init_ms
        Measured Init Durations, ms, by the memory of the function, MB.
    seed
        The same seed gives the same durations in the same order; None gives a random sequence.
    """

    def __init__(self, init_ms: Mapping[int, Sequence[float]], seed: int | None = None) -> None:
        self._init_ms = init_ms
        self._random = random.Random(seed)  # noqa: S311 - not used for security

    @classmethod
    def measured(cls, seed: int | None = None) -> "ColdStarts":
        """Draw from ``data/cold_starts.csv``, which names the source of its measurements."""
        text = resources.files("emulator.aws.lambda_").joinpath("data/cold_starts.csv").read_text()
        return cls(_read(text.splitlines()), seed)

    def draw_s(self, memory_mb: int) -> float:
        """Return the duration of a cold start, seconds: one of those measured at the nearest memory size.

        Parameters
        ----------
        memory_mb
            The function's memory, MB.
        """
        nearest = min(self._init_ms, key=lambda measured_mb: abs(math.log(measured_mb / memory_mb)))
        return self._random.choice(self._init_ms[nearest]) / 1000


def _read(lines: Iterable[str]) -> dict[int, list[float]]:
    init_ms: defaultdict[int, list[float]] = defaultdict(list)
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        init_ms[int(row["memory_mb"])].append(float(row["init_ms"]))
    return dict(init_ms)
