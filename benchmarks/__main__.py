"""All figures of the README's table: ``make bench`` or ``python -m benchmarks``."""

from benchmarks import comparison, whole_runs
from benchmarks.arguments import parser
from benchmarks.cleanup import exit_on_signals
from benchmarks.whole_runs import Figure

_MIB = 1 << 20


def _allreduce() -> list[Figure]:
    """Measure allreduces over Direct at N=4, and over gloo if torch is installed."""
    labels = {_MIB: ("1 MiB", "< 8 ms"), 8: ("8 B", "near 0.1 ms")}
    names = ["direct", "gloo"] if comparison.has_gloo() else ["direct"]
    figures = []
    for figure in comparison.measure([("allreduce", size) for size in labels], 4, names, turns=5):
        label, goal = labels[figure.size_bytes]
        measured = f"{figure.seconds['direct'] * 1e3:.2f} ms"
        if "gloo" in names:
            measured += f", gloo {figure.seconds['gloo'] * 1e3:.2f} ms: ratio {figure.ratio('direct', 'gloo'):.2f}"
        figures.append(Figure(f"allreduce of {label} float64, N=4, direct TCP", goal, measured))
    return figures


def main() -> None:
    """Run all measurements and print a Markdown table."""
    options = parser("benchmarks", __doc__)
    options.add_argument("--quick", action="store_true", help="one run of each command instead of a median")
    repeats = 1 if options.parse_args().quick else 3
    exit_on_signals()
    print(f"On {whole_runs.machine()}:\n")
    print("| what | goal | measured |\n|---|---|---|", flush=True)
    measurements = [
        lambda: [whole_runs.start_up(4, "< 2 s", repeats)],
        lambda: [whole_runs.start_up(50, "< 6 s", max(1, repeats // 2))],
        lambda: [whole_runs.memory_per_rank(50)],
        whole_runs.main_job,
        _allreduce,
    ]
    for measurement in measurements:
        for figure in measurement():
            print(f"| {figure.name} | {figure.goal} | {figure.measured} |", flush=True)


if __name__ == "__main__":
    main()
