"""The per-object table: one row per galaxy with both redshifts, packed for a gather and written as ECSV."""

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
    """The n galaxies of one rank; each column is float64 [n].

    Attributes
    ----------
    z_spec, z_phot : float64 [n]
    r : float64 [n]
        Magnitude in r, corrected for extinction.
    partition_index : float64 [n]
        Index of the galaxy's partition among those of the rank, from 0.
    row : float64 [n]
        Row in the partition, from 0.
    """

    z_spec: Floats
    z_phot: Floats
    r: Floats
    partition_index: Floats
    row: Floats

    def __len__(self) -> int:
        return len(self.z_spec)

    @classmethod
    def from_partition(cls, z_spec: Floats, z_phot: Floats, r: Floats, partition_index: int) -> Objects:
        """Return the table of all galaxies of one partition."""
        n = len(z_spec)
        return cls(z_spec, z_phot, r, np.full(n, float(partition_index)), np.arange(n, dtype=np.float64))

    @classmethod
    def concatenate(cls, tables: Sequence[Objects]) -> Objects:
        """Return one table with the rows of these, in order; it is empty if there are none."""
        return cls._from_rows(np.concatenate([np.empty((0, COLUMNS)), *(table.to_rows() for table in tables)]))

    def pack(self, capacity: int) -> Floats:
        """Return float64 [1 + capacity, 5], the same shape on every rank: the number of rows, the rows, zeros.

        A gather takes blocks of equal size; `capacity` is the largest number of galaxies of any rank.
        """
        block = np.zeros((1 + capacity, COLUMNS))
        block[0, 0] = len(self)
        block[1 : 1 + len(self)] = self.to_rows()
        return block

    @classmethod
    def unpack(cls, blocks: Floats, world_size: int) -> list[Objects]:
        """Convert the result of a gather of `pack`, float64 [world_size (1 + capacity), 5], to one table per rank.

        Raises
        ------
        MetricsError
            The shape is not that of `world_size` blocks, or the row count of a block is invalid.
        """
        if blocks.ndim != 2 or blocks.shape[1] != COLUMNS or len(blocks) == 0 or len(blocks) % world_size:
            raise MetricsError(f"expected {world_size} equal blocks of {COLUMNS} columns, got shape {blocks.shape}")
        tables = []
        for rank, block in enumerate(np.split(blocks, world_size)):
            n = int(block[0, 0])
            if not 0 <= n < len(block):
                raise MetricsError(f"rank {rank}: invalid number of galaxies {n}: expected 0 to {len(block) - 1}")
            tables.append(cls._from_rows(block[1 : 1 + n]))
        return tables

    def to_rows(self) -> Floats:
        """Return the galaxies as rows, float64 [n, 5]."""
        return np.stack([self.z_spec, self.z_phot, self.r, self.partition_index, self.row], axis=1)

    @classmethod
    def _from_rows(cls, rows: Floats) -> Objects:
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
    """Format the table as ECSV (APE 6), which astropy and every CSV reader can read.

    Parameters
    ----------
    tables : one Objects per rank
    keys : one sequence of partition keys per rank
    """
    text = io.StringIO(ECSV_HEADER)
    text.seek(0, io.SEEK_END)
    writer = csv.writer(text, lineterminator="\n")
    for rank, (table, rank_keys) in enumerate(zip(tables, keys, strict=True)):
        dz = residuals(table.z_spec, table.z_phot)
        for z_spec, z_phot, residual, r, index, row in zip(
            table.z_spec, table.z_phot, dz, table.r, table.partition_index, table.row, strict=True
        ):
            key = rank_keys[int(index)]
            stem = key.rpartition("/")[2].removesuffix(".pt")
            numbers = [f"{z_spec:.6f}", f"{z_phot:.6f}", f"{residual:.6f}", f"{r:.4f}"]
            writer.writerow([f"{stem}-{int(row)}", *numbers, rank, key])
    return text.getvalue()
