from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.extremes import EACH, Extremes, choose

IMAGE = (5, 32, 32)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 99))
def test_the_choice_over_ranks_is_that_over_all_galaxies(counts: list[int], seed: int) -> None:
    """Whatever the distribution over ranks and partitions; every stamp arrives with its values."""
    generator = np.random.default_rng(seed)
    ranks, everything = [], []
    for n in counts:
        extremes = Extremes()
        z_spec, z_phot = generator.uniform(0.1, 0.5, n), generator.uniform(0.1, 0.5, n)
        images = np.broadcast_to(z_phot[:, None, None, None], (n, *IMAGE)).astype(np.float32)
        for part in np.array_split(np.arange(n), 3):
            if len(part):
                extremes.add(images[part], z_spec[part], z_phot[part])
        ranks.append(extremes)
        everything += np.abs((z_phot - z_spec) / (1 + z_spec)).tolist()
    tables = np.stack([extremes.to_table() for extremes in ranks])
    chosen = choose(tables)
    values = tables[chosen[:, 0], chosen[:, 1]]
    half = min(EACH, len(everything) // 2)
    everything.sort()
    expected = everything[:half] + everything[len(everything) - half :]
    np.testing.assert_allclose(np.abs(values[:, 0]), expected)
    stamps = np.sum([extremes.contribution(chosen, rank) for rank, extremes in enumerate(ranks)], axis=0)
    np.testing.assert_allclose(stamps[:, 0, 0, 0], values[:, 2], rtol=1e-6)


def test_ranks_without_galaxies_contribute_nothing() -> None:
    empty = Extremes()
    assert choose(np.stack([empty.to_table()] * 3)).shape == (0, 2)
    assert empty.contribution(np.array([[1, 0]]), 0).shape == (1, *IMAGE)


@pytest.mark.parametrize("n", [1, 2, 11, 12, 13, 200])
def test_a_rank_keeps_at_most_twelve(n: int) -> None:
    extremes = Extremes()
    extremes.add(np.zeros((n, *IMAGE), dtype=np.float32), np.linspace(0.1, 0.2, n), np.linspace(0.1, 0.3, n))
    assert np.isfinite(extremes.to_table()).all(axis=1).sum() == min(n, 2 * EACH)
