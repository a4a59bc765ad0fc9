"""An endless stream of synthetic observations of the held-out galaxies, for data sets of any size.

Each pass over the galaxies shows every one of them once, in a new order, so that any number of passes has the
distribution of the catalogue. Photometry and redshift are the catalogue's; the stamp has a new orientation (one of the
eight symmetries of the pixel grid) and new noise. Such rows are labelled `ORIGIN` wherever they are stored or reported:
they measure speed at scale, and repeat the same 2,000 galaxies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from inference import catalog, stamps
from inference.catalog import Catalog, Rows
from inference.stamps import Images

ORIGIN = "synthetic: held-out SDSS galaxies repeated with new orientation and noise"
COUNTED_BYTES = 20_508  # of a galaxy in the published study: with magnitudes as float32
MAX_BYTES = 2**50
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])i?B", re.IGNORECASE)
UNITS = "BKMGT"
ORIENTATIONS = 8  # four rotations, each with its mirror image


class Sampler:
    """Draws observations by position in the stream; equal arguments give equal rows, in any order of calls.

    Parameters
    ----------
    galaxies : Catalog, optional
        The galaxies to repeat; the held-out ones by default. Their noiseless stamps stay in memory: 20 kB each.
    seed : int
    """

    def __init__(self, galaxies: Catalog | None = None, seed: int = 0) -> None:
        self._galaxies = catalog.held_out() if galaxies is None else galaxies
        self._noiseless = stamps.render_noiseless(self._galaxies.photometry)
        self._seed = seed

    def draw(self, start: int, n: int) -> tuple[Images, Catalog]:
        """Return rows start to start + n of the stream: images float32 [n, 5, 32, 32] and their galaxies."""
        rows = self._rows(start, n)
        generator = np.random.default_rng((self._seed, 1, start))
        orientations = generator.integers(ORIENTATIONS, size=n)
        images = np.empty((n, *self._noiseless.shape[1:]), dtype=np.float32)
        for orientation in range(ORIENTATIONS):
            chosen = np.flatnonzero(orientations == orientation)
            turned = np.rot90(self._noiseless[rows[chosen]], orientation // 2, axes=(2, 3))
            images[chosen] = turned[..., ::-1] if orientation % 2 else turned
        for image in images:  # one at a time: the noise of all would need as much memory as the images
            image += stamps.noise_sigma(image) * generator.standard_normal(image.shape, dtype=np.float32)
        return images, self._galaxies.select(rows)

    def _rows(self, start: int, n: int) -> Rows:
        """Return the galaxies at these positions: pass k of the stream is a permutation with the seed k."""
        size = len(self._galaxies)
        passes = range(start // size, (start + n - 1) // size + 1)
        order = [np.random.default_rng((self._seed, 0, number)).permutation(size) for number in passes]
        first = start - passes.start * size
        return np.concatenate(order)[first : first + n].astype(np.int64)


@dataclass(frozen=True, slots=True)
class SetSize:
    """The size of a data set in partitions, as the published study counts it.

    Its sizes are powers of 1024 (25 MB is 25 x 1024 x 1024 bytes), and a galaxy counts 20,508 bytes, so that 25 and 100
    MB are 1278 and 5113 galaxies, and 12.6 GB are 517, 259, 173 and 130 partitions of 25, 50, 75 and 100 MB. A file is
    0.1 % larger, because magnitudes are stored as float64.

    Attributes
    ----------
    galaxies : int
    rows : int
        Galaxies of a partition; the last one may have fewer.
    """

    galaxies: int
    rows: int

    @classmethod
    def from_bytes(cls, total: int, megabytes: int) -> SetSize:
        """Return the size of a set of ``total`` bytes in partitions of ``megabytes`` MB; at least one galaxy."""
        return cls(max(1, total // COUNTED_BYTES), megabytes * 2**20 // COUNTED_BYTES)

    def __len__(self) -> int:
        """Return the number of partitions."""
        return -(-self.galaxies // self.rows)

    def span(self, number: int) -> tuple[int, int]:
        """Return the first row and the number of rows of partition ``number``, counted from 1."""
        start = (number - 1) * self.rows
        return start, min(self.rows, self.galaxies - start)


def parse_size(text: str) -> int:
    """Return the bytes in a size such as 12.6GB; KB, MB, GB and TB, or KiB to TiB, are powers of 1024.

    Raises
    ------
    ValueError
        The text has another form, or the size is not positive.
    """
    match = SIZE.fullmatch(text.strip())
    size = float(match[1]) * 1024 ** UNITS.index(match[2].upper()) if match else 0.0
    if not 0 < size < MAX_BYTES:
        raise ValueError(f"invalid size {text!r}: expected a positive number with KB, MB, GB or TB, for example 12.6GB")
    return round(size)
