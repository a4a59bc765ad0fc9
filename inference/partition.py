"""Partitions in the published format, and the command that renders the held-out galaxies into partitions.

A partition is a torch ``TensorDataset`` of images float32 [n, 5, 32, 32], magnitudes float64 [n, 5] and redshifts
float64 [n]: 20,528 bytes per galaxy, saved by ``torch.save`` as ``1.pt``, ``2.pt``, … Reading one never
runs code from the file: unpickling is ``weights_only`` and allows tensors and `TensorDataset` alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from inference import catalog, stamps
from inference.catalog import BANDS, Catalog
from inference.errors import CatalogError, PartitionError

SIZE_LIMIT = 2**30  # bytes of a partition, compressed or not; the published ones have 25 to 100 MiB
ROW_BYTES = 20_528
IMAGE_SHAPE = (len(BANDS), stamps.SIZE, stamps.SIZE)


@dataclass(frozen=True, slots=True)
class Partition:
    """n galaxies: images float32 [n, 5, 32, 32], magnitudes float64 [n, 5], z_spec float64 [n]."""

    images: Tensor
    magnitudes: Tensor
    z_spec: Tensor

    def __len__(self) -> int:
        return len(self.z_spec)

    @classmethod
    def render(cls, galaxies: Catalog) -> Partition:
        """Render the stamps of these galaxies."""
        return cls(
            torch.from_numpy(stamps.render(galaxies.photometry)),
            torch.from_numpy(galaxies.photometry.magnitudes),
            torch.from_numpy(galaxies.z_spec),
        )


def write(partition: Partition, path: Path) -> None:
    """Write a partition atomically: a reader finds the old file or the complete new one."""
    dataset = TensorDataset(partition.images, partition.magnitudes, partition.z_spec)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(dataset, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: Path, name: str | None = None) -> Partition:
    """Read a partition into memory.

    Parameters
    ----------
    path : Path
    name : str, optional
        Name in error messages, for example the S3 key; the path by default.

    Raises
    ------
    PartitionError
        The file is missing, truncated, too large, not a `TensorDataset`, or its tensors are not those of a partition.
    """
    name = name or str(path)
    _check_archive(path, name)
    try:
        with torch.serialization.safe_globals([TensorDataset]):
            dataset = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise any exception
        reason = str(error).strip().splitlines()
        raise PartitionError(
            f"{name}: expected a TensorDataset of plain tensors saved by torch.save: "
            f"torch.load failed: {reason[0] if reason else type(error).__name__}"
        ) from error
    if type(dataset) is not TensorDataset:
        raise PartitionError(f"{name}: expected a TensorDataset, got {type(dataset).__name__}")
    return _check_tensors(getattr(dataset, "tensors", None), path.stat().st_size, name)


def _check_archive(path: Path, name: str) -> None:
    """Check that the file is a complete zip archive, which torch.save writes, of at most SIZE_LIMIT bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except FileNotFoundError as error:
        raise PartitionError(f"{name}: the file does not exist") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise PartitionError(
            f"{name}: expected a complete file saved by torch.save, got {path.stat().st_size} bytes "
            f"that are truncated or of another format: {error}"
        ) from error
    if unpacked > SIZE_LIMIT:
        raise PartitionError(f"{name}: expected at most {SIZE_LIMIT} bytes, got {unpacked}: split the partition")


def _check_tensors(tensors: object, size: int, name: str) -> Partition:
    expected = (("images", torch.float32, IMAGE_SHAPE), ("magnitudes", torch.float64, (5,)), ("z", torch.float64, ()))
    if not isinstance(tensors, tuple) or len(tensors) != 3 or not all(type(one) is Tensor for one in tensors):
        raise PartitionError(f"{name}: expected three tensors (images, magnitudes, z), got {_describe(tensors)}")
    n = len(tensors[2]) if tensors[2].dim() else 1
    for tensor, (label, dtype, shape) in zip(tensors, expected, strict=True):
        if tensor.dtype != dtype or tuple(tensor.shape) != (n, *shape):
            raise PartitionError(
                f"{name}: expected {label} as {dtype} {[n, *shape]}, got {tensor.dtype} {list(tensor.shape)}"
            )
    if n == 0:
        raise PartitionError(f"{name}: expected at least one galaxy, got none")
    # With a stride of 0 a few bytes represent any number of galaxies.
    if not all(one.is_contiguous() for one in tensors) or n * ROW_BYTES > size:
        raise PartitionError(f"{name}: expected {n} galaxies in {n * ROW_BYTES} bytes, got {size} bytes")
    for tensor, (label, _, _) in zip(tensors, expected, strict=True):
        if not torch.isfinite(tensor).all():
            raise PartitionError(f"{name}: expected finite {label}, got NaN or infinity")
    return Partition(*tensors)


def _describe(tensors: object) -> str:
    if isinstance(tensors, tuple):
        return f"{len(tensors)} of {', '.join(type(one).__name__ for one in tensors)}"
    return type(tensors).__name__


def write_all(out: Path, partitions: int, galaxies: int = catalog.N_HELD_OUT) -> None:
    """Render the first ``galaxies`` of the held-out galaxies into out/1.pt, out/2.pt, …, and print progress.

    Rows are divided in order: partition 1 starts with the first held-out galaxy. The result depends on the arguments
    alone.

    Raises
    ------
    PartitionError
        There are more partitions than galaxies, or ``out`` contains other partitions.
    CatalogError
        Fewer galaxies are held out.
    """
    chosen = catalog.held_out(galaxies)
    if not 1 <= partitions <= galaxies:
        raise PartitionError(
            f"invalid number of partitions {partitions}: expected 1 to {galaxies}, the number of galaxies"
        )
    out.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.pt" for number in range(1, partitions + 1)]
    unexpected = sorted(path.name for path in out.glob("*.pt") if path.name not in names)
    if unexpected:
        raise PartitionError(
            f"{out}: contains other partitions ({', '.join(unexpected[:5])}): delete them or choose another folder"
        )
    for name, rows in zip(names, np.array_split(np.arange(galaxies), partitions), strict=True):
        partition = Partition.render(chosen.select(rows))
        write(partition, out / name)
        print(f"{out / name}: {len(partition)} galaxies, {(out / name).stat().st_size / 1e6:.1f} MB", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m inference.partition",
        description="Render held-out SDSS galaxies into partitions 1.pt, 2.pt, … for distributed inference.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the partitions; created if missing")
    parser.add_argument("--partitions", type=int, required=True, help="number of files")
    parser.add_argument(
        "--galaxies",
        type=int,
        default=catalog.N_HELD_OUT,
        help="number of galaxies in all files (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        write_all(options.out, options.partitions, options.galaxies)
    except (CatalogError, PartitionError, OSError) as error:
        sys.exit(f"python -m inference.partition: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
