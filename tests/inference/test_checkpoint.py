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


def test_load_restores_what_save_wrote(copied: Path, shipped: Estimator, partition: Partition) -> None:
    loaded = checkpoint.load(copied)
    assert loaded.normalisation == shipped.normalisation
    assert loaded.network.config == shipped.network.config
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(
            loaded(partition.images[:20], partition.magnitudes[:20]),
            shipped(partition.images[:20], partition.magnitudes[:20]),
        )
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: expected a safetensors checkpoint"):
        checkpoint.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("size", [0, 7, 1000, 100_000])
def test_a_truncated_file_is_an_error(copied: Path, size: int) -> None:
    copied.write_bytes(copied.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="expected a safetensors checkpoint"):
        checkpoint.load(copied)


def test_a_safetensors_file_of_another_format_is_an_error(copied: Path) -> None:
    save_file({"x": torch.zeros(1)}, copied)
    with pytest.raises(CheckpointError, match="expected format 'fmi-emulator/astromae/1', got None"):
        checkpoint.load(copied)


def test_a_missing_tensor_is_an_error_that_names_it(copied: Path) -> None:
    header, state = metadata(copied), load_file(copied)
    del state["head.2.bias"]
    save_file(state, copied, header)
    with pytest.raises(CheckpointError, match=r"expected the tensors .*head\.2\.bias"):
        checkpoint.load(copied)


def test_a_tensor_of_another_shape_is_an_error_that_names_it(copied: Path) -> None:
    header, state = metadata(copied), load_file(copied)
    state["head.2.bias"] = torch.zeros(7)
    save_file(state, copied, header)
    with pytest.raises(CheckpointError, match=r"expected the tensors .*head\.2\.bias"):
        checkpoint.load(copied)


@pytest.mark.parametrize(
    ("part", "key", "value", "reason"),
    [
        ("config", "dim", "64", "invalid dim '64'"),
        ("config", "depth", 10**9, "invalid depth 1000000000: expected at most 12"),
        ("config", "inception_widths", [4, 4, 4, 4, 10**6], "expected at most"),
        ("config", "heads", 0, "invalid heads 0"),
        ("config", "heads", 7, "expected a divisor of 64"),
        ("config", "groups", 7, "expected a divisor of 64"),
        ("config", "inception_widths", [4, 4], "expected 5"),
        ("config", "inception_widths", None, "invalid metadata"),
        ("config", "colour", 3, "colour"),
        ("normalisation", "softening", [1.0], "expected 5 values of softening, one per band, got 1"),
        ("normalisation", "magnitude_mixing", [[1.0] * 5], "expected 5 rows of magnitude_mixing, got 1"),
        ("normalisation", "redshift_scale", "wide", "wide"),
        ("normalisation", "redshift_scale", float("nan"), "invalid redshift_scale nan"),
        ("normalisation", "offset", 1.0, "offset"),
    ],
)
def test_invalid_metadata_is_an_error_with_the_reason(
    copied: Path, part: str, key: str, value: object, reason: str
) -> None:
    header, state = metadata(copied), load_file(copied)
    header[part] = json.dumps({**json.loads(header[part]), key: value})
    save_file(state, copied, header)
    with pytest.raises(CheckpointError, match=reason):
        checkpoint.load(copied)
