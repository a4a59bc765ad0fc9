"""The galaxies with the best and the worst predictions, with their stamps, over all ranks.

Each rank keeps its own; the ranks exchange their residuals, choose alike, and add up the chosen stamps, to which every
rank contributes its own and zeros for the others.
"""

from __future__ import annotations

import numpy as np

from inference.catalog import Floats, Rows
from inference.metrics import residuals
from inference.stamps import SIZE, Images

EACH = 6  # best, and as many worst
COLUMNS = 3  # dz, z_spec, z_phot; NaN where there are fewer galaxies


class Extremes:
    """Up to six galaxies with the smallest and six with the largest |dz| of one rank."""

    def __init__(self) -> None:
        self._rows = np.empty((0, COLUMNS))
        self._images = np.empty((0, 5, SIZE, SIZE), dtype=np.float32)

    def add(self, images: Images, z_spec: Floats, z_phot: Floats) -> None:
        """Consider n more galaxies: images float32 [n, 5, 32, 32], redshifts float64 [n]."""
        rows = np.concatenate([self._rows, np.stack([residuals(z_spec, z_phot), z_spec, z_phot], axis=1)])
        order = np.argsort(np.abs(rows[:, 0]), kind="stable")
        keep = order if len(order) <= 2 * EACH else np.concatenate([order[:EACH], order[-EACH:]])
        known = len(self._rows)
        self._images = np.stack([self._images[row] if row < known else images[row - known] for row in keep])
        self._rows = rows[keep]

    def to_table(self) -> Floats:
        """Return dz, z_spec and z_phot of the galaxies, float64 [12, 3], padded with NaN: for a gather."""
        table = np.full((2 * EACH, COLUMNS), np.nan)
        table[: len(self._rows)] = self._rows
        return table

    def contribution(self, chosen: Rows, rank: int) -> Images:
        """Return the stamps of a choice that are this rank's, float32 [k, 5, 32, 32], and zeros: for a sum."""
        images = np.zeros((len(chosen), 5, SIZE, SIZE), dtype=np.float32)
        for image, (owner, slot) in zip(images, chosen, strict=True):
            if owner == rank:
                image[:] = self._images[slot]
        return images


def choose(tables: Floats) -> Rows:
    """Choose the best and the worst galaxies of all ranks.

    Parameters
    ----------
    tables : float64 [world_size, 12, 3]
        The ranks' tables.

    Returns
    -------
    int64 [k, 2]
        Rank and slot of each: up to six best by |dz|, then as many of the worst, the worst last. k is 12, or less if
        there are fewer galaxies; no galaxy is both.
    """
    dz = np.abs(tables[:, :, 0])
    order = np.argsort(dz, axis=None, kind="stable")[: int(np.isfinite(dz).sum())]  # NaN comes last
    half = min(EACH, len(order) // 2)
    chosen = np.concatenate([order[:half], order[len(order) - half :]])
    return np.stack(np.unravel_index(chosen, dz.shape), axis=1).astype(np.int64)
