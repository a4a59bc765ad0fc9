"""Standard metrics of photometric redshifts, with dz = (z_phot - z_spec) / (1 + z_spec).

Sums over galaxies (`PartialSums`) are reduced over ranks without rounding errors. A median needs all values of dz, so
it is computed from gathered values (`compute_metrics`).
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
LIMIT = 2.0**21  # from here on two multiples of QUANTUM may round to the same float64


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of n galaxies.

    Attributes
    ----------
    n : int
        Galaxies.
    mae, mse, rmse : float
        Mean absolute, mean squared, root mean squared error of z_phot - z_spec.
    bias : float
        Mean of dz; `median_bias` its median.
    sigma_nmad : float
        1.4826 median|dz - median dz|: a robust estimate of the standard deviation.
    sigma_iqr : float
        Interquartile range of dz / 1.349: the same.
    outliers, catastrophic : float
        Fractions of galaxies with |dz| above 0.05 and 0.15.
    r2 : float
        Coefficient of determination: the fraction of the variance of z_spec that is explained.
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
    """Sums over the galaxies of one rank; their element-wise sum over the ranks is the sum over all galaxies.

    Each term is rounded to a multiple of 2^-32 (2.3e-10), so that float64 adds them without rounding while every total
    is below 2^21. The totals are therefore bit-identical for any distribution of the galaxies over the ranks and any
    order of the reduction.
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
    def from_redshifts(cls, z_spec: Floats, z_phot: Floats) -> PartialSums:
        """Compute the sums over galaxies with these redshifts, float64 [n] each; n may be 0.

        Raises
        ------
        MetricsError
            The lengths differ, or a redshift is not finite.
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
        """Convert the result of a reduce, float64 [8], to sums.

        Raises
        ------
        MetricsError
            The vector has another length, or a total is 2^21 or more and may be inexact.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if vector.shape != (len(names),):
            raise MetricsError(f"expected {len(names)} sums ({', '.join(names)}), got shape {vector.shape}")
        if not np.all(np.abs(vector) < LIMIT):
            raise MetricsError(f"expected sums below {LIMIT:.0f}, the limit of exact addition, got {vector.tolist()}")
        return cls(*vector.tolist())

    def to_vector(self) -> Floats:
        """Return the sums as float64 [8], the argument of a reduce with addition."""
        return np.array(dataclasses.astuple(self), dtype=np.float64)

    def means(self) -> dict[str, float]:
        """Return the fields of `Metrics` that can be computed from the sums.

        Raises
        ------
        MetricsError
            The number of galaxies is 0.
        """
        if self.n == 0:
            raise MetricsError("expected at least one galaxy, got none")
        variance = self.squared_z_spec - self.z_spec**2 / self.n
        mse = self.squared_error / self.n
        return {
            "n": int(self.n),
            "mae": self.abs_error / self.n,
            "mse": mse,
            "rmse": float(np.sqrt(mse)),
            "bias": self.dz / self.n,
            "outliers": self.outliers / self.n,
            "catastrophic": self.catastrophic / self.n,
            "r2": 1.0 - self.squared_error / variance if variance > 0 else float("nan"),
        }


def residuals(z_spec: Floats, z_phot: Floats) -> Floats:
    """Return dz = (z_phot - z_spec) / (1 + z_spec), float64 [n]."""
    return np.asarray((z_phot - z_spec) / (1.0 + z_spec), dtype=np.float64)


def sigma_nmad(dz: Floats) -> float:
    """Return 1.4826 median|dz - median dz|."""
    return float(GAUSSIAN_MAD * np.median(np.abs(dz - np.median(dz))))


def compute_metrics(z_spec: Floats, z_phot: Floats, sums: PartialSums | None = None) -> Metrics:
    """Compute the metrics from the redshifts of all galaxies.

    Parameters
    ----------
    z_spec, z_phot : float64 [n]
    sums : PartialSums, optional
        Totals over the same galaxies, if the ranks have reduced them.

    Raises
    ------
    MetricsError
        There is no galaxy, the lengths differ, a redshift is not finite, or `sums` counts another number of galaxies.
    """
    computed = PartialSums.from_redshifts(z_spec, z_phot)
    totals = sums or computed
    if totals.n != computed.n:
        raise MetricsError(f"expected sums over {computed.n:.0f} galaxies, as gathered, got {totals.n:.0f}")
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
    """Estimate the standard error of each metric with the bootstrap: galaxies are drawn with replacement.

    Returns
    -------
    Metrics
        Standard deviations over the resamples; `n` is the number of galaxies.
    """
    generator = np.random.default_rng(seed)
    n = len(z_spec)
    draws = [compute_metrics(z_spec[rows], z_phot[rows]) for rows in generator.integers(0, n, size=(resamples, n))]
    errors = np.std([dataclasses.astuple(draw)[1:] for draw in draws], axis=0)
    return Metrics(n, *errors.tolist())


def format_table(metrics: Metrics, errors: Metrics) -> str:
    """Format the metrics as text: one metric with its standard error per line."""
    lines = [f"{'galaxies':>12}  {metrics.n}"]
    for name, value in list(dataclasses.asdict(metrics).items())[1:]:
        lines.append(f"{name:>12}  {value:9.5f} ± {getattr(errors, name):.5f}")
    return "\n".join(lines)


def _check(z_spec: Floats, z_phot: Floats) -> None:
    if z_spec.shape != z_phot.shape or z_spec.ndim != 1:
        raise MetricsError(
            f"expected z_phot and z_spec of the same length, got shapes {z_phot.shape} and {z_spec.shape}"
        )
    for name, values in (("z_spec", z_spec), ("z_phot", z_phot)):
        invalid = np.flatnonzero(~np.isfinite(values))
        if len(invalid):
            raise MetricsError(
                f"invalid {name} {values[invalid[0]]} of galaxy {invalid[0]}: expected a finite redshift"
            )
