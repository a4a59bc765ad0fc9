"""``python -m inference``: predict the redshifts in partitions on this machine, without ranks and without S3."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from inference import catalog, checkpoint, extremes, partition, predictor, run
from inference.catalog import Floats
from inference.destination import write_atomically
from inference.errors import InferenceError
from inference.job import OBJECT_LIMIT, Work, work_through
from inference.objects import Objects
from inference.partition import Partition
from inference.report import make_report
from inference.results import full_result, rank_result
from inference.stamps import Images

HELD_OUT = "held-out galaxies"
EPILOG = """\
examples:
  python -m inference                                     the 2,000 held-out galaxies, rendered for the occasion
  python -m inference partitions/1.pt partitions/2.pt --results results
  python -m inference 1.pt --checkpoint published.safetensors --batch-size 512

exit status: 0 after predictions, 1 after an error, 130 after Ctrl-C
"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m inference",
        description="Predict the redshifts of galaxies in partitions, and compare them with the spectroscopic ones.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "partitions",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="partition, .pt or .safetensors; default: held-out galaxies",
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=checkpoint.SHIPPED, metavar="FILE", help="network (default: the shipped one)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument("--half", action="store_true", help="compute in float16 on cuda, and report the difference")
    parser.add_argument("--batch-size", type=int, default=512, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads on the cpu, at most its cores (default: %(default)s)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder for Results.json, tables and figures (default: none are written)",
    )
    options = parser.parse_args(arguments)
    if options.batch_size < 1:
        parser.error(f"invalid --batch-size {options.batch_size}: expected at least 1")
    if not 1 <= options.threads <= (os.cpu_count() or 1):
        parser.error(f"invalid --threads {options.threads}: expected 1 to {os.cpu_count() or 1}")
    try:
        _run(options)
    except (InferenceError, OSError) as error:
        sys.exit(f"python -m inference: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _run(options: argparse.Namespace) -> None:
    began = time.monotonic()
    torch.set_num_threads(options.threads)
    device = run.choose_device(options.device)
    network = predictor.load(options.checkpoint, str(device), half=options.half)
    names = [str(path) for path in options.partitions] or [HELD_OUT]
    work = work_through(
        names,
        _read,
        network,
        batch_size=options.batch_size,
        device=device,
        on_partition=lambda name, timing: print(
            f"{name}: {timing.galaxies} galaxies, {timing.samples_per_second:.0f} samples/s", flush=True
        ),
    )
    report = make_report(
        work.sums,
        work.histogram,
        [Objects.concatenate(work.objects)] if work.sums.n <= OBJECT_LIMIT else None,
        [names],
        total_time=time.monotonic() - began,
        origins=work.origins,
        examples=_examples(work),
    )
    print(report.text)
    timing = work.timing
    print(
        f"{timing.samples_per_second:.0f} samples/s by wall time, {timing.wall:.2f} s of it and {timing.cpu:.2f} s of "
        f"processor time; waited {timing.waited:.2f} s for data"
    )
    if work.half_difference is not None:
        print(f"half precision changes redshifts by up to {work.half_difference:.2g}")
    if options.results is not None:
        where = ", ".join(names)
        result = rank_result(
            timing,
            work.profile,
            batch_size=options.batch_size,
            device=str(device),
            result_path=str(options.results),
            data_path=where,
        )
        if work.half_difference is not None:
            result["half_difference (redshift)"] = work.half_difference
        files = {
            **report.files,
            "Results.json": json.dumps(full_result(result, timing, work.profile), indent=1).encode(),
        }
        for name, content in files.items():
            write_atomically(options.results / name, content)
        print(f"results in {options.results}: {', '.join(sorted(files))}")


def _read(name: str) -> Partition:
    return Partition.render(catalog.held_out()) if name == HELD_OUT else partition.read(Path(name))


def _examples(work: Work) -> tuple[Images, Floats]:
    table = work.extremes.to_table()
    chosen = extremes.choose(table[None])
    return work.extremes.contribution(chosen, 0), table[chosen[:, 1]]


if __name__ == "__main__":
    main()
