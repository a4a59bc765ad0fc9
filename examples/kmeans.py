"""Distributed k-means: each rank keeps its own points, and one allreduce an iteration moves the centres on all of them.

fmirun -n 4 examples/kmeans.py                 20,000 points on each rank
fmirun -n 4 examples/kmeans.py 500             500 points on each rank
"""

import os
import sys

import fmi
import numpy as np

CLUSTERS, DIMENSIONS, LONGEST, TOLERANCE = 4, 2, 50, 1e-6
POINTS = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
SUM = fmi.func(fmi.op.sum)

rank = int(os.environ["RANK"])
world_size = int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, world_size, "fmi.json", "kmeans")

# The clusters lie around the corners of a square, and each rank draws its own points of all of them.
corners = np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 0.0], [10.0, 10.0]])
random = np.random.default_rng(seed=rank)
points = corners[random.integers(CLUSTERS, size=POINTS)] + random.normal(size=(POINTS, DIMENSIONS))

# Rank 0 chooses where to begin: points that are far from each other.
centres = np.empty((CLUSTERS, DIMENSIONS))
if rank == 0:
    centres[0] = points[0]
    for chosen in range(1, CLUSTERS):
        distances = ((points[:, None] - centres[None, :chosen]) ** 2).sum(axis=2).min(axis=1)
        centres[chosen] = points[distances.argmax()]
comm.bcast(centres, 0)

iterations, shift = 0, np.inf
while shift > TOLERANCE and iterations < LONGEST:
    nearest = ((points[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    own = np.zeros((CLUSTERS, DIMENSIONS + 1))  # for each cluster the sum of its points, and their number
    np.add.at(own, nearest, np.column_stack([points, np.ones(POINTS)]))
    totals = comm.allreduce(own, SUM)
    moved = totals[:, :-1] / np.maximum(totals[:, -1:], 1.0)
    shift = np.abs(moved - centres).max()
    centres = moved
    iterations += 1

if rank == 0:
    found = ", ".join(f"({x:.2f}, {y:.2f})" for x, y in sorted(centres.round(2).tolist()))
    print(f"{world_size * POINTS:,} points, centres after {iterations} iterations: {found}")
