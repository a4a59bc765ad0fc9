"""Sample sort: the ranks agree on splitters, exchange their numbers by them, and each sorts one range of all numbers.

fmirun -n 4 examples/sample_sort.py            200,000 numbers on each rank
fmirun -n 4 examples/sample_sort.py 1000       1,000 numbers on each rank
"""

import os
import sys

import fmi
import numpy as np

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
SAMPLES = 32

rank = int(os.environ["RANK"])
world_size = int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, world_size, "fmi.json", "sample_sort")

numbers = np.sort(np.random.default_rng(seed=rank).normal(size=COUNT))

# Every rank chooses numbers at equal distances; the same ones of all ranks' choices are the splitters everywhere.
own_samples = numbers[np.linspace(0, COUNT - 1, SAMPLES).astype(int)]
samples = np.sort(comm.allgather(own_samples))
splitters = samples[SAMPLES * np.arange(1, world_size)]

# Rank r receives the numbers between splitters r - 1 and r: first how many, then the numbers.
ends = np.searchsorted(numbers, splitters)
sent = np.diff(np.concatenate([[0], ends, [COUNT]]))
received = comm.alltoall(sent)
part = np.sort(comm.alltoallv(numbers, sent.tolist(), received.tolist()))

sizes = comm.allgather(np.array([part.size]))
edges = comm.allgather(np.array([part[0], part[-1]] if part.size else [np.nan, np.nan]))
if rank == 0:
    edges = edges[~np.isnan(edges)]
    if (np.diff(edges) < 0).any():
        sys.exit("the ranges of the ranks overlap")
    print(f"sorted {sizes.sum():,} numbers from {edges[0]:.3f} to {edges[-1]:.3f}")
    print(f"the ranks have {', '.join(f'{size:,}' for size in sizes)} of them")
