"""Standard metrics of photometric redshifts, with dz = (z_phot - z_spec) / (1 + z_spec).

Sums over galaxies (`PartialSums`) are reduced over ranks without rounding errors. A median needs all values of dz: it
is computed from gathered values (`Spread.from_values`), or within half a bin from a reduced histogram
(`inference.histogram`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.errors import MetricsError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

OUTLIER = 0.05
CATASTROPHIC = 0.15
RAIL_MINIMUM = 0.06  # RAIL's outlier definition: |dz| > max(0.06, 3 sigma_IQR)
RAIL_SIGMAS = 3.0
GAUSSIAN_MAD = 1.4826  # standard deviation of a Gaussian over its median absolute deviation
GAUSSIAN_IQR = 1.349  # interquartile range of a Gaussian over its standard deviation

QUANTA = 2**32  # of which one unit of a sum consists
LIMIT = 2.0**20  # of one term: it has at most 52 bits, and 1024 terms fit in 63
LIMB_BITS = 31
RESAMPLES, MIN_RESAMPLES = 200, 30  # of the bootstrap
BOOTSTRAP_ROWS = 20_000_000  # galaxies in all resamples: about five seconds
BLOCK = 1024  # terms that are added as int64


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
    rail_outliers : float
        The same above max(0.06, 3 sigma_iqr), the definition of RAIL.
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
    rail_outliers: float
    r2: float


@dataclass(frozen=True, slots=True)
class Spread:
    """The fields of `Metrics` that a sum over ranks cannot give: they depend on the order of all values of dz."""

    median_bias: float
    sigma_nmad: float
    sigma_iqr: float
    rail_outliers: float

    @classmethod
    def from_values(cls, dz: Floats) -> Spread:
        """Compute them from all values, float64 [n].

        Raises
        ------
        MetricsError
            There is no value.
        """
        if len(dz) == 0:
            raise MetricsError("expected at least one galaxy, got none")
        low, high = np.percentile(dz, [25.0, 75.0])
        sigma_iqr = float(high - low) / GAUSSIAN_IQR
        return cls(
            median_bias=float(np.median(dz)),
            sigma_nmad=sigma_nmad(dz),
            sigma_iqr=sigma_iqr,
            rail_outliers=float(np.mean(np.abs(dz) > rail_limit(sigma_iqr))),
        )


@dataclass(frozen=True, slots=True)
class PartialSums:
    """Sums over the galaxies of one rank; their element-wise sum over the ranks is the sum over all galaxies.

    Each term is rounded to a multiple of 2^-32 (2.3e-10) and added as an integer. The totals are therefore
    bit-identical for any distribution of any number of galaxies over the ranks, and any order of the reduction. All
    sums are in units of 2^-32; `n`, `outliers` and `catastrophic` are counts.
    """

    n: int = 0
    abs_error: int = 0
    squared_error: int = 0
    dz: int = 0
    z_spec: int = 0
    squared_z_spec: int = 0
    outliers: int = 0
    catastrophic: int = 0

    @classmethod
    def from_redshifts(cls, z_spec: Floats, z_phot: Floats) -> PartialSums:
        """Compute the sums over galaxies with these redshifts, float64 [n] each; n may be 0.

        Raises
        ------
        MetricsError
            The lengths differ, or a redshift is not finite or too large for an exact sum.
        """
        _check(z_spec, z_phot)
        # What is too large is refused below.
        with np.errstate(over="ignore", divide="ignore"):
            error = z_phot - z_spec
            dz = error / (1.0 + z_spec)
            terms = np.stack([np.abs(error), error**2, dz, z_spec, z_spec**2])
        invalid = np.flatnonzero(~(np.abs(terms) < LIMIT).all(axis=0))
        if len(invalid):
            row = invalid[0]
            raise MetricsError(
                f"row {row}: invalid redshifts, z_spec {z_spec[row]} and z_phot {z_phot[row]}: expected values below "
                f"{np.sqrt(LIMIT):.0f}, the limit of exact addition, and z_spec above -1"
            )
        quanta = np.rint(terms * QUANTA).astype(np.int64)
        abs_error, squared_error, sum_dz, sum_z, squared_z = (sum(_blocks(row)) for row in quanta)
        far, very_far = int(np.sum(np.abs(dz) > OUTLIER)), int(np.sum(np.abs(dz) > CATASTROPHIC))
        return cls(len(z_spec), abs_error, squared_error, sum_dz, sum_z, squared_z, far, very_far)

    def __add__(self, other: PartialSums) -> PartialSums:
        return PartialSums(*(a + b for a, b in zip(self.to_values(), other.to_values(), strict=True)))

    @classmethod
    def from_vector(cls, vector: Integers) -> PartialSums:
        """Convert the result of a reduce, int64 [16], to sums.

        Raises
        ------
        MetricsError
            The vector has another shape or type.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if vector.shape != (2 * len(names),) or vector.dtype != np.int64:
            raise MetricsError(
                f"expected {len(names)} sums ({', '.join(names)}) in two int64 limbs each, got {vector.dtype} "
                f"{list(vector.shape)}"
            )
        low, high = np.split(vector, 2)
        return cls(*((top << LIMB_BITS) + rest for rest, top in zip(low.tolist(), high.tolist(), strict=True)))

    def to_vector(self) -> Integers:
        """Return the sums as int64 [16], the argument of a reduce with addition.

        First come the low 31 bits of each sum, then the rest of each: limbs of 2^32 ranks add without overflow.
        """
        low = [value & (2**LIMB_BITS - 1) for value in self.to_values()]
        high = [value >> LIMB_BITS for value in self.to_values()]
        return np.array([*low, *high], dtype=np.int64)

    def to_values(self) -> list[int]:
        """Return the sums in the order of the fields."""
        return [getattr(self, field.name) for field in dataclasses.fields(self)]

    def means(self) -> dict[str, float]:
        """Return the fields of `Metrics` that can be computed from the sums.

        Raises
        ------
        MetricsError
            The number of galaxies is 0.
        """
        if self.n == 0:
            raise MetricsError("expected at least one galaxy, got none")
        n = self.n
        # In integers the difference of the two large numbers is exact.
        variance = (self.squared_z_spec * QUANTA * n - self.z_spec**2) / (QUANTA**2 * n)
        mse = self.squared_error / QUANTA / n
        return {
            "n": n,
            "mae": self.abs_error / QUANTA / n,
            "mse": mse,
            "rmse": float(np.sqrt(mse)),
            "bias": self.dz / QUANTA / n,
            "outliers": self.outliers / n,
            "catastrophic": self.catastrophic / n,
            "r2": 1.0 - mse * n / variance if variance > 0 else float("nan"),
        }


