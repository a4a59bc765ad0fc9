"""The ranks of the comparison: every contestant's collectives, in turns, timed. Started by `benchmarks.comparison`."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

import fmi_shim as fmi
from benchmarks import forked_ranks
from benchmarks.bare_sockets import BareSockets
from benchmarks.figures import FLOORS
from fmi_shim.operators import Array

_BYTES_A_TURN = 32 << 20
_CALLS_A_TURN = 100
"""Maximum number of calls in a row in a turn; fewer if they would move more bytes than the limit above."""
_FEWEST_CALLS = 4
"""Minimum number: up to two fifths of a single call are the wake-up of ranks that waited for its start."""

JOINED = ("allgather", "gather", "scatter", "allgatherv")
"""The operations of which a rank has a part, and one or all ranks have all parts."""
WHOLE = ("allreduce", "reduce", "bcast", "barrier", "iallreduce")
"""The operations whose value need not be cut for the ranks."""

Call = Callable[[], object]
Calls = dict[str, Call]


@dataclass(frozen=True, slots=True)
class Memory:
    """The buffers of a case, the same for all contestants.

    Attributes
    ----------
    value
        Input of a rank; in a gather or allgather the given size is that of all ranks together. Of a scatter it is the
        memory for a rank's slice.
    out
        Result buffer, of a scatter the root's input. Reductions run in place, since gloo has no other, so that all
        contestants access the same memory.
    counts
        Elements of each rank's part where the parts have different sizes: by turns a half and three halves of an equal
        part.
    """

    value: Array
    out: Array
    counts: tuple[int, ...]

    @staticmethod
    def of(operation: str, size_bytes: int, size: int) -> Memory:
        """Return float64 memory for `size` ranks, of at least one element for each slice."""
        elements = max(1, size_bytes // 8)
        part = max(1, elements // size)
        counts = tuple(part - part // 2 if rank % 2 else part + part // 2 for rank in range(size))
        if operation in JOINED:
            return Memory(np.ones(part), np.empty(size * part), counts)
        if operation == "alltoallv":
            return Memory(np.ones(sum(counts)), np.empty(2 * size * part), counts)
        whole = elements if operation in WHOLE else size * part
        return Memory(np.ones(whole), np.empty(whole), counts)


class Contestant(Protocol):
    """Provides the calls that are timed."""

    def calls(self, memory: Memory) -> Calls:
        """Return one call of each operation that the contestant has."""

    def close(self) -> None:
        """Close the communicator."""


class Fmi:
    """One of our channels; reductions in place."""

    def __init__(self, rank: int, size: int, folder: Path, channel: str) -> None:
        os.environ["FMI_CHANNEL"] = "shm" if channel == "shm" else ""
        config = json.loads((folder / "fmi.json").read_text())
        config["backends"]["Direct"]["framed"] = channel != "raw"
        (folder / f"{channel}-{rank}.json").write_text(json.dumps(config))
        self._comm = fmi.Communicator(rank, size, folder / f"{channel}-{rank}.json", f"compare-{channel}-")

    def calls(self, memory: Memory) -> Calls:
        """Return one call of each operation. A bcast fills the given buffer, as for all contestants."""
        comm, value, out, total = self._comm, memory.value, memory.out, fmi.func(fmi.op.sum)
        rank, counts = comm.rank, memory.counts
        own, at_root = np.ones(counts[rank]), rank == 0
        # Rank r sends counts[r] elements to each rank, and receives from each the number that this one sends.
        sends, receives = [counts[rank]] * len(counts), list(counts)
        to_all = np.ones(sum(sends))
        return {
            "allreduce": lambda: comm.allreduce(value, total, out=value),
            "reduce": lambda: comm.reduce(value, 0, total, out=value if comm.rank == 0 else None),
            "bcast": lambda: comm.bcast(value, 0),
            "barrier": comm.barrier,
            "allgather": lambda: comm.allgather(value, out=out),
            "alltoall": lambda: comm.alltoall(value, out=out),
            "gather": lambda: comm.gather(value, 0, out=out if at_root else None),
            "scatter": lambda: comm.scatter(out if at_root else value, 0, out=value if at_root else None),
            "reduce_scatter": lambda: comm.reduce_scatter(value, total, out=out[: value.size // len(counts)]),
            "allgatherv": lambda: comm.allgatherv(own, counts, out=out[: sum(counts)]),
            "alltoallv": lambda: comm.alltoallv(to_all, sends, receives, out=out[: sum(receives)]),
            "iallreduce": lambda: comm.iallreduce(value, total, out=value).wait(),
        }

    def close(self) -> None:
        """Close the communicator."""
        self._comm.close()


class Mpi:
    """mpi4py's buffer interface; reductions in place."""

    def __init__(self) -> None:
        from mpi4py import MPI

        MPI.Init()
        self._mpi = MPI

    def calls(self, memory: Memory) -> Calls:
        """Return one call of each operation."""
        comm, value, out, same = self._mpi.COMM_WORLD, memory.value, memory.out, self._mpi.IN_PLACE
        sent, received = (same, value) if comm.rank == 0 else (value, None)
        rank, counts, joined = comm.rank, memory.counts, out if comm.rank == 0 else None
        own, sends = np.ones(counts[rank]), [counts[rank]] * len(counts)
        to_all = np.ones(sum(sends))
        return {
            "allreduce": lambda: comm.Allreduce(same, value),
            "reduce": lambda: comm.Reduce(sent, received),
            "bcast": lambda: comm.Bcast(value, 0),
            "barrier": comm.Barrier,
            "allgather": lambda: comm.Allgather(value, out),
            "alltoall": lambda: comm.Alltoall(value, out),
            "gather": lambda: comm.Gather(value, joined, 0),
            "scatter": lambda: comm.Scatter(joined, value, 0),
            "reduce_scatter": lambda: comm.Reduce_scatter_block(value, out[: value.size // len(counts)]),
            "allgatherv": lambda: comm.Allgatherv(own, (out, counts)),
            "alltoallv": lambda: comm.Alltoallv((to_all, sends), (out, counts)),
            "iallreduce": lambda: comm.Iallreduce(same, value).Wait(),
        }

    def close(self) -> None:
        """Finalize MPI: mpi4py does it itself only at the end of a program in which it initialised MPI."""
        self._mpi.Finalize()


class Gloo:
    """torch.distributed over loopback TCP, which has only in-place reductions."""

    def __init__(self, rank: int, size: int, folder: Path) -> None:
        import torch
        import torch.distributed as dist

        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # of names that newer ones replace
        torch.set_num_threads(1)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        dist.init_process_group("gloo", init_method=f"file://{folder}/gloo", rank=rank, world_size=size)

    def calls(self, memory: Memory) -> Calls:
        """Return one call of each operation."""
        import torch
        import torch.distributed as dist

        value, out = torch.from_numpy(memory.value), torch.from_numpy(memory.out)
        size, counts, at_root = dist.get_world_size(), list(memory.counts), dist.get_rank() == 0
        parts = list(out.reshape(size, -1)) if at_root and out.numel() % size == 0 else None
        sends = [counts[dist.get_rank()]] * size
        to_all = torch.ones(sum(sends), dtype=torch.float64)
        return {
            "allreduce": lambda: dist.all_reduce(value),
            "reduce": lambda: dist.reduce(value, 0),
            "bcast": lambda: dist.broadcast(value, 0),
            "barrier": dist.barrier,
            "allgather": lambda: dist.all_gather_into_tensor(out, value),
            "alltoall": lambda: dist.all_to_all_single(out, value),
            "gather": lambda: dist.gather(value, parts),
            "scatter": lambda: dist.scatter(value, parts),
            "alltoallv": lambda: dist.all_to_all_single(out[: sum(counts)], to_all, counts, sends),
            "iallreduce": lambda: dist.all_reduce(value, async_op=True).wait(),
        }

    def close(self) -> None:
        """Stop gloo's threads, which must end before the interpreter."""
        import torch.distributed as dist

        dist.destroy_process_group()


def _make(name: str, rank: int, size: int, folder: Path) -> Contestant:
    if name == "mpi":
        return Mpi()
    if name in FLOORS:
        return BareSockets(rank, size, folder, in_c=name != "sockets", receives_first=name == "c-fmi")
    return Gloo(rank, size, folder) if name == "gloo" else Fmi(rank, size, folder, name)


def run_rank(rank: int, size: int, folder: Path) -> None:
    """Run the cases of ``plan.json``; its contestants take turns.

    After each case a line is written to ``rank-R``: seconds per call, by contestant and turn.
    """
    plan = json.loads((folder / "plan.json").read_text())
    names: Sequence[str] = plan["contestants"]
    contestants = {name: _make(name, rank, size, folder) for name in names}
    meet = contestants["shm" if "shm" in names else names[0]].calls(Memory.of("barrier", 8, size))["barrier"]
    with (folder / f"rank-{rank}").open("w") as told:
        for operation, size_bytes in plan["cases"]:
            memory = Memory.of(operation, size_bytes, size)
            offered = {name: contestant.calls(memory) for name, contestant in contestants.items()}
            calls = {name: offer[operation] for name, offer in offered.items() if operation in offer}
            repetitions = max(_FEWEST_CALLS, min(_CALLS_A_TURN, _BYTES_A_TURN // max(1, size_bytes * size)))
            taken: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(plan["turns"]):
                for name, call in calls.items():
                    memory.value.fill(1.0)  # sums grow in place
                    call()  # connects, and touches memory
                    meet()
                    start = time.perf_counter()
                    for _ in range(repetitions):
                        call()
                    taken[name].append((time.perf_counter() - start) / repetitions)
            told.write(json.dumps(taken) + "\n")
            told.flush()
        meet()
    for contestant in contestants.values():
        contestant.close()


def _number(*variables: str) -> int:
    return next(int(os.environ[variable]) for variable in variables if variable in os.environ)


def _run_rank_here(folder: Path) -> None:
    """Run as the rank that the environment gives, set by mpirun or by another launcher."""
    rank, size = _number("OMPI_COMM_WORLD_RANK", "RANK"), _number("OMPI_COMM_WORLD_SIZE", "WORLD_SIZE")
    run_rank(rank, size, folder)


def main() -> None:
    """Run as a rank, or fork a rank for each proxy that connects to a socket.

    The ranks initialise MPI: a fork of a process that has initialised MPI cannot use it.
    """
    folder, *socket_path = map(Path, sys.argv[1:])
    names = json.loads((folder / "plan.json").read_text())["contestants"]
    if "mpi" in names:
        import mpi4py

        mpi4py.rc.initialize = False
    if socket_path:
        modules = {"mpi": ["mpi4py.MPI"], "gloo": ["torch.distributed"]}
        wanted = ["fmi_shim.communicator", *(module for name in names for module in modules.get(name, []))]
        forked_ranks.serve(socket_path[0], wanted, lambda: _run_rank_here(folder))
    else:
        _run_rank_here(folder)


if __name__ == "__main__":
    main()
