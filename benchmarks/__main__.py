"""All figures of the README's table: ``make bench`` or ``python -m benchmarks``."""

import argparse

from benchmarks import whole_runs
from benchmarks.collectives import Case, measure
from benchmarks.whole_runs import Figure

_MIB = 1 << 20


def _allreduce(size_bytes: int, label: str, goal: str) -> Figure:
    """Measure one allreduce over Direct at N=4, beside gloo where torch is installed."""
    (figure,) = measure([Case("allreduce", size_bytes)], 4, with_gloo=whole_runs.has_torch())
    beside = (
        "" if figure.gloo is None else f", gloo {figure.gloo * 1e3:.2f} ms: ratio {figure.direct / figure.gloo:.2f}"
    )
    return Figure(f"allreduce of {label} float64, N=4, direct TCP", goal, f"{figure.direct * 1e3:.2f} ms{beside}")


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run of each command instead of a median")
    repeats = 1 if parser.parse_args().quick else 5
    print(f"On {whole_runs.machine()}:\n")
    print("| what | goal | measured |\n|---|---|---|", flush=True)
    measurements = [
        lambda: [whole_runs.start_up(4, "< 2 s", repeats)],
        lambda: [whole_runs.start_up(50, "< 6 s", max(1, repeats // 2))],
        lambda: [whole_runs.memory_per_rank(50)],
        whole_runs.main_job,
        lambda: [_allreduce(_MIB, "1 MiB", "< 8 ms")],
        lambda: [_allreduce(8, "8 B", "near 0.1 ms")],
    ]
    for measurement in measurements:
        for figure in measurement():
            print(f"| {figure.name} | {figure.goal} | {figure.measured} |", flush=True)


if __name__ == "__main__":
    main()
