from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import MetricsError
from inference.histogram import BIN_WIDTH, BINS, DzHistogram
from inference.metrics import Spread


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.floats(1e-3, 0.2), st.integers(0, 99))
def test_medians_of_the_histogram_lie_within_a_bin_of_those_of_the_values(n: int, sigma: float, seed: int) -> None:
    dz = np.clip(np.random.default_rng(seed).normal(0.01, sigma, n), -0.99, 0.99)
    exact, binned = Spread.from_values(dz), DzHistogram.from_values(dz).spread()
    assert binned.median_bias == pytest.approx(exact.median_bias, abs=BIN_WIDTH)
    assert binned.sigma_nmad == pytest.approx(exact.sigma_nmad, abs=3 * BIN_WIDTH)
    assert binned.sigma_iqr == pytest.approx(exact.sigma_iqr, abs=3 * BIN_WIDTH)
    assert binned.rail_outliers == pytest.approx(exact.rail_outliers, abs=1.5 / n)


def test_the_sum_of_histograms_is_that_of_all_values() -> None:
    dz = np.random.default_rng(0).normal(0.0, 0.5, 1000)  # some outside of the bins
    parts = [DzHistogram.from_values(part) for part in np.array_split(dz, 7)]
    total = DzHistogram.from_values(np.empty(0))
    for part in parts:
        total = total + part
    np.testing.assert_array_equal(total.counts, DzHistogram.from_values(dz).counts)
    assert total.counts.sum() == 1000
    assert total.counts.dtype == np.int64


def test_errors_are_those_of_the_bootstrap_of_the_values() -> None:
    generator = np.random.default_rng(1)
    dz = generator.normal(0.0, 0.02, 4000)
    errors = DzHistogram.from_values(dz).spread_errors()
    draws = [dataclasses.astuple(Spread.from_values(generator.choice(dz, 4000))) for _ in range(200)]
    np.testing.assert_allclose(dataclasses.astuple(errors)[:3], np.std(draws, axis=0)[:3], rtol=0.35)


def test_a_histogram_of_no_galaxies_has_no_median() -> None:
    with pytest.raises(MetricsError, match="at least one galaxy"):
        DzHistogram(np.zeros(BINS, dtype=np.int64)).spread()
