"""SUMMA: the ranks form a grid, each multiplies panels that are broadcast along its row and its column.

fmirun -n 4 examples/matrix_multiply.py        matrices of about 512 x 512
fmirun -n 6 examples/matrix_multiply.py 60     60 x 60, on a grid of 2 x 3 ranks

After R. A. van de Geijn and J. Watts, SUMMA: scalable universal matrix multiplication algorithm, 1997.
"""

import math
import os
import sys
import time

import fmi
import numpy as np

SIZE = int(sys.argv[1]) if len(sys.argv) > 1 else 512
SUM = fmi.func(fmi.op.sum)

rank = int(os.environ["RANK"])
world_size = int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, world_size, "fmi.json", "summa")

rows = max(divisor for divisor in range(1, math.isqrt(world_size) + 1) if world_size % divisor == 0)
columns = world_size // rows
row, column = divmod(rank, columns)
in_row, in_column = comm.split(row, column), comm.split(column, row)

# Every panel lies in one block of A's columns and one of B's rows: the number of panels is a multiple of both.
panels = math.lcm(rows, columns)
width = max(1, SIZE // panels)
n = width * panels
height, breadth = n // rows, n // columns


def entries(first_row, first_column, shape, scale):
    """Return a block of a matrix whose entries follow from their place."""
    i, j = np.arange(first_row, first_row + shape[0]), np.arange(first_column, first_column + shape[1])
    return np.sin(scale * i[:, None] + j[None, :])


block = (height, breadth)
a, b = entries(row * height, column * breadth, block, 2.0), entries(row * height, column * breadth, block, 3.0)
product = np.zeros(block)
began = time.perf_counter()
for panel in range(panels):
    start = panel * width
    owner, offset = divmod(start, breadth)
    left = a[:, offset : offset + width].copy() if column == owner else np.empty((height, width))
    in_row.bcast(left, owner)
    owner, offset = divmod(start, height)
    right = b[offset : offset + width].copy() if row == owner else np.empty((width, breadth))
    in_column.bcast(right, owner)
    product += left @ right
seconds = time.perf_counter() - began

total = comm.allreduce(np.array([product.sum()]), SUM)[0]
if rank == 0:
    print(f"{n} x {n} on a grid of {rows} x {columns} ranks in {seconds:.3f} s, sum of all entries {total:.6f}")
