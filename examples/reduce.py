"""The smallest FMI program: every rank contributes a number and a list, and rank 0 receives the sums.

fmirun -n 4 examples/reduce.py
"""

import os

import fmi

rank = int(os.environ["RANK"])
world_size = int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, world_size, "fmi.json", "reduce")

total = comm.reduce(rank + 1, 0, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
totals = comm.reduce([1.0, rank / 2], 0, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.double_list, 2))

if rank == 0:
    print(f"{world_size} ranks: 1 + 2 + ... + {world_size} = {total}, and of the lists: {totals}")
