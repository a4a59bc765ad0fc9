from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference import checkpoint
from inference.errors import CheckpointError
from inference.estimator import Estimator
from inference.partition import Partition


@pytest.fixture
def copied(shipped: Estimator, tmp_path: Path) -> Path:
    path = tmp_path / "network.safetensors"
    checkpoint.save(shipped, path)
    return path


def metadata(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header["__metadata__"])


def test_the_shipped_checkpoint_is_small() -> None:
    assert checkpoint.SHIPPED.stat().st_size < 3_000_000


def test_what_is_saved_is_loaded(copied: Path, shipped: Estimator, partition: Partition) -> None:
    again = checkpoint.load(copied)
    assert again.normalisation == shipped.normalisation
    assert again.network.config == shipped.network.config
    assert not again.training
    with torch.inference_mode():
        assert torch.equal(
            again(partition.images[:20], partition.magnitudes[:20]),
            shipped(partition.images[:20], partition.magnitudes[:20]),
        )
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: expected a safetensors checkpoint"):
        checkpoint.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("size", [0, 7, 1000, 100_000])
def test_a_truncated_file_is_refused(copied: Path, size: int) -> None:
    copied.write_bytes(copied.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="expected a safetensors checkpoint"):
        checkpoint.load(copied)


def test_a_foreign_safetensors_file_is_refused(copied: Path) -> None:
    save_file({"x": torch.zeros(1)}, copied)
    with pytest.raises(CheckpointError, match="expected format 'fmi-emulator/astromae/1', got None"):
        checkpoint.load(copied)


def test_a_missing_tensor_is_named(copied: Path) -> None:
    described, state = metadata(copied), load_file(copied)
    del state["head.2.bias"]
    save_file(state, copied, described)
    with pytest.raises(CheckpointError, match=r"do not fit .*head\.2\.bias"):
        checkpoint.load(copied)


def test_a_tensor_of_another_shape_is_named(copied: Path) -> None:
    described, state = metadata(copied), load_file(copied)
    state["head.2.bias"] = torch.zeros(7)
    save_file(state, copied, described)
    with pytest.raises(CheckpointError, match=r"do not fit .*head\.2\.bias"):
        checkpoint.load(copied)


@pytest.mark.parametrize(
    ("part", "key", "value", "reason"),
    [
        ("config", "dim", "64", "dim is '64'"),
        ("config", "depth", 10**9, "depth is 1000000000, expected at most the published network's 12"),
        ("config", "inception_widths", [4, 4, 4, 4, 10**6], "expected at most"),
        ("config", "heads", 0, "heads is 0"),
        ("config", "heads", 7, "do not divide"),
        ("config", "groups", 7, "do not divide"),
        ("config", "inception_widths", [4, 4], "expected 5"),
        ("config", "inception_widths", None, "does not describe"),
        ("config", "colour", 3, "colour"),
        ("normalisation", "softening", [1.0], "softening has 1 values"),
        ("normalisation", "magnitude_mixing", [[1.0] * 5], "magnitude_mixing has 1 rows"),
        ("normalisation", "redshift_scale", "wide", "wide"),
        ("normalisation", "redshift_scale", float("nan"), "redshift_scale is nan"),
        ("normalisation", "offset", 1.0, "offset"),
    ],
)
def test_metadata_that_describes_no_network_is_refused(
    copied: Path, part: str, key: str, value: object, reason: str
) -> None:
    described, state = metadata(copied), load_file(copied)
    described[part] = json.dumps({**json.loads(described[part]), key: value})
    save_file(state, copied, described)
    with pytest.raises(CheckpointError, match=reason):
        checkpoint.load(copied)
