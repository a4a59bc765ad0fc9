"""One rank of the comparison: every contestant's collectives, in turns, timed. Started by `benchmarks.comparison`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

import fmi_shim as fmi

_BYTES_A_TURN = 32 << 20
_CALLS_A_TURN = 100
"""A turn makes up to so many calls in a row, fewer where they would move more bytes than that."""

Call = Callable[[], object]


class Contestant(Protocol):
    """Makes the calls that are timed."""

    def call(self, operation: str, size_bytes: int) -> Call:
        """Return one call of `operation` on so many bytes of float64 a rank."""


class Fmi:
    """One of our channels."""

    def __init__(self, rank: int, size: int, folder: Path, channel: str) -> None:
        os.environ["FMI_CHANNEL"] = "shm" if channel == "shm" else ""
        self._comm = fmi.Communicator(rank, size, folder / "fmi.json", f"compare-{channel}-")

    def call(self, operation: str, size_bytes: int) -> Call:
        """Return one call; results go to memory that is there already."""
        comm, data, total = self._comm, np.ones(max(1, size_bytes // 8)), fmi.func(fmi.op.sum)
        out = np.empty_like(data)
        calls: dict[str, Call] = {
            "allreduce": lambda: comm.allreduce(data, total, out=out),
            "reduce": lambda: comm.reduce(data, 0, total, out=out),
            "bcast": lambda: comm.bcast(data, 0),
            "barrier": comm.barrier,
        }
        return calls[operation]


class Mpi:
    """mpi4py's buffer interface; results go to memory that is there already."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self._comm = MPI.COMM_WORLD

    def call(self, operation: str, size_bytes: int) -> Call:
        """Return one call."""
        comm, data = self._comm, np.ones(max(1, size_bytes // 8))
        out = np.empty_like(data)
        calls: dict[str, Call] = {
            "allreduce": lambda: comm.Allreduce(data, out),
            "reduce": lambda: comm.Reduce(data, out if comm.rank == 0 else None),
            "bcast": lambda: comm.Bcast(data, 0),
            "barrier": comm.Barrier,
        }
        return calls[operation]


class Gloo:
    """torch.distributed over loopback; in place."""

    def __init__(self, rank: int, size: int, folder: Path) -> None:
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        dist.init_process_group("gloo", init_method=f"file://{folder}/gloo", rank=rank, world_size=size)

    def call(self, operation: str, size_bytes: int) -> Call:
        """Return one call."""
        import torch
        import torch.distributed as dist

        data = torch.ones(max(1, size_bytes // 8), dtype=torch.float64)
        calls: dict[str, Call] = {
            "allreduce": lambda: dist.all_reduce(data),
            "reduce": lambda: dist.reduce(data, 0),
            "bcast": lambda: dist.broadcast(data, 0),
            "barrier": dist.barrier,
        }
        return calls[operation]


def _make(name: str, rank: int, size: int, folder: Path) -> Contestant:
    if name == "mpi":
        return Mpi()
    return Gloo(rank, size, folder) if name == "gloo" else Fmi(rank, size, folder, name)


def run_rank(rank: int, size: int, folder: Path) -> None:
    """Let the contestants of ``plan.json`` take turns on its cases; write seconds a call, by case, name and turn."""
    plan = json.loads((folder / "plan.json").read_text())
    names: Sequence[str] = plan["contestants"]
    contestants = {name: _make(name, rank, size, folder) for name in names}
    meet = contestants["shm" if "shm" in names else names[0]].call("barrier", 0)
    times: list[dict[str, list[float]]] = []
    for operation, size_bytes in plan["cases"]:
        calls = {name: contestant.call(operation, size_bytes) for name, contestant in contestants.items()}
        repetitions = max(1, min(_CALLS_A_TURN, _BYTES_A_TURN // max(1, size_bytes * size)))
        taken: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(plan["turns"]):
            for name, call in calls.items():
                call()  # connects, and touches memory
                meet()
                start = time.perf_counter()
                for _ in range(repetitions):
                    call()
                taken[name].append((time.perf_counter() - start) / repetitions)
        times.append(taken)
    meet()
    (folder / f"rank-{rank}.json").write_text(json.dumps(times))


def _number(*variables: str) -> int:
    return next(int(os.environ[variable]) for variable in variables if variable in os.environ)


if __name__ == "__main__":
    rank_variables, size_variables = ("OMPI_COMM_WORLD_RANK", "RANK"), ("OMPI_COMM_WORLD_SIZE", "WORLD_SIZE")
    run_rank(_number(*rank_variables), _number(*size_variables), Path(sys.argv[1]))
