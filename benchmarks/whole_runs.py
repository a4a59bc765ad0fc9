"""Measures whole commands: the start-up of fmirun, its memory, and the main job."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_FMIRUN = Path(sys.executable).with_name("fmirun")
_ROOT = Path(__file__).resolve().parent.parent
_EXAMPLES = _ROOT / "examples"

# When the first line appears, all ranks run; they stay for two seconds.
_WAITING_PROGRAM = """
    import os, time, fmi
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    comm = fmi.Communicator(rank, size, "fmi.json", "memory")
    comm.allreduce(1, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
    print("all there", flush=True)
    time.sleep(2)
    comm.barrier()
"""


@dataclass(frozen=True)
class Figure:
    """One row of the table: what was measured, the goal and the result."""

    name: str
    goal: str
    measured: str


def start_up(world_size: int, goal: str, repeats: int) -> Figure:
    """Time ``fmirun -n N examples/reduce.py``, the whole command.

    Parameters
    ----------
    world_size
        Number of ranks.
    goal
        Goal in the table.
    repeats
        Number of runs; the median is reported.
    """
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([_FMIRUN, "-n", str(world_size), _EXAMPLES / "reduce.py"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
    return Figure(
        f"fmirun -n {world_size} examples/reduce.py, whole command",
        goal,
        f"{statistics.median(seconds):.2f} s (median of {repeats}, {spread})",
    )


def memory_per_rank(world_size: int) -> Figure:
    """Measure the memory of the workers and their zygote, each shared page counted once (PSS), per rank."""
    name = f"memory a rank without torch, N={world_size}"
    if sys.platform != "linux":
        return Figure(name, "< 40 MB", "not measured: requires Linux for PSS")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "waiting.py"
        script.write_text(textwrap.dedent(_WAITING_PROGRAM))
        (Path(folder) / "fmi.json").write_bytes((_EXAMPLES / "fmi.json").read_bytes())
        with subprocess.Popen(
            [_FMIRUN, "-n", str(world_size), script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as command:
            assert command.stdout is not None
            command.stdout.readline()
            functions = psutil.Process(command.pid).children(recursive=True)
            held = sum(_proportional_set_bytes(process) for process in functions)
            command.communicate()
    return Figure(name, "< 40 MB", f"{held / world_size / 1e6:.1f} MB (all pages of zygote and workers / N)")


def _proportional_set_bytes(process: psutil.Process) -> int:
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))


def main_job() -> list[Figure]:
    """Time ``make demo`` after its installation, and read its rate and metrics."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        made = ["demo", f"PARTITIONS={folder}/partitions", f"RESULTS={folder}/results"]
        subprocess.run(["make", "--no-print-directory", *made], cwd=_ROOT, check=True, capture_output=True)
        seconds = time.perf_counter() - began
        ranks = json.loads((Path(folder) / "results" / "combined_data.json").read_text())
    # Every rank has the same number of galaxies, so the slowest rank determines the total time.
    rate = len(ranks) * min(rank["sample_persec"] for rank in ranks)
    return [
        Figure("make demo after installation", "< 60 s", f"{seconds:.1f} s"),
        Figure(f"the main job's inference, {len(ranks)} ranks", "≥ 800 samples/s", f"{rate:.0f} samples/s"),
    ]


def has_torch() -> bool:
    """Return whether torch, and with it gloo, is installed."""
    return importlib.util.find_spec("torch") is not None


def machine() -> str:
    """Return one line that describes the machine."""
    return f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {sys.platform}"
