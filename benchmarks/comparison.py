"""Compares the library's channels with mpi4py over OpenMPI and with torch.distributed over gloo, on this machine.

Every rank process runs all contestants. They take turns at each case, so that other load on the machine affects all of
them; ratios are more reliable than times. A figure is the median, over the turns, of the slowest rank's time per call,
over many calls in a row. Reductions are in place, since gloo has no other, so that all contestants access the same
memory. The table is printed during the measurement; figures and a plot are written to a folder.
Without options it takes about a quarter of an hour on 2 cores, with --short less than a minute.
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
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import comparison_plot, figures, forked_ranks
from benchmarks.cleanup import exit_on_signals
from benchmarks.figures import FLOORS, OURS, PEERS, Figure
from benchmarks.local_server import running_server

OPERATIONS = ("allreduce", "reduce", "bcast", "barrier", "allgather", "alltoall")
MORE_OPERATIONS = ("gather", "scatter", "reduce_scatter", "allgatherv", "alltoallv", "iallreduce")
"""Measured on request; not by every contestant."""
SIZES = (8, 1 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20)
WORLDS = (2, 4, 8, 16)
TURNS = 5
SHORT_SIZES = (8, 1 << 20)
SHORT_WORLDS = (2, 8)
SHORT_TURNS = 3

_ROOT = Path(__file__).resolve().parent.parent
_LOOK_SECONDS = 0.2
_END_SECONDS = 5.0
_PROBE = (
    "import mpi4py, pathlib, sys; print(sys.version_info[:2], pathlib.Path(mpi4py.__file__).parent.parent, sep='|')"
)


def measure(
    cases: Sequence[tuple[str, int]],
    size: int,
    names: Sequence[str],
    turns: int,
    mpi: Path | None = None,
    *,
    forked: bool = True,
) -> Iterator[Figure]:
    """Run `cases`, (operation, bytes), on `size` ranks with their own rendezvous server; yield each figure.

    `names` are the contestants; MPI among them needs `mpi`, the folder to import mpi4py from. Ranks are forks of one
    process, or interpreters of their own.
    """
    with running_server() as server, tempfile.TemporaryDirectory() as name, ExitStack() as ranks:
        folder = Path(name)
        server.write_config(folder / "fmi.json")
        plan = {"contestants": list(names), "cases": list(cases), "turns": turns}
        (folder / "plan.json").write_text(json.dumps(plan))
        paths = [str(_ROOT)] if mpi is None else [str(_ROOT), str(mpi)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.contestants", str(folder)]
        if forked:
            socket_path = str(folder / "ranks")
            ranks.enter_context(forked_ranks.running([*command, socket_path], environment, _ROOT))
            command = [*forked_ranks.PROXY_COMMAND, socket_path]
        processes = [ranks.enter_context(process) for process in _start_ranks(command, size, environment, mpi)]
        ranks.callback(_end, processes)
        for index, (operation, size_bytes) in enumerate(cases):
            times = [_line(folder / f"rank-{rank}", index, processes) for rank in range(size)]
            seconds = {
                contestant: statistics.median(max(turn) for turn in zip(*(t[contestant] for t in times), strict=True))
                for contestant in times[0]
            }
            yield Figure(operation, size_bytes, size, seconds)
        for process in processes:
            process.wait()


def _start_ranks(
    command: Sequence[str], size: int, environment: Mapping[str, str], mpi: Path | None
) -> list[subprocess.Popen[bytes]]:
    """Start `command` as each rank, with mpirun if MPI takes part, in a session of its own, out of Ctrl-C's reach."""
    if mpi is not None:
        mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(size)]
        return [subprocess.Popen([*mpirun, *command], cwd=_ROOT, env=environment, start_new_session=True)]
    return [
        subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**environment, "RANK": str(rank), "WORLD_SIZE": str(size)},
            start_new_session=True,
        )
        for rank in range(size)
    ]


