"""PageRank: each rank owns a range of pages and their links, and a reduce_scatter adds up what all pages pass on.

fmirun -n 4 examples/pagerank.py               10,000 pages
fmirun -n 4 examples/pagerank.py 400 20        400 pages, at most 20 iterations
"""

import os
import sys

import fmi
import numpy as np

DAMPING, TOLERANCE, LINKS = 0.85, 1e-6, 8
PAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
LONGEST = int(sys.argv[2]) if len(sys.argv) > 2 else 100
SUM = fmi.func(fmi.op.sum)

rank = int(os.environ["RANK"])
world_size = int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, world_size, "fmi.json", "pagerank")

counts = [len(pages) for pages in np.array_split(np.arange(PAGES), world_size)]
first, last = sum(counts[:rank]), sum(counts[: rank + 1])

# Links from this rank's pages: more of them to pages with low numbers, and none from every tenth page.
links = []
for page in range(first, last):
    random = np.random.default_rng(seed=page)
    targets = (PAGES * random.random(0 if page % 10 == 9 else LINKS) ** 2).astype(int)
    links += [(page - first, target) for target in np.unique(targets)]
sources, targets = np.array(links, dtype=int).reshape(-1, 2).T
degrees = np.bincount(sources, minlength=last - first)

scores = np.full(last - first, 1 / PAGES)
iterations, change = 0, np.inf
while change > TOLERANCE and iterations < LONGEST:
    passed = np.bincount(targets, weights=scores[sources] / degrees[sources], minlength=PAGES)
    passed += scores[degrees == 0].sum() / PAGES  # what pages without links have is shared by all
    received = comm.reduce_scatter(passed, SUM, counts=counts)
    former, scores = scores, (1 - DAMPING) / PAGES + DAMPING * received
    change = comm.allreduce(np.array([np.abs(scores - former).sum()]), SUM)[0]
    iterations += 1

whole = comm.gatherv(scores, 0, counts)
if rank == 0:
    best = whole.argsort()[::-1][:5]
    print(f"{PAGES:,} pages, {iterations} iterations, sum of the scores {whole.sum():.6f}")
    print("best pages: " + ", ".join(f"{page} ({whole[page]:.5f})" for page in best))
