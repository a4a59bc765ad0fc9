"""python -m inference, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table

from inference import __main__ as command
from inference import checkpoint, job, partition
from inference.partition import Partition


def write_part(partition_: Partition, path: Path, rows: slice) -> Path:
    part = Partition(
        partition_.images[rows].clone(), partition_.magnitudes[rows].clone(), partition_.z_spec[rows].clone(), "a test"
    )
    partition.write(part, path)
    return path


@pytest.fixture
def files(partition: Partition, tmp_path: Path) -> list[str]:
    first = write_part(partition, tmp_path / "1.pt", slice(0, 40))
    return [str(first), str(write_part(partition, tmp_path / "2.safetensors", slice(40, 100)))]


def test_partitions_are_predicted_alone_and_all_results_are_written(
    files: list[str], tmp_path: Path, partition: Partition
) -> None:
    """Without ranks, S3 or AWS: in a process of its own."""
    out = tmp_path / "results"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "inference", *files, "--batch-size", "16", "--results", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "galaxies  100" in done.stdout
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {
        "Results.json",
        "ResultsReduce.json",
        "inference.png",
        "stamps.png",
        "objects/redshifts.ecsv",
        "objects/redshifts.fits",
    }
    result = json.loads((out / "Results.json").read_text())
    assert {"cpu_info", "ram_info (GB)", "avg_profile", "self_cpu_memory (MB)", "peak_rss (MB)"} <= result.keys()
    assert result["num_batches"] == 7
    assert result["total_cpu_memory (MB)"] > result["self_cpu_memory (MB)"] > 0
    reduced = json.loads((out / "ResultsReduce.json").read_text())
    assert (reduced["n"], reduced["medians_from"], reduced["origins"]) == (100, "gathered values", ["a test"])
    assert reduced["errors"]["sigma_nmad"] > 0
    with torch.inference_mode():
        z_phot = checkpoint.load()(partition.images[:100], partition.magnitudes[:100]).double().numpy()
    fits, ecsv = Table.read(out / "objects/redshifts.fits"), Table.read(out / "objects/redshifts.ecsv")
    np.testing.assert_allclose(fits["z_phot"], z_phot, atol=1e-5)
    np.testing.assert_allclose(ecsv["z_phot"], z_phot, atol=1e-5)
    assert list(ecsv.columns) == ["id", "z_spec", "z_phot", "dz", "r", "rank", "partition", "row"]
    assert (ecsv["id"][40], ecsv["partition"][40]) == ("2-0", files[1])
    assert ecsv["r"].unit == "mag"
    assert "a test" in ecsv.meta["comments"]


def test_medians_of_many_galaxies_are_from_a_histogram_and_the_report_says_so(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main([*files, "--results", str(tmp_path / "gathered")])
    monkeypatch.setattr(job, "OBJECT_LIMIT", 60)
    monkeypatch.setattr(command, "OBJECT_LIMIT", 60)
    capsys.readouterr()
    command.main([*files, "--results", str(tmp_path / "binned")])
    assert "medians are from a histogram of dz" in capsys.readouterr().out
    gathered, binned = (
        json.loads((tmp_path / name / "ResultsReduce.json").read_text()) for name in ("gathered", "binned")
    )
    assert binned["medians_from"] == "histogram with bins of 2e-05"
    assert not (tmp_path / "binned" / "objects").exists()
    for name in ("mae", "mse", "bias", "outliers", "r2"):
        assert binned[name] == gathered[name]
    for name in ("median_bias", "sigma_nmad", "sigma_iqr"):
        assert binned[name] == pytest.approx(gathered[name], abs=6e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pt"], r"python -m inference: missing\.pt: the file does not exist"),
        (["--checkpoint", "missing.safetensors"], "expected a safetensors checkpoint"),
        (["--half"], "half precision is for CUDA alone"),
    ],
)
def test_an_error_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message) as ended:
        command.main(arguments)
    assert "\n" not in str(ended.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error() -> None:
    with pytest.raises(SystemExit, match="device cuda is not available"):
        command.main(["--device", "cuda"])


def test_a_row_that_cannot_be_processed_is_named_with_its_partition(partition: Partition, tmp_path: Path) -> None:
    path = write_part(partition, tmp_path / "1.pt", slice(0, 5))
    damaged = Partition(partition.images[:5].clone(), partition.magnitudes[:5], partition.z_spec[:5])
    damaged.images[3] = 3e38
    command_file = str(path)
    from inference.partition import write

    write(damaged, path)
    with pytest.raises(SystemExit, match=r"1\.pt, row 3: expected"):
        command.main([command_file])


@pytest.mark.parametrize("redshift", [1e300, 2000.0])
def test_a_redshift_too_large_for_exact_sums_is_refused_with_partition_and_row(
    partition: Partition, tmp_path: Path, redshift: float
) -> None:
    z_spec = partition.z_spec[:4].clone()
    z_spec[3] = redshift
    path = tmp_path / "1.pt"
    write_part(Partition(partition.images[:4], partition.magnitudes[:4], z_spec, "a test"), path, slice(0, 4))
    with pytest.raises(SystemExit, match=r"1\.pt, row 3: invalid redshifts, .*: expected values below 1024"):
        command.main([str(path)])
