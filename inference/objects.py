"""The per-object table: one row per galaxy with both redshifts, packed for a gather and written as ECSV and FITS."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.catalog import Floats
from inference.errors import MetricsError
from inference.metrics import residuals

if TYPE_CHECKING:
    from astropy.table import Table

CREDIT = "SDSS photometry and redshifts are real; stamps are rendered"
DESCRIPTIONS = {
    "id": "partition and row in it",
    "z_spec": "spectroscopic redshift",
    "z_phot": "photometric redshift: a point estimate, RAIL's zmode",
    "dz": "(z_phot - z_spec) / (1 + z_spec)",
    "r": "r magnitude corrected for extinction",
    "rank": "rank that predicted it",
    "partition": "key of its partition",
    "row": "row in the partition, from 0",
}
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


def to_table(tables: Sequence[Objects], keys: Sequence[Sequence[str]], origins: Collection[str] = ()) -> Table:
    """Return the per-object table with one row per galaxy, and units, descriptions and origins of the galaxies.

    Parameters
    ----------
    tables : one Objects per rank
    keys : one sequence of partition keys per rank
    origins
        What the partitions say of where their galaxies are from.
    """
    from astropy.table import Table  # takes half a second, and one rank alone writes the table

    ranks = [np.full(len(table), rank) for rank, table in enumerate(tables)]
    of_rank = [
        np.array([*map(str, names)] or [""])[table.partition_index.astype(np.int64)]
        for table, names in zip(tables, keys, strict=True)
    ]
    partitions = np.concatenate([np.empty(0, dtype="U1"), *of_rank])
    whole = Objects.concatenate(tables)
    stems = {key: _stem(key) for key in np.unique(partitions)}
    rows = whole.row.astype(np.int64)
    columns = {
        "id": np.array([f"{stems[key]}-{row}" for key, row in zip(partitions, rows, strict=True)], dtype=str),
        "z_spec": whole.z_spec,
        "z_phot": whole.z_phot,
        "dz": residuals(whole.z_spec, whole.z_phot),
        "r": whole.r,
        "rank": np.concatenate([np.empty(0, dtype=np.int64), *ranks]),
        "partition": partitions,
        "row": rows,
    }
    table = Table(columns, meta={"comments": [*sorted(origins), CREDIT], "zmode": "z_phot", "redshift": "z_spec"})
    table["r"].unit = "mag"
    for name, description in DESCRIPTIONS.items():
        table[name].description = description
    return table


def to_ecsv(tables: Sequence[Objects], keys: Sequence[Sequence[str]], origins: Collection[str] = ()) -> str:
    """Format the table as ECSV (APE 6), which astropy and every CSV reader can read; see `to_table`."""
    text = io.StringIO()
    to_table(tables, keys, origins).write(
        text, format="ascii.ecsv", delimiter=",", formats={"z_spec": ".6f", "z_phot": ".6f", "dz": ".6f", "r": ".4f"}
    )
    return text.getvalue()


def to_fits(tables: Sequence[Objects], keys: Sequence[Sequence[str]], origins: Collection[str] = ()) -> bytes:
    """Format the table as a FITS binary table, which RAIL's tables_io reads; see `to_table`."""
    content = io.BytesIO()
    to_table(tables, keys, origins).write(content, format="fits")
    return content.getvalue()


def _stem(key: str) -> str:
    name = key.rpartition("/")[2]
    return name.removesuffix(".pt").removesuffix(".safetensors")
