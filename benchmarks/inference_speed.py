"""Measures the inference: ``python -m benchmarks.inference_speed``. Ratios, single thread, side by side.

The eager network in float32 at batch 512 is compared with the prepared one, for the published and the shipped network;
the main job with one and with two ranks; the share of time that a warm rank computes instead of waiting for S3; and the
memory of a process that streams a synthetic set.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

from benchmarks.arguments import parser
from benchmarks.cleanup import exit_on_signals
from benchmarks.whole_runs import Figure
from inference import checkpoint, partition, run
from inference.estimator import Estimator, Normalisation
from inference.model import AstroMAE, AstroMAEConfig
from inference.partition import Partition
from inference.synthetic import Sampler, SetSize, parse_size

_BATCH = 512
_CPU = torch.device("cpu")
_FMIRUN = Path(sys.executable).with_name("fmirun")
_JOB = Path(__file__).resolve().parent.parent / "examples" / "cosmic_ai.py"


def speed(name: str, estimator: Estimator, goal: str, galaxies: Partition, repeats: int) -> Figure:
    """Compare the eager with the prepared network, in turns; the best of each counts, in processor time."""
    prepared = estimator.for_cpu()
    eager_s, prepared_s, difference = [], [], 0.0
    for _ in range(repeats):
        began = time.process_time()
        with torch.inference_mode():
            batches = zip(galaxies.images.split(_BATCH), galaxies.magnitudes.split(_BATCH), strict=True)
            eager = torch.cat([estimator(images, magnitudes) for images, magnitudes in batches])
        eager_s.append(time.process_time() - began)
        began = time.process_time()
        z_phot, _ = run.predict(prepared, galaxies.images, galaxies.magnitudes, _BATCH, _CPU)
        prepared_s.append(time.process_time() - began)
        difference = max(difference, float((torch.from_numpy(z_phot) - eager.double()).abs().max()))
    n = len(galaxies)
    measured = (
        f"{min(eager_s) / min(prepared_s):.2f}: {n / min(eager_s):.0f} and {n / min(prepared_s):.0f} galaxies per CPU "
        f"second, redshifts differ by at most {difference:.1e}"
    )
    return Figure(f"inference of the {name} network, one thread, batch 512, over eager float32", goal, measured)


def scaling(repeats: int) -> list[Figure]:
    """Run the main job with one and two ranks on the same partitions, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        partition.write_synthetic(data, SetSize.from_bytes(parse_size("200MB"), 25))
        rates: dict[int, list[float]] = {1: [], 2: []}
        shares = []
        for _ in range(repeats):
            for world_size, found in rates.items():
                results = Path(folder) / "results"
                command = [_FMIRUN, "-n", str(world_size), "--preload", "torch", "--data", data, "--results", results]
                subprocess.run([*command, _JOB], check=True, capture_output=True)
                ranks = json.loads((results / "combined_data.json").read_text())
                wall = max(rank["wall_time (seconds)"] + rank["data_wait (seconds)"] for rank in ranks)
                found.append(sum(rank["num_samples"] for rank in ranks) / wall)
                if world_size == 1:
                    rank = ranks[0]
                    shares.append(
                        rank["wall_time (seconds)"] / (rank["wall_time (seconds)"] + rank["data_wait (seconds)"])
                    )
    speedup = statistics.median(rates[2]) / statistics.median(rates[1])
    rate = f"{statistics.median(rates[1]):.0f} and {statistics.median(rates[2]):.0f} samples/s"
    return [
        Figure("main job, N=2 over N=1", "≥ 1.8", f"{speedup:.2f}: {rate}"),
        Figure(
            "share of a rank's time that it computes, 25 MB partitions", "≥ 85 %", f"{statistics.median(shares):.0%}"
        ),
    ]


def memory_growth(total: str) -> Figure:
    """Stream a synthetic set and compare the resident memory after a tenth of it with that at the end."""
    size = SetSize.from_bytes(parse_size(total), 25)
    numbers = range(1, len(size) + 1)
    process, early = psutil.Process(), 0
    for number, _ in zip(numbers, partition.stream(size, Sampler(), numbers), strict=True):
        if number == max(2, len(size) // 10):
            early = process.memory_info().rss
    growth = (process.memory_info().rss - early) / 1e6
    return Figure(f"growth of memory while {total} are drawn", "none", f"{growth:.0f} MB")


def main() -> None:
    """Run all measurements and print a Markdown table."""
    options = parser("benchmarks.inference_speed", __doc__ or "")
    options.add_argument("--total", default="1GB", help="size of the streamed set (default: %(default)s)")
    options.add_argument("--short", action="store_true", help="fewer repetitions")
    arguments = options.parse_args()
    repeats = 2 if arguments.short else 5
    exit_on_signals()
    torch.set_num_threads(1)
    shipped = checkpoint.load()
    # The published network takes pixels and magnitudes as they are.
    published = Estimator(AstroMAE(AstroMAEConfig.published()).eval(), Normalisation.identity()).eval()
    galaxies = Partition.draw(Sampler(), 0, 1024)
    print("| what | goal | measured |\n|---|---|---|", flush=True)
    for measurement in (
        lambda: [speed("published", published, "≥ 1.4", galaxies, repeats)],
        lambda: [speed("shipped", shipped, "≥ 1.4", galaxies, repeats)],
        lambda: scaling(1 if arguments.short else 3),
        lambda: [memory_growth(arguments.total)],
    ):
        for figure in measurement():
            print(f"| {figure.name} | {figure.goal} | {figure.measured} |", flush=True)


if __name__ == "__main__":
    main()
