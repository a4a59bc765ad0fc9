"""How good photometric redshifts are, in the figures astronomers report.

With dz = (z_phot - z_spec) / (1 + z_spec): sums over galaxies (`PartialSums`) can be reduced over ranks, and are, to
the last bit; medians need every dz in one place, so they are computed from gathered values (`measure`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.errors import MetricsError

Floats = NDArray[np.float64]

OUTLIER = 0.05
CATASTROPHIC = 0.15
GAUSSIAN_MAD = 1.4826  # standard deviation of a Gaussian over its median absolute deviation
GAUSSIAN_IQR = 1.349  # interquartile range of a Gaussian over its standard deviation

QUANTUM = 2.0**-32
LIMIT = 2.0**21  # from here on a float64 can no longer tell two multiples of QUANTUM apart


@dataclass(frozen=True, slots=True)
class Metrics:
    """The report: one number each.

    Attributes
    ----------
    n : int
        Galaxies.
    mae, mse, rmse : float
        Mean absolute, mean squared, root mean squared error of z_phot - z_spec.
    bias : float
        Mean of dz; `median_bias` its median.
    sigma_nmad : float
        1.4826 median|dz - median dz|, a standard deviation that outliers do not move.
    sigma_iqr : float
        Interquartile range of dz / 1.349, likewise.
    outliers, catastrophic : float
        Shares of galaxies with |dz| above 0.05 and 0.15.
    r2 : float
        Share of the variance of z_spec that is explained.
    """

    n: int
    mae: float
    mse: float
    rmse: float
    bias: float
    median_bias: float
    sigma_nmad: float
    sigma_iqr: float
    outliers: float
    catastrophic: float
    r2: float


@dataclass(frozen=True, slots=True)
class PartialSums:
    """Sums over some galaxies; sums over all of them are the element-wise sum of these, rank by rank.

    Each galaxy's terms are rounded to multiples of 2^-32 (2.3e-10), so float64 adds them without rounding as long as
    every total is below 2^21: whichever way galaxies are dealt to ranks and in whatever order ranks are added, the
    totals are the same bits.
    """

    n: float
    abs_error: float
    squared_error: float
    dz: float
    z_spec: float
    squared_z_spec: float
    outliers: float
    catastrophic: float

    @classmethod
    def of(cls, z_spec: Floats, z_phot: Floats) -> PartialSums:
        """Sum over galaxies with these redshifts, float64 [n] each; n may be 0.

        Raises
        ------
        MetricsError
            Lengths differ, or a redshift is not finite.
        """
        _check(z_spec, z_phot)
        error = z_phot - z_spec
        dz = error / (1.0 + z_spec)
        ones = np.ones_like(dz)
        far, very_far = np.abs(dz) > OUTLIER, np.abs(dz) > CATASTROPHIC
        terms = np.stack([ones, np.abs(error), error**2, dz, z_spec, z_spec**2, far, very_far])
        return cls.from_vector((np.rint(terms / QUANTUM) * QUANTUM).sum(axis=1))

    @classmethod
    def from_vector(cls, vector: Floats) -> PartialSums:
        """Read sums from what a reduce returned, float64 [8].

        Raises
        ------
        MetricsError
            The vector has another length, or a total is too large to be exact.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if vector.shape != (len(names),):
            raise MetricsError(f"expected {len(names)} sums ({', '.join(names)}), got shape {vector.shape}")
        if not np.all(np.abs(vector) < LIMIT):
            raise MetricsError(f"expected sums below {LIMIT:.0f}, where they are exact; got {vector.tolist()}")
        return cls(*vector.tolist())

    def vector(self) -> Floats:
        """Return the sums as float64 [8], for one reduce with addition."""
        return np.array(dataclasses.astuple(self), dtype=np.float64)

    def means(self) -> dict[str, float]:
        """Return those of `Metrics` that follow from sums alone.

        Raises
        ------
        MetricsError
            There is no galaxy.
        """
        if self.n == 0:
            raise MetricsError("expected at least one galaxy, got none: no metric can be computed")
        spread = self.squared_z_spec - self.z_spec**2 / self.n
        mse = self.squared_error / self.n
        return {
            "n": int(self.n),
            "mae": self.abs_error / self.n,
            "mse": mse,
            "rmse": float(np.sqrt(mse)),
            "bias": self.dz / self.n,
            "outliers": self.outliers / self.n,
            "catastrophic": self.catastrophic / self.n,
            "r2": 1.0 - self.squared_error / spread if spread > 0 else float("nan"),
        }


def residuals(z_spec: Floats, z_phot: Floats) -> Floats:
    """Return dz = (z_phot - z_spec) / (1 + z_spec), float64 [n]."""
    return np.asarray((z_phot - z_spec) / (1.0 + z_spec), dtype=np.float64)


def sigma_nmad(dz: Floats) -> float:
    """Return 1.4826 median|dz - median dz|."""
    return float(GAUSSIAN_MAD * np.median(np.abs(dz - np.median(dz))))


def measure(z_spec: Floats, z_phot: Floats, sums: PartialSums | None = None) -> Metrics:
    """Compute every metric from all galaxies' redshifts, float64 [n] each.

    Parameters
    ----------
    z_spec, z_phot : float64 [n]
    sums : PartialSums, optional
        Totals over the same galaxies, where ranks have reduced them already.

    Raises
    ------
    MetricsError
        No galaxies, lengths differ, a redshift is not finite, or the totals are over another number of galaxies.
    """
    own = PartialSums.of(z_spec, z_phot)
    totals = sums or own
    if totals.n != own.n:
        raise MetricsError(f"reduced sums count {totals.n:.0f} galaxies, {own.n:.0f} were gathered")
    means = totals.means()
    dz = residuals(z_spec, z_phot)
    low, high = np.percentile(dz, [25.0, 75.0])
    return Metrics(
        n=int(means.pop("n")),
        median_bias=float(np.median(dz)),
        sigma_nmad=sigma_nmad(dz),
        sigma_iqr=float(high - low) / GAUSSIAN_IQR,
        **means,
    )


def bootstrap(z_spec: Floats, z_phot: Floats, resamples: int = 200, seed: int = 0) -> Metrics:
    """Estimate each metric's standard error by drawing galaxies with replacement.

    Returns
    -------
    Metrics
        Standard deviations over the resamples; `n` is the number of galaxies.
    """
    generator = np.random.default_rng(seed)
    n = len(z_spec)
    draws = [measure(z_spec[rows], z_phot[rows]) for rows in generator.integers(0, n, size=(resamples, n))]
    errors = np.std([dataclasses.astuple(draw)[1:] for draw in draws], axis=0)
    return Metrics(n, *errors.tolist())


def table(metrics: Metrics, errors: Metrics) -> str:
    """Write the report as text, a metric a line with its standard error."""
    lines = [f"{'galaxies':>12}  {metrics.n}"]
    for name, value in list(dataclasses.asdict(metrics).items())[1:]:
        lines.append(f"{name:>12}  {value:9.5f} ± {getattr(errors, name):.5f}")
    return "\n".join(lines)


def _check(z_spec: Floats, z_phot: Floats) -> None:
    if z_spec.shape != z_phot.shape or z_spec.ndim != 1:
        raise MetricsError(f"expected one z_phot a z_spec, got shapes {z_phot.shape} and {z_spec.shape}")
    for name, values in (("z_spec", z_spec), ("z_phot", z_phot)):
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise MetricsError(f"{name} of galaxy {bad[0]} is {values[bad[0]]}, expected a finite redshift")
