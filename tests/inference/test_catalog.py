from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from inference import build_catalog, catalog
from inference.errors import CatalogError


def test_the_table_contains_the_usable_galaxies_in_less_than_400_kb() -> None:
    galaxies = catalog.load()
    assert len(galaxies) == 9988
    assert catalog.TABLE.stat().st_size < 400_000
    assert (galaxies.photometry.flux > 0).all()
    assert np.median(galaxies.z_spec) == pytest.approx(0.099, abs=0.001)
    assert galaxies.z_spec.std() == pytest.approx(0.058, abs=0.001)
    assert 0 <= galaxies.ra.min() < galaxies.ra.max() < 360
    assert -90 < galaxies.dec.min() < galaxies.dec.max() < 90


def test_magnitudes_are_corrected_for_extinction() -> None:
    photometry = catalog.Photometry(np.array([0]), np.array([[1.0, 10.0, 100.0, 1000.0, 1.0]]), np.array([2.751]))
    assert photometry.magnitudes[0] == pytest.approx([22.5 - 5.155, 20 - 3.793, 17.5 - 2.751, 15 - 2.086, 22.5 - 1.479])


def test_the_split_is_disjoint_complete_and_pinned() -> None:
    split = catalog.split(9988)
    assert (len(split.train), len(split.validation), len(split.held_out)) == (7188, 800, 2000)
    all_rows = np.concatenate([split.train, split.validation, split.held_out])
    assert sorted(all_rows.tolist()) == list(range(9988))
    assert (
        hashlib.sha256(all_rows.astype("<i8").tobytes()).hexdigest()
        == "a7e714f0f40e293c0151cd808e15e2cf79fb3a677cd5054fdc81450b60e36296"
    )


def test_held_out_galaxies_are_the_held_out_rows_of_the_split() -> None:
    galaxies = catalog.held_out(50)
    assert galaxies.photometry.rows.tolist() == catalog.split(9988).held_out[:50].tolist()
    assert not set(galaxies.photometry.rows.tolist()) & set(catalog.split(9988).train.tolist())


@pytest.mark.parametrize("galaxies", [0, -1, 2001])
def test_an_invalid_number_of_held_out_galaxies_is_an_error(galaxies: int) -> None:
    with pytest.raises(CatalogError, match="expected 1 to 2000"):
        catalog.held_out(galaxies)


@pytest.mark.parametrize("size", [0, 1000, 200_000])
def test_a_truncated_table_is_an_error_that_names_the_file(tmp_path: Path, size: int) -> None:
    table = tmp_path / "table.npz"
    table.write_bytes(catalog.TABLE.read_bytes()[:size])
    with pytest.raises(CatalogError, match=r"table\.npz"):
        catalog.load(table)


def test_a_column_of_the_wrong_shape_is_an_error_that_names_it(tmp_path: Path) -> None:
    table = tmp_path / "table.npz"
    ones = np.ones(3)
    np.savez(table, flux=ones, extinction_r=ones, z_spec=ones, ra=ones, dec=ones)
    with pytest.raises(CatalogError, match=r"'flux' with shape \(3, 5\), got \(3,\)"):
        catalog.load(table)


def test_building_from_another_wheel_is_an_error(tmp_path: Path) -> None:
    wheel = tmp_path / "other.whl"
    with pytest.raises(CatalogError, match=r"other\.whl: expected the kcorrect"):
        build_catalog.build(wheel, tmp_path / "table.npz")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(build_catalog.MEMBER, b"another table")
    with pytest.raises(CatalogError, match=r"expected .* of kcorrect 5\.1\.9 with SHA-256"):
        build_catalog.build(wheel, tmp_path / "table.npz")
    assert not (tmp_path / "table.npz").exists()
