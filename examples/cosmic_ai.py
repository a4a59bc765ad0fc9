"""Cosmic AI: N Lambdas predict redshifts of SDSS galaxies, each for its partitions of a data set.

    fmirun -n 4 --preload torch --data build/partitions --results results examples/cosmic_ai.py

Every rank reads its partitions from S3, the next one while it computes, and writes <RESULT_PATH>/<rank>.json. Sums and
a histogram are reduced and the galaxies gathered over FMI. Rank 0 writes the report there, too: ResultsReduce.json,
Results.json, inference.png, stamps.png, objects/redshifts.ecsv and objects/redshifts.fits.
"""

import os
import time

import boto3
import fmi
import numpy as np

from inference import extremes
from inference.histogram import DzHistogram
from inference.job import OBJECT_LIMIT
from inference.metrics import PartialSums
from inference.objects import Objects
from inference.rank_job import RankJob, pack_origins, unpack_origins

SUM, MAX = fmi.func(fmi.op.sum), fmi.func(fmi.op.max)

started = time.monotonic()
rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
job = RankJob(boto3.client("s3"), rank, world_size, __doc__)
work = job.work()

# A rank without partitions takes part, too. The galaxies of large sets are not gathered.
comm = fmi.Communicator(rank, world_size, "fmi.json", "cosmic-ai")
most, slowest = comm.allreduce(np.array([work.sums.n, time.monotonic() - started], dtype=np.float64), MAX)
sums = PartialSums.from_vector(comm.allreduce(work.sums.to_vector(), SUM))
counts = comm.reduce(work.histogram.counts, 0, SUM)
are_gathered = sums.n <= OBJECT_LIMIT
blocks = comm.gather(Objects.concatenate(work.objects).pack(int(most)), 0) if are_gathered else None
values = comm.allgather(work.extremes.to_table()).reshape(world_size, -1, extremes.COLUMNS)
chosen = extremes.choose(values)
images = comm.reduce(work.extremes.contribution(chosen, rank), 0, SUM)
origins = comm.allgather(pack_origins(work.origins))

job.write(work)
if rank == 0:
    job.report(
        sums=sums,
        histogram=DzHistogram(counts),
        tables=Objects.unpack(blocks, world_size) if are_gathered else None,
        total_time=slowest,
        origins=unpack_origins(origins),
        examples=(images, values[chosen[:, 0], chosen[:, 1]]),
    )
