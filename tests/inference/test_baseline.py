from __future__ import annotations

import numpy as np
import pytest

from inference.baseline import NEIGHBOUR_COUNTS, Features, NearestNeighbours, tune


def sample(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    magnitudes = generator.normal(17.0, 1.0, (n, 5))
    return magnitudes, 0.1 + 0.05 * (magnitudes[:, 1] - magnitudes[:, 2])


@pytest.mark.parametrize("features", Features)
def test_the_prediction_is_the_inverse_distance_weighted_mean_of_the_nearest(features: Features) -> None:
    magnitudes, z_spec = sample(200, 1)
    queries, _ = sample(5, 2)
    reference = features.compute(magnitudes)
    mean, scale = reference.mean(axis=0), reference.std(axis=0)
    expected = []
    for query in features.compute(queries):
        distance = np.linalg.norm((reference - mean) / scale - (query - mean) / scale, axis=1)
        nearest = np.argsort(distance)[:8]
        expected.append(np.average(z_spec[nearest], weights=1.0 / distance[nearest]))
    predicted = NearestNeighbours(features, 8, magnitudes, z_spec).predict(queries)
    np.testing.assert_allclose(predicted, expected, rtol=1e-6)


def test_the_prediction_for_a_training_galaxy_is_its_own_redshift() -> None:
    magnitudes, z_spec = sample(100, 3)
    predicted = NearestNeighbours(Features.MAGNITUDES, 5, magnitudes, z_spec).predict(magnitudes[:10])
    np.testing.assert_allclose(predicted, z_spec[:10], atol=1e-3)


def test_tuning_returns_the_candidate_with_the_smallest_validation_error() -> None:
    train, validation = sample(300, 4), sample(100, 5)
    best = tune(*train, *validation)
    assert best.features is not Features.MAGNITUDES  # the redshift is a function of a colour here

    def error(candidate: NearestNeighbours) -> float:
        return float(np.abs(candidate.predict(validation[0]) - validation[1]).mean())

    errors = [error(NearestNeighbours(features, k, *train)) for features in Features for k in NEIGHBOUR_COUNTS]
    assert error(best) == min(errors)
