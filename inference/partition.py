"""Partitions: files of galaxies in the published format or as safetensors, and the command that writes them.

A partition has images float32 [n, 5, 32, 32], magnitudes float64 [n, 5] and redshifts float64 [n]: 20,528 bytes per
galaxy. The published format (``1.pt``, ``2.pt``, …) is a torch ``TensorDataset`` saved by ``torch.save``. Reading one
never runs code from the file: unpickling is ``weights_only`` and allows tensors and `TensorDataset` alone.
``1.safetensors`` has the same tensors, named images, magnitudes and z_spec, and no pickle.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import TensorDataset

from inference import catalog, stamps, synthetic
from inference.catalog import BANDS, N_HELD_OUT, Catalog
from inference.destination import open_destination
from inference.errors import CatalogError, PartitionError
from inference.stamps import Images
from inference.synthetic import Sampler, SetSize, parse_size

SUFFIXES = (".pt", ".safetensors")
RENDERED = "SDSS photometry and redshifts; rendered stamps"  # the origin of the held-out galaxies' partitions
ORIGIN_LIMIT = 200  # characters
REPORT_S = 1.0  # seconds between lines of progress
MAX_MEGABYTES = 1000
SIZE_LIMIT = 2**30  # bytes of a partition, compressed or not; the published ones have 25 to 100 MiB
ROW_BYTES = 20_528
MAGNITUDE_LIMIT = 90  # catalogues mark missing photometry with 99, -99 or -9999
IMAGE_SHAPE = (len(BANDS), stamps.SIZE, stamps.SIZE)


@dataclass(frozen=True, slots=True)
class Partition:
    """n galaxies: images float32 [n, 5, 32, 32], magnitudes float64 [n, 5], z_spec float64 [n].

    Attributes
    ----------
    origin : str
        Where the galaxies are from, for example `inference.synthetic.ORIGIN`; empty if the file does not say.
    """

    images: Tensor
    magnitudes: Tensor
    z_spec: Tensor
    origin: str = ""

    def __len__(self) -> int:
        return len(self.z_spec)

    @classmethod
    def render(cls, galaxies: Catalog) -> Partition:
        """Render the stamps of these galaxies."""
        return cls._of(stamps.render(galaxies.photometry), galaxies, RENDERED)

    @classmethod
    def draw(cls, sampler: Sampler, start: int, n: int) -> Partition:
        """Draw rows start to start + n of a synthetic stream."""
        return cls._of(*sampler.draw(start, n), synthetic.ORIGIN)

    @classmethod
    def _of(cls, images: Images, galaxies: Catalog, origin: str) -> Partition:
        magnitudes = torch.from_numpy(galaxies.photometry.magnitudes)
        return cls(torch.from_numpy(images), magnitudes, torch.from_numpy(galaxies.z_spec), origin)


def write(partition: Partition, path: Path) -> None:
    """Write a partition in the format of the suffix, atomically: a reader finds the old file or the complete new one.

    Raises
    ------
    PartitionError
        The suffix is neither .pt nor .safetensors.
    """
    if path.suffix not in SUFFIXES:
        raise PartitionError(f"invalid suffix of {path.name!r}: expected {' or '.join(SUFFIXES)}")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix == ".pt":
            dataset = TensorDataset(partition.images, partition.magnitudes, partition.z_spec)
            dataset.origin = partition.origin  # type: ignore[attr-defined]  # an attribute that other readers ignore
            torch.save(dataset, unfinished)
        else:
            tensors = {"images": partition.images, "magnitudes": partition.magnitudes, "z_spec": partition.z_spec}
            save_file(tensors, unfinished, {"origin": partition.origin})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: Path, name: str | None = None) -> Partition:
    """Read a partition into memory.

    Parameters
    ----------
    path : Path
        A file whose suffix is .safetensors is read as such, every other one as saved by torch.
    name : str, optional
        Name in error messages, for example the S3 key; the path by default.

    Raises
    ------
    PartitionError
        The file is missing, truncated, too large or of another format, or its tensors are not those of a partition.
        The message names the row of an invalid value.
    """
    name = name or str(path)
    return _read_safetensors(path, name) if path.suffix == ".safetensors" else _read_torch(path, name)


def _read_torch(path: Path, name: str) -> Partition:
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
    origin = getattr(dataset, "origin", "")
    return _check_tensors(getattr(dataset, "tensors", None), path.stat().st_size, origin, name)


def _read_safetensors(path: Path, name: str) -> Partition:
    if not path.is_file():
        raise PartitionError(f"{name}: the file does not exist")
    size = path.stat().st_size
    if size > SIZE_LIMIT:
        raise PartitionError(f"{name}: expected at most {SIZE_LIMIT} bytes, got {size}: split the partition")
    try:
        with safe_open(path, framework="pt") as archive:
            names = set(archive.keys())
            tensors = {key: archive.get_tensor(key) for key in names}
            origin = (archive.metadata() or {}).get("origin", "")
    except (OSError, SafetensorError) as error:
        raise PartitionError(
            f"{name}: expected a complete safetensors file, got {size} bytes that are truncated or of another format: "
            f"{error}"
        ) from error
    if names != {"images", "magnitudes", "z_spec"}:
        raise PartitionError(
            f"{name}: expected three tensors (images, magnitudes, z_spec), got {', '.join(sorted(names)) or 'none'}"
        )
    return _check_tensors((tensors["images"], tensors["magnitudes"], tensors["z_spec"]), size, origin, name)


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


def _check_tensors(tensors: object, size: int, origin: object, name: str) -> Partition:
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
        finite = torch.isfinite(tensor)
        if not finite.all():
            place = [int(index) for index in torch.nonzero(~finite)[0]]
            at = f", band {BANDS[place[1]]}" if len(place) > 1 else ""
            at += f", pixel {place[2:]}" if len(place) > 2 else ""
            raise PartitionError(f"{name}, row {place[0]}: expected finite {label}, got {tensor[tuple(place)]}{at}")
    _, magnitudes, z_spec = tensors
    rows = torch.nonzero((magnitudes.abs() > MAGNITUDE_LIMIT).any(dim=1))
    if len(rows):
        row = int(rows[0])
        raise PartitionError(
            f"{name}, row {row}: expected magnitudes from -{MAGNITUDE_LIMIT} to {MAGNITUDE_LIMIT}, "
            f"got {magnitudes[row].tolist()}: larger values mark missing photometry, remove the row"
        )
    rows = torch.nonzero(z_spec <= -1.0)
    if len(rows):
        row = int(rows[0])
        raise PartitionError(f"{name}, row {row}: expected a redshift above -1, got {z_spec[row]}")
    return Partition(*tensors, origin=str(origin)[:ORIGIN_LIMIT])


def _describe(tensors: object) -> str:
    if isinstance(tensors, tuple):
        return f"{len(tensors)} of {', '.join(type(one).__name__ for one in tensors)}"
    return type(tensors).__name__


def write_all(out: str | Path, partitions: int, galaxies: int = N_HELD_OUT, suffix: str = ".pt") -> None:
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
    destination = open_destination(out)
    destination.prepare(partitions, suffix, galaxies * ROW_BYTES)
    for number, rows in enumerate(np.array_split(np.arange(galaxies), partitions), start=1):
        partition = Partition.render(chosen.select(rows))
        place = destination.save(f"{number}{suffix}", functools.partial(write, partition))
        print(f"{place}: {len(partition)} galaxies, {len(partition) * ROW_BYTES / 1e6:.1f} MB", flush=True)


def stream(size: SetSize, sampler: Sampler, numbers: Iterable[int]) -> Iterator[Partition]:
    """Draw these partitions of a synthetic data set, counted from 1, one at a time."""
    for number in numbers:
        yield Partition.draw(sampler, *size.span(number))


def write_synthetic(out: str | Path, size: SetSize, suffix: str = ".pt", seed: int = 0) -> None:
    """Write a synthetic data set of any size as 1.pt, 2.pt, …, one partition in memory at a time; print progress.

    Raises
    ------
    PartitionError
        The destination contains other partitions, lacks the space, or refuses a partition.
    """
    destination = open_destination(out)
    numbers = range(1, len(size) + 1)
    total = size.galaxies * ROW_BYTES
    destination.prepare(len(size), suffix, total)
    print(f"{len(size)} partitions, {size.galaxies} galaxies, {total / 1e9:.3g} GB, {synthetic.ORIGIN}", flush=True)
    began = reported = time.monotonic()
    written = 0
    for number, partition in zip(numbers, stream(size, Sampler(seed=seed), numbers), strict=True):
        place = destination.save(f"{number}{suffix}", functools.partial(write, partition))
        written += len(partition) * ROW_BYTES
        now = time.monotonic()
        if now - reported >= REPORT_S or number == len(size):
            reported = now
            rate = written / (now - began)
            print(
                f"{place}: {number}/{len(size)}, {written / 1e9:.3g} GB, {rate / 1e6:.0f} MB/s, "
                f"{(total - written) / rate:.0f} s left",
                flush=True,
            )


def _byte_size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


EPILOG = """\
examples:
  python -m inference.partition --out partitions --partitions 8
  python -m inference.partition --out data --megabytes 25 --total 12.6GB
  python -m inference.partition --out s3://cosmic-ai-data/25MB --megabytes 25 --total 1TB --format safetensors

