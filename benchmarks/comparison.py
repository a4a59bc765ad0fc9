"""Our channels side by side with mpi4py over OpenMPI and with torch.distributed over gloo, on this machine.

Every rank process holds all contestants, which take turns at each case, so that a busy moment of the machine meets
all of them; ratios are to be trusted more than times. A figure is the median, over the turns, of the slowest
rank's time a call, of many calls in a row. A table is printed as it comes; figures and a plot go to ``build/``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import comparison_plot

OPERATIONS = ("allreduce", "reduce", "bcast", "barrier")
SIZES = (8, 1 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20)
WORLDS = (2, 4, 8, 16)
SHORT_SIZES = (8, 64 << 10, 1 << 20)
SHORT_WORLDS = (2, 4, 16)
OURS = ("direct", "shm")
PEERS = ("mpi", "gloo")

_ROOT = Path(__file__).resolve().parent.parent
_PROBE = (
    "import mpi4py, pathlib, sys; print(sys.version_info[:2], pathlib.Path(mpi4py.__file__).parent.parent, sep='|')"
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: seconds a call for each contestant."""

    operation: str
    size_bytes: int
    world_size: int
    seconds: dict[str, float]

    def ratio(self, ours: str, theirs: str) -> float | None:
        """Return how many times longer `ours` takes than `theirs`; None where one of them was not measured."""
        if ours not in self.seconds or theirs not in self.seconds:
            return None
        return self.seconds[ours] / self.seconds[theirs]


def measure(
    cases: Sequence[tuple[str, int]], size: int, names: Sequence[str], turns: int, mpi: Path | None
) -> list[Figure]:
    """Run `cases` on `size` ranks around a rendezvous server of their own."""
    with rendezvous_server() as address, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        host, _, port = address.rpartition(":")
        direct = {"enabled": True, "host": host, "port": port, "max_timeout": 60_000, "framed": True}
        (folder / "fmi.json").write_text(json.dumps({"backends": {"Direct": direct}}))
        (folder / "plan.json").write_text(
            json.dumps({"contestants": list(names), "cases": list(cases), "turns": turns})
        )
        _run_ranks(size, folder, mpi)
        ranks = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(size)]
    figures = []
    for index, (operation, size_bytes) in enumerate(cases):
        seconds = {
            name: statistics.median(max(turn) for turn in zip(*(times[index][name] for times in ranks), strict=True))
            for name in names
        }
        figures.append(Figure(operation, size_bytes, size, seconds))
    return figures


def _run_ranks(size: int, folder: Path, mpi: Path | None) -> None:
    """Start the ranks, by mpirun where MPI takes part, and wait for them."""
    command = [sys.executable, "-m", "benchmarks.contestants", str(folder)]
    paths = [str(_ROOT)] if mpi is None else [str(_ROOT), str(mpi)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    if mpi is not None:
        mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(size)]
        subprocess.run([*mpirun, *command], cwd=_ROOT, env=environment, check=True)
        return
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(
                subprocess.Popen(command, cwd=_ROOT, env=environment | {"RANK": str(rank), "WORLD_SIZE": str(size)})
            )
            for rank in range(size)
        ]
        codes = [rank.wait() for rank in ranks]
        if any(codes):
            raise SystemExit("benchmarks.comparison: a rank failed, see above")


@contextmanager
def rendezvous_server() -> Iterator[str]:
    """Run a rendezvous server on a free port; give its host:port."""
    command = [sys.executable, "-m", "rendezvous", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as server:
        try:
            yield server.stdout.readline().split()[-1] if server.stdout else ""
        finally:
            server.terminate()


def find_mpi(interpreter: str) -> tuple[Path | None, str]:
    """Return the folder from which `interpreter` imports mpi4py, and what is to be said about it."""
    if shutil.which("mpirun") is None:
        return None, "mpi is not measured: mpirun is not installed (Debian: apt-get install openmpi-bin libopenmpi-dev)"
    probe = subprocess.run([interpreter, "-c", _PROBE], capture_output=True, text=True, check=False)
    if probe.returncode:
        return None, f"mpi is not measured: {interpreter} has no mpi4py (pip install mpi4py, or --mpi-python PATH)"
    version, _, folder = probe.stdout.strip().partition("|")
    if version != str(sys.version_info[:2]):
        return None, f"mpi is not measured: {interpreter} is Python {version}, this is {sys.version_info[:2]}"
    return Path(folder), f"mpi is mpi4py from {folder}"


def table_header(names: Sequence[str]) -> str:
    """Return the table's first line."""
    ratios = [f"{ours}/{theirs}" for ours in OURS for theirs in PEERS if ours in names and theirs in names]
    return f"{'operation':<10}{'bytes':>10}{'N':>4}" + "".join(f"{name:>13}" for name in [*names, *ratios])


def table_line(figure: Figure) -> str:
    """Return a line of the table: milliseconds, then ratios."""
    line = f"{figure.operation:<10}{figure.size_bytes:>10}{figure.world_size:>4}"
    line += "".join(f"{seconds * 1e3:>13.4f}" for seconds in figure.seconds.values())
    ratios = [figure.ratio(ours, theirs) for ours in OURS for theirs in PEERS]
    return line + "".join(f"{ratio:>13.2f}" for ratio in ratios if ratio is not None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer sizes, world sizes and turns: under 90 s")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS, help="default: all")
    parser.add_argument("--sizes", nargs="+", type=int, metavar="BYTES", help="default: 8 to 64 MiB")
    parser.add_argument("--worlds", nargs="+", type=int, metavar="N", help="default: 2 4 8 16")
    parser.add_argument("--contestants", nargs="+", choices=OURS + PEERS, default=OURS + PEERS, help="default: all")
    parser.add_argument("--turns", type=int, help="of each contestant at each case; default: 9, with --short 3")
    parser.add_argument("--mpi-python", default=sys.executable, metavar="PATH", help="an interpreter that has mpi4py")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="FOLDER", help="default: %(default)s")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; write ``comparison.json`` and ``comparison.png``."""
    options = _parser().parse_args(arguments)
    sizes = options.sizes or (SHORT_SIZES if options.short else SIZES)
    worlds = options.worlds or (SHORT_WORLDS if options.short else WORLDS)
    turns = options.turns or (3 if options.short else 9)
    names = list(options.contestants)
    mpi = None
    if "mpi" in names:
        mpi, remark = find_mpi(options.mpi_python)
        print(remark)
        if mpi is None:
            names.remove("mpi")
    if "gloo" in names and importlib.util.find_spec("torch") is None:
        print("gloo is not measured: torch is not installed")
        names.remove("gloo")
    print("milliseconds a call, median of the slowest rank, float64; then ratios")
    print(table_header(names), flush=True)
    figures: list[Figure] = []
    for world_size in worlds:
        cases = [(op, size) for op in options.operations for size in ((0,) if op == "barrier" else sizes)]
        for figure in measure(cases, world_size, names, turns, mpi):
            figures.append(figure)
            print(table_line(figure), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "comparison.json").write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    comparison_plot.draw(figures, options.out / "comparison.png")
    print(f"written: {options.out}/comparison.json, {options.out}/comparison.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
