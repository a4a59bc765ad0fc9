"""Train the shipped checkpoint: ``python -m inference.train --out inference/data/astromae_small.safetensors``.

All inputs are in the package: the table of galaxies, the stamps rendered from it, the seeds. Training uses one torch
thread. The best epoch is chosen on the validation galaxies. The held-out galaxies are used once, at the end, to compare
the network with the nearest-neighbour baseline.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from inference import catalog, checkpoint, stamps
from inference.baseline import NearestNeighbours, tune
from inference.catalog import R_BAND, Catalog, Floats
from inference.errors import InferenceError
from inference.estimator import Estimator, Normalisation
from inference.metrics import Metrics, compute_metrics
from inference.model import AstroMAE, AstroMAEConfig

SEED = 1996
BATCH = 256
WARM_UP = 100  # steps
WEIGHT_DECAY = 2.0  # of the magnitude branch and the head: they would overfit 7,000 galaxies
IMAGE_WEIGHT_DECAY = 0.05  # of the image branches, whose input is augmented


@dataclass(frozen=True, slots=True)
class Stage:
    """A phase of the training with its own cosine schedule.

    Attributes
    ----------
    epochs : int
    learning_rate : float
        Peak value.
    averaging : float
        Decay per step of the exponential moving average of the weights.
    image_learning_rate : float, optional
        Of the image branches; None excludes them.
    """

    name: str
    epochs: int
    learning_rate: float
    averaging: float
    image_learning_rate: float | None


# The magnitudes first, which takes seconds; then all branches, which takes minutes.
STAGES = (
    Stage("magnitudes", epochs=120, learning_rate=2e-3, averaging=0.998, image_learning_rate=None),
    Stage("all branches", epochs=28, learning_rate=3e-4, averaging=0.99, image_learning_rate=2e-3),
)
REPORT_EVERY = 20  # epochs of the first stage


@dataclass(frozen=True, slots=True)
class Sample:
    """Galaxies as tensors: noiseless images float32 [n, 5, 32, 32], magnitudes float64 [n, 5], z float32 [n]."""

    images: Tensor
    magnitudes: Tensor
    z_spec: Tensor

    @classmethod
    def from_catalog(cls, galaxies: Catalog) -> Sample:
        """Render these galaxies without noise; each batch draws its own."""
        return cls(
            torch.from_numpy(stamps.render_noiseless(galaxies.photometry)),
            torch.from_numpy(galaxies.photometry.magnitudes),
            torch.from_numpy(galaxies.z_spec).float(),
        )


def compute_normalisation(train: Sample) -> Normalisation:
    """Compute the normalisation of inputs and output from the training galaxies."""
    magnitudes = train.magnitudes.numpy()
    # u-g, g-r, r-i, i-z and r: columns of +1 and -1 for the five magnitudes.
    mixing = np.zeros((5, 5))
    for colour in range(4):
        mixing[colour, colour], mixing[colour + 1, colour] = 1.0, -1.0
    mixing[R_BAND, 4] = 1.0
    mixing /= (magnitudes @ mixing).std(axis=0)
    softening = 3.0 * stamps.SKY_NOISE
    softened = torch.asinh(train.images / torch.from_numpy(softening).float()[:, None, None])
    return Normalisation(
        softening=tuple(softening.tolist()),
        image_scale=tuple(softened.std(dim=(0, 2, 3)).tolist()),
        magnitude_mean=tuple(magnitudes.mean(axis=0).tolist()),
        magnitude_mixing=tuple(tuple(row) for row in mixing.tolist()),
        redshift_mean=float(train.z_spec.mean()),
        redshift_scale=float(train.z_spec.std()),
    )


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate and mirror a batch at random and add new noise."""
    rotations, mirror = torch.randint(4, (), generator=generator), torch.randint(2, (), generator=generator)
    images = torch.rot90(images, int(rotations), dims=(2, 3))
    if mirror:
        images = images.flip(3)
    sky = torch.from_numpy(stamps.SKY_NOISE**2).float()[:, None, None]
    gain = torch.from_numpy(stamps.GAIN).float()[:, None, None]
    return images + torch.sqrt(sky + images / gain) * torch.randn(images.shape, generator=generator)


