"""Data-parallel training by torch's DistributedDataParallel over FMI: each rank fits a line to points of its own.

fmirun -n 4 --preload torch examples/data_parallel.py          100 steps
fmirun -n 4 --preload torch examples/data_parallel.py 20       20 steps
torchrun --nproc-per-node 4 examples/data_parallel.py
"""

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 100

dist.init_process_group("fmi")
rank, world_size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(rank)
x = torch.rand(256, 1)
y = 3 * x + 1 + 0.01 * torch.randn(256, 1)

model = DistributedDataParallel(torch.nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
for _ in range(STEPS):
    loss = ((model(x) - y) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

mean_loss = loss.detach()
dist.all_reduce(mean_loss, dist.ReduceOp.AVG)
if rank == 0:
    slope, offset = model.module.weight.item(), model.module.bias.item()
    print(f"{world_size} ranks: y = {slope:.2f} x + {offset:.2f}, mean loss {mean_loss.item():.4f}")
dist.destroy_process_group()
