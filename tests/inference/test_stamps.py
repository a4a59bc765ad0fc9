from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from inference import catalog, stamps
from inference.catalog import Catalog
from inference.partition import Partition


def test_each_band_sums_to_the_measured_flux(galaxies: Catalog) -> None:
    images = stamps.render_noiseless(galaxies.photometry)
    assert images.shape == (300, 5, 32, 32)
    assert images.dtype == np.float32
    assert (images >= 0).all()
    np.testing.assert_allclose(images.sum(axis=(2, 3), dtype=np.float64), galaxies.photometry.flux, rtol=1e-5)


def test_a_stamp_depends_on_its_galaxy_alone(galaxies: Catalog) -> None:
    together = stamps.render(galaxies.photometry)
    np.testing.assert_array_equal(stamps.render(galaxies.photometry), together)
    few = np.array([7, 3, 250])
    np.testing.assert_array_equal(stamps.render(galaxies.photometry.select(few)), together[few])


def test_stamps_do_not_depend_on_the_redshifts(galaxies: Catalog) -> None:
    with_other_redshifts = dataclasses.replace(galaxies, z_spec=galaxies.z_spec[::-1] * 3.0)
    np.testing.assert_array_equal(Partition.render(with_other_redshifts).images, Partition.render(galaxies).images)
    assert "z_spec" not in {field.name for field in dataclasses.fields(catalog.Photometry)}


def test_the_noise_has_the_computed_standard_deviation(galaxies: Catalog) -> None:
    noiseless = stamps.render_noiseless(galaxies.photometry)
    noise = (stamps.render(galaxies.photometry) - noiseless) / stamps.noise_sigma(noiseless)
    assert noise.mean() == pytest.approx(0.0, abs=0.01)
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    dark = stamps.noise_sigma(np.zeros((1, 5, 32, 32), dtype=np.float32))
    np.testing.assert_allclose(dark[0, :, 0, 0], stamps.SKY_NOISE, rtol=1e-6)


@pytest.mark.parametrize(
    ("amplitudes", "variances", "index", "b"),
    [
        (stamps.DISC_AMPLITUDES, stamps.DISC_VARIANCES, 1.0, 1.678),
        (stamps.BULGE_AMPLITUDES, stamps.BULGE_VARIANCES, 4.0, 7.669),
    ],
)
def test_the_mixtures_approximate_their_profiles(
    amplitudes: catalog.Floats, variances: catalog.Floats, index: float, b: float
) -> None:
    radius = np.array([0.1, 0.3, 0.5, 1.0, 1.5, 2.0])  # half-light radii
    mixture = (amplitudes / (2 * np.pi * variances) * np.exp(-(radius[:, None] ** 2) / (2 * variances))).sum(axis=1)
    sersic = np.exp(-b * (radius ** (1 / index) - 1))  # 1 at the half-light radius
    np.testing.assert_allclose(mixture, sersic, rtol=0.03)


def test_red_galaxies_have_larger_bulge_fractions_than_blue_ones(galaxies: Catalog) -> None:
    magnitudes = galaxies.photometry.magnitudes
    colour = magnitudes[:, 1] - magnitudes[:, 2]
    bulge = stamps.compute_appearance(galaxies.photometry).bulge_fraction
    assert bulge[colour > np.percentile(colour, 80)].mean() > 0.8
    assert bulge[colour < np.percentile(colour, 10)].mean() < 0.4


def test_faint_galaxies_have_smaller_radii(galaxies: Catalog) -> None:
    r = galaxies.photometry.magnitudes[:, catalog.R_BAND]
    radius = stamps.compute_appearance(galaxies.photometry).half_light_radius
    bright, faint = r < np.percentile(r, 25), r > np.percentile(r, 75)
    assert np.median(radius[bright]) > 1.3 * np.median(radius[faint])
    assert radius.min() >= stamps.RADIUS_LIMITS[0]
    assert radius.max() <= stamps.RADIUS_LIMITS[1]


def test_the_colour_redshift_is_the_least_squares_fit_over_the_training_galaxies() -> None:
    everything = catalog.load()
    train = everything.select(catalog.split(len(everything)).train)
    magnitudes = train.photometry.magnitudes
    _, g, r, _, _ = magnitudes.T
    terms = np.stack([np.ones_like(r), np.clip(g - r, 0.0, 1.8), r - 17.0], axis=1)
    coefficients, *_ = np.linalg.lstsq(terms, np.log10(train.z_spec), rcond=None)
    np.testing.assert_allclose(coefficients, [-1.434, 0.520, 0.146], atol=6e-4)
    scatter = np.std(np.log10(train.z_spec / stamps.colour_redshift(magnitudes)))
    assert scatter == pytest.approx(0.13, abs=0.005)
