from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inference import metrics
from inference.catalog import Floats
from inference.errors import MetricsError
from inference.metrics import PartialSums

redshifts = st.integers(0, 60).flatmap(lambda n: arrays(np.float64, (2, n), elements=st.floats(0.0, 5.0)))


@settings(max_examples=100)
@given(redshifts, st.data())
def test_sums_are_bit_identical_for_any_distribution_over_ranks(table: Floats, data: st.DataObject) -> None:
    n = table.shape[1]
    rank_of = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), dtype=np.int64)
    order = data.draw(st.permutations(range(5)))
    vectors = [PartialSums.from_redshifts(*table[:, rank_of == rank]).to_vector() for rank in range(5)]
    total = np.zeros_like(vectors[0])
    assert total.dtype == np.int64
    for rank in order:
        total = total + vectors[rank]
    assert PartialSums.from_vector(total) == PartialSums.from_redshifts(*table)


@given(st.lists(redshifts, min_size=3, max_size=3))
def test_adding_sums_is_associative_and_commutative(tables: list[Floats]) -> None:
    a, b, c = (PartialSums.from_redshifts(*table).to_vector() for table in tables)
    np.testing.assert_array_equal((a + b) + c, a + (b + c))
    np.testing.assert_array_equal(a + b, b + a)
    np.testing.assert_array_equal(a + PartialSums.from_redshifts(np.empty(0), np.empty(0)).to_vector(), a)


@given(redshifts.filter(lambda table: table.shape[1] > 1 and table[0].std() > 1e-3))
def test_the_metrics_follow_their_definitions(table: Floats) -> None:
    z_spec, z_phot = table
    report = metrics.compute_metrics(z_spec, z_phot)
    error = z_phot - z_spec
    dz = error / (1 + z_spec)
    assert report.n == len(z_spec)
    assert report.mae == pytest.approx(np.abs(error).mean(), abs=1e-9)
    assert report.mse == pytest.approx((error**2).mean(), abs=1e-9)
    assert report.rmse == pytest.approx(np.sqrt((error**2).mean()), abs=1e-4)
    assert report.bias == pytest.approx(dz.mean(), abs=1e-9)
    assert report.median_bias == np.median(dz)
    assert report.sigma_nmad == pytest.approx(1.4826 * np.median(np.abs(dz - np.median(dz))))
    assert report.outliers == pytest.approx((np.abs(dz) > 0.05).mean())
    assert report.catastrophic == pytest.approx((np.abs(dz) > 0.15).mean())
    assert report.r2 == pytest.approx(1 - (error**2).mean() / z_spec.var(), rel=1e-3, abs=1e-3)


def test_both_sigmas_of_a_gaussian_are_its_standard_deviation() -> None:
    z_spec = np.full(20_000, 0.25)
    z_phot = z_spec + 1.25 * np.random.default_rng(1).normal(0.01, 0.02, 20_000)
    report = metrics.compute_metrics(z_spec, z_phot)
    assert report.sigma_nmad == pytest.approx(0.02, rel=0.03)
    assert report.sigma_iqr == pytest.approx(0.02, rel=0.03)
    assert report.bias == pytest.approx(report.median_bias, abs=5e-4)
    assert report.bias == pytest.approx(0.01, abs=5e-4)
    assert np.isnan(report.r2)  # z_spec has no variance


def test_the_bootstrap_error_of_a_mean_is_the_known_standard_error() -> None:
    generator = np.random.default_rng(2)
    z_spec = generator.uniform(0.05, 0.3, 2000)
    z_phot = z_spec + (1 + z_spec) * generator.normal(0.0, 0.02, 2000)
    errors = metrics.bootstrap(z_spec, z_phot)
    assert errors.n == 2000
    assert errors.bias == pytest.approx(0.02 / np.sqrt(2000), rel=0.2)
    assert metrics.bootstrap(z_spec, z_phot) == errors


def test_the_table_has_one_line_per_metric() -> None:
    z_spec = np.linspace(0.05, 0.3, 50)
    report = metrics.compute_metrics(z_spec, z_spec + 0.01)
    text = metrics.format_table(report, metrics.bootstrap(z_spec, z_spec + 0.01))
    assert len(text.splitlines()) == len(dataclasses.fields(metrics.Metrics))
    assert "mae    0.01000 ± 0.00000" in text


def test_metrics_of_no_galaxies_are_an_error() -> None:
    with pytest.raises(MetricsError, match="at least one galaxy"):
        metrics.compute_metrics(np.empty(0), np.empty(0))


def test_a_redshift_that_is_not_finite_is_an_error_that_names_the_galaxy() -> None:
    with pytest.raises(MetricsError, match="invalid z_phot nan of galaxy 1"):
        PartialSums.from_redshifts(np.array([0.1, 0.2]), np.array([0.1, np.nan]))