def batches(sample: Sample, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffle the galaxies and yield the rows of each complete batch."""
    order = torch.randperm(len(sample.z_spec), generator=generator)
    yield from torch.split(order[: len(order) // BATCH * BATCH], BATCH)


def batch_loss(
    estimator: Estimator, auxiliary_head: nn.Linear | None, sample: Sample, rows: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the mean absolute error of a batch in redshift.

    The absolute error is minimal at the conditional median and robust against outliers. With `auxiliary_head`, a
    linear layer that is discarded after training, the image branches are trained, too, and the error of a prediction
    from the image features alone is added: the magnitudes are more informative, and without this term the image
    features would be ignored.
    """
    network = estimator.network
    magnitude_features = network.magnitudes(estimator.normalise_magnitudes(sample.magnitudes[rows]))
    z_spec = sample.z_spec[rows]
    if auxiliary_head is None:
        no_image_features = magnitude_features.new_zeros(len(rows), 2 * network.config.features)
        return nn.functional.l1_loss(
            estimator.to_redshift(network.predict(no_image_features, magnitude_features)), z_spec
        )
    image_features = network.encode_images(estimator.normalise_images(augment(sample.images[rows], generator)))
    output = network.predict(image_features, magnitude_features)
    loss = nn.functional.l1_loss(estimator.to_redshift(output), z_spec)
    return loss + nn.functional.l1_loss(estimator.to_redshift(auxiliary_head(image_features)), z_spec)


def train_stage(estimator: Estimator, stage: Stage, sample: Sample, generator: torch.Generator) -> Iterator[Estimator]:
    """Train for one stage and yield an estimator with the averaged weights after each epoch."""
    network = estimator.network
    update = get_ema_multi_avg_fn(stage.averaging)  # type: ignore[no-untyped-call]  # torch's
    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    groups: list[dict[str, Any]] = [
        {
            "params": [*network.magnitudes.parameters(), *network.head.parameters()],
            "lr": stage.learning_rate,
            "weight_decay": WEIGHT_DECAY,
        }
    ]
    auxiliary_head = None
    if stage.image_learning_rate is not None:
        auxiliary_head = nn.Linear(2 * network.config.features, 1)
        groups.append(
            {
                "params": [*network.vision.parameters(), *network.inception.parameters(), *auxiliary_head.parameters()],
                "lr": stage.image_learning_rate,
                "weight_decay": IMAGE_WEIGHT_DECAY,
            }
        )
    optimiser = torch.optim.AdamW(groups)
    steps = stage.epochs * (len(sample.z_spec) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, step / WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
    )
    for _ in range(stage.epochs):
        network.train()
        for rows in batches(sample, generator):
            loss = batch_loss(estimator, auxiliary_head, sample, rows, generator)
            optimiser.zero_grad()
            (loss / estimator.normalisation.redshift_scale).backward()  # type: ignore[no-untyped-call]  # torch's
            optimiser.step()
            schedule.step()
            average.update_parameters(network)
        averaged = AstroMAE(network.config)
        averaged.load_state_dict(average.module.state_dict())
        yield Estimator(averaged, estimator.normalisation).eval()
    network.load_state_dict(average.module.state_dict())


@torch.inference_mode()
def predict(estimator: Estimator, images: Tensor, magnitudes: Tensor) -> Floats:
    """Estimate redshifts, float64 [n]."""
    ready = estimator.for_cpu()
    chunks = zip(torch.split(images, BATCH), torch.split(magnitudes, BATCH), strict=True)
    return np.concatenate([ready(image, magnitude).double().numpy() for image, magnitude in chunks])


def train(out: Path) -> None:
    """Train, save the averaged weights of the best epoch as ``out``, and print progress."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    started = time.monotonic()
    galaxies = catalog.load()
    split = catalog.split(len(galaxies))
    sample = Sample.from_catalog(galaxies.select(split.train))
    validation = galaxies.select(split.validation)
    validation_images = torch.from_numpy(stamps.render(validation.photometry))
    validation_magnitudes = torch.from_numpy(validation.photometry.magnitudes)

    estimator = Estimator(AstroMAE(AstroMAEConfig.small()), compute_normalisation(sample))
    best = math.inf
    for stage in STAGES:
        for epoch, averaged in enumerate(train_stage(estimator, stage, sample, generator), start=1):
            final = stage is STAGES[-1]
            if not final and epoch % REPORT_EVERY:
                continue
            z_phot = predict(averaged, validation_images, validation_magnitudes)
            error = compute_metrics(validation.z_spec, z_phot).mae
            better = final and error < best
            if better:
                best = error
                checkpoint.save(averaged, out)
            print(
                f"{time.monotonic() - started:5.0f} s  {stage.name} {epoch}/{stage.epochs}: "
                f"validation MAE {error:.5f}{', saved' if better else ''}",
                flush=True,
            )
    print(evaluate(out), flush=True)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The metrics of the network and of the baseline on the same held-out galaxies."""

    network: Metrics
    neighbours: Metrics
    baseline: NearestNeighbours

    def __str__(self) -> str:
        name = f"{self.baseline.k} nearest neighbours in {self.baseline.features.value}"
        lines = [f"{self.network.n} held-out galaxies:"]
        lines += [
            f"  MAE {figures.mae:.5f}  sigma_NMAD {figures.sigma_nmad:.5f}  R2 {figures.r2:.4f}  "
            f"|dz| > 0.05 {figures.outliers:.2%}  {method}"
            for method, figures in (("network", self.network), (name, self.neighbours))
        ]
        return "\n".join(lines)


def evaluate(path: Path) -> Comparison:
    """Compare a checkpoint with the nearest-neighbour baseline on the held-out galaxies."""
    estimator = checkpoint.load(path)
    galaxies = catalog.load()
    split = catalog.split(len(galaxies))
    training, validation = galaxies.select(split.train), galaxies.select(split.validation)
    neighbours = tune(
        training.photometry.magnitudes, training.z_spec, validation.photometry.magnitudes, validation.z_spec
    )
    held_out = galaxies.select(split.held_out)
    magnitudes = held_out.photometry.magnitudes
    images = torch.from_numpy(stamps.render(held_out.photometry))
    z_phot = predict(estimator, images, torch.from_numpy(magnitudes))
    return Comparison(
        compute_metrics(held_out.z_spec, z_phot),
        compute_metrics(held_out.z_spec, neighbours.predict(magnitudes)),
        neighbours,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m inference.train", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=checkpoint.SHIPPED,
        help="checkpoint to write, or to evaluate (default: %(default)s)",
    )
    parser.add_argument("--evaluate", action="store_true", help="evaluate the checkpoint --out without training")
    options = parser.parse_args(arguments)
    if not options.out.parent.is_dir():
        parser.error(f"--out: the folder {options.out.parent} does not exist")
    try:
        if options.evaluate:
            print(evaluate(options.out))
        else:
            train(options.out)
    except InferenceError as error:
        sys.exit(f"python -m inference.train: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