def _line(path: Path, index: int, processes: Sequence[subprocess.Popen[bytes]]) -> dict[str, list[float]]:
    """Wait for the `index`-th line of a rank's output and return it.

    Raises
    ------
    SystemExit
        If a rank failed.
    """
    while True:
        over = any(process.poll() is not None for process in processes)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if len(lines) > index and lines[index].endswith("\n"):
            times: dict[str, list[float]] = json.loads(lines[index])
            return times
        if over:
            raise SystemExit("benchmarks.comparison: a rank failed, see above")
        time.sleep(_LOOK_SECONDS)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminate the processes that still run; mpirun terminates its ranks."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _END_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def find_mpi(interpreter: str) -> tuple[Path | None, str]:
    """Return the folder from which `interpreter` imports mpi4py, and a remark to print."""
    if shutil.which("mpirun") is None:
        return None, "mpi is not measured: mpirun is not installed (Debian: apt-get install openmpi-bin libopenmpi-dev)"
    probe = subprocess.run([interpreter, "-c", _PROBE], capture_output=True, text=True, check=False)
    if probe.returncode:
        return None, f"mpi is not measured: {interpreter} has no mpi4py (pip install mpi4py, or --mpi-python PATH)"
    version, _, folder = probe.stdout.strip().partition("|")
    if version != str(sys.version_info[:2]):
        return None, f"mpi is not measured: {interpreter} is Python {version}, this is {sys.version_info[:2]}"
    return Path(folder), f"mpi is mpi4py from {folder}"


def has_gloo() -> bool:
    """Whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument("--short", action="store_true", help="two sizes, 2 and 8 ranks, 3 turns: under a minute")
    parser.add_argument(
        "--operations",
        nargs="+",
        choices=(*OPERATIONS, *MORE_OPERATIONS),
        default=OPERATIONS,
        help=f"default: {' '.join(OPERATIONS)}",
    )
    parser.add_argument(
        "--sizes", nargs="+", type=int, metavar="BYTES", help="of a rank's value, or an allgather's result; 8 to 64 MiB"
    )
    parser.add_argument("--worlds", nargs="+", type=int, metavar="N", help="default: 2 4 8 16")
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=(*OURS, *PEERS, *FLOORS),
        default=("direct", "shm", *PEERS),
        help=f"default: direct, shm, {' and '.join(PEERS)}. raw is direct without headers; {', '.join(FLOORS)} move "
        "the same bytes and do nothing else, the last one in the order of FMI's C++ library",
    )
    parser.add_argument("--turns", type=int, help=f"of each contestant at each case; default: {TURNS}")
    parser.add_argument(
        "--ranks",
        choices=("forked", "separate"),
        default="forked",
        help="forks of one process after its imports, as fmirun and the emulator start ranks, which share the memory "
        "and the caches of the imported modules; or one interpreter per rank, as with mpirun and torchrun, where small "
        "calls of many ranks per core take longer. All contestants run in the same ranks (default: %(default)s)",
    )
    parser.add_argument("--mpi-python", default=sys.executable, metavar="PATH", help="an interpreter that has mpi4py")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument(
        "--add", action="store_true", help="keep the figures in FOLDER, except those of cases measured again"
    )
    return parser


def _present(wanted: Sequence[str], mpi_python: str) -> tuple[list[str], Path | None]:
    """Return the contestants that are installed, and where mpi4py is; print which are not."""
    names = list(wanted)
    mpi = None
    if "mpi" in names:
        mpi, remark = find_mpi(mpi_python)
        print(remark)
        if mpi is None:
            names.remove("mpi")
    if "gloo" in names and not has_gloo():
        print("gloo is not measured: torch is not installed")
        names.remove("gloo")
    return names, mpi


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; write ``comparison.json`` and ``comparison.png``, after each world size."""
    options = _parser().parse_args(arguments)
    exit_on_signals()
    sizes = options.sizes or (SHORT_SIZES if options.short else SIZES)
    turns = options.turns or (SHORT_TURNS if options.short else TURNS)
    names, mpi = _present(options.contestants, options.mpi_python)
    kept, picture = options.out / "comparison.json", options.out / "comparison.png"
    found = {figure.case: figure for figure in figures.load(kept)} if options.add else {}
    print("milliseconds per call, median of the slowest rank, float64; then ratios")
    print(figures.table_header(names), flush=True)
    for world_size in options.worlds or (SHORT_WORLDS if options.short else WORLDS):
        cases = [(op, size) for op in options.operations for size in ((0,) if op == "barrier" else sizes)]
        for figure in measure(cases, world_size, names, turns, mpi, forked=options.ranks == "forked"):
            found[figure.case] = figure
            print(figures.table_line(figure, names), flush=True)
        in_order = sorted(
            found.values(),
            key=lambda f: ((*OPERATIONS, *MORE_OPERATIONS).index(f.operation), f.world_size, f.size_bytes),
        )
        figures.save(in_order, kept)
    comparison_plot.draw(in_order, picture)
    print(f"written: {kept}, {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
