"""Image stamps rendered from photometry: five bands of 32 x 32 pixels with each galaxy's measured fluxes.

A galaxy is a de Vaucouleurs bulge and an exponential disc, both mixtures of Gaussians, so that the convolution with
the point-spread function (Gaussians, too) adds variances. Bulge fraction and size follow from the colours and the r
magnitude; axis ratio, angle, seeing and noise are drawn from a generator seeded by the catalogue row. Functions take
`Photometry`, which does not contain the spectroscopic redshift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.catalog import R_BAND, Floats, Photometry

Images = NDArray[np.float32]

SIZE = 32
PIXEL_SCALE = 0.396  # arcsec a pixel: the SDSS camera
STAMP_SEED = 396

# Gaussian mixtures of the profiles that SDSS model fluxes are measured with, in units of the half-light radius:
# amplitudes (fluxes) and variances. Hogg & Lang (2013, PASP 125, 719), truncated "lux" and "luv".
DISC_AMPLITUDES = np.array([0.00234853813, 0.0307995260, 0.223364214, 1.17949102, 4.33873750, 5.99820770])
DISC_VARIANCES = np.array([0.00120078965, 0.00884526493, 0.0391463084, 0.139976817, 0.460962500, 1.50159566])
BULGE_AMPLITUDES = np.array(
    [0.0426347652, 0.240127183, 0.685907632, 1.51937350, 2.83627243, 4.46467501, 5.72440830, 5.60989349]
)
BULGE_VARIANCES = np.array(
    [0.000223759216, 0.00100220099, 0.00418731126, 0.0169432589, 0.0684850479, 0.287207080, 1.33320254, 8.40215071]
)

# Seeing and noise of the SDSS imaging, by band u, g, r, i, z.
PSF_FWHM = np.array([1.53, 1.44, 1.32, 1.26, 1.29])  # arcsec, median
PSF_SCATTER = 0.1  # of ln FWHM
PSF_WING = 0.12  # fraction of the flux in a second Gaussian ...
PSF_WING_VARIANCE = 6.0  # ... with this many times the core's variance
SKY_NOISE = np.array([0.045, 0.020, 0.027, 0.036, 0.125])  # nanomaggies a pixel
GAIN = np.array([180.0, 800.0, 950.0, 750.0, 150.0])  # electrons a nanomaggie

HUBBLE_DISTANCE = 299792.458 / 70.0  # c / H0 in Mpc, H0 = 70 km/s/Mpc
DECELERATION = -0.55  # q0 of a flat universe with Omega_m = 0.3
ARCSEC_PER_RADIAN = 206264.806
SIZE_SCATTER = 0.13  # dex
RADIUS_LIMITS = (0.3, 6.0)  # arcsec: smaller is a point source, larger exceeds the stamp


@dataclass(frozen=True, slots=True)
class Appearance:
    """The shapes, positions and seeing of n galaxies.

    Attributes
    ----------
    bulge_fraction : float64 [n]
        Fraction of the flux in the de Vaucouleurs bulge.
    half_light_radius : float64 [n]
        Along the major axis, arcsec.
    axis_ratio : float64 [n]
        Minor over major axis.
    angle : float64 [n]
        Of the major axis from the x axis, radians.
    centre : float64 [n, 2]
        Offset from the middle of the stamp in x and y, arcsec.
    psf_fwhm : float64 [n, 5]
        Seeing in each band, arcsec.
    """

    bulge_fraction: Floats
    half_light_radius: Floats
    axis_ratio: Floats
    angle: Floats
    centre: Floats
    psf_fwhm: Floats


def colour_redshift(magnitudes: Floats) -> Floats:
    """Estimate the redshift, float64 [n], from g - r and r alone; it determines a plausible size.

    log10 z = -1.434 + 0.520 (g - r) + 0.146 (r - 17): least squares over the training galaxies of the catalogue,
    0.13 dex of scatter. It is a function of the magnitudes, so the stamps contain no more information than they do.
    """
    _, g, r, _, _ = magnitudes.T
    return np.asarray(np.clip(10 ** (-1.434 + 0.520 * np.clip(g - r, 0.0, 1.8) + 0.146 * (r - 17.0)), 0.01, 0.5))


def compute_appearance(photometry: Photometry) -> Appearance:
    """Compute the appearance of these galaxies from their colours, r magnitudes and catalogue rows.

    Sizes follow Shen et al. (2003, MNRAS 343, 978): log10 R/kpc = -0.24 M_r - 4.63 for early types;
    -0.084 M_r + 0.32 log10(1 + 10^(-0.4 (M_r + 20.91))) - 1.53 for late types.
    """
    magnitudes = photometry.magnitudes
    redshift = colour_redshift(magnitudes)
    # A galaxy is an early type if it is on the red sequence, which reddens with redshift as the 4000 A break enters g.
    blueness = 0.68 + 1.8 * redshift - (magnitudes[:, 1] - magnitudes[:, 2])
    early = blueness < 0.0
    bulge_fraction = np.where(early, 0.85, 0.45 - 0.17 * np.clip(blueness / 0.15, 0.0, 2.0))

    luminosity_distance = HUBBLE_DISTANCE * redshift * (1.0 + 0.5 * (1.0 - DECELERATION) * redshift)  # Mpc
    m_r = magnitudes[:, R_BAND] - 25.0 - 5.0 * np.log10(luminosity_distance)
    log_early = -0.24 * m_r - 4.63
    log_late = -0.084 * m_r + 0.32 * np.log10(1.0 + 10.0 ** (-0.4 * (m_r + 20.91))) - 1.53
    log_kpc = np.where(early, log_early, log_late)

    n = len(photometry)
    draws = np.empty((n, 10))
    for draw, row in zip(draws, photometry.rows, strict=True):
        generator = np.random.default_rng((STAMP_SEED, int(row), 0))
        draw[:4] = generator.random(4)
        draw[4:] = generator.standard_normal(6)
    arcsec_per_kpc = ARCSEC_PER_RADIAN * (1.0 + redshift) ** 2 / (luminosity_distance * 1000.0)
    radius = 10.0 ** (log_kpc + SIZE_SCATTER * draws[:, 4]) * arcsec_per_kpc
    return Appearance(
        bulge_fraction=bulge_fraction,
        half_light_radius=np.clip(radius, *RADIUS_LIMITS),
        axis_ratio=np.where(early, 0.55, 0.2) + np.where(early, 0.45, 0.8) * draws[:, 0],
        angle=np.pi * draws[:, 1],
        centre=PIXEL_SCALE * (draws[:, 2:4] - 0.5),
        psf_fwhm=PSF_FWHM * np.exp(PSF_SCATTER * draws[:, 5:]),
    )


def render_noiseless(photometry: Photometry) -> Images:
    """Render the galaxies without noise, nanomaggies per pixel, float32 [n, 5, 32, 32].

    Each band of each stamp sums to the galaxy's observed flux: it is scaled by the flux outside the stamp.
    """
    appearance = compute_appearance(photometry)
    half = (SIZE - 1) / 2.0
    axis = (np.arange(SIZE) - half) * PIXEL_SCALE
    x = axis[None, None, :] - appearance.centre[:, 0, None, None]
    y = axis[None, :, None] - appearance.centre[:, 1, None, None]
    cos, sin = np.cos(appearance.angle)[:, None, None], np.sin(appearance.angle)[:, None, None]
    # Along the galaxy's axes every Gaussian is diagonal, because the PSF is round.
    squares = np.stack([(x * cos + y * sin) ** 2, (y * cos - x * sin) ** 2], axis=1).reshape(-1, 2, SIZE * SIZE)

    profile_variances = np.concatenate([DISC_VARIANCES, BULGE_VARIANCES])
    disc, bulge = DISC_AMPLITUDES / DISC_AMPLITUDES.sum(), BULGE_AMPLITUDES / BULGE_AMPLITUDES.sum()
    core = (appearance.psf_fwhm / np.sqrt(8.0 * np.log(2.0))) ** 2
    psf_variances = np.stack([core, core * PSF_WING_VARIANCE], axis=2)  # [n, 5, 2]
    psf_weights = np.array([1.0 - PSF_WING, PSF_WING])

    images = np.empty((len(photometry), len(PSF_FWHM), SIZE * SIZE), dtype=np.float32)
    for i in range(len(photometry)):
        fraction = appearance.bulge_fraction[i]
        weights = np.concatenate([disc * (1.0 - fraction), bulge * fraction])
        variances = profile_variances * appearance.half_light_radius[i] ** 2
        major = (psf_variances[i, :, :, None] + variances).reshape(len(PSF_FWHM), -1)  # [5, 2 x 14]
        minor = (psf_variances[i, :, :, None] + variances * appearance.axis_ratio[i] ** 2).reshape(len(PSF_FWHM), -1)
        heights = np.outer(psf_weights, weights).ravel() / np.sqrt(major * minor)
        slopes = np.stack([-0.5 / major, -0.5 / minor], axis=2).astype(np.float32)
        gaussians = np.exp(slopes @ squares[i].astype(np.float32))  # [5, 28, 1024]
        images[i] = (heights[:, None, :].astype(np.float32) @ gaussians)[:, 0]
    images *= (photometry.flux / images.sum(axis=2, dtype=np.float64)).astype(np.float32)[:, :, None]
    return images.reshape(-1, len(PSF_FWHM), SIZE, SIZE)


def noise_sigma(noiseless: Images) -> Images:
    """Return the standard deviation of each pixel, nanomaggies: sky noise and the Poisson noise of the galaxy."""
    sky = (SKY_NOISE**2).astype(np.float32)[:, None, None]
    return np.sqrt(sky + noiseless / GAIN.astype(np.float32)[:, None, None])


def render(photometry: Photometry) -> Images:
    """Render the galaxies with noise, float32 [n, 5, 32, 32]; a galaxy's stamp depends on that galaxy alone."""
    images = render_noiseless(photometry)
    sigma = noise_sigma(images)
    for image, deviation, row in zip(images, sigma, photometry.rows, strict=True):
        # Gaussian instead of Poisson noise: every pixel has hundreds of sky electrons.
        generator = np.random.default_rng((STAMP_SEED, int(row), 1))
        image += deviation * generator.standard_normal(image.shape, dtype=np.float32)
    return images