def test_different_lengths_are_an_error() -> None:
    with pytest.raises(MetricsError, match=r"shapes \(3,\) and \(2,\)"):
        PartialSums.from_redshifts(np.zeros(2), np.zeros(3))


def test_sums_over_another_number_of_galaxies_are_an_error() -> None:
    z = np.linspace(0.1, 0.2, 4)
    with pytest.raises(MetricsError, match="expected sums over 4 galaxies, as gathered, got 3"):
        metrics.compute_metrics(z, z, PartialSums.from_redshifts(z[:3], z[:3]))


def test_a_vector_of_another_length_or_type_is_an_error() -> None:
    with pytest.raises(MetricsError, match="expected 8 sums"):
        PartialSums.from_vector(np.zeros(7, dtype=np.int64))
    with pytest.raises(MetricsError, match=r"expected 8 sums .* got float64"):
        PartialSums.from_vector(np.zeros(16))  # type: ignore[arg-type]  # the wrong type is the point


@pytest.mark.parametrize(("z_spec", "z_phot"), [(0.1, 2000.0), (2e6, 0.1), (1e300, 0.1), (-1.0, 0.1)])
def test_a_redshift_that_cannot_be_added_exactly_is_an_error_that_names_the_row(z_spec: float, z_phot: float) -> None:
    with pytest.raises(MetricsError, match=r"row 1: invalid redshifts.* exact addition"):
        PartialSums.from_redshifts(np.array([0.1, z_spec]), np.array([0.1, z_phot]))


def test_sums_of_a_terabyte_of_galaxies_stay_exact() -> None:
    """52 million galaxies: float64 could not add their terms without rounding."""
    block = PartialSums.from_redshifts(np.full(1000, 0.7), np.full(1000, 0.3))
    total = PartialSums()
    for _ in range(100):
        total = total + block
    vector = np.zeros(16, dtype=np.int64)
    for _ in range(524):  # ranks
        vector = vector + total.to_vector()
    assert PartialSums.from_vector(vector) == PartialSums(*(value * 52_400 for value in block.to_values()))
    assert PartialSums.from_vector(vector).means()["bias"] == pytest.approx(-0.4 / 1.7, abs=1e-9)


def test_negative_sums_survive_their_limbs() -> None:
    sums = PartialSums.from_redshifts(np.array([0.5, 0.4]), np.array([0.1, 0.2]))
    assert sums.dz < 0
    assert PartialSums.from_vector(sums.to_vector() + sums.to_vector()) == sums + sums


def test_outliers_by_rails_definition() -> None:
    """At a small scatter the limit is 0.06, at a large one three times the scatter."""
    generator = np.random.default_rng(3)
    z_spec = np.full(10_000, 0.5)
    narrow = z_spec + 1.5 * np.where(np.arange(10_000) < 100, 0.061, generator.normal(0.0, 0.005, 10_000))
    assert metrics.compute_metrics(z_spec, narrow).rail_outliers == pytest.approx(0.01, abs=1e-9)
    wide = z_spec + 1.5 * generator.normal(0.0, 0.04, 10_000)
    assert metrics.compute_metrics(z_spec, wide).rail_outliers == pytest.approx(0.0027, abs=0.0015)


def test_lsst_requirements_are_compared_with_the_metrics() -> None:
    z_spec = np.random.default_rng(4).uniform(0.3, 1.0, 2000)
    report = metrics.compute_metrics(z_spec, z_spec + 0.01)
    met = {one.name: one.is_met for one in metrics.lsst_requirements(report)}
    assert met == {"bias": False, "sigma_iqr": True, "rail_outliers": True}
    text = metrics.format_table(report, metrics.bootstrap(z_spec, z_spec + 0.01))
    assert re.search(r" bias .*LSST requires less than 0.003: not met", text)


def test_tomographic_bins_have_equal_numbers_and_the_shift_of_their_means() -> None:
    generator = np.random.default_rng(5)
    z_phot = generator.permutation(np.linspace(0.1, 0.6, 1000))
    z_spec = z_phot - 0.01 + generator.normal(0.0, 0.02, 1000)
    bins = metrics.tomographic_bins(z_spec, z_phot)
    assert [found.n for found in bins] == [200] * 5
    assert bins[0].high < bins[1].low
    for found in bins:
        assert found.shift == pytest.approx(found.mean_z_phot - found.mean_z_spec)
        assert found.shift_error == pytest.approx(0.02 / np.sqrt(200), rel=0.25)
        assert abs(found.shift - 0.01) < 4 * found.shift_error
    assert metrics.tomographic_bins(z_spec[:1], z_phot[:1]) == []
    assert len(metrics.format_bins(bins).splitlines()) == 6