Sizes are powers of 1024, as in the published study: 12.6GB are 517 partitions of 25 MB.
"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m inference.partition",
        description="Write galaxies into partitions 1.pt, 2.pt, … for distributed inference: the 2,000 held-out SDSS "
        "galaxies (--partitions), or a synthetic data set of any size that repeats them with new orientation and noise "
        "(--megabytes and --total).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", required=True, help="folder for the partitions, created if missing; or s3://BUCKET/PREFIX"
    )
    parser.add_argument("--partitions", type=int, metavar="N", help="number of files of held-out galaxies")
    parser.add_argument("--galaxies", type=int, metavar="N", help=f"galaxies in all files (default: {N_HELD_OUT})")
    parser.add_argument(
        "--megabytes", type=int, metavar="MB", help="size of a partition; the published study had 25, 50, 75 and 100"
    )
    parser.add_argument(
        "--total", type=_byte_size, metavar="SIZE", help="size of the data set, for example 12.6GB or 1TB"
    )
    parser.add_argument("--seed", type=int, help="seed of the synthetic galaxies (default: 0)")
    parser.add_argument(
        "--format", choices=[suffix[1:] for suffix in SUFFIXES], default="pt", help="file format (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    is_synthetic = options.megabytes is not None or options.total is not None
    if is_synthetic and (options.megabytes is None or options.total is None):
        parser.error("--megabytes and --total belong together: give both")
    if is_synthetic == (options.partitions is not None):
        parser.error("expected either --partitions, or --megabytes and --total")
    if is_synthetic and options.galaxies is not None:
        parser.error("--galaxies does not apply to a synthetic set: give its size with --total")
    if not is_synthetic and options.seed is not None:
        parser.error("--seed applies to a synthetic set alone: give --megabytes and --total")
    if is_synthetic and not 1 <= options.megabytes <= MAX_MEGABYTES:
        parser.error(f"invalid --megabytes {options.megabytes}: expected 1 to {MAX_MEGABYTES}")
    suffix = f".{options.format}"
    try:
        if is_synthetic:
            size = SetSize.from_bytes(options.total, options.megabytes)
            write_synthetic(options.out, size, suffix, options.seed or 0)
        else:
            write_all(options.out, options.partitions, options.galaxies or N_HELD_OUT, suffix)
    except (CatalogError, PartitionError, OSError) as error:
        sys.exit(f"python -m inference.partition: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
