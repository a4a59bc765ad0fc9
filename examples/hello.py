"""Hello, world: every rank prints a line, and a greeting goes once around all of them.

fmirun -n 4 examples/hello.py
"""

import os

import fmi

rank = int(os.environ["RANK"])
world_size = int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, world_size, "fmi.json", "hello")
number = fmi.types(fmi.datatypes.int)

print(f"hello from rank {rank} of {world_size}", flush=True)
after, before = (rank + 1) % world_size, (rank - 1) % world_size
if rank == 0:
    comm.send(1, after, number)
    passed = comm.recv(before, number)
    print(f"the greeting has passed {passed} ranks")
else:
    comm.send(comm.recv(before, number) + 1, after, number)
