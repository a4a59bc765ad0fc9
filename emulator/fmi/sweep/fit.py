"""Does the run time grow with the world size? Time against log2 N, and against a constant, by least squares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Two-sided 95 % quantiles of Student's t distribution by degrees of freedom (any table of it; 1.96 is the limit).
_T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 15: 2.13, 20: 2.09}
_FEWEST_SIZES = 3


@dataclass(frozen=True)
class Fit:
    """Time = constant + slope log2 N, and the same points by their mean alone.

    Parameters
    ----------
    constant, slope
        Seconds, and seconds per doubling of N.
    slope_error
        Standard error of the slope.
    residuals
        Measured minus fitted seconds, by point.
    mean, mean_residuals
        The mean of the times, and measured minus mean.
    degrees
        Degrees of freedom of the slope's error: the number of points minus 2.
    """

    constant: float
    slope: float
    slope_error: float
    residuals: tuple[float, ...]
    mean: float
    mean_residuals: tuple[float, ...]
    degrees: int

    @property
    def margin(self) -> float:
        """Half the width of the slope's 95 % confidence interval."""
        return _t95(self.degrees) * self.slope_error

    @property
    def grows(self) -> bool:
        """Whether the interval excludes 0 from below."""
        return self.slope > self.margin

    def time(self, world_size: float) -> float:
        """Return the fitted seconds at a world size."""
        return self.constant + self.slope * math.log2(world_size)


def fit_world_size(world_sizes: Sequence[int], seconds: Sequence[float]) -> Fit | None:
    """Fit run times; None if there are fewer than three world sizes, through which any line would pass.

    Parameters
    ----------
    world_sizes, seconds
        One entry per run; world sizes may repeat.
    """
    if len(set(world_sizes)) < _FEWEST_SIZES:
        return None
    x, y = np.log2(np.asarray(world_sizes, dtype=float)), np.asarray(seconds, dtype=float)
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    constant = float(y.mean() - slope * x.mean())
    residuals = y - constant - slope * x
    degrees = len(x) - 2
    error = math.sqrt(float((residuals**2).sum()) / degrees / spread)
    return Fit(
        constant, slope, error, tuple(residuals.tolist()), float(y.mean()), tuple((y - y.mean()).tolist()), degrees
    )


def in_words(fit: Fit | None) -> str:
    """Return what the data say about the growth of the time with the world size, in one or two sentences."""
    if fit is None:
        return f"Fewer than {_FEWEST_SIZES} world sizes: the runs say nothing about growth with the world size."
    rms, mean_rms = _rms(fit.residuals), _rms(fit.mean_residuals)
    measured = (
        f"time = {fit.constant:.2f} s + ({fit.slope:+.3f} ± {fit.slope_error:.3f}) s x log2 N, "
        f"residuals {rms:.2f} s rms; a constant {fit.mean:.2f} s, residuals {mean_rms:.2f} s rms."
    )
    if fit.grows:
        low, high = fit.slope - fit.margin, fit.slope + fit.margin
        verdict = f"The data support growth: {low:.2f} to {high:.2f} s per doubling of the ranks (95 %)."
    elif fit.slope < -fit.margin:
        verdict = "The time falls with the world size: neither model describes it."
    else:
        verdict = (
            "The data do not distinguish growth with log2 N from a constant time: a growth of up to "
            f"{max(0.0, fit.slope + fit.margin):.2f} s per doubling of the ranks (95 %) fits them as well."
        )
    return f"{verdict} {measured[0].upper()}{measured[1:]}"


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))


def _t95(degrees: int) -> float:
    """Return the quantile for these degrees of freedom, of the next smaller number that the table has."""
    known = [found for found in _T95 if found <= degrees]
    return 1.96 if degrees > 120 else _T95[max(known)]
