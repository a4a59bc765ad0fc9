from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference import checkpoint, stamps, train
from inference.catalog import Catalog
from inference.estimator import Estimator
from inference.model import AstroMAE, AstroMAEConfig
from inference.train import Comparison, Sample

# As stated in docs/astronomy.md and the README.
DOCUMENTED_MAE = 0.01329
DOCUMENTED_SIGMA_NMAD = 0.01230


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return train.evaluate(checkpoint.SHIPPED)


def test_the_shipped_checkpoint_beats_the_nearest_neighbours_on_held_out_galaxies(comparison: Comparison) -> None:
    assert comparison.network.n == comparison.neighbours.n == 2000
    assert comparison.network.mae < 0.95 * comparison.neighbours.mae
    assert comparison.network.sigma_nmad < 0.92 * comparison.neighbours.sigma_nmad
    assert comparison.network.r2 > comparison.neighbours.r2


def test_the_documented_figures_are_reached(comparison: Comparison) -> None:
    assert comparison.network.mae == pytest.approx(DOCUMENTED_MAE, abs=2e-5)
    assert comparison.network.sigma_nmad == pytest.approx(DOCUMENTED_SIGMA_NMAD, abs=5e-5)


def test_the_comparison_has_one_line_for_each_method(comparison: Comparison) -> None:
    first, network, neighbours = str(comparison).splitlines()
    assert first == "2000 held-out galaxies:"
    assert network.endswith("network")
    assert neighbours.endswith("15 nearest neighbours in 4 colours and r")


@pytest.fixture(scope="module")
def sample(galaxies: Catalog) -> Sample:
    return Sample.from_catalog(galaxies)


def test_normalised_inputs_are_of_order_one(sample: Sample) -> None:
    estimator = Estimator(AstroMAE(AstroMAEConfig.small()), train.compute_normalisation(sample))
    magnitudes = estimator.normalise_magnitudes(sample.magnitudes)
    torch.testing.assert_close(magnitudes.mean(dim=0), torch.zeros(5), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(magnitudes.std(dim=0), torch.ones(5), atol=1e-2, rtol=0.0)
    torch.testing.assert_close(
        estimator.normalise_images(sample.images).std(dim=(0, 2, 3)), torch.ones(5), atol=1e-3, rtol=0.0
    )


def test_augmentation_rotates_mirrors_and_adds_noise(sample: Sample) -> None:
    generator = torch.Generator().manual_seed(0)
    one = sample.images[:1]
    views = torch.stack([torch.rot90(view, rotations, (2, 3)) for view in (one, one.flip(3)) for rotations in range(4)])
    sigma = torch.from_numpy(stamps.noise_sigma(views.numpy().reshape(8, 5, 32, 32))).reshape(views.shape)
    seen = set()
    for _ in range(60):
        noise = (train.augment(one, generator) - views) / sigma
        spread = noise.std(dim=(1, 2, 3, 4))
        seen.add(int(spread.argmin()))
        assert float(spread.min()) == pytest.approx(1.0, abs=0.05)
    assert seen == set(range(8))


@pytest.mark.parametrize("image_learning_rate", [None, 2e-3])
def test_a_stage_lowers_the_error_and_is_reproducible(sample: Sample, image_learning_rate: float | None) -> None:
    stage = train.Stage("test", 3, 2e-3, averaging=0.5, image_learning_rate=image_learning_rate)
    normalisation = train.compute_normalisation(sample)

    def errors() -> list[float]:
        torch.manual_seed(5)
        estimator = Estimator(AstroMAE(AstroMAEConfig.small()), normalisation)
        generator = torch.Generator().manual_seed(5)
        stages = train.train_stage(estimator, stage, sample, generator)
        return [
            float(np.abs(train.predict(one, sample.images, sample.magnitudes) - sample.z_spec.numpy()).mean())
            for one in stages
        ]

    first = errors()
    assert first[-1] < first[0]
    assert errors() == first


def test_a_missing_output_folder_is_an_error_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path / "none" / "network.safetensors")])
    assert "does not exist" in capsys.readouterr().err


def test_evaluating_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"none\.safetensors: expected a safetensors checkpoint"):
        train.main(["--evaluate", "--out", str(tmp_path / "none.safetensors")])
