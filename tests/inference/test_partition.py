from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from inference import catalog, partition, synthetic
from inference.errors import PartitionError
from inference.partition import Partition, read, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1.pt"


def tensors(n: int = 4) -> dict[str, Tensor]:
    return {
        "images": torch.zeros(n, 5, 32, 32),
        "magnitudes": torch.zeros(n, 5, dtype=torch.float64),
        "z": torch.zeros(n, dtype=torch.float64),
    }


def tensors_by_name() -> dict[str, Tensor]:
    whole = tensors()
    return {"images": whole["images"], "magnitudes": whole["magnitudes"], "z_spec": whole["z"]}


def save(path: Path, **changed: Tensor) -> None:
    whole = {**tensors(), **changed}
    dataset = TensorDataset(torch.zeros(1))
    dataset.tensors = tuple(whole.values())  # of different lengths, too
    torch.save(dataset, path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_read_restores_what_write_wrote(path: Path, partition: Partition, suffix: str) -> None:
    path = path.with_suffix(suffix)
    write(partition, path)
    restored = read(path)
    assert torch.equal(restored.images, partition.images)
    assert torch.equal(restored.magnitudes, partition.magnitudes)
    assert torch.equal(restored.z_spec, partition.z_spec)
    assert restored.origin == partition.origin == "SDSS photometry and redshifts; rendered stamps"
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_another_suffix_is_refused(path: Path, partition: Partition) -> None:
    with pytest.raises(PartitionError, match=r"invalid suffix of '1\.npz': expected \.pt or \.safetensors"):
        write(partition, path.with_suffix(".npz"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_safetensors_file_is_an_error_with_the_given_name(
    path: Path, partition: Partition, share: float
) -> None:
    path = path.with_suffix(".safetensors")
    write(partition, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(PartitionError, match=r"^data/7: expected a complete safetensors file, got \d+ bytes"):
        read(path, "data/7")
    with pytest.raises(PartitionError, match="does not exist"):
        read(path.with_name("2.safetensors"))


def test_a_safetensors_file_with_other_tensors_is_an_error_that_names_them(path: Path) -> None:
    path = path.with_suffix(".safetensors")
    save_file({"images": torch.zeros(1, 5, 32, 32), "z_spec": torch.zeros(1)}, path)
    with pytest.raises(PartitionError, match=r"expected three tensors .*got images, z_spec"):
        read(path)
    save_file({**tensors_by_name(), "magnitudes": torch.zeros(4, 5)}, path)
    with pytest.raises(PartitionError, match=r"expected magnitudes as torch.float64 \[4, 5\], got torch.float32"):
        read(path)


def test_the_format_is_the_published_one(path: Path, partition: Partition) -> None:
    write(partition, path)
    with torch.serialization.safe_globals([TensorDataset]):
        images, magnitudes, redshifts = torch.load(path, weights_only=True).tensors
    assert (images.dtype, magnitudes.dtype, redshifts.dtype) == (torch.float32, torch.float64, torch.float64)
    assert (images.shape, magnitudes.shape, redshifts.shape) == ((300, 5, 32, 32), (300, 5), (300,))
    assert path.stat().st_size == pytest.approx(300 * 20_528, rel=0.01)


def test_a_missing_file_is_an_error_that_names_it(path: Path) -> None:
    with pytest.raises(PartitionError, match=r"1\.pt: the file does not exist"):
        partition.read(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_an_error_with_the_given_name(path: Path, share: float) -> None:
    save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(PartitionError, match=r"^data/7\.pt: expected a complete file"):
        partition.read(path, "data/7.pt")


def test_a_damaged_byte_is_an_error(path: Path) -> None:
    save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"TensorDataset")] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(PartitionError, match=r"torch\.load failed"):
        partition.read(path)


class Trap:
    """Writes a file when unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.victim, "executed"))


def test_a_malicious_pickle_is_never_executed(path: Path) -> None:
    victim = path.parent / "victim"
    torch.save(Trap(victim), path)
    with pytest.raises(PartitionError, match=r"torch\.load failed"):
        partition.read(path)
    path.write_bytes(pickle.dumps(Trap(victim)))
    with pytest.raises(PartitionError, match="truncated or of another format"):
        partition.read(path)
    assert not victim.exists()
    pickle.loads(pickle.dumps(Trap(victim)))  # noqa: S301  # unpickling does run the code
    assert victim.exists()


def test_another_dataset_class_is_an_error(path: Path) -> None:
    torch.save(Subset(TensorDataset(torch.zeros(4)), [0]), path)
    with pytest.raises(PartitionError, match=r"torch\.load failed"):
        partition.read(path)


@pytest.mark.parametrize("content", [torch.zeros(3), {"images": torch.zeros(3)}, [1, 2], None])
def test_another_object_saved_by_torch_is_an_error_that_names_its_type(path: Path, content: object) -> None:
    torch.save(content, path)
    with pytest.raises(PartitionError, match=f"expected a TensorDataset, got {type(content).__name__}"):
        partition.read(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": torch.zeros(4, 5, 64, 64)}, r"images as torch.float32 \[4, 5, 32, 32\], got .* \[4, 5, 64, 64\]"),
        ({"images": torch.zeros(4, 5, 32, 32).double()}, r"images as torch.float32 .* got torch.float64"),
        ({"images": torch.zeros(3, 5, 32, 32)}, r"images as .* \[4, 5, 32, 32\], got .* \[3, 5, 32, 32\]"),
        ({"magnitudes": torch.zeros(4, 5)}, "magnitudes as torch.float64 .* got torch.float32"),
        ({"magnitudes": torch.zeros(4, 4).double()}, r"magnitudes as .* got torch.float64 \[4, 4\]"),
        ({"z": torch.zeros(4)}, "z as torch.float64 .* got torch.float32"),
        ({"z": torch.zeros(4, 1).double()}, r"z as torch.float64 \[4\], got torch.float64 \[4, 1\]"),
        ({"z": torch.tensor(0.0).double()}, "expected"),
        ({"z": torch.full((4,), torch.nan).double()}, "finite z"),
        ({"magnitudes": torch.full((4, 5), torch.inf).double()}, "finite magnitudes"),
        (tensors(0), "at least one galaxy"),
    ],
)
def test_an_invalid_tensor_is_an_error_with_its_name_and_what_was_expected(
    path: Path, changed: dict[str, Tensor], message: str
) -> None:
    save(path, **changed)
    with pytest.raises(PartitionError, match=message):
        partition.read(path)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("images", (2, 1, 3, 4), torch.nan, r"row 2: expected finite images, got nan, band g, pixel \[3, 4\]"),
        ("images", (3, 4, 0, 0), -torch.inf, r"row 3: expected finite images, got -inf, band z, pixel \[0, 0\]"),
        ("magnitudes", (1, 0), torch.nan, "row 1: expected finite magnitudes, got nan, band u"),
        ("magnitudes", (1, 2), -9999.0, r"row 1: expected magnitudes from -90 to 90, got \[.*-9999.* remove the row"),
        ("z", (3,), torch.nan, "row 3: expected finite z, got nan"),
        ("z", (0,), -1.0, r"row 0: expected a redshift above -1, got -1\.0"),
    ],
)
def test_an_invalid_value_is_an_error_that_names_partition_and_row(
    path: Path, name: str, place: tuple[int, ...], value: float, message: str
) -> None:
    whole = tensors()
    whole[name][place] = value
    save(path, **whole)
    with pytest.raises(PartitionError, match=rf"^data/7\.pt, {message}"):
        read(path, "data/7.pt")


def test_two_tensors_are_an_error(path: Path) -> None:
    torch.save(TensorDataset(torch.zeros(2, 5, 32, 32), torch.zeros(2, 5)), path)
    with pytest.raises(PartitionError, match=r"expected three tensors \(images, magnitudes, z\), got 2"):
        partition.read(path)


def test_galaxies_that_are_claimed_and_not_there_are_refused(path: Path) -> None:
    n = 10**7
    save(
        path,
        images=torch.zeros(1, 5, 32, 32).expand(n, 5, 32, 32),
        magnitudes=torch.zeros(1, 5).double().expand(n, 5),
        z=torch.zeros(1).double().expand(n),
    )
    with pytest.raises(PartitionError, match="expected 10000000 galaxies in 205280000000 bytes"):
        partition.read(path)


def test_an_archive_that_unpacks_to_more_than_the_limit_is_not_unpacked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "SIZE_LIMIT", 2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(2**24))
    assert path.stat().st_size < 2**16
    with pytest.raises(PartitionError, match="expected at most 1048576 bytes, got 16777216"):
        partition.read(path)


def test_the_command_divides_the_held_out_galaxies_in_order(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--partitions", "3", "--galaxies", "20"]
    command = [sys.executable, "-m", "inference.partition", *arguments]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert [line.split()[1] for line in first.stdout.splitlines()] == ["7", "7", "6"]
    parts = [partition.read(tmp_path / f"{number}.pt") for number in (1, 2, 3)]
    assert torch.cat([part.z_spec for part in parts]).tolist() == catalog.held_out(20).z_spec.tolist()

    partition.main(arguments)
    for part, number in zip(parts, (1, 2, 3), strict=True):
        assert torch.equal(partition.read(tmp_path / f"{number}.pt").images, part.images)


def test_a_folder_with_other_partitions_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "3.pt")
    with pytest.raises(PartitionError, match=r"contains other partitions \(3\.pt\)"):
        partition.write_all(tmp_path, partitions=2, galaxies=10)
    assert [path.name for path in tmp_path.iterdir()] == ["3.pt"]


@pytest.mark.parametrize("partitions", [0, -1, 11])
def test_an_invalid_number_of_partitions_is_an_error(tmp_path: Path, partitions: int) -> None:
    with pytest.raises(PartitionError, match="expected 1 to 10"):
        partition.write_all(tmp_path, partitions, galaxies=10)


def test_the_command_prints_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"^python -m inference\.partition: invalid number of galaxies 99999: expected 1 to 2000.*$"
    ):
        partition.main(["--out", str(tmp_path), "--partitions", "2", "--galaxies", "99999"])


def test_the_command_writes_a_synthetic_set_that_is_labelled(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--megabytes", "1", "--total", "2.5MB", "--format", "safetensors"]
    partition.main(arguments)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["1.safetensors", "2.safetensors", "3.safetensors"]
    parts = [read(path) for path in files]
    assert [len(part) for part in parts] == [51, 51, 25]
    assert {part.origin for part in parts} == {synthetic.ORIGIN}
    assert not torch.equal(parts[0].images, parts[1].images)
    held_out = set(catalog.held_out().z_spec.tolist())
    assert set(torch.cat([part.z_spec for part in parts]).tolist()) <= held_out


def test_partitions_are_written_to_s3(
    s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The format is the published one, no temporary file remains, and a second set is refused."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    arguments = ["--out", "s3://galaxies/in/", "--megabytes", "1", "--total", "1.1MB"]
    with pytest.raises(SystemExit, match=r"s3://galaxies/in/: expected an existing bucket.*aws s3 mb"):
        partition.main(arguments)
    client = boto3.client("s3")
    client.create_bucket(Bucket="galaxies")
    partition.main(arguments)
    assert "s3://galaxies/in/2.pt: 2/2" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    client.download_file("galaxies", "in/2.pt", str(tmp_path / "2.pt"))
    assert len(read(tmp_path / "2.pt")) == 5
    with pytest.raises(SystemExit, match=r"contains other partitions \(2\.pt\)"):
        partition.main([*arguments[:-1], "0.5MB"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--megabytes", "25"], "--megabytes and --total belong together"),
        ([], "expected either --partitions, or --megabytes and --total"),
        (["--partitions", "2", "--megabytes", "25", "--total", "1GB"], "expected either --partitions, or"),
        (["--megabytes", "0", "--total", "1GB"], "invalid --megabytes 0: expected 1 to 1000"),
        (["--megabytes", "25", "--total", "many"], "invalid size 'many'"),
        (["--megabytes", "25", "--total", "1GB", "--galaxies", "5"], "--galaxies does not apply to a synthetic set"),
        (["--partitions", "2", "--seed", "5"], "--seed applies to a synthetic set alone"),
        (["--megabytes", "25", "--total", "900TB"], r"expected [\de.+]+ GB of free space, got"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        partition.main(["--out", str(tmp_path), *arguments])
    assert re.search(message, f"{refused.value} {capsys.readouterr().err}")
    assert list(tmp_path.iterdir()) == []


STREAM = """
import resource, sys
from inference.partition import stream
from inference.synthetic import Sampler, SetSize, parse_size
size = SetSize.from_bytes(parse_size("1TB"), 25)
numbers = range(1, len(size) + 1)
rows, peaks = 0, []
for number, partition in zip(numbers, stream(size, Sampler(), numbers)):
    rows += len(partition)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    if rows >= 52_000:
        break
print(rows, peaks[3], peaks[-1])
"""


def test_a_terabyte_is_streamed_in_bounded_memory() -> None:
    """The first gigabyte of it; memory does not grow with the number of partitions."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STREAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    rows, early_kb, late_kb = map(int, done.stdout.split())
    assert rows * partition.ROW_BYTES > 2**30
    assert late_kb - early_kb < 30_000, "40 partitions of 26 MB"