def _blocks(terms: Integers) -> Iterator[int]:
    """Yield the sum of each block of terms; a block's sum fits in int64."""
    for start in range(0, len(terms), BLOCK):
        yield int(terms[start : start + BLOCK].sum())


def residuals(z_spec: Floats, z_phot: Floats) -> Floats:
    """Return dz = (z_phot - z_spec) / (1 + z_spec), float64 [n]."""
    return np.asarray((z_phot - z_spec) / (1.0 + z_spec), dtype=np.float64)


def sigma_nmad(dz: Floats) -> float:
    """Return 1.4826 median|dz - median dz|."""
    return float(GAUSSIAN_MAD * np.median(np.abs(dz - np.median(dz))))


def rail_limit(sigma_iqr: float) -> float:
    """Return the |dz| above which RAIL counts an outlier."""
    return max(RAIL_MINIMUM, RAIL_SIGMAS * sigma_iqr)


def combine(sums: PartialSums, spread: Spread) -> Metrics:
    """Return the metrics from sums and spread of the same galaxies, of which there is at least one."""
    means = sums.means()
    return Metrics(n=int(means.pop("n")), **means, **dataclasses.asdict(spread))


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
        raise MetricsError(f"expected sums over {computed.n} galaxies, as gathered, got {totals.n}")
    return combine(totals, Spread.from_values(residuals(z_spec, z_phot)))


