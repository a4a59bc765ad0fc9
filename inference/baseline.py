"""The baseline for the network: k-nearest-neighbour regression of the redshift on the magnitudes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from inference.catalog import R_BAND, Floats


class Features(Enum):
    """The feature vector in which distances are measured; each feature is standardised over the training galaxies."""

    MAGNITUDES = "5 magnitudes"
    MAGNITUDES_AND_COLOURS = "5 magnitudes and 4 colours"
    COLOURS_AND_R = "4 colours and r"

    def compute(self, magnitudes: Floats) -> Floats:
        """Return the features, float64 [n, 5 or 9], of magnitudes float64 [n, 5]."""
        colours = magnitudes[:, :-1] - magnitudes[:, 1:]
        match self:
            case Features.MAGNITUDES:
                return magnitudes
            case Features.MAGNITUDES_AND_COLOURS:
                return np.hstack([magnitudes, colours])
            case Features.COLOURS_AND_R:
                return np.hstack([colours, magnitudes[:, R_BAND, None]])


NEIGHBOUR_COUNTS = (5, 8, 10, 15, 20, 30, 50)


@dataclass(frozen=True, slots=True)
class NearestNeighbours:
    """A k-nearest-neighbour regression whose weights are inverse distances."""

    features: Features
    k: int
    magnitudes: Floats
    z_spec: Floats

    def predict(self, magnitudes: Floats) -> Floats:
        """Estimate redshifts, float64 [n], by brute force: n distances to each training galaxy."""
        reference, queries = self.features.compute(self.magnitudes), self.features.compute(magnitudes)
        mean, scale = reference.mean(axis=0), reference.std(axis=0)
        reference, queries = (reference - mean) / scale, (queries - mean) / scale
        squares = (queries**2).sum(axis=1)[:, None] + (reference**2).sum(axis=1) - 2.0 * queries @ reference.T
        nearest = np.argpartition(squares, self.k, axis=1)[:, : self.k]
        distances = np.sqrt(np.take_along_axis(squares, nearest, axis=1).clip(min=1e-9))
        weights = 1.0 / distances
        return np.asarray((weights * self.z_spec[nearest]).sum(axis=1) / weights.sum(axis=1), dtype=np.float64)


def tune(
    magnitudes: Floats, z_spec: Floats, validation_magnitudes: Floats, validation_z_spec: Floats
) -> NearestNeighbours:
    """Return the regression with the features and k of the smallest mean absolute error on the validation galaxies."""
    candidates = [NearestNeighbours(features, k, magnitudes, z_spec) for features in Features for k in NEIGHBOUR_COUNTS]
    return min(
        candidates,
        key=lambda candidate: float(np.abs(candidate.predict(validation_magnitudes) - validation_z_spec).mean()),
    )
