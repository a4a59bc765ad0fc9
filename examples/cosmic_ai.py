"""Cosmic AI: N Lambdas predict redshifts of SDSS galaxies, each for its partitions of a data set.

    fmirun -n 4 examples/cosmic_ai.py

Every rank reads its partitions from S3, runs the network, and writes <RESULT_PATH>/<rank>.json. Sums are reduced and
the galaxies gathered over FMI. Rank 0 writes ResultsReduce.json, inference.png and objects/redshifts.ecsv there, too.
"""

import argparse
import dataclasses
import json
import os
import time

import boto3
import fmi
import numpy as np
import torch

from inference import checkpoint, dataset, metrics, plots, run
from inference.catalog import R_BAND
from inference.objects import Objects, to_ecsv

SUM, MAX = fmi.func(fmi.op.sum), fmi.func(fmi.op.max)


def predict(s3, rank, keys, batch_size, device):
    """Return this rank's galaxies with their redshifts, and the timing of the inference."""
    torch.set_num_threads(run.vcpus())
    estimator = checkpoint.load().for_inference().to(device)
    tables, timing = [], run.Timing()
    for part, key in enumerate(keys):
        galaxies = dataset.download(s3, os.environ["DATA_BUCKET"], key)
        z_phot, took = run.predict(estimator, galaxies.images, galaxies.magnitudes, batch_size, device)
        tables.append(
            Objects.from_partition(galaxies.z_spec.numpy(), z_phot, galaxies.magnitudes[:, R_BAND].numpy(), part)
        )
        timing += took
        print(f"rank {rank}: {key} {len(galaxies)} galaxies, {took.samples_per_second:.0f} samples/s", flush=True)
    return Objects.concatenate(tables), timing


def combine(comm, rank, world_size, objects, seconds):
    """Return the sums over all ranks and every rank's galaxies, on rank 0 only, and the slowest rank's time."""
    largest, slowest = comm.allreduce(np.array([len(objects), seconds], dtype=np.float64), MAX)
    totals = comm.reduce(metrics.PartialSums.from_redshifts(objects.z_spec, objects.z_phot).to_vector(), 0, SUM)
    blocks = comm.gather(objects.pack(int(largest)), 0)
    if rank != 0:
        return None, None, slowest
    return metrics.PartialSums.from_vector(totals), Objects.unpack(blocks, world_size), slowest


def main():
    """Run one rank."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch-size", type=int, default=os.environ.get("BATCH_SIZE") or "512")
    options = parser.parse_args()
    device = run.choose_device(options.device)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    bucket, result_path = os.environ["S3_BUCKET"], os.environ["RESULT_PATH"]

    def put(name, body):
        s3.put_object(Bucket=bucket, Key=f"{result_path}/{name}", Body=body)

    s3 = boto3.client("s3")
    keys = dataset.read_data_map(s3, bucket, world_size)
    objects, timing = predict(s3, rank, keys[rank], options.batch_size, device)

    comm = fmi.Communicator(rank, world_size, "fmi.json", "cosmic-ai")
    totals, tables, total_time = combine(comm, rank, world_size, objects, time.monotonic() - started)

    result = timing.result(
        batch_size=options.batch_size, device=str(device), result_path=result_path, data_path=os.environ["DATA_PATH"]
    )
    put(f"{rank}.json", json.dumps({"rank": rank, **result}))
    if rank == 0:
        all_objects = Objects.concatenate(tables)
        report = metrics.compute_metrics(all_objects.z_spec, all_objects.z_phot, totals)
        errors = metrics.bootstrap(all_objects.z_spec, all_objects.z_phot)
        put("inference.png", plots.draw(all_objects.z_spec, all_objects.z_phot, all_objects.r))
        put("objects/redshifts.ecsv", to_ecsv(tables, keys))
        reduced = {"total_time": total_time, **dataclasses.asdict(report)}
        put("ResultsReduce.json", json.dumps(reduced))
        print(metrics.format_table(report, errors), flush=True)


if __name__ == "__main__":
    main()
