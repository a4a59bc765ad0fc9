"""A histogram of dz, whose sum over ranks gives medians and percentiles without gathering the galaxies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.errors import MetricsError
from inference.metrics import GAUSSIAN_IQR, GAUSSIAN_MAD, Floats, Integers, Spread, rail_limit

HALF_WIDTH = 1.0  # of the range of dz that has bins; what lies outside is counted in the first and last bin
BINS = 100_000
BIN_WIDTH = 2 * HALF_WIDTH / BINS
CENTRES = np.linspace(-HALF_WIDTH + BIN_WIDTH / 2, HALF_WIDTH - BIN_WIDTH / 2, BINS, dtype=np.float64)
RESAMPLES = 100


@dataclass(frozen=True, slots=True)
class DzHistogram:
    """Numbers of galaxies in 100,000 bins of dz from -1 to 1; the sum of two is that of both.

    Attributes
    ----------
    counts : int64 [100000]
    """

    counts: Integers

    @classmethod
    def from_values(cls, dz: Floats) -> DzHistogram:
        """Count these values, float64 [n], finite; n may be 0."""
        bins = np.clip((dz + HALF_WIDTH) / BIN_WIDTH, 0, BINS - 1).astype(np.int64)
        return cls(np.bincount(bins, minlength=BINS).astype(np.int64))

    def __add__(self, other: DzHistogram) -> DzHistogram:
        return DzHistogram(self.counts + other.counts)

    def spread(self) -> Spread:
        """Compute the medians and what depends on them; each lies within 2e-5 of the exact value for |dz| < 1.

        Raises
        ------
        MetricsError
            There is no galaxy.
        """
        if not self.counts.any():
            raise MetricsError("expected at least one galaxy, got none")
        median, low, high = (_quantile(CENTRES, self.counts, fraction) for fraction in (0.5, 0.25, 0.75))
        distance = np.abs(CENTRES - median)
        order = np.argsort(distance, kind="stable")
        sigma_iqr = (high - low) / GAUSSIAN_IQR
        outside = np.abs(CENTRES) > rail_limit(sigma_iqr)
        return Spread(
            median_bias=median,
            sigma_nmad=GAUSSIAN_MAD * _quantile(distance[order], self.counts[order], 0.5),
            sigma_iqr=sigma_iqr,
            rail_outliers=float(self.counts[outside].sum() / self.counts.sum()),
        )

    def spread_errors(self, seed: int = 0) -> Spread:
        """Estimate the standard errors of `spread` with the bootstrap: each bin's count is drawn anew."""
        generator = np.random.default_rng(seed)
        filled = np.flatnonzero(self.counts)
        n = int(self.counts.sum())
        draws = []
        for _ in range(RESAMPLES):
            counts = np.zeros_like(self.counts)
            counts[filled] = generator.multinomial(n, self.counts[filled] / n)
            drawn = DzHistogram(counts).spread()
            draws.append((drawn.median_bias, drawn.sigma_nmad, drawn.sigma_iqr, drawn.rail_outliers))
        return Spread(*np.std(draws, axis=0).tolist())


def _quantile(values: Floats, counts: NDArray[np.int64], fraction: float) -> float:
    """Return the value below which this fraction of the counted galaxies lies; the values are sorted."""
    cumulated = np.cumsum(counts)
    last = cumulated[-1] - 1
    # As numpy's default: between the two neighbours of the position (n - 1) fraction.
    position = last * fraction
    below, above = np.floor(position), np.ceil(position)
    lower, upper = values[np.searchsorted(cumulated, [below, above], side="right")]
    return float(lower + (upper - lower) * (position - below))
