"""Checkpoints as safetensors files: the weights as tensors, the network's size and normalisation as JSON metadata."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from inference.errors import CheckpointError
from inference.estimator import Estimator, Normalisation
from inference.model import AstroMAE, AstroMAEConfig

SHIPPED = Path(__file__).parent / "data" / "astromae_small.safetensors"
FORMAT = "fmi-emulator/astromae/1"


def save(estimator: Estimator, path: Path) -> None:
    """Write a checkpoint atomically: a reader finds the old file or the complete new one."""
    metadata = {
        "format": FORMAT,
        "config": json.dumps(dataclasses.asdict(estimator.network.config)),
        "normalisation": json.dumps(dataclasses.asdict(estimator.normalisation)),
    }
    state = {name: tensor.contiguous() for name, tensor in estimator.network.state_dict().items()}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(state, unfinished, metadata)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path = SHIPPED) -> Estimator:
    """Read a checkpoint and return its network in evaluation mode.

    Raises
    ------
    CheckpointError
        The file is missing, damaged or of another format, or its tensors are not those of the network that its
        metadata describes.
    """
    try:
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
            state = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected a safetensors checkpoint: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT!r}, got {metadata.get('format')!r}")
    try:
        config = _config(json.loads(metadata["config"]))
        normalisation = _normalisation(json.loads(metadata["normalisation"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: invalid metadata, expected the description of a network: {error}") from error
    network = AstroMAE(config)
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: expected the tensors of the network in the metadata: {reason}") from error
    return Estimator(network, normalisation).eval()


def _config(fields: dict[str, Any]) -> AstroMAEConfig:
    config = AstroMAEConfig(**{**fields, "inception_widths": tuple(fields["inception_widths"])})
    # The network is allocated before its tensors are compared: a file must not request more memory than the published
    # network takes.
    for name, limit in dataclasses.asdict(AstroMAEConfig.published()).items():
        value, limit = np.max(getattr(config, name)), np.max(limit)
        if name not in ("heads", "groups", "patch") and value > limit:
            raise ValueError(f"invalid {name} {value}: expected at most {limit}, the published network's")
    return config


def _normalisation(fields: dict[str, Any]) -> Normalisation:
    def number(name: str, value: Any) -> float:
        if not math.isfinite(float(value)):
            raise ValueError(f"invalid {name} {value}: expected a finite number")
        return float(value)

    def row(name: str, values: list[Any]) -> tuple[float, ...]:
        if len(values) != 5:
            raise ValueError(f"expected 5 values of {name}, one per band, got {len(values)}")
        return tuple(number(name, value) for value in values)

    mixing = tuple(row("magnitude_mixing", values) for values in fields.pop("magnitude_mixing"))
    if len(mixing) != 5:
        raise ValueError(f"expected 5 rows of magnitude_mixing, got {len(mixing)}")
    normalisation = Normalisation(
        softening=row("softening", fields.pop("softening")),
        image_scale=row("image_scale", fields.pop("image_scale")),
        magnitude_mean=row("magnitude_mean", fields.pop("magnitude_mean")),
        magnitude_mixing=mixing,
        redshift_mean=number("redshift_mean", fields.pop("redshift_mean")),
        redshift_scale=number("redshift_scale", fields.pop("redshift_scale")),
    )
    if fields:
        raise ValueError(f"unknown keys {sorted(fields)}: expected those of Normalisation alone")
    return normalisation
