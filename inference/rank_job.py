"""The job of one rank but for its collectives: its options, its partitions in S3, and the files that it writes."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference import checkpoint, dataset, predictor, run, synthetic
from inference.job import Work, work_through
from inference.partition import Partition
from inference.report import make_report
from inference.results import full_result, rank_result
from inference.run import Timing

_ORIGIN_BYTES = 512


class RankJob:
    """What one rank does between its start and its collectives, and with their results.

    Parameters
    ----------
    s3
        boto3 client of S3.
    rank, world_size
        This rank and the number of ranks.
    description
        Of the program, for ``--help``.
    arguments
        The program's.
    environment
        The variables of a rank of a run: S3_BUCKET, DATA_BUCKET, DATA_PATH, RESULT_PATH and BATCH_SIZE.

    Raises
    ------
    PartitionError
        The run's event in S3 is missing or invalid.
    """

    def __init__(
        self,
        s3: Any,
        rank: int,
        world_size: int,
        description: str | None,
        arguments: Sequence[str] | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._s3 = s3
        self._rank = rank
        self._environment = environment
        self._options = _parser(description, environment).parse_args(arguments)
        self._device = run.choose_device(self._options.device)
        self._keys, self._fetch = self._source(world_size)

    def _source(self, world_size: int) -> tuple[list[list[str]], Callable[[str], Partition]]:
        """Return the partitions of every rank, and the function that gets one of them."""
        options, environment = self._options, self._environment
        if options.synthetic is None:
            keys = dataset.read_data_map(self._s3, environment["S3_BUCKET"], world_size)
            return keys, lambda key: dataset.download(self._s3, environment["DATA_BUCKET"], key)
        size = synthetic.SetSize.from_bytes(options.synthetic, options.megabytes)
        sampler = synthetic.Sampler()
        names = [str(number) for number in range(1, len(size) + 1)]
        return [names[rank::world_size] for rank in range(world_size)], lambda name: Partition.draw(
            sampler, *size.span(int(name))
        )

    def work(self) -> Work:
        """Predict the redshifts of this rank's partitions, and print a line for each.

        Raises
        ------
        PartitionError
            A partition is missing or invalid.
        """
        options = self._options
        torch.set_num_threads(run.vcpus())
        return work_through(
            self._keys[self._rank],
            self._fetch,
            predictor.load(options.checkpoint, str(self._device), half=options.half),
            batch_size=options.batch_size,
            device=self._device,
            on_partition=self._print_partition,
        )

    def _print_partition(self, key: str, timing: Timing) -> None:
        speed = f"{timing.samples_per_second:.0f} samples/s"
        print(f"rank {self._rank}: {key} {timing.galaxies} galaxies, {speed}", flush=True)

    def write(self, work: Work) -> None:
        """Write ``<RESULT_PATH>/<rank>.json``, and on rank 0 ``Results.json``."""
        result = rank_result(
            work.timing,
            work.profile,
            batch_size=self._options.batch_size,
            device=str(self._device),
            result_path=self._environment["RESULT_PATH"],
            data_path=self._environment["DATA_PATH"],
        )
        if work.half_difference is not None:
            result["half_difference (redshift)"] = work.half_difference
        self._put(f"{self._rank}.json", json.dumps({"rank": self._rank, **result}))
        if self._rank == 0:
            self._put("Results.json", json.dumps(full_result(result, work.timing, work.profile)))

    def report(self, **combined: Any) -> None:
        """Write and print the report of all ranks' work; the arguments are those of `inference.report.make_report`."""
        report = make_report(keys=self._keys, **combined)
        for name, content in report.files.items():
            self._put(name, content)
        print(report.text, flush=True)

    def _put(self, name: str, body: str | bytes) -> None:
        path = f"{self._environment['RESULT_PATH']}/{name}"
        self._s3.put_object(Bucket=self._environment["S3_BUCKET"], Key=path, Body=body)


def pack_origins(origins: set[str]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the origins of a rank's galaxies as bytes, uint8 of one length on all ranks."""
    text = "\n".join(sorted(origins)).encode()[:_ORIGIN_BYTES]
    return np.frombuffer(text.ljust(_ORIGIN_BYTES, b"\0"), dtype=np.uint8)


def unpack_origins(packed: np.ndarray[Any, np.dtype[np.uint8]]) -> set[str]:
    """Return the origins in the packed ones of all ranks, one after another."""
    texts = (row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in packed.reshape(-1, _ORIGIN_BYTES))
    return {origin for text in texts for origin in text.split("\n") if origin}


def _parser(description: str | None, environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument("--half", action="store_true", help="compute in float16 on cuda, and report the difference")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=environment.get("BATCH_SIZE") or "512",
        metavar="N",
        help="galaxies per batch (default: BATCH_SIZE, else 512)",
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=checkpoint.SHIPPED, metavar="FILE", help="network (default: the shipped one)"
    )
    parser.add_argument(
        "--synthetic", type=synthetic.parse_size, metavar="SIZE", help="draw a set of this size instead of reading S3"
    )
    parser.add_argument(
        "--megabytes", type=int, default=25, metavar="MB", help="size of its partitions (default: %(default)s)"
    )
    return parser
