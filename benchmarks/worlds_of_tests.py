"""Worlds of tests: how long four warm ranks and many tests of four ranks take, beside mpirun and torch's own test case.

``python -m benchmarks.worlds_of_tests`` prints a row for each. In each, four ranks start, and sum a number. What is not
installed is left out with the reason. Processor time is that of all processes, and does not depend on other programs.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fmi_shim as fmi
from benchmarks.arguments import parser
from benchmarks.whole_runs import Figure, machine
from emulator.testing.launch import shared_services
from emulator.testing.world import World

_ROOT = Path(__file__).parent.parent
_SIZE = 4
_SUM = fmi.func(fmi.op.sum)
_INT = fmi.types(fmi.datatypes.int)
_TESTS = """
import pytest
import fmi_shim as fmi

@pytest.mark.parametrize("number", range({count}))
def test_sum(fmi_world, number):
    def rank(comm):
        return comm.allreduce(number, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
    assert fmi_world(4)(rank) == [4 * number] * 4
"""
_TORCH_TEST = """
import torch
import torch.distributed as dist
from torch.testing._internal.common_distributed import MultiProcessTestCase
from torch.testing._internal.common_utils import run_tests

class TestSum(MultiProcessTestCase):
    world_size = 4

    def setUp(self):
        super().setUp()
        self._spawn_processes()

    def test_sum(self):
        store = dist.FileStore(self.file_name, 4)
        dist.init_process_group("gloo", store=store, rank=self.rank, world_size=4)
        value = torch.ones(1)
        dist.all_reduce(value)
        assert value.item() == 4
        dist.destroy_process_group()

if __name__ == "__main__":
    run_tests()
"""


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _measured(run: Callable[[], object], turns: int) -> tuple[float, float]:
    """Return the median of the seconds, and the mean of the processor seconds."""
    seconds = []
    began_processor = _processor_seconds()
    for _ in range(turns):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), (_processor_seconds() - began_processor) / turns


def _figure(name: str, goal: str, measured: tuple[float, float]) -> Figure:
    return Figure(name, goal, f"{measured[0] * 1e3:.0f} ms, {measured[1] * 1e3:.0f} ms of processor time")


def _warm_world(turns: int) -> Figure:
    world = World(_SIZE, shared_services())

    def run() -> None:
        assert world(lambda comm: comm.allreduce(1, _SUM, _INT)) == [_SIZE] * _SIZE

    run()
    return _figure("a world of 4 ranks, warm: fork, connect, allreduce, exit", "< 60 ms", _measured(run, turns))


def _many_tests(count: int) -> Figure:
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_sums.py").write_text(_TESTS.format(count=count))
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "emulator.testing.plugin"]
        began, began_processor = time.perf_counter(), _processor_seconds()
        subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
        seconds, processor = time.perf_counter() - began, _processor_seconds() - began_processor
    return Figure(
        f"{count} tests of 4 ranks, pytest -n 2",
        f"< {count * 0.12:g} s",
        f"{seconds:.1f} s, {processor:.1f} s of processor time",
    )


def _mpirun(turns: int) -> Figure:
    name = "mpirun -n 4 of a Python program that imports numpy"
    program = shutil.which("mpirun")
    if program is None:
        return Figure(name, "", "not installed: apt-get install openmpi-bin")
    command = [program, "--allow-run-as-root", "--oversubscribe", "-n", "4", sys.executable, "-c", "import numpy"]
    return _figure(name, "", _measured(lambda: subprocess.run(command, check=True), turns))


def _multi_process_test_case(turns: int) -> Figure:
    name = "torch's MultiProcessTestCase of 4 ranks over gloo, less the import of torch"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "test_sum.py")
        path.write_text(_TORCH_TEST)
        command = [sys.executable, str(path)]
        try:
            whole = _measured(lambda: subprocess.run(command, cwd=folder, capture_output=True, check=True), turns)
        except subprocess.CalledProcessError as error:
            return Figure(name, "", f"does not run: {error.stderr.decode().strip().splitlines()[-1]}")
        importing = [sys.executable, "-c", "import torch.testing._internal.common_distributed"]
        imports = _measured(lambda: subprocess.run(importing, capture_output=True, check=True), turns)
    return _figure(name, "", (whole[0] - imports[0], whole[1] - imports[1]))


def main() -> None:
    """Measure, and print a Markdown table."""
    options = parser("benchmarks.worlds_of_tests", __doc__)
    options.add_argument("--short", action="store_true", help="fewer turns, and a hundred tests instead of a thousand")
    is_short = options.parse_args().short
    turns = 5 if is_short else 20
    print(f"On {machine()}:\n")
    print("| what | goal | measured |\n|---|---|---|", flush=True)
    for measure in (
        lambda: _warm_world(turns),
        lambda: _many_tests(100 if is_short else 1000),
        lambda: _mpirun(max(3, turns // 4)),
        lambda: _multi_process_test_case(max(3, turns // 4)),
    ):
        figure = measure()
        print(f"| {figure.name} | {figure.goal} | {figure.measured} |", flush=True)


if __name__ == "__main__":
    main()
