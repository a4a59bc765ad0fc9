from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import MetricsError
from inference.objects import COLUMNS, Objects, to_ecsv, to_fits


def table(n: int, seed: int = 0) -> Objects:
    generator = np.random.default_rng(seed)
    return Objects.from_partition(generator.random(n), generator.random(n), 14 + 4 * generator.random(n), seed)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_unpack_restores_tables_of_any_lengths(lengths: list[int]) -> None:
    tables = [table(n, seed) for seed, n in enumerate(lengths)]
    gathered = np.concatenate([one.pack(max(lengths)) for one in tables])
    unpacked = Objects.unpack(gathered, len(lengths))
    assert [len(one) for one in unpacked] == lengths
    for before, after in zip(tables, unpacked, strict=True):
        np.testing.assert_array_equal(after.to_rows(), before.to_rows())


def test_packed_tables_have_the_same_shape() -> None:
    assert {table(n).pack(9).shape for n in range(10)} == {(10, COLUMNS)}


@pytest.mark.parametrize("shape", [(0, COLUMNS), (5, COLUMNS), (4, 3), (20,)])
def test_blocks_of_another_shape_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(MetricsError, match="expected 2 equal blocks"):
        Objects.unpack(np.zeros(shape), 2)


def test_an_invalid_row_count_is_an_error_that_names_the_rank() -> None:
    blocks = np.concatenate([table(2).pack(3), table(3).pack(3)])
    blocks[4, 0] = 7
    with pytest.raises(MetricsError, match="rank 1: invalid number of galaxies 7: expected 0 to 3"):
        Objects.unpack(blocks, 2)


def test_concatenating_no_tables_is_an_empty_table() -> None:
    assert len(Objects.concatenate([])) == 0
    assert len(Objects.concatenate([table(2), table(0), table(3)])) == 5


def test_the_table_is_valid_ecsv() -> None:
    tables = [
        Objects.concatenate([Objects.from_partition(np.array([0.1]), np.array([0.2]), np.array([17.0]), 1)]),
        Objects.concatenate([]),
        Objects.from_partition(np.array([0.3, 0.5]), np.array([0.3, 0.2]), np.array([16.0, 15.5]), 0),
    ]
    text = to_ecsv(tables, [["data/1.pt", "data/2.pt"], [], ["data/3,x.pt"]])
    assert text.startswith("# %ECSV 1.0\n# ---\n")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert [row["id"] for row in rows] == ["2-0", "3,x-0", "3,x-1"]
    assert [row["rank"] for row in rows] == ["0", "2", "2"]
    assert [row["partition"] for row in rows] == ["data/2.pt", "data/3,x.pt", "data/3,x.pt"]
    assert float(rows[0]["dz"]) == pytest.approx(0.1 / 1.1, abs=1e-6)
    declared = [line.split("name: ")[1].split(",")[0] for line in text.splitlines() if "{name:" in line]
    assert declared == list(rows[0])


def test_both_tables_are_read_with_the_same_values_units_and_descriptions() -> None:
    """FITS as RAIL's tables_io 1.1 reads it, by extension and column of the extension; ECSV by astropy."""
    tables, keys = [table(3), Objects.concatenate([]), table(4, 0)], [["data/1.pt"], [], ["data/2.safetensors"]]
    with fits.open(io.BytesIO(to_fits(tables, keys, ["an origin"]))) as opened:
        (extension,) = opened[1:]
        from_fits = Table.read(extension)
        columns = {name: extension.data[name].copy() for name in extension.columns.names}
    from_ecsv = Table.read(to_ecsv(tables, keys, ["an origin"]), format="ascii.ecsv")
    assert list(columns) == from_fits.colnames == from_ecsv.colnames
    assert (columns["z_phot"].dtype.kind, columns["z_phot"].dtype.itemsize) == ("f", 8)
    np.testing.assert_array_equal(columns["z_phot"], np.concatenate([one.z_phot for one in tables]))
    assert list(columns["id"]) == ["1-0", "1-1", "1-2", "2-0", "2-1", "2-2", "2-3"]
    for read in (from_fits, from_ecsv):
        np.testing.assert_allclose(read["z_spec"], columns["z_spec"], atol=1e-6)
        assert list(read["partition"]) == ["data/1.pt"] * 3 + ["data/2.safetensors"] * 4
        assert list(read["rank"]) == [0] * 3 + [2] * 4
        assert str(read["r"].unit) == "mag"
        assert "an origin" in read.meta["comments"]
        assert {key.lower(): value for key, value in read.meta.items()}["zmode"] == "z_phot"
