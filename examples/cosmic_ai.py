"""Cosmic AI: N Lambdas predict redshifts of SDSS galaxies, each for its partitions of a data set.

    fmirun -n 4 examples/cosmic_ai.py

Every rank reads its partitions from S3, the next one while it computes, and writes <RESULT_PATH>/<rank>.json. Sums and
a histogram are reduced and the galaxies gathered over FMI. Rank 0 writes the report there, too: ResultsReduce.json,
Results.json, inference.png, stamps.png, objects/redshifts.ecsv and objects/redshifts.fits.
"""

import argparse
import json
import os
import time
from pathlib import Path

import boto3
import fmi
import numpy as np
import torch

from inference import checkpoint, dataset, extremes, predictor, run, synthetic
from inference.histogram import DzHistogram
from inference.job import OBJECT_LIMIT, work_through
from inference.metrics import PartialSums
from inference.objects import Objects
from inference.partition import Partition
from inference.report import make_report
from inference.results import full_result, rank_result

LABEL_BYTES = 512
SUM, MAX = fmi.func(fmi.op.sum), fmi.func(fmi.op.max)


def parse_arguments():
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--half", action="store_true", help="compute in float16 on cuda, and report the difference")
    parser.add_argument("--batch-size", type=int, default=os.environ.get("BATCH_SIZE") or "512")
    parser.add_argument("--checkpoint", type=Path, default=checkpoint.SHIPPED)
    parser.add_argument(
        "--synthetic", type=synthetic.parse_size, metavar="SIZE", help="draw a set of this size instead of reading S3"
    )
    parser.add_argument("--megabytes", type=int, default=25, help="size of its partitions")
    return parser.parse_args()


def data_source(options, s3, bucket, world_size):
    """Return the partitions of every rank, and the function that gets one of them."""
    if options.synthetic is None:
        return dataset.read_data_map(s3, bucket, world_size), lambda key: dataset.download(
            s3, os.environ["DATA_BUCKET"], key
        )
    size = synthetic.SetSize.from_bytes(options.synthetic, options.megabytes)
    sampler = synthetic.Sampler()
    names = [str(number) for number in range(1, len(size) + 1)]
    return [names[rank::world_size] for rank in range(world_size)], lambda name: Partition.draw(
        sampler, *size.span(int(name))
    )


def combine(comm, rank, world_size, work, seconds):
    """Reduce and gather the work of all ranks; return the arguments of the report on rank 0, and None elsewhere.

    A rank without partitions takes part, too. The galaxies of large sets are not gathered.
    """
    most, slowest = comm.allreduce(np.array([work.sums.n, seconds], dtype=np.float64), MAX)
    totals = comm.allreduce(work.sums.to_vector(), SUM)
    counts = comm.reduce(work.histogram.counts, 0, SUM)
    sums = PartialSums.from_vector(totals)
    gather_objects = sums.n <= OBJECT_LIMIT
    blocks = comm.gather(Objects.concatenate(work.objects).pack(int(most)), 0) if gather_objects else None
    values = comm.allgather(work.extremes.to_table()).reshape(world_size, -1, extremes.COLUMNS)
    chosen = extremes.choose(values)
    images = comm.reduce(work.extremes.contribution(chosen, rank), 0, SUM)
    origins = b"\n".join(comm.allgather(label(work.origins)).reshape(world_size, -1))
    if rank != 0:
        return None
    return {
        "sums": sums,
        "histogram": DzHistogram(counts),
        "tables": Objects.unpack(blocks, world_size) if gather_objects else None,
        "total_time": slowest,
        "origins": {text for text in bytes(origins).decode().replace("\0", "").split("\n") if text},
        "examples": (images, values[chosen[:, 0], chosen[:, 1]]),
    }


def label(origins):
    """Return the origins of a rank's galaxies as bytes of one length on all ranks."""
    text = "\n".join(sorted(origins)).encode()[:LABEL_BYTES]
    return np.frombuffer(text.ljust(LABEL_BYTES, b"\0"), dtype=np.uint8)


def main():
    """Run one rank."""
    started = time.monotonic()
    options = parse_arguments()
    device = run.choose_device(options.device)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    bucket, result_path = os.environ["S3_BUCKET"], os.environ["RESULT_PATH"]
    torch.set_num_threads(run.vcpus())

    def put(name, body):
        s3.put_object(Bucket=bucket, Key=f"{result_path}/{name}", Body=body)

    s3 = boto3.client("s3")
    keys, fetch = data_source(options, s3, bucket, world_size)
    work = work_through(
        keys[rank],
        fetch,
        predictor.load(options.checkpoint, str(device), half=options.half),
        batch_size=options.batch_size,
        device=device,
        on_partition=lambda key, timing: print(
            f"rank {rank}: {key} {timing.galaxies} galaxies, {timing.samples_per_second:.0f} samples/s", flush=True
        ),
    )

    comm = fmi.Communicator(rank, world_size, "fmi.json", "cosmic-ai")
    combined = combine(comm, rank, world_size, work, time.monotonic() - started)

    result = rank_result(
        work.timing,
        work.profile,
        batch_size=options.batch_size,
        device=str(device),
        result_path=result_path,
        data_path=os.environ["DATA_PATH"],
    )
    if work.half_difference is not None:
        result["half_difference (redshift)"] = work.half_difference
    put(f"{rank}.json", json.dumps({"rank": rank, **result}))
    if rank == 0:
        put("Results.json", json.dumps(full_result(result, work.timing, work.profile)))
        report = make_report(keys=keys, **combined)
        for name, content in report.files.items():
            put(name, content)
        print(report.text, flush=True)


if __name__ == "__main__":
    main()
