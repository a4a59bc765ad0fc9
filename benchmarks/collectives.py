"""How long collectives take between ranks on one machine: our Direct channel beside gloo, when torch is installed.

Every figure is the median, over the repetitions, of the slowest rank's time. The contestants take turns
within one set of processes, so that a busy moment of the machine meets both; ratios are to be trusted more
than times.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import fmi_shim as fmi

OPERATIONS = ("allreduce", "bcast", "reduce", "barrier")
SIZES = (8, 64 << 10, 1 << 20, 16 << 20)
WORLDS = (2, 4, 8)
ROUNDS = 3
"""Turns that each contestant gets for each figure."""

_BYTES_A_TURN = 24 << 20
"""Large payloads are repeated fewer times: so many bytes, and at least 1 and at most 60 repetitions a turn."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table; times in seconds, `gloo` is None where torch is missing."""

    operation: str
    size_bytes: int
    world_size: int
    direct: float
    gloo: float | None


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: an operation on so many bytes of float64 (at least 8; a barrier has none)."""

    operation: str
    size_bytes: int


def measure(cases: Sequence[Case], world_size: int, with_gloo: bool) -> list[Figure]:
    """Run `cases` on `world_size` forked ranks around a rendezvous server of their own."""
    processes = multiprocessing.get_context("fork")
    with _rendezvous_server() as address, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "fmi.json"
        host, _, port = address.rpartition(":")
        direct = {"enabled": True, "host": host, "port": port, "max_timeout": 60_000, "framed": True}
        config.write_text(json.dumps({"backends": {"Direct": direct}}))
        pipes = [processes.Pipe(duplex=False) for _ in range(world_size)]
        ranks = [
            processes.Process(
                target=_rank, args=(pipes[rank][1], rank, world_size, config, cases, with_gloo), daemon=True
            )
            for rank in range(world_size)
        ]
        try:
            for rank in ranks:
                rank.start()
            for _, end in pipes:
                end.close()
            times = [ours.recv() for ours, _ in pipes]
        except EOFError:
            raise SystemExit("benchmarks.collectives: a rank failed, see above") from None
        finally:
            for rank in ranks:
                rank.kill()
                rank.join()
    return [
        Figure(
            case.operation,
            case.size_bytes,
            world_size,
            _slowest_median([rank[index]["direct"] for rank in times]),
            _slowest_median([rank[index]["gloo"] for rank in times]) if with_gloo else None,
        )
        for index, case in enumerate(cases)
    ]


def _slowest_median(ranks: list[list[float]]) -> float:
    return statistics.median(max(repetition) for repetition in zip(*ranks, strict=True))


@contextmanager
def _rendezvous_server() -> Iterator[str]:
    command = [sys.executable, "-m", "rendezvous", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().split()[-1] if server.stdout else ""
        finally:
            server.terminate()


def _rank(result: Connection, rank: int, size: int, config: Path, cases: Sequence[Case], with_gloo: bool) -> None:
    comm = fmi.Communicator(rank, size, config, "bench")
    makers: dict[str, Callable[[Case], Callable[[], Any]]] = {"direct": lambda case: _direct_call(comm, case)}
    if with_gloo:
        makers["gloo"] = _gloo_maker(rank, size, config.parent)
    times: list[dict[str, list[float]]] = []
    for case in cases:
        calls = {name: make(case) for name, make in makers.items()}
        taken: dict[str, list[float]] = {name: [] for name in calls}
        repetitions = max(1, min(60, _BYTES_A_TURN // max(1, case.size_bytes) // ROUNDS))
        for _ in range(ROUNDS):
            for name, call in calls.items():
                call()  # pairs, and warms up
                for _ in range(repetitions):
                    comm.barrier()
                    start = time.perf_counter()
                    call()
                    taken[name].append(time.perf_counter() - start)
        times.append(taken)
    comm.barrier()
    result.send(times)


def _direct_call(comm: fmi.Communicator, case: Case) -> Callable[[], Any]:
    data = np.ones(max(1, case.size_bytes // 8))
    total = fmi.func(fmi.op.sum)
    return {
        "allreduce": lambda: comm.allreduce(data, total),
        "bcast": lambda: comm.bcast(data, 0),
        "reduce": lambda: comm.reduce(data, 0, total),
        "barrier": comm.barrier,
    }[case.operation]


def _gloo_maker(rank: int, size: int, folder: Path) -> Callable[[Case], Callable[[], Any]]:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/gloo", rank=rank, world_size=size)

    def make(case: Case) -> Callable[[], Any]:
        data = torch.ones(max(1, case.size_bytes // 8), dtype=torch.float64)
        return {
            "allreduce": lambda: dist.all_reduce(data),
            "bcast": lambda: dist.broadcast(data, 0),
            "reduce": lambda: dist.reduce(data, 0),
            "barrier": dist.barrier,
        }[case.operation]

    return make


def run(
    operations: Sequence[str] = OPERATIONS,
    sizes: Sequence[int] = SIZES,
    worlds: Sequence[int] = WORLDS,
    with_gloo: bool | None = None,
) -> Iterator[Figure]:
    """Measure every operation at every size and world size, world by world; gloo too, where torch is installed."""
    if with_gloo is None:
        with_gloo = importlib.util.find_spec("torch") is not None
    cases = [Case(operation, size) for operation in operations for size in ((0,) if operation == "barrier" else sizes)]
    for world_size in worlds:
        yield from measure(cases, world_size, with_gloo)


def _table_line(figure: Figure) -> str:
    beside = "-" if figure.gloo is None else f"{figure.gloo * 1e3:10.3f}"
    ratio = "-" if figure.gloo is None else f"{figure.direct / figure.gloo:8.2f}"
    return (
        f"{figure.operation:<10} {figure.size_bytes:>10} {figure.world_size:>3} "
        f"{figure.direct * 1e3:>10.3f} {beside:>10} {ratio:>8}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collectives", description=__doc__)
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS, help="default: all")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="BYTES", help="default: %(default)s")
    parser.add_argument("--worlds", nargs="+", type=int, default=WORLDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--no-gloo", action="store_true", help="measure our channel alone")
    parser.add_argument("--json", action="store_true", help="print a JSON list of figures (seconds) instead of a table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or JSON."""
    options = _parser().parse_args(arguments)
    figures = run(options.operations, options.sizes, options.worlds, False if options.no_gloo else None)
    if options.json:
        json.dump([asdict(figure) for figure in figures], sys.stdout, indent=2)
        print()
        return 0
    print("medians of the slowest rank in ms, float64; ratio is direct / gloo")
    print(f"{'operation':<10} {'bytes':>10} {'N':>3} {'direct':>10} {'gloo':>10} {'ratio':>8}")
    for figure in figures:
        print(_table_line(figure), flush=True)
    if importlib.util.find_spec("torch") is None:
        print("gloo was not measured: torch is not installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
