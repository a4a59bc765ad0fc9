from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import stamps, synthetic
from inference.catalog import Catalog
from inference.synthetic import Sampler, SetSize, parse_size


@pytest.fixture(scope="module")
def few(galaxies: Catalog) -> Catalog:
    return galaxies.select(np.arange(40))


@pytest.fixture(scope="module")
def sampler(few: Catalog) -> Sampler:
    return Sampler(few, seed=7)


def test_each_pass_shows_every_galaxy_once_in_another_order(sampler: Sampler, few: Catalog) -> None:
    _, drawn = sampler.draw(0, 120)
    passes = drawn.photometry.rows.reshape(3, 40)
    assert [sorted(one) for one in passes] == [sorted(few.photometry.rows)] * 3
    assert len({tuple(one) for one in passes}) == 3


def test_a_row_of_the_stream_has_the_photometry_and_redshift_of_its_galaxy(sampler: Sampler, few: Catalog) -> None:
    _, drawn = sampler.draw(13, 30)
    by_row = dict(zip(few.photometry.rows.tolist(), few.z_spec.tolist(), strict=True))
    assert [by_row[row] for row in drawn.photometry.rows.tolist()] == drawn.z_spec.tolist()


def test_equal_arguments_give_equal_rows_and_passes_differ(sampler: Sampler, few: Catalog) -> None:
    images, _ = sampler.draw(80, 20)
    again, _ = Sampler(few, seed=7).draw(80, 20)
    np.testing.assert_array_equal(images, again)
    other, _ = Sampler(few, seed=8).draw(80, 20)
    assert not np.array_equal(images, other)


def test_a_stamp_is_the_galaxy_turned_with_new_noise(sampler: Sampler, few: Catalog) -> None:
    """Noise is independent in every pass, and its size is that of the renderer."""
    images, drawn = sampler.draw(0, 400)
    position = {row: index for index, row in enumerate(few.photometry.rows.tolist())}
    noiseless = stamps.render_noiseless(few.photometry)
    orientations, residuals = set(), []
    for image, row in zip(images, drawn.photometry.rows.tolist(), strict=True):
        clean = noiseless[position[row]]
        turned = [
            candidate[..., ::-1] if mirrored else candidate
            for quarter in range(4)
            for mirrored in (False, True)
            for candidate in [np.rot90(clean, quarter, axes=(1, 2))]
        ]
        chi = [float((((image - one) / stamps.noise_sigma(one)) ** 2).mean()) for one in turned]
        orientations.add(int(np.argmin(chi)))
        residuals.append(min(chi))
    assert orientations == set(range(8))
    assert np.mean(residuals) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("total", "megabytes", "partitions", "rows"),
    [
        ("12.6GB", 25, 517, 1278),
        ("12.6GB", 50, 259, 2556),
        ("12.6GB", 75, 173, 3834),
        ("12.6GB", 100, 130, 5113),
        ("1GB", 25, 41, 1278),
        ("8GB", 100, 82, 5113),
        ("1TB", 100, 10_486, 5113),
        ("1KB", 25, 1, 1278),
    ],
)
def test_partitions_are_counted_as_in_the_published_study(
    total: str, megabytes: int, partitions: int, rows: int
) -> None:
    size = SetSize.from_bytes(parse_size(total), megabytes)
    assert (len(size), size.rows) == (partitions, rows)


@given(st.integers(1, 10**9), st.integers(1, 1000))
def test_the_spans_of_the_partitions_cover_every_galaxy_once(galaxies: int, rows: int) -> None:
    size = SetSize(galaxies, rows)
    last = len(size)
    for number in [number for number in (1, 2, last // 2, last - 1) if 1 <= number < last]:
        start, n = size.span(number)
        assert n == rows
        assert size.span(number + 1)[0] == start + n
    assert sum(size.span(last)) == galaxies
    assert 1 <= size.span(last)[1] <= rows


@pytest.mark.parametrize("text", ["", "GB", "12", "12.6", "-1GB", "0GB", "1e3GB", "9999TB", "12 XB"])
def test_an_invalid_size_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected a positive number with KB, MB, GB or TB"):
        parse_size(text)


def test_the_origin_says_that_rows_are_synthetic() -> None:
    assert "synthetic" in synthetic.ORIGIN
