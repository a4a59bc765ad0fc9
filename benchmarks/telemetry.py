"""What telemetry costs a rank: processor time and rate of 8-byte allreduces, with and without it.

``python -m benchmarks.telemetry`` runs two ranks over framed TCP, paced at 10,000 calls a second each and as fast as
possible, in turn without telemetry and with it, and prints the medians. Both programs differ in the variable
FMI_TELEMETRY alone. The collector runs in the parent, as in the emulator. A rank without telemetry passes as many calls
of this project as before it existed: ``python -m benchmarks.call_paths``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fmi_shim as fmi
from benchmarks.local_server import running_server
from emulator.fmi.telemetry.hub import Telemetry

_RANKS = 2
_PACED_HZ = 10_000
_SLICE_SECONDS = 0.01
_WARM_CALLS = 2000


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took on rank 0: processor time and wall-clock time of a call, microseconds, and dropped calls."""

    processor_us: float
    wall_us: float
    dropped: int


def _paced(comm: fmi.Communicator, calls: int) -> None:
    """Make calls in slices that begin every 10 ms, at the average rate."""
    value, function = np.ones(1), fmi.func(fmi.op.sum)
    in_slice = round(_PACED_HZ * _SLICE_SECONDS)
    due = time.perf_counter()
    for _ in range(calls // in_slice):
        for _ in range(in_slice):
            comm.allreduce(value, function)
        due += _SLICE_SECONDS
        time.sleep(max(0.0, due - time.perf_counter()))


def _saturated(comm: fmi.Communicator, calls: int) -> None:
    value, function = np.ones(1), fmi.func(fmi.op.sum)
    for _ in range(calls):
        comm.allreduce(value, function)


def _rank(rank: int, config: str, name: str, calls: int, is_paced: bool, bus: str, results: object) -> None:
    if bus:
        os.environ.update({"FMI_TELEMETRY": "bus", "FMI_TELEMETRY_BUS": bus})
    comm = fmi.Communicator(rank, _RANKS, config, name)
    _saturated(comm, _WARM_CALLS)
    comm.barrier()
    began, processor = time.perf_counter(), time.process_time()
    (_paced if is_paced else _saturated)(comm, calls)
    wall, used = time.perf_counter() - began, time.process_time() - processor
    comm.close()
    from fmi_shim import telemetry

    dropped = 0 if telemetry.recorder is None else telemetry.recorder.dropped
    if rank == 0:
        results.put(Cost(used / calls * 1e6, wall / calls * 1e6, dropped))  # type: ignore[attr-defined]


def measure(config: Path, calls: int, is_paced: bool, bus: str) -> Cost:
    """Run both ranks and return what it took."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    name = f"telemetry-{time.monotonic_ns()}-"
    processes = [
        context.Process(target=_rank, args=(rank, str(config), name, calls, is_paced, bus, results))
        for rank in range(_RANKS)
    ]
    for process in processes:
        process.start()
    cost: Cost = results.get()
    for process in processes:
        process.join()
    return cost


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each kind (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a paced run (default %(default)s)")
    options = parser.parse_args()
    calls = round(options.seconds * _PACED_HZ)
    print("| calls | telemetry | processor us a call | wall-clock us a call | dropped |\n|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server() as server,
        Telemetry("127.0.0.1", "127.0.0.1") as telemetry,
    ):
        config = Path(folder) / "fmi.json"
        server.write_config(config)
        for name, is_paced in (("paced, 10,000/s", True), ("as fast as possible", False)):
            costs: dict[str, list[Cost]] = {"off": [], "on": []}
            ratios = []
            for _ in range(options.rounds):
                for kind, bus in (("off", ""), ("on", telemetry.variable)):
                    costs[kind].append(measure(config, calls, is_paced, bus))
                ratios.append(
                    (
                        costs["on"][-1].processor_us / costs["off"][-1].processor_us,
                        costs["on"][-1].wall_us / costs["off"][-1].wall_us,
                    )
                )
            for kind, found in costs.items():
                processor = statistics.median(cost.processor_us for cost in found)
                wall = statistics.median(cost.wall_us for cost in found)
                print(f"| {name} | {kind} | {processor:.2f} | {wall:.2f} | {sum(cost.dropped for cost in found)} |")
            processor, wall = (statistics.median(ratio[at] for ratio in ratios) for at in range(2))
            print(f"| {name} | on / off | {processor:.3f} | {wall:.3f} | |", flush=True)


if __name__ == "__main__":
    main()
