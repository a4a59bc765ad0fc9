"""The per-object table: every galaxy with its two redshifts, as it travels between ranks and as it is written down."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference.catalog import Floats
from inference.errors import MetricsError
from inference.metrics import residuals

COLUMNS = 5  # of a packed row: the fields of Objects


@dataclass(frozen=True, slots=True)
class Objects:
    """n galaxies that one rank has seen; each column is float64 [n].

    Attributes
    ----------
    z_spec, z_phot : float64 [n]
    r : float64 [n]
        Magnitude in r, corrected for extinction.
    part : float64 [n]
        Which of the rank's partitions a galaxy was in, from 0.
    row : float64 [n]
        Where in the partition, from 0.
    """

    z_spec: Floats
    z_phot: Floats
    r: Floats
    part: Floats
    row: Floats

    def __len__(self) -> int:
        return len(self.z_spec)

    @classmethod
    def of(cls, z_spec: Floats, z_phot: Floats, r: Floats, part: int) -> Objects:
        """Return the galaxies of one whole partition."""
        n = len(z_spec)
        return cls(z_spec, z_phot, r, np.full(n, float(part)), np.arange(n, dtype=np.float64))

    @classmethod
    def join(cls, parts: Sequence[Objects]) -> Objects:
        """Return all galaxies of these, in order; of none, an empty table."""
        return cls._of_rows(np.concatenate([np.empty((0, COLUMNS)), *(part.rows() for part in parts)]))

    def pack(self, capacity: int) -> Floats:
        """Return float64 [1 + capacity, 5], the same shape on every rank: the number of rows, the rows, zeros.

        A gather wants equal blocks, and ranks have different numbers of galaxies: `capacity` is the largest of them.
        """
        block = np.zeros((1 + capacity, COLUMNS))
        block[0, 0] = len(self)
        block[1 : 1 + len(self)] = self.rows()
        return block

    @classmethod
    def unpack(cls, blocks: Floats, world_size: int) -> list[Objects]:
        """Read what a gather of `pack` returned, float64 [world_size (1 + capacity), 5]: one table a rank.

        Raises
        ------
        MetricsError
            The blocks do not divide by rank, or a count is not one.
        """
        if blocks.ndim != 2 or blocks.shape[1] != COLUMNS or len(blocks) == 0 or len(blocks) % world_size:
            raise MetricsError(f"expected {world_size} equal blocks of {COLUMNS} columns, got shape {blocks.shape}")
        tables = []
        for rank, block in enumerate(np.split(blocks, world_size)):
            n = int(block[0, 0])
            if not 0 <= n < len(block):
                raise MetricsError(f"rank {rank}: expected 0 to {len(block) - 1} galaxies, got a count of {n}")
            tables.append(cls._of_rows(block[1 : 1 + n]))
        return tables

    def rows(self) -> Floats:
        """Return the galaxies as rows, float64 [n, 5]."""
        return np.stack([self.z_spec, self.z_phot, self.r, self.part, self.row], axis=1)

    @classmethod
    def _of_rows(cls, rows: Floats) -> Objects:
        return cls(*np.ascontiguousarray(rows.T))


ECSV_HEADER = """\
# %ECSV 1.0
# ---
# delimiter: ','
# datatype:
# - {name: id, datatype: string, description: partition and row in it}
# - {name: z_spec, datatype: float64, description: spectroscopic redshift}
# - {name: z_phot, datatype: float64, description: photometric redshift}
# - {name: dz, datatype: float64, description: (z_phot - z_spec) / (1 + z_spec)}
# - {name: r, unit: mag, datatype: float64, description: r magnitude corrected for extinction}
# - {name: rank, datatype: int64}
# - {name: partition, datatype: string}
# meta: {comments: [SDSS photometry and redshifts are real; stamps are rendered]}
# schema: astropy-2.0
id,z_spec,z_phot,dz,r,rank,partition
"""


def to_ecsv(tables: Sequence[Objects], keys: Sequence[Sequence[str]]) -> str:
    """Write the table as ECSV (APE 6), which astropy and every CSV reader take.

    Parameters
    ----------
    tables : one Objects a rank
    keys : one sequence of partition keys a rank
    """
    text = io.StringIO(ECSV_HEADER)
    text.seek(0, io.SEEK_END)
    writer = csv.writer(text, lineterminator="\n")
    for rank, (table, own) in enumerate(zip(tables, keys, strict=True)):
        dz = residuals(table.z_spec, table.z_phot)
        for z_spec, z_phot, one_dz, r, part, row in zip(
            table.z_spec, table.z_phot, dz, table.r, table.part, table.row, strict=True
        ):
            key = own[int(part)]
            stem = key.rpartition("/")[2].removesuffix(".pt")
            numbers = [f"{z_spec:.6f}", f"{z_phot:.6f}", f"{one_dz:.6f}", f"{r:.4f}"]
            writer.writerow([f"{stem}-{int(row)}", *numbers, rank, key])
    return text.getvalue()