def bootstrap(z_spec: Floats, z_phot: Floats, resamples: int | None = None, seed: int = 0) -> Metrics:
    """Estimate the standard error of each metric with the bootstrap: galaxies are drawn with replacement.

    Parameters
    ----------
    z_spec, z_phot : float64 [n]
    resamples : int, optional
        200 by default, and for more than 100,000 galaxies fewer, down to 30: the errors are then known to 13 %.
    seed : int

    Returns
    -------
    Metrics
        Standard deviations over the resamples; `n` is the number of galaxies.
    """
    generator = np.random.default_rng(seed)
    n = len(z_spec)
    if resamples is None:
        resamples = int(np.clip(BOOTSTRAP_ROWS // max(1, n), MIN_RESAMPLES, RESAMPLES))
    draws = []
    for _ in range(resamples):
        rows = generator.integers(0, n, size=n)
        draws.append(dataclasses.astuple(compute_metrics(z_spec[rows], z_phot[rows]))[1:])
    return Metrics(n, *np.std(draws, axis=0).tolist())


@dataclass(frozen=True, slots=True)
class Requirement:
    """A requirement of LSST on photometric redshifts at 0.3 < z < 3, and what was measured.

    Source: LSST Science Requirements Document (LPM-17) and LSST Science Book (arXiv:0912.0201), section 3.8: for
    i < 25.3 a bias below 0.003, a scatter below 0.02 and fewer than 10 % of 3 sigma outliers, in units of 1 + z.
    """

    name: str
    value: float
    limit: float

    @property
    def is_met(self) -> bool:
        """Whether the absolute value is below the limit."""
        return abs(self.value) < self.limit


def lsst_requirements(metrics: Metrics) -> tuple[Requirement, ...]:
    """Compare bias, scatter and outliers with LSST's requirements; this sample's galaxies are nearer than LSST's."""
    return (
        Requirement("bias", metrics.bias, 0.003),
        Requirement("sigma_iqr", metrics.sigma_iqr, 0.02),
        Requirement("rail_outliers", metrics.rail_outliers, 0.10),
    )


@dataclass(frozen=True, slots=True)
class TomographicBin:
    """The galaxies of one bin of photometric redshift.

    Attributes
    ----------
    low, high : float
        Limits in z_phot.
    n : int
    mean_z_phot, mean_z_spec : float
    shift, shift_error : float
        Mean of z_phot - z_spec, and its standard error. Weak lensing with LSST requires |shift| < 0.002 (1 + z) in its
        first year and 0.001 (1 + z) in its tenth (DESC Science Requirements Document, arXiv:1809.01669).
    """

    low: float
    high: float
    n: int
    mean_z_phot: float
    mean_z_spec: float
    shift: float
    shift_error: float


def tomographic_bins(z_spec: Floats, z_phot: Floats, bins: int = 5) -> list[TomographicBin]:
    """Divide galaxies into bins of z_phot with equal numbers; bins of fewer than two galaxies are left out."""
    order = np.argsort(z_phot, kind="stable")
    found = []
    for rows in np.array_split(order, bins):
        if len(rows) < 2:
            continue
        error = z_phot[rows] - z_spec[rows]
        found.append(
            TomographicBin(
                low=float(z_phot[rows[0]]),
                high=float(z_phot[rows[-1]]),
                n=len(rows),
                mean_z_phot=float(z_phot[rows].mean()),
                mean_z_spec=float(z_spec[rows].mean()),
                shift=float(error.mean()),
                shift_error=float(error.std(ddof=1) / np.sqrt(len(rows))),
            )
        )
    return found


def format_bins(bins: Sequence[TomographicBin]) -> str:
    """Format tomographic bins as text: one line per bin."""
    lines = ["      z_phot       galaxies  <z_phot>  <z_spec>  <z_phot - z_spec>"]
    lines += [
        f"{found.low:7.4f} to {found.high:6.4f}  {found.n:7d}  {found.mean_z_phot:8.4f}  {found.mean_z_spec:8.4f}  "
        f"{found.shift:+8.5f} ± {found.shift_error:.5f}"
        for found in bins
    ]
    return "\n".join(lines)


def format_table(metrics: Metrics, errors: Metrics) -> str:
    """Format the metrics as text: one per line, with its standard error if known and LSST's requirement."""
    limits = {requirement.name: requirement for requirement in lsst_requirements(metrics)}
    lines = [f"{'galaxies':>13}  {metrics.n}"]
    for name, value in list(dataclasses.asdict(metrics).items())[1:]:
        error = getattr(errors, name)
        line = f"{name:>13}  {value:9.5f}" + (f" ± {error:.5f}" if np.isfinite(error) else "")
        if (requirement := limits.get(name)) is not None:
            met = "met" if requirement.is_met else "not met"
            line += f"   LSST requires less than {requirement.limit:g}: {met}"
        lines.append(line)
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
