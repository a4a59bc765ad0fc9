"""Estimate pi by Monte Carlo: each rank draws its own points, and one allreduce adds up the hits on every rank.

fmirun -n 4 examples/monte_carlo.py            2,000,000 points on each rank
fmirun -n 4 examples/monte_carlo.py 1000       1,000 points on each rank
"""

import os
import sys

import fmi
import numpy as np

DARTS = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000

rank = int(os.environ["RANK"])
world_size = int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, world_size, "fmi.json", "monte_carlo")

darts = np.random.default_rng(seed=rank).random((2, DARTS))
hits = np.array([np.count_nonzero((darts**2).sum(axis=0) < 1.0), DARTS])
inside, thrown = comm.allreduce(hits, fmi.func(fmi.op.sum))

if rank == 0:
    print(f"pi is about {4 * inside / thrown:.6f} after {thrown:,} darts on {world_size} ranks")
