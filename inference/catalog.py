"""The catalogue of SDSS galaxies (photometry, Galactic extinction, spectroscopic redshift) and its fixed split.

The table in ``data/`` contains the 9,988 galaxies with positive flux in all five bands out of the 10,000 in the
test sample of kcorrect 5.1.9. ``inference.build_catalog`` rebuilds it. ``data/CREDITS`` has its licence and
acknowledgements.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.errors import CatalogError

TABLE = Path(__file__).parent / "data" / "sdss_galaxies.npz"
BANDS = ("u", "g", "r", "i", "z")
R_BAND = BANDS.index("r")

# A_band / E(B-V) of Schlegel, Finkbeiner & Davis (1998, ApJ 500, 525), table 6: the scale of the SDSS extinctions.
REDDENING = np.array([5.155, 3.793, 2.751, 2.086, 1.479])

SPLIT_SEED = 2012
N_HELD_OUT = 2000
N_VALIDATION = 800

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Photometry:
    """The photometry of n galaxies, without their redshifts.

    Stamps are rendered from this alone, so that a stamp cannot contain its label.

    Attributes
    ----------
    rows : int64 [n]
        Row in the catalogue: the seed of the random numbers of each galaxy.
    flux : float64 [n, 5]
        SDSS model flux in u, g, r, i, z as observed, nanomaggies.
    extinction_r : float64 [n]
        Galactic extinction in r, magnitudes.
    """

    rows: Rows
    flux: Floats
    extinction_r: Floats

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def magnitudes(self) -> Floats:
        """Magnitudes corrected for Galactic extinction, float64 [n, 5]: 22.5 - 2.5 log10(flux) - A."""
        extinction = self.extinction_r[:, None] * (REDDENING / REDDENING[R_BAND])
        return np.asarray(22.5 - 2.5 * np.log10(self.flux) - extinction, dtype=np.float64)

    def select(self, rows: Rows) -> Photometry:
        """Return the galaxies at these positions, in this order."""
        return Photometry(self.rows[rows], self.flux[rows], self.extinction_r[rows])


@dataclass(frozen=True, slots=True)
class Catalog:
    """The photometry and spectroscopic redshifts of n galaxies.

    Attributes
    ----------
    photometry : Photometry
    z_spec : float64 [n]
        Spectroscopic redshift.
    ra, dec : float64 [n]
        J2000 position, degrees, accurate to 0.06 arcsec.
    """

    photometry: Photometry
    z_spec: Floats
    ra: Floats
    dec: Floats

    def __len__(self) -> int:
        return len(self.z_spec)

    def select(self, rows: Rows) -> Catalog:
        """Return the galaxies at these positions, in this order."""
        return Catalog(self.photometry.select(rows), self.z_spec[rows], self.ra[rows], self.dec[rows])


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of the catalogue for training, for validation (choosing the epoch), and for testing (held out)."""

    train: Rows
    validation: Rows
    held_out: Rows


def load(path: Path = TABLE) -> Catalog:
    """Read the table of galaxies.

    Raises
    ------
    CatalogError
        The file is missing or damaged, or a column is missing or has the wrong shape.
    """
    try:
        with np.load(path, allow_pickle=False) as table:
            columns = {name: table[name].astype(np.float64) for name in ("flux", "extinction_r", "z_spec", "ra", "dec")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CatalogError(
            f"{path}: expected the table of SDSS galaxies: {error}; rebuild it with python -m inference.build_catalog"
        ) from error
    n = len(columns["z_spec"])
    for name, column in columns.items():
        expected = (n, len(BANDS)) if name == "flux" else (n,)
        if column.shape != expected:
            raise CatalogError(f"{path}: expected column {name!r} with shape {expected}, got {column.shape}")
    photometry = Photometry(np.arange(n, dtype=np.int64), columns["flux"], columns["extinction_r"])
    return Catalog(photometry, columns["z_spec"], columns["ra"], columns["dec"])


def split(n: int) -> Split:
    """Divide n galaxies into training, validation and held-out rows; the result depends on n alone.

    The order is numpy's PCG64 permutation with the seed ``SPLIT_SEED``: the first 2,000 are held out, the next 800
    are for validation.
    """
    order = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(n).astype(np.int64)
    return Split(
        train=order[N_HELD_OUT + N_VALIDATION :],
        validation=order[N_HELD_OUT : N_HELD_OUT + N_VALIDATION],
        held_out=order[:N_HELD_OUT],
    )


def held_out(galaxies: int = N_HELD_OUT) -> Catalog:
    """Return the first ``galaxies`` of the held-out galaxies, which are not used in training.

    Raises
    ------
    CatalogError
        ``galaxies`` is not between 1 and 2,000.
    """
    if not 1 <= galaxies <= N_HELD_OUT:
        raise CatalogError(f"invalid number of galaxies {galaxies}: expected 1 to {N_HELD_OUT}, the number held out")
    catalog = load()
    return catalog.select(split(len(catalog)).held_out[:galaxies])
